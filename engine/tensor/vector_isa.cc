#include "engine/tensor/vector_isa.h"

#include "hwy/targets.h"

namespace octet {

void LimitVectors(VectorIsa widest) {
  constexpr int64_t kVnni = HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR;
  int64_t disabled = 0;
  if (widest <= VectorIsa::kAvx512) disabled |= kVnni;
  if (widest <= VectorIsa::kAvx2) disabled |= HWY_AVX3;
  if (widest <= VectorIsa::kSse4) disabled |= HWY_AVX2;
  hwy::DisableTargets(disabled);
}

}  // namespace octet

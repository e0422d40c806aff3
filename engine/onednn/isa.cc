#include "engine/onednn/isa.h"

#include <algorithm>
#include <cctype>
#include <mutex>

#include "oneapi/dnnl/dnnl_debug.h"

#include "engine/onednn/runtime.h"
#include "engine/tensor/format.h"
#include "engine/tensor/vector_isa.h"

namespace octet::onednn {
namespace {

std::string IsaName(dnnl_cpu_isa_t isa) {
  // "AVX512_CORE_VNNI" and the like; the default value has a sentence for a name.
  std::string name = dnnl_cpu_isa2str(isa);
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
  constexpr std::string_view kPrefix = "cpu_isa_";
  if (name.starts_with(kPrefix)) name.erase(0, kPrefix.size());
  return name;
}

// The values are bit sets in which a newer instruction set contains the older ones.
bool Includes(dnnl_cpu_isa_t isa, dnnl_cpu_isa_t wanted) {
  return (static_cast<unsigned>(isa) & static_cast<unsigned>(wanted)) ==
         static_cast<unsigned>(wanted);
}

// Kernels of our own keep to what oneDNN was told to keep to.
void LimitOwnVectors(dnnl_cpu_isa_t isa) {
  if (Includes(isa, dnnl_cpu_isa_avx512_core_vnni)) return;
  LimitVectors(Includes(isa, dnnl_cpu_isa_avx512_core) ? VectorIsa::kAvx512
               : Includes(isa, dnnl_cpu_isa_avx2)      ? VectorIsa::kAvx2
                                                       : VectorIsa::kSse4);
}

}  // namespace

Target DetectTarget(int threads) {
  const dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
  static std::once_flag limited;
  std::call_once(limited, LimitOwnVectors, isa);
  Target target;
  target.isa = IsaName(isa);
  target.bf16 = Includes(isa, dnnl_cpu_isa_avx512_core_bf16);
  target.f16 = Includes(isa, dnnl_cpu_isa_avx512_core_fp16);
  target.int8_exact =
      Includes(isa, dnnl_cpu_isa_avx512_core_vnni) || Includes(isa, dnnl_cpu_isa_avx2_vnni);
  target.threads = threads;
  return target;
}

std::string Version() {
  const dnnl_version_t* version = dnnl_version();
  return Format("{}.{}.{}", version->major, version->minor, version->patch);
}

std::string_view IsaOf(std::string_view impl) {
  const size_t colon = impl.rfind(':');
  if (colon == std::string_view::npos) return {};
  std::string_view isa = impl.substr(colon + 1);
  isa = isa.substr(0, isa.find_first_of(" +"));
  return isa == "any" ? std::string_view() : isa;
}

}  // namespace octet::onednn

#include "engine/tensor/byte_lookup.h"

#include <cstring>

// Compiled once for each instruction set; the names in between are its own.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/tensor/byte_lookup.cc"
#define HWY_WANT_AVX3_DL 1  // Which has permutations of bytes (VBMI).
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_ZEN4 | HWY_AVX3_SPR)
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace octet {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_AVX3_DL

// Two permutations of 128 bytes each, between which the highest bit chooses.
void LookUp(const uint8_t* table, const uint8_t* x, uint8_t* y, int64_t n) {
  const hn::FixedTag<uint8_t, 64> d;
  const auto t0 = hn::LoadU(d, table);
  const auto t1 = hn::LoadU(d, table + 64);
  const auto t2 = hn::LoadU(d, table + 128);
  const auto t3 = hn::LoadU(d, table + 192);
  const auto low_bits = hn::Set(d, uint8_t{0x7F});
  const auto look_up = [&](const auto& from) HWY_ATTR {
    const auto place = hn::IndicesFromVec(d, hn::And(from, low_bits));
    return hn::IfThenElse(hn::Gt(from, low_bits), hn::TwoTablesLookupLanes(d, t2, t3, place),
                          hn::TwoTablesLookupLanes(d, t0, t1, place));
  };
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) hn::StoreU(look_up(hn::LoadU(d, x + i)), d, y + i);
  if (i < n) {
    const auto rest = static_cast<size_t>(n - i);
    hn::StoreN(look_up(hn::LoadN(d, x + i, rest)), d, y + i, rest);
  }
}

#else

// Eight loads in flight, and one store.
void LookUp(const uint8_t* table, const uint8_t* x, uint8_t* y, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t from;
    std::memcpy(&from, x + i, sizeof(from));
    uint64_t to = 0;
#pragma GCC unroll 8
    for (int byte = 0; byte < 64; byte += 8)
      to |= static_cast<uint64_t>(table[from >> byte & 0xFF]) << byte;
    std::memcpy(y + i, &to, sizeof(to));
  }
  for (; i < n; ++i) y[i] = table[x[i]];
}

#endif

}  // namespace HWY_NAMESPACE
}  // namespace octet
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace octet {
namespace {
HWY_EXPORT(LookUp);
}  // namespace

void LookUpBytes(const ByteTable& table, const uint8_t* x, uint8_t* y, int64_t n) {
  HWY_DYNAMIC_DISPATCH(LookUp)(table.data(), x, y, n);
}

}  // namespace octet

#endif

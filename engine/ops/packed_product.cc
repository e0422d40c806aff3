#include "engine/ops/packed_product.h"

#include <algorithm>
#include <cstring>

// Compiled once for each instruction set; the names in between are its own.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/ops/packed_product.cc"
#define HWY_WANT_AVX3_DL \
  1  // 8-bit dot products (VNNI) without those of BF16, which the targets behind it have.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace octet {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// The columns of w are cut into panels of kVectors vectors of sums. A panel holds, for one group of k behind the
// other, that group of each of its columns:
//
//   k 0-3 of columns 0-15 | of 16-31 | .. | k 4-7 of columns 0-15 | ..        (kInt8 on AVX-512)
//
// so that a vector of w times a group of x, which is broadcast, adds to one vector of sums. Up to kRows rows of x share what
// is read of w.
constexpr int kVectors = HWY_MAX_BYTES >= 64 ? 4 : 2;
constexpr int kRows = HWY_MAX_BYTES >= 32 ? 6 : 4;

// No wider than what PaddedColumns is a multiple of has room for.
using DF = hn::CappedTag<float, 16>;
using DI = hn::RebindToSigned<DF>;
using VF = hn::Vec<DF>;
using VI = hn::Vec<DI>;

struct F32Type {
  using Element = float;
  using Sums = VF;
  static constexpr int64_t kGroup = 1;
  static HWY_INLINE Sums Zero() { return hn::Zero(DF()); }
  static HWY_INLINE VF Broadcast(const Element* x) { return hn::Set(DF(), *x); }
  static HWY_INLINE VF Load(const Element* w) { return hn::LoadU(DF(), w); }
  static HWY_INLINE Sums Add(VF x, VF w, Sums sums) { return hn::MulAdd(x, w, sums); }
};

struct Bf16Type {
  using Element = hwy::bfloat16_t;
  using Sums = VF;
  using D = hn::Repartition<hwy::bfloat16_t, DF>;
  static constexpr int64_t kGroup = 2;
  static HWY_INLINE Sums Zero() { return hn::Zero(DF()); }
  static HWY_INLINE hn::Vec<D> Broadcast(const Element* x) {
    int32_t pair;
    std::memcpy(&pair, x, sizeof(pair));
    return hn::BitCast(D(), hn::Set(DI(), pair));
  }
  static HWY_INLINE hn::Vec<D> Load(const Element* w) { return hn::LoadU(D(), w); }
  static HWY_INLINE Sums Add(hn::Vec<D> x, hn::Vec<D> w, Sums sums) {
#if HWY_NATIVE_DOT_BF16
    // VDPBF16PS: a lane of sums gets the pair that lies in it, the second vector of sums nothing.
    Sums none = sums;
    return hn::ReorderWidenMulAccumulate(DF(), x, w, sums, none);
#else
    return hn::MulEvenAdd(DF(), x, w, hn::MulOddAdd(DF(), x, w, sums));
#endif
  }
};

struct Int8Type {
  using Element = uint8_t;
  using Sums = VI;
  using DU8 = hn::Repartition<uint8_t, DI>;
  using DI8 = hn::Repartition<int8_t, DI>;
  static constexpr int64_t kGroup = 4;
  static HWY_INLINE Sums Zero() { return hn::Zero(DI()); }
  static HWY_INLINE hn::Vec<DU8> Broadcast(const Element* x) {
    int32_t quad;
    std::memcpy(&quad, x, sizeof(quad));
    return hn::BitCast(DU8(), hn::Set(DI(), quad));
  }
  static HWY_INLINE hn::Vec<DI8> Load(const Element* w) {
    return hn::LoadU(DI8(), reinterpret_cast<const int8_t*>(w));
  }
  static HWY_INLINE Sums Add(hn::Vec<DU8> x, hn::Vec<DI8> w, Sums sums) {
    return hn::SumOfMulQuadAccumulate(DI(), x, w, sums);
  }
};

/// What a tile reads besides x: a panel, and what belongs to its columns.
struct Panel {
  const std::byte* weights;
  int64_t depth;  ///< Padded.
  const float* bias;
  const float* scales;
  const int32_t* sums;
};

HWY_INLINE VF ToReals(const Panel& /*panel*/, const ProductRows& /*x*/, int64_t /*row*/,
                      size_t /*column*/, VF sums) {
  return sums;
}
HWY_INLINE VF ToReals(const Panel& panel, const ProductRows& x, int64_t row, size_t column,
                      VI sums) {
  const VI zero = hn::Mul(hn::Set(DI(), x.zero_points[row]), hn::LoadU(DI(), panel.sums + column));
  const VF scale = hn::Mul(hn::Set(DF(), x.scales[row]), hn::LoadU(DF(), panel.scales + column));
  return hn::Mul(hn::ConvertTo(DF(), hn::Sub(sums, zero)), scale);
}

// Rows [row, row + kTileRows) of one panel. A single row has too few sums to hide what an addition takes, so it keeps two of
// each.
template <class Type, int kTileRows>
HWY_INLINE void MultiplyTile(const Panel& panel, const ProductRows& x, int64_t row, float* y,
                             int64_t y_stride) {
  using Element = typename Type::Element;
  constexpr int kChains = kTileRows == 1 ? 2 : 1;
  const size_t lanes = hn::Lanes(DF());
  const size_t step = lanes * static_cast<size_t>(Type::kGroup);
  typename Type::Sums sums[kChains][kTileRows][kVectors];
#pragma GCC unroll 2
  for (int chain = 0; chain < kChains; ++chain) {
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[chain][r][v] = Type::Zero();
    }
  }
  const auto* w = reinterpret_cast<const Element*>(panel.weights);
  const Element* from[kTileRows];
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
    from[r] = reinterpret_cast<const Element*>(static_cast<const std::byte*>(x.data) +
                                               (row + r) * x.stride);
  }
  // Unrolled, or the sums would not stay in registers.
  const auto add = [&](int64_t k, auto& chain) HWY_ATTR {
    decltype(Type::Load(w)) weights[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) weights[v] = Type::Load(w + static_cast<size_t>(v) * step);
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r) {
      const auto element = Type::Broadcast(from[r] + k);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) chain[r][v] = Type::Add(element, weights[v], chain[r][v]);
    }
    w += static_cast<size_t>(kVectors) * step;
  };
  int64_t k = 0;
  for (; k + kChains * Type::kGroup <= panel.depth; k += kChains * Type::kGroup) {
    add(k, sums[0]);
    if constexpr (kChains == 2) add(k + Type::kGroup, sums[1]);
  }
  if constexpr (kChains == 2) {
    if (k < panel.depth) add(k, sums[0]);
  }
  // Taken over, so that what follows need not be unrolled for their sake.
  typename Type::Sums results[kTileRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      results[r][v] =
          kChains == 2 ? hn::Add(sums[0][r][v], sums[kChains - 1][r][v]) : sums[0][r][v];
    }
  }
  for (int r = 0; r < kTileRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      const size_t column = static_cast<size_t>(v) * lanes;
      VF reals = ToReals(panel, x, row + r, column, results[r][v]);
      if (panel.bias != nullptr) reals = hn::Add(reals, hn::LoadU(DF(), panel.bias + column));
      hn::StoreU(reals, DF(), y + (row + r) * y_stride + column);
    }
  }
}

template <class Type, int kTileRows>
HWY_NOINLINE void MultiplyRows(int64_t tile, const Panel& panel, const ProductRows& x, int64_t row,
                               float* y, int64_t y_stride) {
  if (tile == kTileRows) return MultiplyTile<Type, kTileRows>(panel, x, row, y, y_stride);
  if constexpr (kTileRows > 1) MultiplyRows<Type, kTileRows - 1>(tile, panel, x, row, y, y_stride);
}

template <class Type>
void MultiplyAs(const PackedMatrix& matrix, const ProductRows& x, int64_t rows, const float* bias,
                float* y, int64_t y_stride) {
  const int64_t depth = PaddedDepth(matrix.type, matrix.depth);
  const bool quantized = matrix.type == ProductType::kInt8;
  const auto width = kVectors * static_cast<int64_t>(hn::Lanes(DF()));
  for (int64_t column = 0; column < PaddedColumns(matrix.columns); column += width) {
    const Panel panel{
        matrix.panels.get() + column * depth * static_cast<int64_t>(sizeof(typename Type::Element)),
        depth, bias == nullptr ? nullptr : bias + column,
        quantized ? matrix.scales.data() + column : nullptr,
        quantized ? matrix.sums.data() + column : nullptr};
    for (int64_t row = 0; row < rows;) {
      // The last two tiles share what is left: 8 rows are 4 and 4, which need less of w per row than 6 and 2.
      const int64_t left = rows - row;
      const int64_t tile = left > kRows && left < int64_t{2} * kRows
                               ? (left + 1) / 2
                               : std::min<int64_t>(left, kRows);
      MultiplyRows<Type, kRows>(tile, panel, x, row, y + column, y_stride);
      row += tile;
    }
  }
}

void Multiply(const PackedMatrix& matrix, const ProductRows& x, int64_t rows, const float* bias,
              float* y, int64_t y_stride) {
  switch (matrix.type) {
    case ProductType::kF32:
      return MultiplyAs<F32Type>(matrix, x, rows, bias, y, y_stride);
    case ProductType::kBf16:
      return MultiplyAs<Bf16Type>(matrix, x, rows, bias, y, y_stride);
    case ProductType::kInt8:
      return MultiplyAs<Int8Type>(matrix, x, rows, bias, y, y_stride);
  }
}

template <class Type>
void PackAs(std::span<const void* const> columns, int64_t depth, std::byte* out) {
  using Element = typename Type::Element;
  const auto width = kVectors * static_cast<int64_t>(hn::Lanes(DF()));
  const auto count = static_cast<int64_t>(columns.size());
  auto* to = reinterpret_cast<Element*>(out);
  for (int64_t first = 0; first < PaddedColumns(count); first += width) {
    for (int64_t k = 0; k < depth; k += Type::kGroup) {
      for (int64_t c = first; c < first + width; ++c, to += Type::kGroup) {
        const int64_t inside = c < count ? std::min(Type::kGroup, depth - k) : 0;
        std::memset(static_cast<void*>(to), 0, Type::kGroup * sizeof(Element));
        if (inside == 0) continue;
        std::memcpy(static_cast<void*>(to),
                    static_cast<const Element*>(columns[static_cast<size_t>(c)]) + k,
                    static_cast<size_t>(inside) * sizeof(Element));
      }
    }
  }
}

void Pack(ProductType type, std::span<const void* const> columns, int64_t depth, std::byte* out) {
  switch (type) {
    case ProductType::kF32:
      return PackAs<F32Type>(columns, depth, out);
    case ProductType::kBf16:
      return PackAs<Bf16Type>(columns, depth, out);
    case ProductType::kInt8:
      return PackAs<Int8Type>(columns, depth, out);
  }
}

const char* ProductTarget() { return hwy::TargetName(HWY_TARGET); }

}  // namespace HWY_NAMESPACE
}  // namespace octet
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace octet {
namespace {

HWY_EXPORT(Multiply);
HWY_EXPORT(Pack);
HWY_EXPORT(ProductTarget);

}  // namespace

const char* PackedProductTarget() { return HWY_DYNAMIC_DISPATCH(ProductTarget)(); }

size_t PackedBytes(ProductType type, int64_t columns, int64_t depth) {
  return static_cast<size_t>(PaddedColumns(columns) * PaddedDepth(type, depth)) *
         SizeOf(ElementOf(type));
}

void PackPanels(ProductType type, std::span<const void* const> columns, int64_t depth,
                std::byte* out) {
  HWY_DYNAMIC_DISPATCH(Pack)(type, columns, depth, out);
}

void MultiplyPacked(const PackedMatrix& matrix, const ProductRows& x, int64_t rows,
                    const float* bias, float* y, int64_t y_stride) {
  HWY_DYNAMIC_DISPATCH(Multiply)(matrix, x, rows, bias, y, y_stride);
}

}  // namespace octet

#endif  // HWY_ONCE

#include "engine/passes/four_bit_weights.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <vector>

#include "engine/ops/four_bit_panels.h"
#include "engine/passes/match.h"

namespace octet {
namespace {

constexpr int kLeast = -8;
constexpr int kMost = 7;

// Where the numbers of a DequantizeLinear lie.
struct Form {
  const Tensor* integers = nullptr;  ///< [K, N], or [N, K] where `transposed`.
  std::vector<float> scales;         ///< One, one per column, or one per block and column.
  std::vector<int64_t> zero_points;  ///< As many, or none.
  bool transposed = false;
  bool blocked = false;
  int64_t k = 0;
  int64_t n = 0;
  int64_t block = 0;
  int shift = 0;  ///< What taking off leaves integers in [-8, 7].

  int64_t blocks() const { return (k + block - 1) / block; }
  /// Place of block b of column n among scales and zero points.
  size_t At(int64_t column, int64_t b) const {
    if (scales.size() == 1) return 0;
    if (!blocked) return static_cast<size_t>(column);
    return static_cast<size_t>(transposed ? column * blocks() + b : b * n + column);
  }
  int ZeroPoint(int64_t column, int64_t b) const {
    const int64_t zero = zero_points.empty() ? 0 : zero_points[At(column, b)];
    return static_cast<int>(zero) - shift;
  }
};

template <typename T>
std::optional<int> ShiftOf(std::span<const T> integers) {
  if (integers.empty()) return std::nullopt;
  T low = integers[0];
  T high = integers[0];
  // In pieces: weights of 8 bits show themselves in the first ones.
  constexpr size_t kPiece = 4096;
  for (size_t at = 0; at < integers.size(); at += kPiece) {
    for (const T q : integers.subspan(at, std::min(kPiece, integers.size() - at))) {
      low = std::min(low, q);
      high = std::max(high, q);
    }
    if (high - low > kMost - kLeast) return std::nullopt;
  }
  const int least = +low;
  const int most = +high;
  if (least >= kLeast && most <= kMost) return 0;
  return least >= 0 && most <= kMost - kLeast ? -kLeast : least - kLeast;
}

// Blocks of K, and whether kernels read them.
bool ReadBlocks(const Node& node, const Shape& scales, Form& form) {
  const auto axis = NormalizeAxis(node.attributes.IntOr("axis", 1), 2);
  const int k_axis = form.transposed ? 1 : 0;
  const int64_t size = node.attributes.IntOr("block_size", 0);
  // All of K, for scales per tensor or column, and blocks that are longer.
  constexpr int64_t kUnit = FourBitLayout::kPerWord;
  form.block = (form.k + kUnit - 1) / kUnit * kUnit;
  form.blocked = size != 0;
  if (!form.blocked) {
    if (scales.elements() == 1) return true;
    return axis && *axis != k_axis && scales.rank() == 1 && scales[0] == form.n;
  }
  if (!axis || *axis != k_axis || size < 0) return false;
  if (size < form.k) form.block = size;
  const Shape expected =
      form.transposed ? Shape{form.n, form.blocks()} : Shape{form.blocks(), form.n};
  return form.block % kUnit == 0 && scales == expected;
}

std::optional<Form> FormOf(const Graph& graph, ValueId reals, bool transposed) {
  const NodeId id = ProducerIf(graph, reals, "DequantizeLinear");
  if (id == kNone) return std::nullopt;
  const Node& node = graph.node(id);
  Form form{.integers = ConstantOf(graph, node.input(0)), .transposed = transposed};
  if (form.integers == nullptr || !IsInt8(form.integers->dtype()) ||
      graph.value(node.input(0)).quant || form.integers->shape().rank() != 2 ||
      form.integers->elements() == 0)
    return std::nullopt;
  form.k = form.integers->shape()[transposed ? 1 : 0];
  form.n = form.integers->shape()[transposed ? 0 : 1];
  auto scales = FloatsOf(graph, node.input(1));
  if (!scales || !ReadBlocks(node, *graph.value(node.input(1)).shape, form)) return std::nullopt;
  form.scales = *std::move(scales);
  if (!std::ranges::all_of(form.scales, [](float s) { return std::isfinite(s); }))
    return std::nullopt;
  if (node.input(2) != kNone) {
    auto zeros = IntsOf(graph, node.input(2));
    if (!zeros || zeros->size() != form.scales.size()) return std::nullopt;
    form.zero_points = *std::move(zeros);
  }
  const std::optional<int> shift = form.integers->dtype() == DType::kU8
                                       ? ShiftOf(form.integers->span<uint8_t>())
                                       : ShiftOf(form.integers->span<int8_t>());
  if (!shift) return std::nullopt;
  form.shift = *shift;
  using Limits = std::numeric_limits<int8_t>;
  const auto fits = [&](int64_t zero) {
    return zero - form.shift >= Limits::min() && zero - form.shift <= Limits::max();
  };
  if (!fits(0) || !std::ranges::all_of(form.zero_points, fits)) return std::nullopt;
  return form;
}

// Two neighbours of a column in a byte.
template <typename T>
Tensor Packed(const Form& form) {
  const T* from = form.integers->span<T>().data();
  const int64_t row_bytes = (form.k + 1) / 2;
  Tensor packed(DType::kU8, Shape{form.n, row_bytes});
  uint8_t* to = packed.mutable_span<uint8_t>().data();
  const int64_t along_k = form.transposed ? 1 : form.n;
  const int64_t along_n = form.transposed ? form.k : 1;
  const auto bits = [&](int64_t n, int64_t k) {
    if (k >= form.k) return 0U;
    return static_cast<unsigned>(from[n * along_n + k * along_k] - form.shift) & 15U;
  };
  constexpr int64_t kColumns = 64;  // At a time: a cache line of each row that is read.
  for (int64_t first = 0; first < form.n; first += kColumns) {
    const int64_t last = std::min(first + kColumns, form.n);
    for (int64_t k = 0; k < form.k; k += 2) {
      for (int64_t n = first; n < last; ++n)
        to[n * row_bytes + k / 2] = static_cast<uint8_t>(bits(n, k) | bits(n, k + 1) << 4);
    }
  }
  return packed;
}

bool IsReal(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

// Whether the node multiplies by [K, N] or [N, K] at its right-hand side, and is or becomes a product that pack_four_bits takes.
// An open rank is decided when plans are compiled, but for plain products, which nobody looks at again.
std::optional<bool> TransposedIn(const Graph& graph, const Node& node, ValueId reals,
                                 FourBitProducts products) {
  const bool plain = products == FourBitProducts::kPlain;
  const bool product =
      node.is("MatMul") || (!plain && node.is("Gemm")) || node.is("MatMul", kOctetDomain);
  if (!product || node.in_bf16 || node.input(1) != reals || node.input(0) == kNone ||
      std::ranges::count(node.inputs, reals) != 1)
    return std::nullopt;
  const Value& a = graph.value(node.input(0));
  if (!IsReal(a.dtype) || a.quant || (a.shape && a.shape->rank() < 2)) return std::nullopt;
  if (plain && (a.dtype != DType::kF32 || !a.shape)) return std::nullopt;
  return node.attributes.IntOr(node.is("Gemm") ? "transB" : "trans_b", 0) != 0;
}

bool Runs(const PassContext& context, std::string_view pass) {
  return !context.disabled.contains(pass) &&
         std::ranges::contains(context.passes, pass, &Pass::name);
}

}  // namespace

std::optional<FourBitWeights> ReadFourBitWeights(const Graph& graph, ValueId reals,
                                                 bool transposed) {
  const std::optional<Form> form = FormOf(graph, reals, transposed);
  if (!form) return std::nullopt;
  FourBitWeights weights{.k = form->k, .block = form->block};
  weights.integers =
      form->integers->dtype() == DType::kU8 ? Packed<uint8_t>(*form) : Packed<int8_t>(*form);
  const Shape shape{form->n, form->blocks()};
  weights.scales = Tensor(DType::kF32, shape);
  Tensor zeros(DType::kI8, shape);
  bool any = false;
  for (int64_t n = 0; n < form->n; ++n) {
    for (int64_t b = 0; b < form->blocks(); ++b) {
      const auto at = static_cast<size_t>(n * form->blocks() + b);
      weights.scales.mutable_span<float>()[at] = form->scales[form->At(n, b)];
      const int zero = form->ZeroPoint(n, b);
      zeros.mutable_span<int8_t>()[at] = static_cast<int8_t>(zero);
      any = any || zero != 0;
    }
  }
  if (any) weights.zero_points = std::move(zeros);
  return weights;
}

FourBitProducts FourBitProductsOf(const PassContext& context) {
  if (!Runs(context, "pack_four_bits")) return FourBitProducts::kNothing;
  return Runs(context, "canonical_matmul") ? FourBitProducts::kCanonical : FourBitProducts::kPlain;
}

bool StaysInFourBits(const Graph& graph, NodeId id, FourBitProducts products) {
  const Node& node = graph.node(id);
  if (products == FourBitProducts::kNothing || !node.is("DequantizeLinear") ||
      node.attributes.IntOr("block_size", 0) == 0)
    return false;
  const ValueId reals = node.output(0);
  if (reals == kNone || graph.is_graph_output(reals) || graph.consumers(reals).empty())
    return false;
  std::optional<bool> transposed;
  for (const NodeId reader : graph.consumers(reals)) {
    const std::optional<bool> here = TransposedIn(graph, graph.node(reader), reals, products);
    if (!here || (transposed && *here != *transposed)) return false;
    transposed = here;
  }
  return FormOf(graph, reals, *transposed).has_value();
}

}  // namespace octet

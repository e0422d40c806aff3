// Operators that keep what the data select, so that an output's extent is a count: NonZero, Compress, Unique.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// A tensor seen along one axis: `outer` blocks of `extent` rows of `inner` elements.
struct AlongAxis {
  int64_t outer = 1;
  int64_t extent = 1;
  int64_t inner = 1;
};

AlongAxis SplitAt(const Shape& shape, std::optional<int> axis) {
  if (!axis) return {1, shape.elements(), 1};
  return {shape.elements(0, *axis), shape[*axis], shape.elements(*axis + 1, shape.rank())};
}

/// Rows `kept` of x along the axis, in that order; of all elements as a list without an axis.
Tensor TakeRows(const Tensor& x, std::optional<int> axis, std::span<const int64_t> kept) {
  Shape shape = x.shape();
  if (axis) {
    shape[*axis] = std::ssize(kept);
  } else {
    shape = Shape{std::ssize(kept)};
  }
  Tensor y(x.dtype(), shape);
  const AlongAxis along = SplitAt(x.shape(), axis);
  const size_t row = static_cast<size_t>(along.inner) * SizeOf(x.dtype());
  const auto* from = static_cast<const std::byte*>(x.data());
  auto* to = static_cast<std::byte*>(y.mutable_data());
  for (int64_t block = 0; block < along.outer && row > 0; ++block) {
    for (const int64_t i : kept) {
      std::memcpy(to, from + static_cast<size_t>(block * along.extent + i) * row, row);
      to += row;
    }
  }
  return y;
}

absl::StatusOr<std::optional<int>> OptionalAxis(const Node& node, int rank) {
  if (!node.attributes.has("axis")) return std::nullopt;
  OCTET_ASSIGN_OR_RETURN(const int64_t axis, node.attributes.Int("axis", 0));
  OCTET_ASSIGN_OR_RETURN(const int normal, NormalizeNodeAxis(node, axis, rank));
  return normal;
}

// ---- NonZero

absl::Status InferNonZero(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kAnyTypes));
  Shape out{kUnknownDim, kUnknownDim};
  if (context.shape(0)) out[0] = std::max(context.shape(0)->rank(), 1);
  return context.SetOutput(0, DType::kI64, out);
}

/// Flat positions of elements that are not zero. A float's sign does not count: -0 is zero.
template <typename T>
std::vector<int64_t> NonZeroPositions(const Tensor& x) {
  constexpr T kAll = std::numeric_limits<T>::max();
  const T mask = IsFloat(x.dtype()) ? static_cast<T>(kAll >> 1) : kAll;
  const T* elements = static_cast<const T*>(x.data());
  std::vector<int64_t> found;
  for (int64_t i = 0; i < x.elements(); ++i) {
    if ((elements[i] & mask) != 0) found.push_back(i);
  }
  return found;
}

std::vector<int64_t> NonZeroPositions(const Tensor& x) {
  switch (SizeOf(x.dtype())) {
    case 1:
      return NonZeroPositions<uint8_t>(x);
    case 2:
      return NonZeroPositions<uint16_t>(x);
    case 4:
      return NonZeroPositions<uint32_t>(x);
    default:
      return NonZeroPositions<uint64_t>(x);
  }
}

/// y [rank, count]: the coordinates of every element that is not zero, in row-major order.
/// Source: ONNX NonZero-13.
absl::StatusOr<std::vector<Datum>> NonZero(const Node& /*node*/,
                                           std::span<const Datum* const> inputs) {
  const Tensor& x = inputs[0]->tensor;
  const std::vector<int64_t> found = NonZeroPositions(x);
  const int rank = std::max(x.shape().rank(), 1);
  Tensor y(DType::kI64, Shape{rank, std::ssize(found)});
  int64_t* to = y.mutable_span<int64_t>().data();
  const auto strides = x.shape().strides();
  for (int axis = 0; axis < rank; ++axis) {
    const bool scalar = x.shape().rank() == 0;
    const int64_t stride = scalar ? 1 : strides[axis];
    const int64_t extent = scalar ? 1 : x.shape()[axis];
    for (const int64_t position : found) *to++ = position / stride % extent;
  }
  return std::vector<Datum>{Datum::Of(std::move(y))};
}

// ---- Compress

absl::Status InferCompress(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kAnyTypes | kStrings));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kBools));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 1, 1, 1));
  if (!context.attributes().has("axis"))
    return context.SetOutput(0, context.dtype(0), Shape{kUnknownDim});
  std::optional<Shape> out = context.shape(0);
  if (out) {
    OCTET_ASSIGN_OR_RETURN(const int axis, AxisAttribute(context, "axis", 0, out->rank()));
    (*out)[axis] = kUnknownDim;
  }
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

/// The rows of x whose condition is true; rows behind the end of the condition are not taken.
/// Source: ONNX Compress-11.
absl::StatusOr<std::vector<Datum>> Compress(const Node& node,
                                            std::span<const Datum* const> inputs) {
  const Tensor& x = inputs[0]->tensor;
  OCTET_ASSIGN_OR_RETURN(const auto axis, OptionalAxis(node, x.shape().rank()));
  const std::span<const bool> condition = inputs[1]->tensor.span<bool>();
  const int64_t extent = SplitAt(x.shape(), axis).extent;
  std::vector<int64_t> kept;
  for (size_t i = 0; i < condition.size(); ++i) {
    if (condition[i]) kept.push_back(static_cast<int64_t>(i));
  }
  if (!kept.empty() && kept.back() >= extent) {
    return InvalidArgument("the condition selects row {} of {}", kept.back(), extent);
  }
  return std::vector<Datum>{Datum::Of(TakeRows(x, axis, kept))};
}

// ---- Unique

absl::Status InferUnique(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kAnyTypes | kStrings));
  std::optional<Shape> out = context.shape(0);
  if (!context.attributes().has("axis")) {
    out = Shape{kUnknownDim};
  } else if (out) {
    OCTET_ASSIGN_OR_RETURN(const int axis, AxisAttribute(context, "axis", 0, out->rank()));
    (*out)[axis] = kUnknownDim;
  }
  OCTET_RETURN_IF_ERROR(context.SetOutput(0, context.dtype(0), std::move(out)));
  for (const size_t i : {1, 2, 3})
    OCTET_RETURN_IF_ERROR(context.SetOutput(i, DType::kI64, Shape{kUnknownDim}));
  return absl::OkStatus();
}

/// Negative, zero or positive as a comes before, with or behind b. NaN is behind every number and with itself.
template <typename T>
int OrderOf(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (std::isnan(a) || std::isnan(b)) return static_cast<int>(std::isnan(a)) - std::isnan(b);
  }
  return a < b ? -1 : b < a ? 1 : 0;
}

/// Rows in lexicographic order, equal ones in the order in which they stand; `group[i]` is the number of the distinct row
/// at place i of `rows`.
struct EqualRows {
  std::vector<int64_t> rows;
  std::vector<int64_t> group;
};

template <typename T>
EqualRows FindEqualRows(const Tensor& x, const AlongAxis& along) {
  const T* elements = static_cast<const T*>(x.data());
  const auto order = [&](int64_t i, int64_t j) {
    for (int64_t block = 0; block < along.outer; ++block) {
      const T* a = elements + (block * along.extent + i) * along.inner;
      const T* b = elements + (block * along.extent + j) * along.inner;
      for (int64_t e = 0; e < along.inner; ++e) {
        if (const int o = OrderOf(a[e], b[e]); o != 0) return o;
      }
    }
    return 0;
  };
  EqualRows groups;
  groups.rows.resize(static_cast<size_t>(along.extent));
  std::iota(groups.rows.begin(), groups.rows.end(), int64_t{0});
  std::ranges::stable_sort(groups.rows, [&](int64_t i, int64_t j) { return order(i, j) < 0; });
  for (size_t i = 0; i < groups.rows.size(); ++i) {
    const bool same = i > 0 && order(groups.rows[i - 1], groups.rows[i]) == 0;
    groups.group.push_back(i == 0 ? 0 : groups.group.back() + (same ? 0 : 1));
  }
  return groups;
}

absl::StatusOr<EqualRows> FindEqualRows(const Node& node, const Tensor& x, const AlongAxis& along) {
  if (x.dtype() == DType::kF16 || x.dtype() == DType::kBF16) {
    Tensor wide(DType::kF32, x.shape());
    ConvertTensor(x.view(), wide.mutable_view());
    return FindEqualRows<float>(wide, along);
  }
  absl::StatusOr<EqualRows> groups =
      Unimplemented("{}: no kernel for element type {}", Describe(node), DTypeName(x.dtype()));
  const auto visit = [&]<typename... Ts>(Types<Ts...>) {
    (void)((DTypeOf<Ts> == x.dtype() && (groups = FindEqualRows<Ts>(x, along), true)) || ...);
  };
  visit(kNumberAndBoolKernels + Types<std::string_view>{});
  return groups;
}

Datum Indices(const std::vector<int64_t>& values) {
  return Datum::Of(Tensor::From<int64_t>(Shape{std::ssize(values)}, values));
}

/// The distinct rows, where each stands first, which of them every row is, and how often each occurs.
/// Source: ONNX Unique-11.
absl::StatusOr<std::vector<Datum>> Unique(const Node& node, std::span<const Datum* const> inputs) {
  const Tensor& x = inputs[0]->tensor;
  OCTET_ASSIGN_OR_RETURN(const auto axis, OptionalAxis(node, x.shape().rank()));
  OCTET_ASSIGN_OR_RETURN(const int64_t sorted, node.attributes.Int("sorted", 1));
  OCTET_ASSIGN_OR_RETURN(const EqualRows groups, FindEqualRows(node, x, SplitAt(x.shape(), axis)));
  const size_t count = groups.group.empty() ? 0 : static_cast<size_t>(groups.group.back() + 1);
  std::vector<int64_t> first(count, -1);
  for (size_t i = 0; i < groups.rows.size(); ++i) {
    if (first[groups.group[i]] < 0) first[groups.group[i]] = groups.rows[i];
  }
  std::vector<int64_t> place(count);  // Of a group in the output.
  std::iota(place.begin(), place.end(), int64_t{0});
  if (sorted == 0) {
    std::vector<int64_t> by_first = place;
    std::ranges::sort(by_first, {}, [&](int64_t g) { return first[g]; });
    for (size_t i = 0; i < count; ++i) place[by_first[i]] = static_cast<int64_t>(i);
  }
  std::vector<int64_t> kept(count);
  std::vector<int64_t> counts(count, 0);
  std::vector<int64_t> inverse(groups.rows.size());
  for (size_t g = 0; g < count; ++g) kept[place[g]] = first[g];
  for (size_t i = 0; i < groups.rows.size(); ++i) {
    inverse[groups.rows[i]] = place[groups.group[i]];
    ++counts[place[groups.group[i]]];
  }
  return std::vector<Datum>{Datum::Of(TakeRows(x, axis, kept)), Indices(kept), Indices(inverse),
                            Indices(counts)};
}

// com.microsoft's: of a vector, in the order of their first occurrence, without the indices of those.
absl::Status InferContribUnique(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kAnyTypes));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 1, 1));
  OCTET_RETURN_IF_ERROR(context.SetOutput(0, context.dtype(0), Shape{kUnknownDim}));
  const auto& x = context.shape(0);
  OCTET_RETURN_IF_ERROR(context.SetOutput(1, DType::kI64, x ? *x : Shape{kUnknownDim}));
  return context.SetOutput(2, DType::kI64, Shape{kUnknownDim});
}

/// Source: ONNX Runtime 1.21, docs/ContribOperators.md, Unique.
absl::StatusOr<std::vector<Datum>> ContribUnique(const Node& node,
                                                 std::span<const Datum* const> inputs) {
  Node unsorted = node;
  unsorted.attributes = Attributes();
  unsorted.attributes.Set("sorted", int64_t{0});
  OCTET_ASSIGN_OR_RETURN(std::vector<Datum> all, Unique(unsorted, inputs));
  all.erase(all.begin() + 1);
  return all;
}

}  // namespace

std::span<const OpDef> SelectionOps() {
  static constexpr OpDef kOps[] = {
      {.domain = kOnnxDomain,
       .name = "NonZero",
       .since = 9,
       .infer = InferNonZero,
       .evaluate = NonZero},
      {.domain = kOnnxDomain,
       .name = "Compress",
       .since = 9,
       .infer = InferCompress,
       .traits = {.strings = true},
       .evaluate = Compress},
      {.domain = kOnnxDomain,
       .name = "Unique",
       .since = 11,
       .infer = InferUnique,
       .traits = {.strings = true},
       .evaluate = Unique},
      {.domain = kMicrosoftDomain,
       .name = "Unique",
       .infer = InferContribUnique,
       .evaluate = ContribUnique},
  };
  return kOps;
}

}  // namespace octet

// ai.onnx.ml's look-ups of single elements: LabelEncoder, CategoryMapper.
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Element i of `keys` becomes element i of `values`; what is no key becomes the only element of `otherwise`.
struct LabelTable {
  Tensor keys;
  Tensor values;
  Tensor otherwise;
};

Tensor TextList(const std::vector<std::string>& strings) {
  const std::vector<std::string_view> texts(strings.begin(), strings.end());
  return Tensor::Strings(Shape{std::ssize(texts)}, texts);
}

Tensor TextScalar(std::string_view text) { return Tensor::Strings(Shape{1}, {&text, 1}); }

template <typename T>
Tensor NumberList(const std::vector<T>& numbers) {
  return Tensor::From<T>(Shape{std::ssize(numbers)}, std::span<const T>(numbers));
}

/// The list that the node has of <prefix>_strings, _int64s, _floats and, since version 4, _tensor; empty without one.
absl::StatusOr<Tensor> ReadLabels(const Node& node, const std::string& prefix) {
  Tensor list;
  int found = 0;
  if (node.attributes.has(prefix + "_strings")) {
    OCTET_ASSIGN_OR_RETURN(const auto strings, node.attributes.Strings(prefix + "_strings", {}));
    list = TextList(strings);
    ++found;
  }
  if (node.attributes.has(prefix + "_int64s")) {
    OCTET_ASSIGN_OR_RETURN(const auto numbers, node.attributes.Ints(prefix + "_int64s", {}));
    list = NumberList(numbers);
    ++found;
  }
  if (node.attributes.has(prefix + "_floats")) {
    OCTET_ASSIGN_OR_RETURN(const auto numbers, node.attributes.Floats(prefix + "_floats", {}));
    list = NumberList(numbers);
    ++found;
  }
  if (node.version >= 4 && node.attributes.has(prefix + "_tensor")) {
    OCTET_ASSIGN_OR_RETURN(const Tensor* tensor, node.attributes.TensorOrNull(prefix + "_tensor"));
    list = *tensor;
    ++found;
  }
  if (found == 1) return list;
  return InvalidArgument("expected one of the attributes '{}_*', got {}", prefix, found);
}

/// The default of the values' type. Source: ONNX LabelEncoder-4.
absl::StatusOr<Tensor> ReadOtherwise(const Node& node, DType dtype) {
  if (node.version >= 4 && node.attributes.has("default_tensor")) {
    OCTET_ASSIGN_OR_RETURN(const Tensor* tensor, node.attributes.TensorOrNull("default_tensor"));
    if (tensor->dtype() == dtype && tensor->elements() == 1) return *tensor;
    return InvalidArgument("'default_tensor' must be one {}, got {}{}", DTypeName(dtype),
                           DTypeName(tensor->dtype()), tensor->shape().ToString());
  }
  OCTET_ASSIGN_OR_RETURN(const std::string text,
                         node.attributes.String("default_string", "_Unused"));
  OCTET_ASSIGN_OR_RETURN(const int64_t whole, node.attributes.Int("default_int64", -1));
  OCTET_ASSIGN_OR_RETURN(const float real, node.attributes.Float("default_float", -0.0F));
  switch (dtype) {
    case DType::kString:
      return TextScalar(text);
    case DType::kI64:
      return Tensor::Scalar<int64_t>(whole);
    case DType::kI32:
      return Tensor::Scalar<int32_t>(-1);
    case DType::kI16:
      return Tensor::Scalar<int16_t>(-1);
    case DType::kF64:
      return Tensor::Scalar<double>(-0.0);
    default:
      return Tensor::Scalar<float>(real);
  }
}

/// Strings to integers or back, by which of them comes in.
absl::StatusOr<LabelTable> PairTable(const Node& node, DType in, Tensor strings, Tensor integers) {
  const bool from_text = in == DType::kString;
  OCTET_ASSIGN_OR_RETURN(Tensor otherwise,
                         ReadOtherwise(node, from_text ? DType::kI64 : DType::kString));
  return from_text ? LabelTable{std::move(strings), std::move(integers), std::move(otherwise)}
                   : LabelTable{std::move(integers), std::move(strings), std::move(otherwise)};
}

absl::StatusOr<LabelTable> ReadTable(const Node& node, DType in) {
  if (node.op == "CategoryMapper") {
    OCTET_ASSIGN_OR_RETURN(const auto strings, node.attributes.Strings("cats_strings", {}));
    OCTET_ASSIGN_OR_RETURN(const auto integers, node.attributes.Ints("cats_int64s", {}));
    return PairTable(node, in, TextList(strings), NumberList(integers));
  }
  if (node.version == 1) {
    OCTET_ASSIGN_OR_RETURN(const auto classes, node.attributes.Strings("classes_strings", {}));
    std::vector<int64_t> places;
    for (int64_t i = 0; i < std::ssize(classes); ++i) places.push_back(i);
    return PairTable(node, in, TextList(classes), NumberList(places));
  }
  LabelTable table;
  OCTET_ASSIGN_OR_RETURN(table.keys, ReadLabels(node, "keys"));
  OCTET_ASSIGN_OR_RETURN(table.values, ReadLabels(node, "values"));
  OCTET_ASSIGN_OR_RETURN(table.otherwise, ReadOtherwise(node, table.values.dtype()));
  return table;
}

absl::Status InferLabels(InferContext& context) {
  constexpr DTypeSet kPair = {DType::kString, DType::kI64};
  constexpr DTypeSet kV2 = kPair | DTypeSet{DType::kF32};
  constexpr DTypeSet kV4 = kV2 | DTypeSet{DType::kF64, DType::kI32, DType::kI16};
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  const int version = context.node().op == "CategoryMapper" ? 1 : context.node().version;
  const DTypeSet types = version == 1 ? kPair : version < 4 ? kV2 : kV4;
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, types));
  OCTET_ASSIGN_OR_RETURN(const LabelTable table, ReadTable(context.node(), context.dtype(0)));
  if (table.keys.dtype() != context.dtype(0)) {
    return context.Error(Format("the keys are {}, the input is {}", DTypeName(table.keys.dtype()),
                                DTypeName(context.dtype(0))));
  }
  if (table.keys.elements() != table.values.elements()) {
    return context.Error(
        Format("there are {} keys for {} values", table.keys.elements(), table.values.elements()));
  }
  if (!types.contains(table.values.dtype())) {
    return context.Error(Format("the values are {}, expected one of {}",
                                DTypeName(table.values.dtype()), types.ToString()));
  }
  return context.SetOutput(0, table.values.dtype(), context.shape(0));
}

/// What two numbers that are the same key have in common: all bits, or since version 4 being NaN, or being 0.
template <typename T>
uint64_t KeyOf(T number, bool by_value) {
  if constexpr (std::is_floating_point_v<T>) {
    if (by_value && number == 0) number = 0;
    if (by_value && std::isnan(number)) number = std::numeric_limits<T>::quiet_NaN();
  }
  uint64_t key = 0;
  std::memcpy(&key, &number, sizeof number);
  return key;
}

std::string_view KeyOf(std::string_view text, bool /*by_value*/) { return text; }

/// The last of equal keys counts.
template <typename T>
Kernel LookUp(LabelTable table, bool by_value) {
  std::unordered_map<decltype(KeyOf(T{}, false)), size_t> places;
  for (size_t i = 0; const T key : table.keys.span<T>())
    places.insert_or_assign(KeyOf(key, by_value), i++);
  return [table = std::move(table), places = std::move(places), by_value](
             std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    const size_t size = SizeOf(outputs[0].dtype());
    const auto* values = static_cast<const std::byte*>(table.values.data());
    auto* to = outputs[0].as<std::byte>();
    for (const T element : inputs[0].span<T>()) {
      const auto found = places.find(KeyOf(element, by_value));
      std::memcpy(
          to, found == places.end() ? table.otherwise.data() : values + found->second * size, size);
      to += size;
    }
    return absl::OkStatus();
  };
}

absl::StatusOr<Kernel> MakeLabels(const KernelContext& context) {
  const DType in = context.inputs[0].dtype();
  OCTET_ASSIGN_OR_RETURN(LabelTable table, ReadTable(context.node, in));
  const bool by_value = context.node.version >= 4;
  switch (in) {
    case DType::kString:
      return LookUp<std::string_view>(std::move(table), by_value);
    case DType::kI64:
      return LookUp<int64_t>(std::move(table), by_value);
    case DType::kI32:
      return LookUp<int32_t>(std::move(table), by_value);
    case DType::kI16:
      return LookUp<int16_t>(std::move(table), by_value);
    case DType::kF64:
      return LookUp<double>(std::move(table), by_value);
    default:
      return LookUp<float>(std::move(table), by_value);
  }
}

}  // namespace

/// Source: ONNX, Operators-ml.md: LabelEncoder-1, -2, -4, CategoryMapper-1.
std::span<const OpDef> LabelOps() {
  static constexpr OpTraits kTraits = {.strings = true};
  static constexpr OpDef kOps[] = {
      {.domain = kMlDomain,
       .name = "LabelEncoder",
       .infer = InferLabels,
       .kernel = MakeLabels,
       .traits = kTraits},
      {.domain = kMlDomain,
       .name = "CategoryMapper",
       .infer = InferLabels,
       .kernel = MakeLabels,
       .traits = kTraits},
  };
  return kOps;
}

}  // namespace octet

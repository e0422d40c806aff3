// ai.onnx.ml OneHotEncoder: each element to a row with a one at its category. Source: ONNX OneHotEncoder-1.
#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "engine/ops/class_scores.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// INT64 or BYTES [categories].
absl::StatusOr<Tensor> ReadCategories(const Attributes& attributes) {
  return ReadClassLabels(attributes, "cats_strings", "cats_int64s");
}

absl::Status InferOneHotEncoder(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(context.attributes().Int("zeros", 1).status());
  OCTET_ASSIGN_OR_RETURN(const Tensor categories, ReadCategories(context.attributes()));
  const bool strings = categories.dtype() == DType::kString;
  OCTET_RETURN_IF_ERROR(ExpectDType(
      context, 0, strings ? kStrings : DTypeSet{DType::kF32, DType::kF64} | kIndexTypes));
  if (!context.shape(0)) return context.SetOutput(0, DType::kF32, std::nullopt);
  Shape shape = *context.shape(0);
  shape.push_back(categories.elements());
  return context.SetOutput(0, DType::kF32, std::move(shape));
}

/// Numbers are categories by their whole part.
template <typename T>
std::pair<bool, int64_t> CategoryOf(T x) {
  if constexpr (std::is_floating_point_v<T>) {
    if (!(std::fabs(x) < T{0x1p63})) return {false, 0};
  }
  return {true, static_cast<int64_t>(x)};
}
std::pair<bool, std::string_view> CategoryOf(std::string_view x) { return {true, x}; }

/// Of equal categories the last one counts. INVALID_ARGUMENT for an element of none, unless `zeros`: then its row is zeros.
template <typename T>
Kernel OneHotKernel(Tensor categories, bool zeros) {
  using Key = decltype(CategoryOf(T{}).second);
  std::unordered_map<Key, int64_t> places;
  for (int64_t place = 0; const Key key : categories.span<Key>())
    places.insert_or_assign(key, place++);
  return [categories = std::move(categories), places = std::move(places), zeros](
             std::span<const ConstTensorView> inputs,
             std::span<const TensorView> outputs) -> absl::Status {
    std::ranges::fill(outputs[0].span<float>(), 0.0F);
    float* row = outputs[0].as<float>();
    for (const T x : inputs[0].span<T>()) {
      const auto [known, key] = CategoryOf(x);
      const auto place = known ? places.find(key) : places.end();
      if (place != places.end()) {
        row[place->second] = 1.0F;
      } else if (!zeros) {
        return InvalidArgument("an element is of no category, and 'zeros' is 0: '{}'", x);
      }
      row += categories.elements();
    }
    return absl::OkStatus();
  };
}

absl::StatusOr<Kernel> MakeOneHotEncoder(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(Tensor categories, ReadCategories(context.node.attributes));
  OCTET_ASSIGN_OR_RETURN(const int64_t zeros, context.node.attributes.Int("zeros", 1));
  return KernelFor(Types<float, double, int32_t, int64_t, std::string_view>{},
                   context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
                     return OneHotKernel<T>(std::move(categories), zeros != 0);
                   });
}

}  // namespace

std::span<const OpDef> OneHotEncoderOps() {
  static constexpr OpDef kOps[] = {
      {.domain = kMlDomain,
       .name = "OneHotEncoder",
       .infer = InferOneHotEncoder,
       .kernel = MakeOneHotEncoder,
       .traits = {.strings = true}},
  };
  return kOps;
}

}  // namespace octet

#include "server/scheduling/request_check.h"

#include <algorithm>
#include <string>

#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Of an input that may have any number: so many an ONNX file may declare.
constexpr size_t kMostExtents = 32;

/// As Shape::ToString, of extents that may be anything.
std::string DimsToString(std::span<const int64_t> dims) {
  std::string text = "[";
  for (const int64_t dim : dims) text += Format("{}{}", text.size() > 1 ? "," : "", dim);
  return text + "]";
}

bool ShapeFits(const TensorInfo& input, std::span<const int64_t> dims) {
  if (!input.rank_known) {
    return dims.size() <= kMostExtents &&
           std::ranges::all_of(dims, [](int64_t extent) { return extent >= 0; });
  }
  const Shape& expected = input.shape;
  if (dims.size() != static_cast<size_t>(expected.rank())) return false;
  for (int i = 0; i < expected.rank(); ++i) {
    const bool fits = expected[i] == kUnknownDim ? dims[i] >= 0 : dims[i] == expected[i];
    if (!fits) return false;
  }
  return true;
}

}  // namespace

absl::Status CheckInput(const TensorInfo& expected, const InputRecipe& recipe, DType dtype,
                        std::span<const int64_t> dims, size_t bytes) {
  if (!recipe.Accepts(dtype)) {
    return InvalidArgument("input \"{}\": datatype, expected {}, got {}", expected.name,
                           recipe.AcceptedTypes(), DTypeName(dtype));
  }
  if (!ShapeFits(expected, dims) && !expected.rank_known) {
    return InvalidArgument("input \"{}\": shape, expected at most {} extents of at least 0, got {}",
                           expected.name, kMostExtents, DimsToString(dims));
  }
  if (!ShapeFits(expected, dims)) {
    return InvalidArgument("input \"{}\": shape, expected {} (? = at least 0), got {}",
                           expected.name, expected.shape.ToString(), DimsToString(dims));
  }
  const std::optional<int64_t> elements = CheckedElements(dims);
  if (!elements || *elements > INT64_MAX / 16) {
    return InvalidArgument("input \"{}\": shape, too many elements: {}", expected.name,
                           DimsToString(dims));
  }
  const size_t needed = static_cast<size_t>(*elements) * SizeOf(dtype);
  if (bytes != needed && dtype == DType::kString) {
    return InvalidArgument("input \"{}\": elements, expected {} for BYTES {}, got {}",
                           expected.name, *elements, DimsToString(dims), bytes / SizeOf(dtype));
  }
  if (bytes != needed) {
    return InvalidArgument("input \"{}\": bytes, expected {} for {} {}, got {}", expected.name,
                           needed, DTypeName(dtype), DimsToString(dims), bytes);
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> CheckRows(const Signature& signature, std::span<const WireTensor> inputs,
                                  int64_t max_batch) {
  if (!signature.batches || inputs.empty()) return 1;
  const int64_t rows = inputs[0].shape()[0];
  for (size_t i = 1; i < inputs.size(); ++i) {
    if (inputs[i].shape()[0] != rows) {
      return InvalidArgument("inputs \"{}\" and \"{}\": batch sizes differ: {} and {}",
                             signature.inputs[0].name, signature.inputs[i].name, rows,
                             inputs[i].shape()[0]);
    }
  }
  if (rows < 1) {
    return InvalidArgument("input \"{}\": batch size, expected at least 1, got {}",
                           signature.inputs[0].name, rows);
  }
  if (rows > max_batch) {
    return InvalidArgument("input \"{}\": batch size, expected at most {}, got {}",
                           signature.inputs[0].name, max_batch, rows);
  }
  return rows;
}

}  // namespace octet

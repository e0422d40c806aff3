#include "cli/answers.h"

#include <utility>

#include "engine/tensor/bytes_elements.h"
#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

absl::StatusOr<ConstTensorView> ReadOutput(
    const inference::ModelInferResponse::InferOutputTensor& output, const std::string& raw,
    Answer& answer) {
  const std::optional<DType> dtype = ParseDType(output.datatype());
  if (!dtype) return Internal("datatype {}", output.datatype());
  const std::span dims(output.shape().data(), static_cast<size_t>(output.shape_size()));
  const std::optional<int64_t> elements = CheckedElements(dims);
  if (!elements) return Internal("a shape that no tensor has");
  const TensorSpec spec = {*dtype, Shape(dims)};
  if (*dtype == DType::kString) {
    auto& strings = answer.strings.emplace_back();
    OCTET_RETURN_IF_ERROR(ReadBytesElements(raw, static_cast<uint64_t>(*elements), strings));
    if (std::cmp_not_equal(strings.size(), *elements)) {
      return Internal("expected {} elements, got {}", *elements, strings.size());
    }
    return ConstTensorView{strings.data(), spec};
  }
  if (raw.size() != spec.bytes()) {
    return Internal("expected {} bytes for {} {}, got {}", spec.bytes(), output.datatype(),
                    spec.shape.ToString(), raw.size());
  }
  return ConstTensorView{raw.data(), spec};
}

void Compare(const ConstTensorView& got, const ConstTensorView& reference, int64_t rows,
             OutputTally& tally) {
  const OutputComparison comparison = CompareOutputs(got, reference, rows);
  tally.incomparable += comparison.same_shape ? 0 : 1;
  tally.exact += comparison.elements;
  tally.equal += comparison.equal;
  OutputTally one;
  if (comparison.noise) {
    one.noise = *comparison.noise;
    one.floats = reference.elements();
  }
  if (comparison.classes) one.classes = *comparison.classes;
  tally.Merge(one);
}

}  // namespace

absl::StatusOr<Answer> ReadAnswer(const inference::ModelInferResponse& response) {
  Answer answer;
  if (response.raw_output_contents_size() != response.outputs_size()) {
    return Internal("expected {} raw_output_contents, got {}", response.outputs_size(),
                    response.raw_output_contents_size());
  }
  for (int i = 0; i < response.outputs_size(); ++i) {
    const auto& output = response.outputs(i);
    auto view = ReadOutput(output, response.raw_output_contents(i), answer);
    if (!view.ok()) return Annotate(view.status(), Format("output '{}'", output.name()));
    answer.outputs[output.name()] = *view;
  }
  return answer;
}

absl::StatusOr<Answer> RowsOf(const NpzArrays& arrays, int64_t first, int64_t rows) {
  Answer answer;
  for (const auto& [name, array] : arrays) {
    if (array.shape().rank() == 0 || array.shape()[0] < first + rows) {
      return InvalidArgument("array '{}': expected {} rows along axis 0, got shape {}", name,
                             first + rows, array.shape().ToString());
    }
    Shape shape = array.shape();
    const size_t row_bytes = array.bytes() / static_cast<size_t>(shape[0]);
    shape[0] = rows;
    const auto* at =
        static_cast<const std::byte*>(array.data()) + static_cast<size_t>(first) * row_bytes;
    answer.outputs[name] = {at, {array.dtype(), shape}};
  }
  return answer;
}

void OutputTally::Merge(const OutputTally& other) {
  noise.Merge(other.noise);
  floats += other.floats;
  classes.rows += other.classes.rows;
  classes.top1 += other.classes.top1;
  classes.top5 += other.classes.top5;
  exact += other.exact;
  equal += other.equal;
  incomparable += other.incomparable;
}

void CompareAnswers(const Answer& got, const Answer& reference, int64_t rows,
                    std::map<std::string, OutputTally>& tallies) {
  for (const auto& [name, view] : got.outputs) {
    const auto found = reference.outputs.find(name);
    if (found == reference.outputs.end()) {
      ++tallies[name].incomparable;
    } else {
      Compare(view, found->second, rows, tallies[name]);
    }
  }
  for (const auto& [name, unused] : reference.outputs) {
    if (!got.outputs.contains(name)) ++tallies[name].incomparable;
  }
}

}  // namespace octet::cli

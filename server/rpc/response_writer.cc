#include "server/rpc/response_writer.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/tensor/bytes_elements.h"
#include "engine/tensor/status.h"
#include "server/rpc/classification.h"
#include "server/rpc/infer_options.h"
#include "server/rpc/input_decoder.h"

namespace octet {
namespace {

/// The classes that an output asks for; 0 = its tensor.
absl::StatusOr<int64_t> ReadClasses(
    const inference::ModelInferRequest::InferRequestedOutputTensor& wanted) {
  int64_t classes = 0;
  for (const auto& [name, parameter] : wanted.parameters()) {
    if (name == "classification") {
      OCTET_ASSIGN_OR_RETURN(const uint64_t count, WholeNumber(name, parameter));
      if (count < 1) {
        return InvalidArgument("output \"{}\": classification, expected at least 1, got 0",
                               wanted.name());
      }
      classes = static_cast<int64_t>(std::min<uint64_t>(count, INT64_MAX));
    }
  }
  return classes;
}

}  // namespace

absl::Status ResponseWriter::Begin(const ModelVersion& version, const SharedMemory* memory,
                                   InferMessages& messages) {
  messages_ = &messages;
  version_ = &version;
  memory_ = memory;
  response_ = &messages.response;
  const inference::ModelInferRequest& request = messages.request;
  outputs_.assign(version.signature.outputs.size(), {});
  for (const auto& wanted : request.outputs()) OCTET_RETURN_IF_ERROR(Request(wanted));
  if (request.outputs().empty()) {
    for (size_t i = 0; i < outputs_.size(); ++i) Add(i);
  }
  return absl::OkStatus();
}

absl::Status ResponseWriter::Request(
    const inference::ModelInferRequest::InferRequestedOutputTensor& wanted) {
  const auto& known = version_->signature.outputs;
  const auto found = std::ranges::find(known, wanted.name(), &TensorInfo::name);
  if (found == known.end()) {
    return InvalidArgument("unknown output \"{}\", expected {}", wanted.name(), QuotedNames(known));
  }
  const auto index = static_cast<size_t>(found - known.begin());
  if (outputs_[index].place >= 0) {
    return InvalidArgument("output \"{}\" is asked for twice", wanted.name());
  }
  OCTET_ASSIGN_OR_RETURN(outputs_[index].classes, ReadClasses(wanted));
  if (outputs_[index].classes > 0 && found->dtype == DType::kString) {
    return InvalidArgument(
        "output \"{}\": classification, expected an output of numbers, got BYTES", wanted.name());
  }
  if (NamesSharedMemory(wanted.parameters())) {
    OCTET_ASSIGN_OR_RETURN(
        outputs_[index].shared,
        FindSharedSlice(Format("output \"{}\"", wanted.name()), wanted.parameters(), memory_));
  }
  Add(index);
  return absl::OkStatus();
}

void ResponseWriter::Add(size_t index) {
  outputs_[index].place = response_->outputs_size();
  response_->add_outputs()->set_name(version_->signature.outputs[index].name);
  response_->add_raw_output_contents();
}

void ResponseWriter::Describe(int place, std::string_view datatype, const Shape& shape) {
  auto& output = *response_->mutable_outputs(place);
  output.set_datatype(std::string(datatype));
  for (const int64_t extent : shape) output.add_shape(extent);
}

void* ResponseWriter::Reserve(size_t index, const TensorSpec& spec) {
  Requested& output = outputs_[index];
  if (output.place < 0) return nullptr;
  if (output.classes > 0) {
    output.scores = Tensor(spec.dtype, spec.shape);
    return output.scores.mutable_data();
  }
  Describe(output.place, DTypeName(spec.dtype), spec.shape);
  std::string& bytes = *response_->mutable_raw_output_contents(output.place);
  // The worker writes every byte: filling them with zeros first would be a pass over memory for nothing.
  bytes.resize_and_overwrite(spec.bytes(), [](char*, size_t size) { return size; });
  return bytes.data();
}

bool ResponseWriter::Keep(size_t index, const TensorSpec& spec,
                          std::shared_ptr<const std::byte[]> owner, const std::byte* elements) {
  const Requested& output = outputs_[index];
  if (output.place < 0) return true;
  if (!keeps_ || output.classes > 0 || output.shared || spec.bytes() < kLeastShared) return false;
  Describe(output.place, DTypeName(spec.dtype), spec.shape);
  const auto place = static_cast<size_t>(output.place);
  if (messages_->kept.size() <= place) messages_->kept.resize(place + 1);
  const std::string_view bytes(reinterpret_cast<const char*>(elements),
                               spec.bytes());  // NOLINT(*-reinterpret-cast)
  messages_->kept[place] = {std::move(owner), bytes};
  return true;
}

absl::Status ResponseWriter::TakeStrings(size_t index, ConstTensorView strings) {
  const Requested& output = outputs_[index];
  if (output.place < 0) return absl::OkStatus();
  const auto elements = strings.span<std::string_view>();
  // protobuf's own limit of a message, less what it holds besides tensors.
  constexpr uint64_t kMost = INT32_MAX - (uint64_t{1} << 20);
  const uint64_t bytes = BytesOnWire(elements);
  uint64_t others = 0;
  for (int place = 0; place < response_->raw_output_contents_size(); ++place) {
    others += messages_->RawOutput(place).size();
  }
  if (bytes + others > kMost) {
    return MakeError(
        absl::StatusCode::kResourceExhausted,
        "output \"{}\" is too large for an answer: at most {} bytes with all others, got {}",
        version_->signature.outputs[index].name, kMost, bytes + others);
  }
  Describe(output.place, DTypeName(DType::kString), strings.shape());
  std::string& wire = *response_->mutable_raw_output_contents(output.place);
  wire.reserve(bytes);
  for (const std::string_view element : elements) AppendBytesElement(element, wire);
  return absl::OkStatus();
}

void ResponseWriter::WriteClasses(Requested& output) {
  const Shape shape =
      Classify(output.scores.view(), version_->signature.batches, output.classes, version_->labels,
               *response_->mutable_raw_output_contents(output.place));
  Describe(output.place, "BYTES", shape);
}

std::vector<std::optional<AnsweredOutput>> ResponseWriter::Answers() const {
  std::vector<std::optional<AnsweredOutput>> answers(outputs_.size());
  for (size_t i = 0; i < outputs_.size(); ++i) {
    const Requested& output = outputs_[i];
    if (output.place < 0) continue;
    AnsweredOutput& answer = answers[i].emplace();
    if (output.classes > 0) {
      answer = {output.scores.spec(), output.scores.data(), output.scores.bytes(), output.scores};
      continue;
    }
    const auto& dims = response_->outputs(output.place).shape();
    const std::string_view raw = output.held ? *output.held : messages_->RawOutput(output.place);
    answer.held = output.held;
    answer.spec = {version_->signature.outputs[i].dtype,
                   Shape(std::span(dims.data(), static_cast<size_t>(dims.size())))};
    answer.data = raw.data();
    answer.bytes = raw.size();
  }
  return answers;
}

absl::Status ResponseWriter::WriteShared(Requested& output) {
  auto& described = *response_->mutable_outputs(output.place);
  std::string& raw = *response_->mutable_raw_output_contents(output.place);
  const SharedSlice& slice = *output.shared;
  if (raw.size() > slice.bytes) {
    return InvalidArgument("output \"{}\": shared_memory_byte_size, expected at least {}, got {}",
                           described.name(), raw.size(), slice.bytes);
  }
  OCTET_RETURN_IF_ERROR(
      Annotate(slice.region->Write(slice.offset, raw), Format("output \"{}\"", described.name())));
  auto& parameters = *described.mutable_parameters();
  parameters["shared_memory_region"].set_string_param(slice.region->name());
  parameters["shared_memory_byte_size"].set_int64_param(static_cast<int64_t>(raw.size()));
  if (slice.offset != 0) {
    parameters["shared_memory_offset"].set_int64_param(static_cast<int64_t>(slice.offset));
  }
  output.held = std::make_shared<const std::string>(std::exchange(raw, {}));
  return absl::OkStatus();
}

absl::Status ResponseWriter::Complete(const Route& route) {
  for (Requested& output : outputs_) {
    if (output.classes > 0) WriteClasses(output);
    if (output.shared) OCTET_RETURN_IF_ERROR(WriteShared(output));
  }
  response_->set_model_name(version_->model);
  response_->set_model_version(version_->version);
  response_->set_id(messages_->request.id());
  if (version_->pipeline != nullptr) return absl::OkStatus();
  auto& parameters = *response_->mutable_parameters();
  parameters["precision"].set_string_param(std::string(PrecisionName(route.precision)));
  parameters["route"].set_string_param(std::string(RouteReasonName(route.reason)));
  return absl::OkStatus();
}

}  // namespace octet

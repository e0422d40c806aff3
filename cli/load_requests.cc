#include "cli/load_requests.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <random>

#include <grpcpp/grpcpp.h>

#include "engine/tensor/bytes_elements.h"
#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

inference::ModelInferRequest EmptyRequest(const RequestSource& source) {
  inference::ModelInferRequest request;
  request.set_model_name(source.model);
  Address(request, source.version, source.precision);
  return request;
}

/// Adds an input without its elements; returns where they go.
std::string& DescribeInput(inference::ModelInferRequest& request, const std::string& name,
                           DType dtype, const Shape& shape) {
  auto* input = request.add_inputs();
  input->set_name(name);
  input->set_datatype(std::string(DTypeName(dtype)));
  for (const int64_t extent : shape) input->add_shape(extent);
  return *request.add_raw_input_contents();
}

void AddInput(inference::ModelInferRequest& request, const std::string& name,
              const Tensor& tensor) {
  std::string& wire = DescribeInput(request, name, tensor.dtype(), tensor.shape());
  if (tensor.dtype() != DType::kString) {
    wire.assign(static_cast<const char*>(tensor.data()), tensor.bytes());
    return;
  }
  for (const std::string_view text : tensor.span<std::string_view>())
    AppendBytesElement(text, wire);
}

absl::StatusOr<Signature> FetchSignature(inference::GRPCInferenceService::Stub& stub,
                                         const RequestSource& source) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  inference::ModelMetadataRequest request;
  request.set_name(source.model);
  request.set_version(source.version);
  inference::ModelMetadataResponse response;
  OCTET_RETURN_IF_ERROR(FromGrpc(stub.ModelMetadata(&context, request, &response)));
  Signature signature;
  for (const auto& input : response.inputs()) {
    const auto dtype = ParseDType(input.datatype());
    if (!dtype) return Unimplemented("input '{}' has datatype {}", input.name(), input.datatype());
    signature.inputs.push_back(
        {input.name(), *dtype, Shape(std::span(input.shape().data(), input.shape().size()))});
  }
  return signature;
}

/// INVALID_ARGUMENT when rows are asked for of a model whose inputs leave their number to nobody.
absl::Status CheckRows(const Signature& signature, const RequestSource& source) {
  const auto rows_of = [](const TensorInfo& info) {
    return info.shape.rank() > 0 ? info.shape[0] : int64_t{1};
  };
  const auto takes = [&](const TensorInfo& info) {
    return rows_of(info) == kUnknownDim || rows_of(info) == source.rows;
  };
  if (source.rows == 1 || signature.inputs.empty() || std::ranges::any_of(signature.inputs, takes))
    return absl::OkStatus();
  const TensorInfo& first = signature.inputs[0];
  return InvalidArgument("--rows: input '{}' of model '{}' is {}: expected {} rows, got {}",
                         first.name, source.model, first.shape.ToString(), rows_of(first),
                         source.rows);
}

/// INVALID_ARGUMENT for an input that no request holds: a digit too many is to be an error, not the machine's memory.
absl::Status CheckSize(const TensorInfo& info, const Shape& shape, const RequestSource& source) {
  constexpr int64_t kMostBytes = std::numeric_limits<int32_t>::max();  // protobuf's.
  const std::optional<int64_t> elements = CheckedElements(shape.dims());
  if (elements && *elements <= kMostBytes / static_cast<int64_t>(SizeOf(info.dtype)))
    return absl::OkStatus();
  return InvalidArgument(
      "--rows: input '{}' of model '{}' would be {} of {}: expected at most {} bytes, what a "
      "request holds",
      info.name, source.model, shape.ToString(), DTypeName(info.dtype), kMostBytes);
}

absl::StatusOr<std::vector<inference::ModelInferRequest>> RandomRequest(
    const Signature& signature, const RequestSource& source) {
  OCTET_RETURN_IF_ERROR(CheckRows(signature, source));
  inference::ModelInferRequest request = EmptyRequest(source);
  std::mt19937 random(1);
  for (const TensorInfo& info : signature.inputs) {
    Shape shape = info.shape;
    for (int axis = 0; axis < shape.rank(); ++axis) {
      if (shape[axis] == kUnknownDim) shape[axis] = axis == 0 ? source.rows : 1;
    }
    OCTET_RETURN_IF_ERROR(CheckSize(info, shape, source));
    if (info.dtype == DType::kString) {
      AddInput(request, info.name, RandomTexts(shape, random));
      continue;
    }
    std::string& wire = DescribeInput(request, info.name, info.dtype, shape);
    wire.resize(static_cast<size_t>(shape.elements()) * SizeOf(info.dtype));
    FillRandom({wire.data(), {info.dtype, shape}}, random);
  }
  return std::vector{std::move(request)};
}

}  // namespace

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

void Address(inference::ModelInferRequest& request, const std::string& version,
             const std::string& precision) {
  request.set_model_version(version);
  request.mutable_parameters()->erase("precision");
  if (precision.empty()) return;
  (*request.mutable_parameters())["precision"].set_string_param(precision);
}

absl::StatusOr<SampleRequests> SampleRequests::Load(inference::GRPCInferenceService::Stub& stub,
                                                    const RequestSource& source) {
  OCTET_ASSIGN_OR_RETURN(const Signature signature, FetchSignature(stub, source));
  OCTET_ASSIGN_OR_RETURN(
      Samples samples,
      Samples::Open(signature,
                    {.paths = {source.data}, .map = source.map, .as_stored = source.map.empty()}));
  if (samples.whole_inputs() && source.rows != 1) {
    return InvalidArgument(
        "--rows: each sample is all that a request for model '{}' takes: expected 1, got {}",
        source.model, source.rows);
  }
  return SampleRequests(source, std::move(samples));
}

absl::StatusOr<inference::ModelInferRequest> SampleRequests::Make(int64_t first,
                                                                  int64_t rows) const {
  inference::ModelInferRequest request = EmptyRequest(source_);
  const std::vector<Shape> shapes = samples_.BatchShapes(first, rows);
  for (size_t i = 0; i < shapes.size(); ++i) {
    const TensorInfo& info = samples_.inputs()[i].info;
    Tensor tensor(info.dtype, shapes[i]);
    OCTET_RETURN_IF_ERROR(samples_.Read(i, first, rows, tensor.mutable_view()));
    AddInput(request, info.name, tensor);
  }
  return request;
}

absl::StatusOr<std::vector<inference::ModelInferRequest>> MakeRequests(
    inference::GRPCInferenceService::Stub& stub, const RequestSource& source) {
  if (source.data.empty()) {
    OCTET_ASSIGN_OR_RETURN(const Signature signature, FetchSignature(stub, source));
    return RandomRequest(signature, source);
  }
  OCTET_ASSIGN_OR_RETURN(const SampleRequests samples, SampleRequests::Load(stub, source));
  std::vector<inference::ModelInferRequest> requests;
  for (int64_t first = 0; first + source.rows <= samples.count() && requests.size() < kMaxRequests;
       first += source.rows) {
    OCTET_ASSIGN_OR_RETURN(requests.emplace_back(), samples.Make(first, source.rows));
  }
  if (requests.empty())
    return InvalidArgument("{}: fewer samples than rows per request, {}", source.data, source.rows);
  return requests;
}

}  // namespace octet::cli

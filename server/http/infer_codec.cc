#include "server/http/infer_codec.h"

#include <algorithm>
#include <utility>

#include "engine/tensor/bytes_elements.h"
#include "engine/tensor/status.h"
#include "engine/tensor/utf8.h"
#include "server/http/json_reader.h"
#include "server/http/json_writer.h"
#include "server/rpc/infer_messages.h"

namespace octet {
namespace {

using Kind = JsonReader::Kind;
using Input = inference::ModelInferRequest::InferInputTensor;
using Output = inference::ModelInferRequest::InferRequestedOutputTensor;
using Parameters = google::protobuf::Map<std::string, inference::InferParameter>;

/// An input's members that go into no message.
struct InputContents {
  std::string_view data;  ///< JSON; empty = none.
  std::optional<int64_t> binary_bytes;
};

/// Takes a parameter that is the codec's own. Returns whether it is.
using OwnParameter =
    absl::FunctionRef<absl::StatusOr<bool>(JsonReader& json, const std::string& name)>;

absl::StatusOr<int64_t> ReadInt64(JsonReader& json) {
  OCTET_ASSIGN_OR_RETURN(const std::string_view number, json.Number());
  return ConvertNumber<int64_t>(number);
}

absl::Status ReadNumberParameter(JsonReader& json, inference::InferParameter& parameter) {
  OCTET_ASSIGN_OR_RETURN(const std::string_view number, json.Number());
  if (const auto whole = ConvertNumber<int64_t>(number); whole.ok()) {
    parameter.set_int64_param(*whole);
  } else if (const auto large = ConvertNumber<uint64_t>(number); large.ok()) {
    parameter.set_uint64_param(*large);
  } else {
    OCTET_ASSIGN_OR_RETURN(const double real, ConvertNumber<double>(number));
    parameter.set_double_param(real);
  }
  return absl::OkStatus();
}

absl::Status ReadParameter(JsonReader& json, inference::InferParameter& parameter) {
  switch (json.Next()) {
    case Kind::kText:
      return json.Text(*parameter.mutable_string_param());
    case Kind::kTruth: {
      OCTET_ASSIGN_OR_RETURN(const bool truth, json.Truth());
      parameter.set_bool_param(truth);
      return absl::OkStatus();
    }
    case Kind::kNumber:
      return ReadNumberParameter(json, parameter);
    default:
      return json.Expected("text, a number, true or false");
  }
}

absl::Status ReadParameters(JsonReader& json, OwnParameter own, Parameters& parameters) {
  return json.Object([&](const std::string& name) -> absl::Status {
    OCTET_ASSIGN_OR_RETURN(const bool taken, own(json, name));
    if (taken) return absl::OkStatus();
    if (std::ssize(parameters) >= kMaxParameters) {
      return InvalidArgument("parameters: expected at most {}, got more", kMaxParameters);
    }
    return Annotate(ReadParameter(json, parameters[name]), Format("parameter \"{}\"", name));
  });
}

absl::Status ReadInput(JsonReader& json, Input& input, InputContents& contents) {
  const auto own = [&](JsonReader& value, const std::string& name) -> absl::StatusOr<bool> {
    if (name != "binary_data_size") return false;
    OCTET_ASSIGN_OR_RETURN(contents.binary_bytes, ReadInt64(value));
    return true;
  };
  return json.Object([&](const std::string& key) -> absl::Status {
    if (key == "name") return json.Text(*input.mutable_name());
    if (key == "datatype") return json.Text(*input.mutable_datatype());
    if (key == "parameters") return ReadParameters(json, own, *input.mutable_parameters());
    if (key == "shape") {
      return json.Array([&]() -> absl::Status {
        if (input.shape_size() >= kMaxExtents) {
          return InvalidArgument("shape: expected at most {} extents, got more", kMaxExtents);
        }
        OCTET_ASSIGN_OR_RETURN(const int64_t extent, ReadInt64(json));
        input.add_shape(extent);
        return absl::OkStatus();
      });
    }
    // The elements' type may come behind them.
    OCTET_ASSIGN_OR_RETURN(const std::string_view text, json.Skip());
    if (key == "data") contents.data = text;
    return absl::OkStatus();
  });
}

absl::Status ReadOutput(JsonReader& json, Output& output, std::optional<bool>& binary) {
  const auto own = [&](JsonReader& value, const std::string& name) -> absl::StatusOr<bool> {
    if (name != "binary_data") return false;
    OCTET_ASSIGN_OR_RETURN(binary, value.Truth());
    return true;
  };
  return json.Object([&](const std::string& key) -> absl::Status {
    if (key == "name") return json.Text(*output.mutable_name());
    if (key == "parameters") return ReadParameters(json, own, *output.mutable_parameters());
    return json.Skip().status();
  });
}

absl::Status ReadDocument(std::string_view text, HttpInference& call,
                          std::vector<InputContents>& contents) {
  JsonReader json(text);
  const auto own = [&](JsonReader& value, const std::string& name) -> absl::StatusOr<bool> {
    if (name != "binary_data_output") return false;
    OCTET_ASSIGN_OR_RETURN(call.binary_by_default, value.Truth());
    return true;
  };
  OCTET_RETURN_IF_ERROR(json.Object([&](const std::string& key) -> absl::Status {
    if (key == "id") return json.Text(*call.request.mutable_id());
    if (key == "parameters") return ReadParameters(json, own, *call.request.mutable_parameters());
    if (key == "inputs") {
      return json.Array([&]() -> absl::Status {
        if (call.request.inputs_size() >= kMaxTensors) {
          return InvalidArgument("inputs: expected at most {}, got more", kMaxTensors);
        }
        return ReadInput(json, *call.request.add_inputs(), contents.emplace_back());
      });
    }
    if (key == "outputs") {
      return json.Array([&]() -> absl::Status {
        if (call.request.outputs_size() >= kMaxTensors) {
          return InvalidArgument("outputs: expected at most {}, got more", kMaxTensors);
        }
        return ReadOutput(json, *call.request.add_outputs(), call.binary.emplace_back());
      });
    }
    return json.Skip().status();
  }));
  return json.End();
}

template <typename T>
absl::Status ReadNumbers(JsonReader& json, std::string& raw) {
  return json.Leaves([&]() -> absl::Status {
    OCTET_ASSIGN_OR_RETURN(const std::string_view number, json.Number());
    OCTET_ASSIGN_OR_RETURN(const T value, ConvertNumber<T>(number));
    raw.append(reinterpret_cast<const char*>(&value), sizeof(T));
    return absl::OkStatus();
  });
}

/// true and false; or 1 and 0, which some clients send.
absl::Status ReadTruths(JsonReader& json, std::string& raw) {
  return json.Leaves([&]() -> absl::Status {
    if (json.Next() == Kind::kNumber) {
      OCTET_ASSIGN_OR_RETURN(const std::string_view number, json.Number());
      if (number != "0" && number != "1") {
        return InvalidArgument("expected true, false, 0 or 1, got {}", number);
      }
      raw += number == "1" ? '\1' : '\0';
      return absl::OkStatus();
    }
    OCTET_ASSIGN_OR_RETURN(const bool truth, json.Truth());
    raw += truth ? '\1' : '\0';
    return absl::OkStatus();
  });
}

absl::Status ReadTexts(JsonReader& json, std::string& raw) {
  std::string element;
  return json.Leaves([&]() -> absl::Status {
    OCTET_RETURN_IF_ERROR(json.Text(element));
    AppendBytesElement(element, raw);
    return absl::OkStatus();
  });
}

/// FP16 and BF16 through FP32; for these a number too large becomes infinite.
absl::Status ReadHalves(JsonReader& json, DType dtype, std::string& raw) {
  std::string reals;
  OCTET_RETURN_IF_ERROR(ReadNumbers<float>(json, reals));
  const Shape shape{static_cast<int64_t>(reals.size() / sizeof(float))};
  raw.resize(reals.size() / 2);
  ConvertTensor({reals.data(), {DType::kF32, shape}}, {raw.data(), {dtype, shape}});
  return absl::OkStatus();
}

absl::Status ReadElements(JsonReader& json, DType dtype, std::string& raw) {
  switch (dtype) {
    case DType::kBool:
      return ReadTruths(json, raw);
    case DType::kI8:
      return ReadNumbers<int8_t>(json, raw);
    case DType::kU8:
      return ReadNumbers<uint8_t>(json, raw);
    case DType::kI16:
      return ReadNumbers<int16_t>(json, raw);
    case DType::kU16:
      return ReadNumbers<uint16_t>(json, raw);
    case DType::kI32:
      return ReadNumbers<int32_t>(json, raw);
    case DType::kU32:
      return ReadNumbers<uint32_t>(json, raw);
    case DType::kI64:
      return ReadNumbers<int64_t>(json, raw);
    case DType::kU64:
      return ReadNumbers<uint64_t>(json, raw);
    case DType::kF32:
      return ReadNumbers<float>(json, raw);
    case DType::kF64:
      return ReadNumbers<double>(json, raw);
    case DType::kF16:
    case DType::kBF16:
      return ReadHalves(json, dtype, raw);
    case DType::kString:
      return ReadTexts(json, raw);
    case DType::kUndefined:
      break;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string_view> ConvertData(const Input& input, std::string_view data,
                                             HttpInference& call) {
  std::string& raw = call.converted.emplace_back();
  const std::optional<DType> dtype = ParseDType(input.datatype());
  if (!dtype) return raw;  // which the decoder refuses
  // Two characters an element, at least: what the shape says is the client's word alone.
  const size_t most = data.size() / 2 + 1;
  const std::optional<int64_t> elements =
      CheckedElements({input.shape().data(), static_cast<size_t>(input.shape_size())});
  if (elements && static_cast<uint64_t>(*elements) <= most) {
    raw.reserve(static_cast<size_t>(*elements) * SizeOf(*dtype));
  }
  JsonReader json(data);
  OCTET_RETURN_IF_ERROR(
      Annotate(ReadElements(json, *dtype, raw), Format("input \"{}\": data", input.name())));
  return raw;
}

/// Finds the bytes of one input; takes those of a binary one from the front of `binary`.
absl::Status FindContents(const Input& input, const InputContents& contents, HttpInference& call,
                          std::string_view& binary) {
  std::optional<WireBytes>& raw = call.raw_inputs.emplace_back();
  const int sources = static_cast<int>(!contents.data.empty()) +
                      static_cast<int>(contents.binary_bytes.has_value()) +
                      static_cast<int>(NamesSharedMemory(input.parameters()));
  if (sources != 1) {
    return InvalidArgument(
        "input \"{}\": expected one of data, binary_data_size and shared_memory_region, got {}",
        input.name(), sources == 0 ? "none" : "more");
  }
  if (!contents.data.empty()) {
    OCTET_ASSIGN_OR_RETURN(raw, ConvertData(input, contents.data, call));
  } else if (contents.binary_bytes) {
    const int64_t bytes = *contents.binary_bytes;
    if (bytes < 0 || static_cast<uint64_t>(bytes) > binary.size()) {
      return InvalidArgument(
          "input \"{}\": binary_data_size, expected 0 .. {} (what is left of the body), got {}",
          input.name(), binary.size(), bytes);
    }
    raw = binary.substr(0, static_cast<size_t>(bytes));
    binary.remove_prefix(static_cast<size_t>(bytes));
  }
  return absl::OkStatus();
}

void AppendParameter(const inference::InferParameter& parameter, std::string& json) {
  using inference::InferParameter;
  switch (parameter.parameter_choice_case()) {
    case InferParameter::kBoolParam:
      json += parameter.bool_param() ? "true" : "false";
      return;
    case InferParameter::kInt64Param:
      json += std::to_string(parameter.int64_param());
      return;
    case InferParameter::kUint64Param:
      json += std::to_string(parameter.uint64_param());
      return;
    case InferParameter::kDoubleParam:
      json += Format("{}", parameter.double_param());
      return;
    case InferParameter::kStringParam:
      return AppendJsonText(parameter.string_param(), json);
    case InferParameter::PARAMETER_CHOICE_NOT_SET:
      json += "null";
  }
}

void AppendParameters(const Parameters& parameters, std::string& json) {
  json += '{';
  bool first = true;
  for (const auto& [name, parameter] : parameters) {
    if (!std::exchange(first, false)) json += ',';
    AppendJsonText(name, json);
    json += ':';
    AppendParameter(parameter, json);
  }
  json += '}';
}

Shape ShapeOf(const inference::ModelInferResponse::InferOutputTensor& output) {
  return Shape(std::span(output.shape().data(), static_cast<size_t>(output.shape_size())));
}

/// Appends the output's description; its bytes go into the JSON, or follow it.
absl::Status AppendOutput(const HttpInference& call, int place, InferAnswer& answer) {
  const auto& output = call.response.outputs(place);
  const std::string_view raw = call.RawOutput(place);
  std::string& json = answer.json;
  json += "{\"name\":";
  AppendJsonText(output.name(), json);
  json += ",\"datatype\":";
  AppendJsonText(output.datatype(), json);
  json += ",\"shape\":";
  AppendJsonArray(output, "shape", json);
  if (!output.parameters().empty()) {  // where it went instead
    json += ",\"parameters\":";
    AppendParameters(output.parameters(), json);
    json += '}';
    return absl::OkStatus();
  }
  if (call.IsBinary(place)) {
    json += Format(",\"parameters\":{{\"binary_data_size\":{}}}}}", raw.size());
    answer.binary.push_back(raw);
    return absl::OkStatus();
  }
  json += ",\"data\":";
  OCTET_RETURN_IF_ERROR(
      Annotate(AppendJsonElements(ParseDType(output.datatype()).value_or(DType::kUndefined),
                                  ShapeOf(output), raw, json),
               Format("output \"{}\"", output.name())));
  json += '}';
  return absl::OkStatus();
}

/// INVALID_ARGUMENT for an element that is not UTF-8.
absl::Status CheckTexts(const Shape& shape, std::string_view raw) {
  std::vector<std::string_view> elements;
  OCTET_RETURN_IF_ERROR(ReadBytesElements(raw, static_cast<uint64_t>(shape.elements()), elements));
  const auto wrong = std::ranges::find_if_not(elements, IsUtf8);
  if (wrong == elements.end()) return absl::OkStatus();
  return InvalidArgument("element {} is not UTF-8: ask for it as binary data",
                         wrong - elements.begin());
}

}  // namespace

bool HttpInference::IsBinary(int place) const {
  const auto asked = static_cast<size_t>(place);
  return asked < binary.size() ? binary[asked].value_or(binary_by_default) : binary_by_default;
}

absl::Status HttpInference::CheckAnswer() const {
  for (int place = 0; place < response.outputs_size(); ++place) {
    const auto& output = response.outputs(place);
    const bool in_json = output.parameters().empty() && !IsBinary(place);
    if (!in_json || output.datatype() != DTypeName(DType::kString)) continue;
    OCTET_RETURN_IF_ERROR(Annotate(CheckTexts(ShapeOf(output), RawOutput(place)),
                                   Format("output \"{}\"", output.name())));
  }
  return absl::OkStatus();
}

absl::Status ReadInferBody(std::optional<uint64_t> json_bytes, HttpInference& call) {
  if (json_bytes == uint64_t{0}) {
    call.is_raw = call.binary_by_default = true;
    call.bytes = call.body.capacity();
    return absl::OkStatus();
  }
  const std::string_view body = call.body;
  if (json_bytes && *json_bytes > body.size()) {
    return InvalidArgument(
        "Inference-Header-Content-Length: expected at most {} (the body), got {}", body.size(),
        *json_bytes);
  }
  const size_t split = json_bytes ? static_cast<size_t>(*json_bytes) : body.size();
  std::vector<InputContents> contents;
  OCTET_RETURN_IF_ERROR(ReadDocument(body.substr(0, split), call, contents));
  std::string_view binary = body.substr(split);
  for (size_t i = 0; i < contents.size(); ++i) {
    OCTET_RETURN_IF_ERROR(
        FindContents(call.request.inputs(static_cast<int>(i)), contents[i], call, binary));
  }
  if (!binary.empty()) {
    return InvalidArgument("the body: {} bytes are left behind the last binary input",
                           binary.size());
  }
  if (std::ranges::none_of(contents,
                           [](const InputContents& c) { return c.binary_bytes.has_value(); })) {
    // Nobody looks into it any more, and the inference may wait for long.
    std::string().swap(call.body);
  }
  call.bytes = call.body.capacity();
  for (const std::string& tensor : call.converted) call.bytes += tensor.capacity();
  return absl::OkStatus();
}

absl::StatusOr<InferAnswer> WriteInferAnswer(const HttpInference& call) {
  const inference::ModelInferResponse& response = call.response;
  InferAnswer answer;
  std::string& json = answer.json;
  json += '{';
  if (!response.id().empty()) {
    json += "\"id\":";
    AppendJsonText(response.id(), json);
    json += ',';
  }
  json += "\"model_name\":";
  AppendJsonText(response.model_name(), json);
  json += ",\"model_version\":";
  AppendJsonText(response.model_version(), json);
  json += ",\"parameters\":";
  AppendParameters(response.parameters(), json);
  json += ",\"outputs\":[";
  for (int i = 0; i < response.outputs_size(); ++i) {
    if (i > 0) json += ',';
    OCTET_RETURN_IF_ERROR(AppendOutput(call, i, answer));
  }
  json += "]}";
  return answer;
}

}  // namespace octet

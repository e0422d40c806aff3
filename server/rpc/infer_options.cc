#include "server/rpc/infer_options.h"

#include <algorithm>
#include <cctype>

#include "engine/tensor/status.h"

namespace octet {
namespace {

using inference::InferParameter;

constexpr std::string_view kPrecisionMetadata = "x-octet-precision";

std::string_view KindOf(const InferParameter& parameter) {
  switch (parameter.parameter_choice_case()) {
    case InferParameter::kBoolParam:
      return "a truth value";
    case InferParameter::kInt64Param:
    case InferParameter::kUint64Param:
      return "a whole number";
    case InferParameter::kStringParam:
      return "text";
    case InferParameter::kDoubleParam:
      return "a fraction";
    case InferParameter::PARAMETER_CHOICE_NOT_SET:
      break;
  }
  return "nothing";
}

absl::StatusOr<std::string> StickyKey(const std::string& name, const InferParameter& parameter) {
  switch (parameter.parameter_choice_case()) {
    case InferParameter::kStringParam:
      return parameter.string_param();
    case InferParameter::kInt64Param:
      return std::to_string(parameter.int64_param());
    case InferParameter::kUint64Param:
      return std::to_string(parameter.uint64_param());
    default:
      return InvalidArgument("parameter \"{}\": expected text or a whole number, got {}", name,
                             KindOf(parameter));
  }
}

absl::Status ReadParameter(const std::string& name, const InferParameter& parameter,
                           const std::string& sticky, InferOptions& options) {
  if (name == "precision") {
    if (!parameter.has_string_param()) {
      return InvalidArgument("parameter \"precision\": expected text, got {}", KindOf(parameter));
    }
    options.precision = parameter.string_param();
  } else if (name == "timeout") {
    OCTET_ASSIGN_OR_RETURN(const uint64_t us, WholeNumber(name, parameter));
    constexpr uint64_t kMost = Nanoseconds::max().count() / 1000;
    if (us != 0) options.timeout = std::chrono::microseconds(std::min(us, kMost));
  } else if (name == "capture") {
    if (!parameter.has_bool_param()) {
      return InvalidArgument("parameter \"capture\": expected a truth value, got {}",
                             KindOf(parameter));
    }
    options.capture = parameter.bool_param();
  } else if (name == "priority") {
    OCTET_ASSIGN_OR_RETURN(options.priority, WholeNumber(name, parameter));
  } else if (name.starts_with("triton_") && name != "triton_enable_empty_final_response") {
    return InvalidArgument("parameter \"{}\" is not known here", name);
  }
  if (!sticky.empty() && name == sticky) {
    OCTET_ASSIGN_OR_RETURN(options.sticky_key, StickyKey(name, parameter));
  }
  return absl::OkStatus();
}

/// Metadata keys arrive in lower case; who writes model.yaml may think of HTTP's.
std::string LowerCase(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

}  // namespace

absl::StatusOr<uint64_t> WholeNumber(const std::string& name, const InferParameter& parameter) {
  if (parameter.has_uint64_param()) return parameter.uint64_param();
  if (!parameter.has_int64_param()) {
    return InvalidArgument("parameter \"{}\": expected a whole number, got {}", name,
                           KindOf(parameter));
  }
  if (parameter.int64_param() < 0) {
    return InvalidArgument("parameter \"{}\": expected at least 0, got {}", name,
                           parameter.int64_param());
  }
  return static_cast<uint64_t>(parameter.int64_param());
}

absl::StatusOr<InferOptions> ReadInferOptions(const inference::ModelInferRequest& request,
                                              MetadataLookup metadata,
                                              const ModelConfig::Routing::Sticky& sticky) {
  InferOptions options;
  for (const auto& [name, parameter] : request.parameters()) {
    OCTET_RETURN_IF_ERROR(ReadParameter(name, parameter, sticky.parameter, options));
  }
  if (ParsePrecision(request.model_version())) {
    if (!options.precision.empty() && options.precision != request.model_version()) {
      return InvalidArgument(
          "model version and parameter \"precision\" ask for different precisions: {} and {}",
          request.model_version(), options.precision);
    }
    options.precision = request.model_version();
  }
  if (options.precision.empty()) {
    options.precision = metadata(kPrecisionMetadata).value_or("");
  }
  if (options.sticky_key.empty() && !sticky.metadata.empty()) {
    options.sticky_key = metadata(LowerCase(sticky.metadata)).value_or("");
  }
  return options;
}

}  // namespace octet

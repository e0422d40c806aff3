#include "server/rpc/sequence_request.h"

#include <algorithm>

#include "engine/tensor/status.h"
#include "server/rpc/infer_options.h"

namespace octet {
namespace {

constexpr size_t kMostIdBytes = 128;

absl::StatusOr<SequenceId> ReadId(const std::string& name,
                                  const inference::InferParameter& parameter) {
  // The clients that have no unsigned parameters send an id's 64 bits in a signed one.
  if (parameter.has_int64_param()) return static_cast<uint64_t>(parameter.int64_param());
  if (!parameter.has_string_param()) return WholeNumber(name, parameter);
  if (parameter.string_param().size() > kMostIdBytes) {
    return InvalidArgument("parameter \"{}\": expected at most {} bytes, got {}", name,
                           kMostIdBytes, parameter.string_param().size());
  }
  return parameter.string_param();
}

absl::StatusOr<bool> ReadFlag(const std::string& name, const inference::InferParameter& parameter) {
  if (parameter.has_bool_param()) return parameter.bool_param();
  return InvalidArgument("parameter \"{}\": expected a truth value", name);
}

/// No id at all: a number that is 0, or an empty text.
bool IsNone(const SequenceId& id) { return id == SequenceId() || id == SequenceId(std::string()); }

}  // namespace

absl::StatusOr<SequenceCall> ReadSequenceCall(const inference::ModelInferRequest& request) {
  SequenceCall call;
  for (const auto& [name, parameter] : request.parameters()) {
    if (name == "sequence_id") {
      OCTET_ASSIGN_OR_RETURN(call.id, ReadId(name, parameter));
    } else if (name == "sequence_start") {
      OCTET_ASSIGN_OR_RETURN(call.start, ReadFlag(name, parameter));
    } else if (name == "sequence_end") {
      OCTET_ASSIGN_OR_RETURN(call.end, ReadFlag(name, parameter));
    }
  }
  if (IsNone(call.id)) {
    return InvalidArgument(
        "inference request to model '{}' must specify a non-zero or non-empty correlation ID: the "
        "parameter sequence_id",
        request.model_name());
  }
  return call;
}

bool GoesOnInSequence(const inference::ModelInferRequest& request) {
  const auto& parameters = request.parameters();
  const auto start = parameters.find("sequence_start");
  return parameters.contains("sequence_id") &&
         (start == parameters.end() || !start->second.bool_param());
}

absl::Status CheckSameHome(const inference::ModelInferRequest& request, std::string_view precision,
                           const SequenceHome& home) {
  const std::string_view lives = PrecisionName(home.route.precision);
  if (!precision.empty() && precision != lives) {
    return InvalidArgument("the sequence began in another precision and stays there: {}, got {}",
                           lives, precision);
  }
  const std::string& version = request.model_version();
  const bool is_number = !version.empty() && std::ranges::all_of(version, [](unsigned char c) {
    return c >= '0' && c <= '9';
  });
  if (is_number && version != home.version->version) {
    return InvalidArgument("the sequence began on another version and stays there: {}, got {}",
                           home.version->version, version);
  }
  return absl::OkStatus();
}

absl::Status CheckNoStates(const inference::ModelInferRequest& request, const StateLayout& layout) {
  for (const StateTensor& state : layout.states) {
    for (const auto& input : request.inputs()) {
      if (input.name() != state.input_name) continue;
      return InvalidArgument(
          "input \"{}\" is a state, which the server keeps between the requests of a sequence: "
          "leave it out",
          input.name());
    }
    for (const auto& output : request.outputs()) {
      if (output.name() != state.output_name) continue;
      return InvalidArgument(
          "output \"{}\" is a state, which the server keeps between the requests of a sequence: it "
          "cannot be asked for",
          output.name());
    }
  }
  return absl::OkStatus();
}

}  // namespace octet

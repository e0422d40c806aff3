// model.yaml: how one model is batched, what its clients may send, and how its traffic is split.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "config/config_key.h"
#include "config/server_config.h"
#include "engine/graph/precision.h"
#include "engine/tensor/wire_mapping.h"  // and ConvertFromWire, which the server and the CLI share

namespace octet {

/// model.yaml, as it is written: what is absent comes from the server's configuration.
struct ModelConfig {
  std::string name;  ///< Empty, or the folder's name.

  struct Batching {
    std::optional<int> max_batch;
    std::optional<int> max_queue_delay_us;
    std::optional<int> max_queue_requests;
    std::optional<int64_t> max_queue_bytes;
    std::optional<double> p99_target_ms;
    std::optional<int> priority_levels;
    std::optional<int> default_priority;
    bool operator==(const Batching&) const = default;
  } batching;

  /// By input name: the narrower type that clients may send beside the model's own. scale and
  /// zero_point are of equal length.
  std::map<std::string, WireMapping> wire;

  struct Routing {
    std::optional<Precision> default_precision;
    bool default_is_fastest =
        false;  ///< The fastest that is served, measured at load, is the default.
    std::map<Precision, double> split;  ///< Weights of the shares, >= 0; any sum > 0.
    /// The same between versions, for requests that name none. Empty: the highest version answers.
    std::map<int64_t, double> versions;
    /// A request that carries a key is always answered by the same precision.
    struct Sticky {
      std::string parameter;  ///< Request parameter that holds the key; empty = none.
      std::string metadata;   ///< gRPC metadata or HTTP header that holds it; empty = none.
      std::string salt;       ///< Another salt draws the groups anew.
      bool operator==(const Sticky&) const = default;
    } sticky;
    /// Answered requests of which `precision` gets a copy to be compared by: nobody hears its
    /// answer, and it runs when nothing else waits.
    struct Shadow {
      Precision precision = Precision::kFp32;  ///< Of the copies.
      std::optional<Precision> against;  ///< Which answers are compared; absent = any other's.
      double percent = 0;                ///< Of those answers, 0 .. 100.
      int max_queue_requests = 64;       ///< Copies that wait; one more is dropped.
      int64_t max_queue_bytes = int64_t{64} << 20;  ///< Of inputs and answers that wait.
      bool operator==(const Shadow&) const = default;
    };
    std::optional<Shadow> shadow;
    /// What a precision must keep to, looked at over one window after another. What is absent is no
    /// rule.
    struct Guard {
      enum class Action : uint8_t {
        kAlert,     ///< An event and a metric.
        kFallBack,  ///< And it leaves the split and the default to the others.
        kShift,     ///< And each broken window halves its weight in the split.
      };
      std::optional<double> agreement_percent;  ///< Least share of shadow rows with the same class.
      std::optional<double> sqnr_db;            ///< Least mean SQNR of shadow outputs.
      std::optional<double> error_percent;      ///< Most requests that fail through our fault.
      std::optional<double> p99_us;             ///< Most at the 99th percentile of requests.
      int window_seconds = 60;
      int min_samples = 100;    ///< A rule with fewer in a window says nothing.
      int recover_windows = 3;  ///< Good ones in a row until it is back; 0 = only by a load.
      Action action = Action::kAlert;
      bool has_rule() const { return agreement_percent || sqnr_db || error_percent || p99_us; }
      bool operator==(const Guard&) const = default;
    };
    std::map<Precision, Guard> guard;
    /// Brings a precision or a version in, step by step, as its guards consent.
    struct Ramp {
      std::optional<Precision> precision;  ///< This or `version`.
      std::optional<int64_t> version;
      std::vector<float> steps = {1, 5, 25,
                                  100};  ///< Rising, % of the traffic; the others share the rest.
      int hold_seconds = 300;            ///< At least, per step.
      bool operator==(const Ramp&) const = default;
    };
    std::optional<Ramp> ramp;
    bool operator==(const Routing&) const = default;
  } routing;

  /// Inputs of answered requests, kept for calibration and replay.
  struct Capture {
    double percent = 0;                     ///< Of the answered requests, 0 .. 100.
    int64_t max_bytes = int64_t{64} << 20;  ///< Memory of those that are kept, per version.
    std::vector<std::string> redact;        ///< Inputs whose elements are kept as zeros.
    bool operator==(const Capture&) const = default;
  };
  std::optional<Capture> capture;

  /// What a request hands on to the next one of its sequence, by the input that takes it. Not empty: every request belongs to a
  /// sequence.
  struct State {
    std::string output;  ///< That gives it.
    double initial = 0;  ///< Every element of it for the first request.
    /// Its extents for the first request; empty: the model's, and of open ones 1 for the first, 0 for others.
    std::vector<int64_t> shape = {};
    bool operator==(const State&) const = default;
  };
  std::map<std::string, State> state;

  /// The bounds of a model with state, all versions and precisions together.
  struct Sequences {
    int max_sequences = 1024;
    int idle_seconds = 60;    ///< Without a request until one is forgotten.
    int drain_seconds = 300;  ///< That one may go on on a version that was replaced.
    int64_t max_state_bytes = int64_t{1} << 30;  ///< Of states with open extents, all together.
    bool operator==(const Sequences&) const = default;
  } sequences;

  /// Which versions load: the `latest` so many (default 1), `all`, or the `specific` ones.
  struct Versions {
    std::optional<int> latest;
    bool all = false;
    std::vector<int64_t> specific;
    bool operator==(const Versions&) const = default;
  } versions;

  /// Names that clients may give instead of a version's number. Not empty, no number, no precision's name.
  std::map<std::string, int64_t> version_labels;

  std::vector<Precision> precisions;  ///< Which load; empty = every file that is there.

  /// How close a precision's answers must be to those in VERSION/golden.npz, where there is one, to be served.
  struct Golden {
    double sqnr_db = 15;
    double agreement_percent = 95;
    bool operator==(const Golden&) const = default;
  } golden;

  /// A model that is others in a row, or side by side: tensors go from the outputs of steps to inputs of steps.
  struct Pipeline {
    /// A picture, JPEG or PNG, becomes the input of the step that reads it: "picture" -> "tensor".
    struct Preprocess {
      int resize =
          0;  ///< Of the shorter side, then the middle is cut out; 0 = the whole, stretched.
      double scale = 1.0 / 255;
      std::vector<float> mean;  ///< (scale * pixel - mean[c]) / std[c], c in the input's order;
      std::vector<float> std;   ///< one number serves all; empty = 0 and 1.
      bool bgr = false;         ///< The input's channels are blue, green, red.
      bool upright = false;     ///< Turned as its EXIF orientation says.
      int64_t max_pixels = int64_t{1} << 25;
      bool operator==(const Preprocess&) const = default;
    };
    /// One of `model` and `preprocess`.
    struct Step {
      std::string model;
      std::string version;                 ///< Number or label; empty = the highest that is ready.
      std::optional<Precision> precision;  ///< Absent = as the model's routing chooses.
      std::map<std::string, std::string> inputs;  ///< Where they come from, by name.
      std::optional<Preprocess> preprocess;
      bool operator==(const Step&) const = default;
    };
    std::map<std::string, Step> steps;  ///< By name, which has no dot.
    /// Its outputs, in order, and where they come from: "STEP.OUTPUT".
    std::vector<std::pair<std::string, std::string>> outputs;
    bool operator==(const Pipeline&) const = default;
  };
  std::optional<Pipeline> pipeline;

  bool operator==(const ModelConfig&) const = default;
};

/// Where a tensor of a pipeline comes from: "STEP.OUTPUT", or an input of the pipeline.
struct TensorSource {
  std::string_view step;  ///< Empty: an input of the pipeline.
  std::string_view name;
};
TensorSource ParseTensorSource(std::string_view text);

/// Reads YAML. `file` names it in errors. INVALID_ARGUMENT with one line per mistake.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view text, std::string_view file);
/// Reads the file; also NOT_FOUND when it cannot be opened.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& path);

/// A rollout's word over the operator's: what `rollout` gives of `routing` (the default, the split, the
/// shadow, the guards: each as a whole), of `precisions` and of `capture.percent` is taken in the place of what `model`
/// says; what the model's own capture withholds, and its bound, stay. INVALID_ARGUMENT as ParseModelConfig when both
/// together make no sense; `file` names the rollout's. Its other keys must be absent: a rollout moves traffic and nothing else. A split of the rollout's ends
/// the ramp of a precision: one of them moves the traffic. It also takes the place of the model's shadow and guards, whether or not
/// the rollout gives others: they are of the model's own split, and may be of precisions that the rollout does not load. Only the
/// ramp of a version keeps those guards that consent to it without a shadow, of precisions that are still loaded; of one that the
/// rollout gives no weight, which could be shifted, an alert is left.
absl::StatusOr<ModelConfig> ApplyRollout(ModelConfig model, const ModelConfig& rollout,
                                         std::string_view file);

/// INVALID_ARGUMENT naming `file` when it is of a pipeline and has keys that are for models with files of their own.
absl::Status CheckPipelineAlone(std::string_view file, const ModelConfig& config);

/// The batching of a model: its own keys over the server's defaults. INVALID_ARGUMENT when it asks
/// for more than limits.max_batch, or as CheckPriorities.
absl::StatusOr<ServerConfig::Batching> ResolveBatching(const ServerConfig& server,
                                                       const ModelConfig& model);

/// The versions that load: as `versions` says; where it says nothing those that routing.versions and routing.ramp name, or
/// without these the highest one. Exactly one of its members is set.
ModelConfig::Versions VersionPolicy(const ModelConfig& config);

/// Of the versions that exist (any order), those of VersionPolicy, highest first.
std::vector<int64_t> SelectVersions(const ModelConfig& config, std::vector<int64_t> existing);

/// Every key.
std::vector<ConfigKeyInfo> ModelConfigKeys();

}  // namespace octet

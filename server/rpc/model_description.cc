#include "server/rpc/model_description.h"

#include <string>

namespace octet {
namespace {

/// Not "ensemble", which is Triton's word for it: its clients then expect the steps in the configuration.
const char* PlatformOf(const ModelVersion& version) {
  return version.pipeline == nullptr ? "onnx" : "octet_pipeline";
}

constexpr const char* kBackend = "octet";

inference::DataType ToDataType(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return inference::TYPE_BOOL;
    case DType::kU8:
      return inference::TYPE_UINT8;
    case DType::kI8:
      return inference::TYPE_INT8;
    case DType::kU16:
      return inference::TYPE_UINT16;
    case DType::kI16:
      return inference::TYPE_INT16;
    case DType::kU32:
      return inference::TYPE_UINT32;
    case DType::kI32:
      return inference::TYPE_INT32;
    case DType::kU64:
      return inference::TYPE_UINT64;
    case DType::kI64:
      return inference::TYPE_INT64;
    case DType::kF16:
      return inference::TYPE_FP16;
    case DType::kBF16:
      return inference::TYPE_BF16;
    case DType::kF32:
      return inference::TYPE_FP32;
    case DType::kF64:
      return inference::TYPE_FP64;
    case DType::kString:
      return inference::TYPE_STRING;
    case DType::kUndefined:
      break;
  }
  return inference::TYPE_INVALID;
}

void DescribeTensor(const TensorInfo& info,
                    inference::ModelMetadataResponse::TensorMetadata& tensor) {
  tensor.set_name(info.name);
  tensor.set_datatype(std::string(DTypeName(info.dtype)));
  for (const int64_t extent : info.shape) tensor.add_shape(extent == kUnknownDim ? -1 : extent);
}

template <typename T>
void DescribeConfigTensor(const TensorInfo& info, bool batches, T& tensor) {
  tensor.set_name(info.name);
  tensor.set_data_type(ToDataType(info.dtype));
  for (int i = batches ? 1 : 0; i < info.shape.rank(); ++i) {
    tensor.add_dims(info.shape[i] == kUnknownDim ? -1 : info.shape[i]);
  }
}

void DescribeSequences(const ModelVersion& version, inference::ModelSequenceBatching& batching) {
  const ModelConfig::Sequences& bounds = version.sequences->bounds;
  const auto idle = std::chrono::microseconds(std::chrono::seconds(bounds.idle_seconds));
  batching.set_max_sequence_idle_microseconds(static_cast<uint64_t>(idle.count()));
  auto& oldest = *batching.mutable_oldest();
  oldest.set_max_candidate_sequences(bounds.max_sequences);
  oldest.set_max_queue_delay_microseconds(
      static_cast<uint64_t>(version.batching.max_queue_delay_us));
  for (const StateTensor& kept : version.sequences->layout->states) {
    auto& state = *batching.add_state();
    state.set_input_name(kept.input_name);
    state.set_output_name(kept.output_name);
    state.set_data_type(ToDataType(kept.spec.dtype));
    for (int i = version.signature.batches ? 1 : 0; i < kept.spec.shape.rank(); ++i) {
      state.add_dims(kept.spec.shape[i]);
    }
    if (!kept.starts_at_zero) continue;
    auto& initial = *state.add_initial_state();
    initial.set_name(kept.input_name);
    initial.set_data_type(state.data_type());
    for (int i = version.signature.batches ? 1 : 0; i < kept.initial.shape().rank(); ++i)
      initial.add_dims(kept.initial.shape()[i]);
    initial.set_zero_data(true);
  }
}

void DescribeBatching(const ServerConfig::Batching& batching,
                      inference::ModelDynamicBatching& described) {
  described.set_max_queue_delay_microseconds(static_cast<uint64_t>(batching.max_queue_delay_us));
  if (batching.priority_levels == 0) return;
  described.set_priority_levels(static_cast<uint64_t>(batching.priority_levels));
  described.set_default_priority_level(static_cast<uint64_t>(batching.DefaultPriority()));
}

void DescribePolicy(const ModelConfig::Versions& policy, inference::ModelVersionPolicy& described) {
  if (policy.latest) {
    described.mutable_latest()->set_num_versions(static_cast<uint32_t>(*policy.latest));
  } else if (policy.all) {
    described.mutable_all();
  } else {
    auto& versions = *described.mutable_specific()->mutable_versions();
    versions.Assign(policy.specific.begin(), policy.specific.end());
  }
}

std::string ReadyPrecisions(const ModelVersion& version) {
  std::string names;
  for (const ServedVariant& variant : version.variants) {
    if (!variant.ready()) continue;
    if (!names.empty()) names += ",";
    names += PrecisionName(variant.precision);
  }
  return names;
}

void Set(const StatisticDuration& from, inference::StatisticDuration& to) {
  to.set_count(from.count);
  to.set_ns(static_cast<uint64_t>(from.total.count()));
}

}  // namespace

void DescribeModel(const ModelVersion& version,
                   std::span<const std::shared_ptr<const ModelVersion>> all_versions,
                   inference::ModelMetadataResponse& response) {
  response.set_name(version.model);
  for (const auto& other : all_versions) response.add_versions(other->version);
  response.set_platform(PlatformOf(version));
  for (const TensorInfo& info : version.signature.inputs) {
    DescribeTensor(info, *response.add_inputs());
  }
  for (const TensorInfo& info : version.signature.outputs) {
    DescribeTensor(info, *response.add_outputs());
  }
  auto& properties = *response.mutable_properties();
  properties["precisions"] = ReadyPrecisions(version);
  for (const auto& [input, mapping] : version.wire) {
    properties["wire." + input] = std::string(DTypeName(mapping.dtype));
  }
}

void DescribeConfig(const ModelVersion& version, int workers, inference::ModelConfig& config) {
  const bool batches = version.signature.batches;
  config.set_name(version.model);
  config.set_platform(PlatformOf(version));
  config.set_backend(kBackend);
  DescribePolicy(version.policy, *config.mutable_version_policy());
  config.set_max_batch_size(batches ? version.batching.max_batch : 0);
  for (const TensorInfo& info : version.signature.inputs) {
    DescribeConfigTensor(info, batches, *config.add_input());
  }
  for (const TensorInfo& info : version.signature.outputs) {
    DescribeConfigTensor(info, batches, *config.add_output());
  }
  auto& instances = *config.add_instance_group();
  instances.set_name(version.model);
  instances.set_count(workers);
  instances.set_kind(inference::ModelInstanceGroup::KIND_CPU);
  if (version.sequences != nullptr) {
    DescribeSequences(version, *config.mutable_sequence_batching());
  } else if (version.pipeline == nullptr && (batches || version.batching.priority_levels > 0)) {
    DescribeBatching(version.batching, *config.mutable_dynamic_batching());
  }
  config.mutable_model_transaction_policy()->set_decoupled(false);
  config.mutable_response_cache()->set_enable(false);
  (*config.mutable_parameters())["precisions"].set_string_value(ReadyPrecisions(version));
}

void DescribeStatistics(const ModelVersion& version, inference::ModelStatistics& statistics) {
  const StatisticsSnapshot counts = version.statistics->Read();
  statistics.set_name(version.model);
  statistics.set_version(version.version);
  statistics.set_last_inference(static_cast<uint64_t>(counts.last_inference_ms));
  statistics.set_inference_count(counts.inference_count);
  statistics.set_execution_count(counts.execution_count);
  auto& sums = *statistics.mutable_inference_stats();
  Set(counts.success, *sums.mutable_success());
  Set(counts.fail, *sums.mutable_fail());
  Set(counts.queue, *sums.mutable_queue());
  Set(counts.compute_input, *sums.mutable_compute_input());
  Set(counts.compute_infer, *sums.mutable_compute_infer());
  Set(counts.compute_output, *sums.mutable_compute_output());
  // No answer is kept; clients look for both all the same.
  sums.mutable_cache_hit();
  sums.mutable_cache_miss();
  for (const auto& [rows, batch] : counts.batches) {
    auto& row = *statistics.add_batch_stats();
    row.set_batch_size(static_cast<uint64_t>(rows));
    Set(batch.compute_input, *row.mutable_compute_input());
    Set(batch.compute_infer, *row.mutable_compute_infer());
    Set(batch.compute_output, *row.mutable_compute_output());
  }
  double weights = 0;
  for (const ServedVariant& variant : version.variants) {
    if (variant.ready()) weights += variant.metrics->resident_weight_bytes.value();
  }
  auto& memory = *statistics.add_memory_usage();
  memory.set_type("CPU");
  memory.set_byte_size(static_cast<uint64_t>(weights));
}

}  // namespace octet

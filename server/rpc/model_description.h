// What the protocol tells about a model: metadata, configuration, statistics.
#pragma once

#include <memory>
#include <span>

#include "proto/inference.pb.h"
#include "server/repository/model_version.h"

namespace octet {

/// Names, types and shapes; an extent that requests choose is -1. Properties: "precisions", the ready
/// ones, and "wire.<input>", the narrower type that it also comes in.
void DescribeModel(const ModelVersion& version,
                   std::span<const std::shared_ptr<const ModelVersion>> all_versions,
                   inference::ModelMetadataResponse& response);

/// The part of Triton's model configuration that Octet has; dims leave the batch out. Its instances are the `workers` that run
/// batches side by side, of this model as of every other. Without: preferred batch sizes, which follow from what was measured, and
/// warm-up requests, as there is no setting of them (every variant runs before it is ready).
void DescribeConfig(const ModelVersion& version, int workers, inference::ModelConfig& config);

/// Sums since the process started, all precisions together, and the memory that weights take.
void DescribeStatistics(const ModelVersion& version, inference::ModelStatistics& statistics);

}  // namespace octet

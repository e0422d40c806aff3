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

/// The part of Triton's model configuration that clients read; dims leave the batch out.
void DescribeConfig(const ModelVersion& version, inference::ModelConfig& config);

/// Sums since the process started, all precisions together, and the memory that weights take.
void DescribeStatistics(const ModelVersion& version, inference::ModelStatistics& statistics);

}  // namespace octet

// ONNX files to graphs and back. Every byte is hostile on the way in.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/onnx/byte_source.h"
#include "engine/tensor/datum.h"

namespace octet {

/// Opsets of the default domain that Octet reads. Of 1 to 6, all that is not experimental; see ops/legacy.cc.
inline constexpr int kMinOpset = 1;
inline constexpr int kMaxOpset = 22;

struct ReadOptions {
  uint64_t max_file_bytes = uint64_t{2} << 30;    ///< protobuf's own limit, less by configuration.
  uint64_t max_tensor_bytes = uint64_t{8} << 30;  ///< Constants; shared external data count once.
};

/// Reads a model with its external data. Initializers become constant values; graph.inputs leaves them
/// out. Checks: protobuf, opset range, unique names, types of attributes, tensor sizes against shapes,
/// external data inside the model's own folder (no "..", no absolute path, no link out of it), acyclic,
/// every input defined. Whether operators exist is checked by InferShapes, not here.
/// Errors: NOT_FOUND (no file), INVALID_ARGUMENT naming file, node, operator and opset; RESOURCE_EXHAUSTED
/// over the limits; UNIMPLEMENTED for opsets or types that Octet does not know.
/// `files`, unless null, becomes the list of what was read, the model's own file first.
absl::StatusOr<Graph> ReadOnnxFile(const std::string& path, const ReadOptions& options = {},
                                   std::vector<SourceFile>* files = nullptr);
/// OK while every file is as it was. FAILED_PRECONDITION naming the first that is not.
absl::Status CheckUnchanged(std::span<const SourceFile> files);
/// The same from memory; external data is refused. `origin` names the source in messages.
absl::StatusOr<Graph> ReadOnnxBytes(std::span<const std::byte> bytes, std::string_view origin,
                                    const ReadOptions& options = {});

/// Bytes of a model on disk: those of its file, and those beside it that its tensors refer to, a range that several share
/// counted once. What they hold is not looked at. Errors: NOT_FOUND (no file), INVALID_ARGUMENT naming the file.
absl::StatusOr<uint64_t> OnnxFileBytes(const std::string& path);

/// Writes a graph that contains only ONNX (and com.microsoft) operators and no typed values; atomically
/// (temporary file, fsync, rename). INVALID_ARGUMENT for octet-domain nodes, post-ops or typed values.
absl::Status WriteOnnxFile(const Graph& graph, const std::string& path);
absl::StatusOr<std::string> WriteOnnxBytes(const Graph& graph);

/// Reads a serialized TensorProto, as in test_data_set_*/input_0.pb. Also returns its name.
struct NamedTensor {
  std::string name;
  Tensor tensor;
};
absl::StatusOr<NamedTensor> ReadTensorFile(const std::string& path);
/// Reads a serialized TensorProto, SequenceProto or OptionalProto, as ONNX's tests have them for values of that kind.
absl::StatusOr<Datum> ReadDatumFile(const std::string& path, ValueKind kind);

}  // namespace octet

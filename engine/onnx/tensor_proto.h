// ONNX TensorProto <-> Tensor, in every encoding that ONNX has for the element types that Octet knows.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <onnx/onnx_pb.h>

#include "engine/onnx/external_data.h"
#include "engine/tensor/limits.h"
#include "engine/tensor/slab.h"
#include "engine/tensor/tensor.h"

namespace octet {

/// Maps TensorProto.DataType. INVALID_ARGUMENT for UNDEFINED and for numbers that ONNX does not define;
/// UNIMPLEMENTED naming the type for complex numbers, 8-bit floats and 4-bit integers.
absl::StatusOr<DType> DTypeFromOnnx(int32_t data_type);
/// Inverse. Requires: not kUndefined.
onnx::TensorProto::DataType DTypeToOnnx(DType dtype);

/// Where a tensor with external data has them. INVALID_ARGUMENT for an offset or a length that is no number.
absl::StatusOr<ExternalRange> ExternalRangeOf(const onnx::TensorProto& proto);

/// Reads tensors against a common budget of bytes. External data of one place, type and shape are read and counted once,
/// however often they are asked for, as they are by every call of a function: the tensors share the elements.
/// Thread-safety: none.
class TensorReader {
 public:
  /// `external` reads data files, null: external data are refused. `source` is where the messages themselves come from.
  TensorReader(uint64_t max_bytes, ExternalDataReader* external, const ByteSource* source = nullptr)
      : budget_(max_bytes), external_(external), source_(source) {}

  /// Copies the elements out of `proto` into aligned memory and releases those of `proto`, so that a model
  /// is never held twice. Bools become 0 or 1.
  /// Errors, naming the tensor: INVALID_ARGUMENT when elements and shape disagree, RESOURCE_EXHAUSTED over
  /// the budget, UNIMPLEMENTED as DTypeFromOnnx, NOT_FOUND for a missing data file.
  /// `left_out`: where its raw_data is in the source, if the message came without.
  absl::StatusOr<Tensor> Read(onnx::TensorProto& proto,
                              const std::optional<ByteRange>& left_out = {});

 private:
  // Location, offset, type, shape.
  using Place = std::tuple<std::string, uint64_t, DType, std::vector<int64_t>>;

  absl::StatusOr<Tensor> ReadUnnamed(onnx::TensorProto& proto,
                                     const std::optional<ByteRange>& left_out);
  absl::StatusOr<Tensor> ReadStrings(const onnx::TensorProto& proto, Shape shape);

  uint64_t budget_;
  ExternalDataReader* external_;
  const ByteSource* source_;
  Slab memory_;
  std::map<Place, std::shared_ptr<const std::byte[]>> shared_;  // External data, once read.
};

/// Writes type, shape and elements (as raw_data, strings as string_data) into `proto`; the name stays.
void WriteTensor(const Tensor& tensor, onnx::TensorProto& proto);

}  // namespace octet

// ONNX TensorProto <-> Tensor, in every encoding that ONNX has for the element types that Octet knows.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
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

/// Maps TensorProto.DataType; INT4 and UINT4 to I8 and U8, which hold one element each. INVALID_ARGUMENT for UNDEFINED and for
/// numbers that ONNX does not define; UNIMPLEMENTED naming the type for complex numbers and 8-bit floats.
absl::StatusOr<DType> DTypeFromOnnx(int32_t data_type);
/// INT4 or UINT4: the DType does not say that its elements stay within 4 bits (onnx/four_bits.h).
bool IsFourBits(int32_t data_type);
/// "INT4" for I8, "UINT4" for U8.
std::string_view FourBitName(DType held_as);
/// Bytes of the elements in raw_data and in data files, where a byte has two elements of 4 bits.
/// Requires: DTypeFromOnnx knows the type, and the elements' own bytes fit 64 bits.
uint64_t FileBytes(int32_t data_type, int64_t elements);
/// Inverse of DTypeFromOnnx: INT8 for I8. Requires: not kUndefined.
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
  /// is never held twice. Bools become 0 or 1; what is packed two in a byte, the first in the low bits, gets a byte for each element.
  /// Errors, naming the tensor: INVALID_ARGUMENT when elements and shape disagree, RESOURCE_EXHAUSTED over
  /// the budget, UNIMPLEMENTED as DTypeFromOnnx, NOT_FOUND for a missing data file.
  /// `left_out`: where its raw_data is in the source, if the message came without.
  absl::StatusOr<Tensor> Read(onnx::TensorProto& proto,
                              const std::optional<ByteRange>& left_out = {});

 private:
  // Location, offset, TensorProto.DataType, shape.
  using Place = std::tuple<std::string, uint64_t, int32_t, std::vector<int64_t>>;

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

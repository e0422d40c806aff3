// How the elements of one input get from the wire into a model's batch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

#include "config/model_config.h"
#include "engine/engine.h"
#include "engine/tensor/wire_tensor.h"

namespace octet {

/// Converts an input as clients may send it: in the model's own type, or in another one that
/// model.yaml maps with real = scale[c] * (q - zero_point[c]), c along axis 1; these reals are FP32, rounded or widened to the
/// model's type. Immutable.
class InputRecipe {
 public:
  /// `mapping` may be null. INVALID_ARGUMENT naming the input when the mapping does not fit it: no
  /// input of reals, one of the mapping's own type, or a number of scales that is not that of its channels.
  static absl::StatusOr<InputRecipe> Make(const TensorInfo& input, const WireMapping* mapping);

  bool Accepts(DType wire) const;
  /// "FP32" or "FP32 or UINT8".
  std::string AcceptedTypes() const;
  /// True when plans read the bytes as they are.
  bool IsCopy(DType wire) const { return wire == model_dtype_ && !narrow_; }

  /// The byte that padding consists of: elements of it are 0 as plans read them.
  uint8_t zero() const;

  /// Writes wire.elements() elements to `dst` as plans read them: of the model's type, or of TensorInfo::narrow. Shape of
  /// wire: [N, C, ...]. Requires: Accepts(wire.dtype()).
  void Convert(const WireTensor& wire, void* dst) const;

 private:
  DType model_dtype_ = DType::kUndefined;
  std::optional<RealFormat> narrow_;
  std::optional<WireMapping> mapping_;
};

}  // namespace octet

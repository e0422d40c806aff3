// How a picture becomes a model's input.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "config/model_config.h"
#include "engine/engine.h"
#include "server/picture/picture.h"

namespace octet {

/// Decodes, resizes, crops and normalises, as model.yaml says: `x = (scale * pixel - mean[c]) / std[c]`. Immutable.
class PictureRecipe {
 public:
  /// For one row of `input`, whose shape tells channels, size and layout: [N,C,H,W] or [N,H,W,C], C = 3 (colours) or 1 (grey).
  /// INVALID_ARGUMENT naming the input when it is no such tensor, its size is open, it is neither of reals nor (with scale 1 and
  /// no mean or std) UINT8, or the numbers do not fit it.
  static absl::StatusOr<PictureRecipe> Make(const ModelConfig::Pipeline::Preprocess& rule,
                                            const TensorInfo& input);

  /// Writes the bytes of one row of the input to `row`. Errors: as DecodePicture. Thread-safety: safe.
  absl::Status Write(std::string_view file, PixelBudget& budget, const RunLimits& limits,
                     void* row) const;

  /// For all pictures of one request.
  PixelBudget Budget() const { return PixelBudget(kPasses * max_pixels_); }

  /// What Write writes.
  size_t row_bytes() const {
    return SizeOf(dtype_) * static_cast<size_t>(channels_) * static_cast<size_t>(width_) *
           static_cast<size_t>(height_);
  }

 private:
  /// The largest picture may be a progressive one of so many scans.
  static constexpr int64_t kPasses = 16;

  absl::Status TakeNumbers(const ModelConfig::Pipeline::Preprocess& rule, const TensorInfo& input);

  DType dtype_ = DType::kF32;
  int channels_ = 0;
  int width_ = 0;
  int height_ = 0;
  bool channels_last_ = false;
  bool bgr_ = false;
  int shorter_ = 0;  ///< 0: the whole picture, stretched.
  int64_t max_pixels_ = 0;
  bool upright_ = false;
  std::array<Tensor, 3> elements_;  ///< By channel of the input and value of a pixel.
};

}  // namespace octet

#include "server/picture/picture_recipe.h"

#include <algorithm>

#include "engine/tensor/status.h"
#include "server/picture/resample.h"

namespace octet {
namespace {

/// A JPEG is decoded smaller while it is so many times as large as it is to become: then the answer is the same but for a step
/// or two.
constexpr int kSpare = 2;

bool IsChannels(int64_t extent) { return extent == 1 || extent == 3; }

/// Writes what `count` pixels of a channel become. Words are as wide as the elements of the input.
template <typename Word>
void LookUp(const uint8_t* from, size_t from_step, const void* elements, void* to, size_t to_step,
            size_t count) {
  const auto* words = static_cast<const Word*>(elements);
  auto* out = static_cast<Word*>(to);
  for (size_t i = 0; i < count; ++i) out[i * to_step] = words[from[i * from_step]];
}

}  // namespace

absl::StatusOr<PictureRecipe> PictureRecipe::Make(const ModelConfig::Pipeline::Preprocess& rule,
                                                  const TensorInfo& input) {
  const Shape& shape = input.shape;
  const bool first = shape.rank() == 4 && IsChannels(shape[1]);
  if (shape.rank() != 4 || !(first || IsChannels(shape[3]))) {
    return InvalidArgument(
        "input \"{}\": expected a picture, [N,C,H,W] or [N,H,W,C] with C = 1 or 3, got {}",
        input.name, shape.ToString());
  }
  PictureRecipe recipe;
  recipe.channels_last_ = !first;
  recipe.channels_ = static_cast<int>(first ? shape[1] : shape[3]);
  const int64_t height = first ? shape[2] : shape[1];
  const int64_t width = first ? shape[3] : shape[2];
  if (height < 1 || width < 1 || height > kMaxPictureSide || width > kMaxPictureSide) {
    return InvalidArgument("input \"{}\": expected height and width that are known, got {}",
                           input.name, shape.ToString());
  }
  recipe.height_ = static_cast<int>(height);
  recipe.width_ = static_cast<int>(width);
  if (rule.resize != 0 && rule.resize < std::max(height, width)) {
    return InvalidArgument(
        "preprocess.resize: expected at least the input's height and width, {}, got {}",
        std::max(height, width), rule.resize);
  }
  recipe.shorter_ = rule.resize;
  recipe.bgr_ = rule.bgr;
  recipe.max_pixels_ = rule.max_pixels;
  recipe.upright_ = rule.upright;
  OCTET_RETURN_IF_ERROR(recipe.TakeNumbers(rule, input));
  return recipe;
}

absl::Status PictureRecipe::TakeNumbers(const ModelConfig::Pipeline::Preprocess& rule,
                                        const TensorInfo& input) {
  dtype_ = input.dtype;
  const bool raw = rule.scale == 1 && rule.mean.empty() && rule.std.empty();
  if (!IsFloat(dtype_) && !(dtype_ == DType::kU8 && raw)) {
    return InvalidArgument(
        "input \"{}\": expected FP32, FP16, BF16 or FP64, or UINT8 with preprocess.scale 1 and no "
        "mean or std, got {}",
        input.name, DTypeName(dtype_));
  }
  const auto count = static_cast<size_t>(channels_);
  for (const auto* list : {&rule.mean, &rule.std}) {
    if (list->size() <= 1 || list->size() == count) continue;
    return InvalidArgument("preprocess.{}: expected {} numbers, or one, got {}",
                           list == &rule.mean ? "mean" : "std", count, list->size());
  }
  const auto of = [](const std::vector<float>& list, size_t c, float otherwise) {
    return list.empty() ? otherwise : list[list.size() == 1 ? 0 : c];
  };
  for (size_t c = 0; c < count; ++c) {
    Tensor reals(DType::kF32, {256});
    for (int value = 0; value < 256; ++value) {
      const auto scaled = static_cast<float>(rule.scale * value);
      reals.mutable_span<float>()[static_cast<size_t>(value)] =
          (scaled - of(rule.mean, c, 0)) / of(rule.std, c, 1);
    }
    elements_[c] = Tensor(dtype_, reals.shape());
    ConvertTensor(reals.view(), elements_[c].mutable_view());
  }
  return absl::OkStatus();
}

absl::Status PictureRecipe::Write(std::string_view file, PixelBudget& budget,
                                  const RunLimits& limits, void* row) const {
  const int least_width = shorter_ == 0 ? width_ : shorter_;
  const int least_height = shorter_ == 0 ? height_ : shorter_;
  OCTET_ASSIGN_OR_RETURN(const Picture picture,
                         DecodePicture(file, {.channels = channels_,
                                              .max_pixels = max_pixels_,
                                              .least_width = kSpare * least_width,
                                              .least_height = kSpare * least_height,
                                              .upright = upright_,
                                              .budget = &budget,
                                              .limits = limits}));
  const Window window =
      shorter_ == 0 ? Stretched(width_, height_) : Centred(picture, shorter_, width_, height_);
  const std::vector<uint8_t> pixels = Resample(picture, window);
  const auto channels = static_cast<size_t>(channels_);
  const size_t count = pixels.size() / channels;
  const size_t pixel_step = channels_last_ ? channels : 1;
  const size_t channel_step = channels_last_ ? 1 : count;
  for (size_t c = 0; c < channels; ++c) {
    const uint8_t* from = pixels.data() + (bgr_ ? channels - 1 - c : c);
    void* to = static_cast<std::byte*>(row) + c * channel_step * SizeOf(dtype_);
    switch (SizeOf(dtype_)) {
      case sizeof(uint8_t):
        LookUp<uint8_t>(from, channels, elements_[c].data(), to, pixel_step, count);
        break;
      case sizeof(uint16_t):
        LookUp<uint16_t>(from, channels, elements_[c].data(), to, pixel_step, count);
        break;
      case sizeof(uint32_t):
        LookUp<uint32_t>(from, channels, elements_[c].data(), to, pixel_step, count);
        break;
      default:
        LookUp<uint64_t>(from, channels, elements_[c].data(), to, pixel_step, count);
        break;
    }
  }
  return absl::OkStatus();
}

}  // namespace octet

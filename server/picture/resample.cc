#include "server/picture/resample.h"

#include <algorithm>
#include <cmath>

namespace octet {
namespace {

/// Weights are whole numbers of 2^-22: the sum over 2^8 pixel values stays below 2^31.
constexpr int kFractionBits = 22;

/// What each pixel of the window's side is the sum of.
struct Axis {
  struct Taps {
    int first = 0;  ///< Source pixel.
    int count = 0;
    size_t weight = 0;  ///< Its place in `weights`.
  };
  std::vector<Taps> taps;
  std::vector<int32_t> weights;

  int begin() const { return taps.front().first; }
  int end() const { return taps.back().first + taps.back().count; }
};

/// `extent`: what of the `pixels` source pixels is picture; it becomes `full` pixels, of which [from, from + size) are wanted.
Axis MakeAxis(double extent, int pixels, int full, int from, int size) {
  const double scale = extent / full;
  const double reach = std::max(scale, 1.0);
  Axis axis;
  axis.taps.reserve(static_cast<size_t>(size));
  std::vector<double> weights;
  for (int i = from; i < from + size; ++i) {
    const double centre = (i + 0.5) * scale;
    const int first = std::clamp(static_cast<int>(std::floor(centre - reach + 0.5)), 0, pixels - 1);
    const int last =
        std::clamp(static_cast<int>(std::floor(centre + reach + 0.5)), first + 1, pixels);
    weights.clear();
    double sum = 0;
    for (int x = first; x < last; ++x) {
      weights.push_back(std::max(0.0, 1.0 - std::abs((x + 0.5 - centre) / reach)));
      sum += weights.back();
    }
    if (sum <= 0) weights[0] = sum = 1;  // a centre behind the last pixel
    axis.taps.push_back({first, last - first, axis.weights.size()});
    for (const double weight : weights) {
      axis.weights.push_back(
          static_cast<int32_t>(std::lround(weight / sum * (1 << kFractionBits))));
    }
  }
  return axis;
}

uint8_t Rounded(int32_t sum) {
  return static_cast<uint8_t>(
      std::clamp((sum + (1 << (kFractionBits - 1))) >> kFractionBits, 0, 255));
}

template <int kChannels>
void ResampleRow(const uint8_t* row, const Axis& axis, uint8_t* to) {
  for (const Axis::Taps& taps : axis.taps) {
    const uint8_t* from = row + static_cast<size_t>(taps.first) * kChannels;
    const int32_t* weights = axis.weights.data() + taps.weight;
    int32_t sums[kChannels] = {};
    for (int i = 0; i < taps.count; ++i) {
      for (int c = 0; c < kChannels; ++c) sums[c] += weights[i] * from[i * kChannels + c];
    }
    for (int c = 0; c < kChannels; ++c) *to++ = Rounded(sums[c]);
  }
}

/// The middle of `full`, `size` long; a half is rounded to the even side.
int Middle(int full, int size) { return static_cast<int>(std::nearbyint((full - size) / 2.0)); }

}  // namespace

Window Stretched(int width, int height) {
  return {.full_width = width, .full_height = height, .width = width, .height = height};
}

Window Centred(const Picture& picture, int shorter, int width, int height) {
  const int64_t least = std::min(picture.file_width, picture.file_height);
  Window window = {.width = width, .height = height};
  window.full_width = static_cast<int>(int64_t{shorter} * picture.file_width / least);
  window.full_height = static_cast<int>(int64_t{shorter} * picture.file_height / least);
  window.left = Middle(window.full_width, width);
  window.top = Middle(window.full_height, height);
  return window;
}

std::vector<uint8_t> Resample(const Picture& picture, const Window& window) {
  const Axis across =
      MakeAxis(picture.true_width, picture.width, window.full_width, window.left, window.width);
  const Axis down =
      MakeAxis(picture.true_height, picture.height, window.full_height, window.top, window.height);
  const size_t stride = static_cast<size_t>(window.width) * static_cast<size_t>(picture.channels);
  // Row by row of the picture, into the sums of the window's rows that it is part of: they follow each other, as do their ends.
  // Memory is that of the window, however long the picture is.
  std::vector<uint8_t> row(stride);
  std::vector<int32_t> sums(stride * static_cast<size_t>(window.height));
  size_t begin = 0;
  for (int y = down.begin(); y < down.end(); ++y) {
    const uint8_t* from = picture.pixels.get() + picture.stride() * static_cast<size_t>(y);
    picture.channels == 1 ? ResampleRow<1>(from, across, row.data())
                          : ResampleRow<3>(from, across, row.data());
    while (down.taps[begin].first + down.taps[begin].count <= y) ++begin;
    for (size_t i = begin; i < down.taps.size() && down.taps[i].first <= y; ++i) {
      const Axis::Taps& taps = down.taps[i];
      const int32_t weight = down.weights[taps.weight + static_cast<size_t>(y - taps.first)];
      int32_t* sum = sums.data() + i * stride;
      for (size_t x = 0; x < stride; ++x) sum[x] += weight * row[x];
    }
  }
  std::vector<uint8_t> pixels(sums.size());
  std::ranges::transform(sums, pixels.begin(), Rounded);
  return pixels;
}

}  // namespace octet

// What depthwise convolutions on kernels of our own have in common, whatever they multiply.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace octet {

/// x [n, height, width, channels] -> y [n, out_height, out_width, channels]: square kernels and strides, no dilation.
struct DepthwiseShape {
  int64_t height = 0;
  int64_t width = 0;
  int64_t channels = 0;
  int64_t out_height = 0;
  int64_t out_width = 0;
  int64_t kernel = 0;
  int64_t stride = 0;
  int64_t pad_top = 0;
  int64_t pad_left = 0;
};

/// Adjacent channels that one vector holds.
struct DepthwiseChannels {
  int64_t first = 0;
  int64_t lanes = 0;
};

/// Channels of the shortest vectors.
template <typename Element>
constexpr int64_t kLeastDepthwiseLanes = 16 / static_cast<int64_t>(sizeof(Element));

/// Whether a kernel of such elements walks over this window (depthwise_rows-inl.h): 3 x 3 and 5 x 5, strides 1 and 2, channels for a vector.
template <typename Element>
bool IsDepthwiseWindow(const DepthwiseShape& shape) {
  return (shape.kernel == 3 || shape.kernel == 5) && (shape.stride == 1 || shape.stride == 2) &&
         shape.channels >= kLeastDepthwiseLanes<Element>;
}

/// Runs of channels that cover all of them, as wide as the vectors; the last one may overlap the one before. `vector_bytes`: 16, 32 or 64.
template <typename Element>
std::vector<DepthwiseChannels> CutDepthwiseChannels(int64_t channels, int64_t vector_bytes) {
  constexpr int64_t kLeast = kLeastDepthwiseLanes<Element>;
  std::vector<DepthwiseChannels> runs;
  for (int64_t done = 0; done < channels;) {
    int64_t lanes = vector_bytes / static_cast<int64_t>(sizeof(Element));
    while (lanes > kLeast && (lanes > channels || lanes / 2 >= channels - done)) lanes /= 2;
    runs.push_back({std::min(done, channels - lanes), lanes});
    done = runs.back().first + lanes;
  }
  return runs;
}

}  // namespace octet

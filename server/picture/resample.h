// From a picture's pixels to those of another size.
#pragma once

#include <cstdint>
#include <vector>

#include "server/picture/picture.h"

namespace octet {

/// A size, and the part of it that is wanted.
struct Window {
  int full_width = 0;  ///< What the whole picture is resized to...
  int full_height = 0;
  int left = 0;  ///< ...and what of that is cut out.
  int top = 0;
  int width = 0;
  int height = 0;
  bool operator==(const Window&) const = default;
};

/// The whole picture, stretched or squeezed to width x height.
Window Stretched(int width, int height);

/// The middle of the picture, resized such that its shorter side is `shorter`: torchvision's Resize(shorter) and
/// CenterCrop((height, width)). Requires: shorter >= width, height.
Window Centred(const Picture& picture, int shorter, int width, int height);

/// Resizes by a triangle filter, which widens as pixels get fewer, and cuts the window out: the pixels of PIL's
/// `resize(size, BILINEAR).crop(...)`, of which only those in the window are computed. 8-bit, row by row, the picture's
/// channels. Source: Image.resize of PIL.
std::vector<uint8_t> Resample(const Picture& picture, const Window& window);

}  // namespace octet

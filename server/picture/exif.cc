#include "server/picture/exif.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

namespace octet {
namespace {

constexpr uint16_t kOrientationTag = 0x0112;
constexpr size_t kEntryBytes = 12;

/// Reads whole numbers of a TIFF structure in its byte order; 0 behind its end.
class TiffBytes {
 public:
  explicit TiffBytes(std::span<const uint8_t> bytes) : bytes_(bytes) {
    little_ = bytes.size() > 1 && bytes[0] == 'I' && bytes[1] == 'I';
  }
  uint32_t Read(size_t at, size_t count) const {
    if (at > bytes_.size() || count > bytes_.size() - at) return 0;
    uint32_t number = 0;
    for (size_t i = 0; i < count; ++i) {
      number = number << 8 | bytes_[little_ ? at + count - 1 - i : at + i];
    }
    return number;
  }

 private:
  std::span<const uint8_t> bytes_;
  bool little_ = false;
};

}  // namespace

int ExifOrientation(std::span<const uint8_t> segment) {
  constexpr std::string_view kStart("Exif\0\0", 6);
  if (segment.size() < kStart.size() ||
      std::memcmp(segment.data(), kStart.data(), kStart.size()) != 0) {
    return 0;
  }
  const TiffBytes tiff(segment.subspan(kStart.size()));
  if (tiff.Read(2, 2) != 42) return 0;
  const size_t directory = tiff.Read(4, 4);
  const size_t entries = tiff.Read(directory, 2);
  for (size_t i = 0; i < entries; ++i) {
    const size_t entry = directory + 2 + i * kEntryBytes;
    if (tiff.Read(entry, 2) != kOrientationTag) continue;
    const uint32_t orientation = tiff.Read(entry + 8, 2);
    return orientation >= 1 && orientation <= 8 ? static_cast<int>(orientation) : 0;
  }
  return 0;
}

void Turn(Picture& picture, int orientation) {
  if (orientation <= 1) return;
  const bool transposed = orientation >= 5;
  const bool bottom_up =
      orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
  const bool right_to_left =
      orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
  Picture turned = {.width = transposed ? picture.height : picture.width,
                    .height = transposed ? picture.width : picture.height,
                    .channels = picture.channels,
                    .true_width = transposed ? picture.true_height : picture.true_width,
                    .true_height = transposed ? picture.true_width : picture.true_height,
                    .file_width = transposed ? picture.file_height : picture.file_width,
                    .file_height = transposed ? picture.file_width : picture.file_height};
  const auto channels = static_cast<size_t>(picture.channels);
  turned.pixels = AllocatePixels(turned.stride() * static_cast<size_t>(turned.height));
  uint8_t* to = turned.pixels.get();
  for (int y = 0; y < turned.height; ++y) {
    const int down = bottom_up ? turned.height - 1 - y : y;
    for (int x = 0; x < turned.width; ++x, to += channels) {
      const int along = right_to_left ? turned.width - 1 - x : x;
      const auto row = static_cast<size_t>(transposed ? along : down);
      const auto column = static_cast<size_t>(transposed ? down : along);
      std::copy_n(picture.pixels.get() + row * picture.stride() + column * channels, channels, to);
    }
  }
  turned.memory = std::move(picture.memory);
  picture = std::move(turned);
}

}  // namespace octet

// Pictures as clients send them: JPEG and PNG, from hostile bytes to pixels.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/engine.h"
#include "server/picture/decode_memory.h"
#include "server/picture/pixel_memory.h"

namespace octet {

/// Pixels of 8 bits per channel, row by row, the channels of a pixel together: RGB, or grey.
struct Picture {
  int width = 0;
  int height = 0;
  int channels = 0;  ///< 3 or 1.
  /// What of it is picture: less than `width` and `height` by a fraction of a pixel where a JPEG was decoded
  /// smaller, else the same.
  double true_width = 0;
  double true_height = 0;
  /// The size that the file says, with the sides changed over where it was turned upright.
  int file_width = 0;
  int file_height = 0;
  PixelMemory pixels;
  DecodeMemory memory;  ///< What decoding it took.

  size_t stride() const { return static_cast<size_t>(width) * static_cast<size_t>(channels); }
};

/// The longest side that is decoded: JPEG has no longer ones.
inline constexpr int kMaxPictureSide = 65535;

/// The work that the pictures of a request may be, all together: one unit is a pixel that a pass goes over. A baseline JPEG or
/// a PNG is one pass, a progressive JPEG is one for each of its scans. Thread-safety: safe.
class PixelBudget {
 public:
  explicit PixelBudget(int64_t pixels) : left_(pixels) {}
  /// False when it is spent.
  bool Take(uint64_t pixels) {
    const auto count = static_cast<int64_t>(pixels);
    return left_.fetch_sub(count, std::memory_order_relaxed) >= count;
  }

 private:
  std::atomic<int64_t> left_;
};

struct DecodeOptions {
  int channels = 3;                       ///< 3 = RGB, 1 = grey.
  int64_t max_pixels = int64_t{1} << 25;  ///< Looked at before anything is decoded.
  int least_width =
      kMaxPictureSide;  ///< A JPEG may be decoded at a half, a quarter or an eighth of
  int least_height = kMaxPictureSide;  ///< its size while it stays at least as large as this.
  bool upright = false;                ///< Turn a JPEG as its EXIF orientation says.
  PixelBudget* budget = nullptr;       ///< Null: none.
  RunLimits limits = {};               ///< Looked at every kRowsPerLook rows.
};

/// Rows of pixels that are decoded between two looks at the limits.
inline constexpr unsigned kRowsPerLook = 16;

/// Decodes a JPEG (baseline or progressive; grey, YCbCr, RGB, CMYK, YCCK) or a PNG (all types).
///
/// The pixels are those of PIL's `Image.open(...).convert("RGB")`, or "L": an alpha channel is left out, palettes are looked
/// up, of 16 bits the upper 8 are taken, colour profiles and gamma are not applied, nor is the EXIF orientation, unless
/// `upright` says so. Two things differ: grey of a YCbCr JPEG is its Y, where PIL makes RGB of it first, which rounds and cuts
/// off colours that RGB does not have; and of a grey PNG of 16 bits, too, the upper 8 are taken, where PIL (of mode I;16) makes
/// 255 of all that is more.
/// INVALID_ARGUMENT saying what is wrong: neither of the two formats, a file that is damaged or ends early, no pixels, a side
/// over kMaxPictureSide, more pixels than max_pixels, or more work than the budget. RESOURCE_EXHAUSTED when memory does not
/// reach. As RunLimits::Check, of the limits. Never throws, takes memory in proportion to max_pixels at most, and waits while
/// others take that of DecodeMemory.
/// Thread-safety: safe.
absl::StatusOr<Picture> DecodePicture(std::string_view bytes, const DecodeOptions& options);

/// The size that a file says, and its first pass. INVALID_ARGUMENT naming the format when it has no pixels or too many.
absl::Status CheckPictureSize(std::string_view format, uint64_t width, uint64_t height,
                              const DecodeOptions& options);

/// Grey of a colour by ITU-R BT.601, as PIL rounds it: (19595 R + 38470 G + 7471 B + 2^15) / 2^16.
constexpr uint8_t GreyOf(int red, int green, int blue) {
  return static_cast<uint8_t>((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16);
}

}  // namespace octet

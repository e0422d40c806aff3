#include "server/picture/picture.h"

#include <new>

#include "engine/tensor/status.h"
#include "server/picture/jpeg_reader.h"
#include "server/picture/png_reader.h"

namespace octet {
namespace {

constexpr std::string_view kJpegStart = "\xff\xd8\xff";
constexpr std::string_view kPngStart = "\x89PNG\r\n\x1a\n";

}  // namespace

absl::Status CheckPictureSize(std::string_view format, uint64_t width, uint64_t height,
                              const DecodeOptions& options) {
  if (width < 1 || height < 1) {
    return InvalidArgument("{}: no pixels: {} x {}", format, width, height);
  }
  if (width > kMaxPictureSide || height > kMaxPictureSide) {
    return InvalidArgument("{}: sides, expected at most {} pixels, got {} x {}", format,
                           kMaxPictureSide, width, height);
  }
  if (width * height > static_cast<uint64_t>(options.max_pixels)) {
    return InvalidArgument("{}: size, expected at most {} pixels, got {} x {}", format,
                           options.max_pixels, width, height);
  }
  if (options.budget != nullptr && !options.budget->Take(width * height)) {
    return InvalidArgument("{}: size, {} x {}: too many pixels in one request", format, width,
                           height);
  }
  return absl::OkStatus();
}

absl::StatusOr<Picture> DecodePicture(std::string_view bytes, const DecodeOptions& options) {
  try {
    if (bytes.starts_with(kJpegStart)) return ReadJpeg(bytes, options);
    if (bytes.starts_with(kPngStart)) return ReadPng(bytes, options);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory to decode a picture");
  }
  return InvalidArgument("neither a JPEG nor a PNG: {} bytes", bytes.size());
}

}  // namespace octet

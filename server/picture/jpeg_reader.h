// JPEG, by libjpeg-turbo.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"

#include "server/picture/picture.h"

namespace octet {

/// As DecodePicture, of a file that begins like a JPEG.
absl::StatusOr<Picture> ReadJpeg(std::string_view bytes, const DecodeOptions& options);

}  // namespace octet

// PNG, by libpng.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"

#include "server/picture/picture.h"

namespace octet {

/// As DecodePicture, of a file that begins like a PNG.
absl::StatusOr<Picture> ReadPng(std::string_view bytes, const DecodeOptions& options);

}  // namespace octet

// Which way up a camera was held.
#pragma once

#include <cstdint>
#include <span>

#include "server/picture/picture.h"

namespace octet {

/// The orientation, 1 to 8, that an APP1 segment of a JPEG tells; 0 when it tells none.
/// Source: Exif 2.32, 4.5.4 and 4.6.4, tag 0x0112.
int ExifOrientation(std::span<const uint8_t> segment);

/// Turns and mirrors the picture so that what an EXIF orientation tells is upright; 1 leaves it.
void Turn(Picture& picture, int orientation);

}  // namespace octet

// Memory for pixels, used again and again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace octet {

/// Gives pixels back to their thread's store.
struct KeepPixels {
  size_t bytes = 0;
  void operator()(uint8_t* pixels) const;
};
using PixelMemory = std::unique_ptr<uint8_t[], KeepPixels>;

/// At least `bytes`, uninitialised. Each thread keeps what it has let go of, a few blocks of up to 16 MiB, for the next picture:
/// touching fresh pages can take longer than decoding into them. Throws std::bad_alloc. Thread-safety: safe.
PixelMemory AllocatePixels(size_t bytes);

}  // namespace octet

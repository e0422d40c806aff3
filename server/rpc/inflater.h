// zlib's decompression of what comes in pieces, within a bound.
#pragma once

#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "absl/functional/function_ref.h"

namespace octet {

/// Unpacks one body or message, to its end: what breaks off before its checksum is damaged, as is what goes on behind it. Gzip may
/// have several members, one behind the other, whose contents follow each other.
/// Thread-safety: one thread at a time. Source: RFC 1950 (deflate, as HTTP and gRPC mean it), RFC 1952 section 2.2 (gzip).
class Inflater {
 public:
  enum class Coding : uint8_t { kGzip, kDeflate };
  enum class Result : uint8_t { kOk, kTooLarge, kDamaged, kNoMemory };
  /// Returns room for more, not empty. What was returned before is full.
  using MakeRoom = absl::FunctionRef<std::span<char>()>;

  /// `most`: bytes of what is unpacked.
  Inflater(Coding coding, size_t most);
  ~Inflater();
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  /// Unpacks the next piece. kTooLarge once there is more than `most`, of which at most one room more was filled. After another
  /// result than kOk it takes no more.
  Result Take(std::string_view packed, MakeRoom make_room);
  /// All has come: kDamaged when something is missing. Nothing at all is the coding of nothing.
  Result Finish() const;
  /// Bytes of the last room that are not written.
  size_t unused() const { return stream_.avail_out; }

 private:
  enum class At : uint8_t { kNothing, kWithin, kEnd };

  const Coding coding_;
  const size_t most_;
  z_stream stream_ = {};
  const bool begun_;
  At at_ = At::kNothing;    ///< Of the stream, or the member of one.
  bool held_back_ = false;  ///< The last room was too small for what had come.
  size_t made_ = 0;
};

}  // namespace octet

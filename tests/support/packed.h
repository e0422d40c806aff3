// Texts as clients compress them.
#pragma once

#include <zlib.h>

#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace octet {

/// One member of gzip, or with window bits of 15 zlib's own stream, which HTTP calls deflate.
inline std::string Packed(std::string_view text, int window_bits = 15 + 16) {
  z_stream stream = {};
  EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

}  // namespace octet

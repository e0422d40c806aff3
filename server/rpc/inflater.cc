#include "server/rpc/inflater.h"

namespace octet {
namespace {

/// Of zlib's own wrapper, and with 16 more of gzip's. Any window fits into the largest.
constexpr int kWindowBits = 15;

}  // namespace

Inflater::Inflater(Coding coding, size_t most)
    : coding_(coding),
      most_(most),
      begun_(inflateInit2(&stream_, kWindowBits + (coding == Coding::kGzip ? 16 : 0)) == Z_OK) {}

Inflater::~Inflater() {
  if (begun_) inflateEnd(&stream_);
}

Inflater::Result Inflater::Take(std::string_view packed, MakeRoom make_room) {
  if (!begun_) return Result::kNoMemory;
  stream_.next_in =
      reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));  // NOLINT(*-cast): zlib reads it
  stream_.avail_in = static_cast<uInt>(packed.size());
  while (stream_.avail_in > 0 || held_back_) {
    if (at_ == At::kEnd) {  // Another member, or what does not belong there.
      if (coding_ != Coding::kGzip || inflateReset(&stream_) != Z_OK) return Result::kDamaged;
    }
    at_ = At::kWithin;
    if (stream_.avail_out == 0) {
      const std::span<char> room = make_room();
      stream_.next_out = reinterpret_cast<Bytef*>(room.data());  // NOLINT(*-reinterpret-cast)
      stream_.avail_out = static_cast<uInt>(room.size());
    }
    const uInt room_left = stream_.avail_out;
    const int result = inflate(&stream_, Z_NO_FLUSH);
    made_ += room_left - stream_.avail_out;
    held_back_ = result == Z_OK && stream_.avail_out == 0;
    if (made_ > most_) return Result::kTooLarge;
    if (result == Z_MEM_ERROR) return Result::kNoMemory;
    if (result == Z_BUF_ERROR) break;  // All that came is unpacked.
    if (result == Z_STREAM_END) {
      at_ = At::kEnd;
    } else if (result != Z_OK) {
      return Result::kDamaged;
    }
  }
  return Result::kOk;
}

Inflater::Result Inflater::Finish() const {
  return at_ == At::kWithin ? Result::kDamaged : Result::kOk;
}

}  // namespace octet

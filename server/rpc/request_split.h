// A ModelInferRequest before protobuf makes anything of it: tensors apart, and the rest within bounds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include <google/protobuf/io/zero_copy_stream.h>

namespace octet {

/// Views of bytes, one after the other.
class PieceStream final : public google::protobuf::io::ZeroCopyInputStream {
 public:
  explicit PieceStream(std::span<const std::string_view> pieces) : pieces_(pieces) {}

  bool Next(const void** data, int* size) override {
    while (next_ < pieces_.size() && at_ == pieces_[next_].size()) {
      ++next_;
      at_ = 0;
    }
    if (next_ == pieces_.size()) return false;
    *data = pieces_[next_].data() + at_;
    *size = static_cast<int>(pieces_[next_].size() - at_);
    Advance(pieces_[next_].size() - at_);
    return true;
  }
  void BackUp(int count) override {
    at_ -= static_cast<size_t>(count);
    count_ -= count;
  }
  bool Skip(int count) override {
    const void* data = nullptr;
    int size = 0;
    while (Next(&data, &size)) {
      if (size >= count) {
        BackUp(size - count);
        return true;
      }
      count -= size;
    }
    return count == 0;
  }
  int64_t ByteCount() const override { return count_; }

 private:
  void Advance(size_t count) {
    at_ += count;
    count_ += static_cast<int64_t>(count);
  }

  std::span<const std::string_view> pieces_;
  size_t next_ = 0;
  size_t at_ = 0;  ///< In pieces_[next_].
  int64_t count_ = 0;
};

/// The fields of a ModelInferRequest, in two heaps.
struct SplitFields {
  std::vector<std::string_view> raw;   ///< Pieces of the raw contents.
  std::vector<size_t> raw_ends;        ///< One per raw content: where its pieces end in `raw`.
  std::vector<std::string_view> rest;  ///< All other fields that are known.
};

absl::Status NoRequest();

/// Splits a message without a copy: everything in `fields` is views of `message`. Fields that nobody knows are left out.
/// INVALID_ARGUMENT when its bytes are no fields, and for more of something that takes many times its bytes in a message of
/// protobuf's, or in `fields`, than a request may have: kMaxTensors inputs, outputs or raw contents; kMaxParameters parameters, of
/// the request and of each of these, kMaxExtents extents of an input, as far as one of them is large; 256 names, versions and ids
/// together; so many bytes_contents that they would take `most_bytes` beside their characters. Refused at the first that is too
/// many: beside one view for each of those and each piece of the message nothing is kept.
absl::Status SplitRequest(std::span<const std::string_view> message, size_t most_bytes,
                          SplitFields& fields);

}  // namespace octet

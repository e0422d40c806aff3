#include "server/rpc/received_message.h"

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include <google/protobuf/descriptor.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include "engine/tensor/status.h"
#include "server/rpc/protocol_calls.h"

namespace octet {
namespace {

/// Of the slices that unpacked bytes lie in.
constexpr size_t kLeastSlice = size_t{4} << 10;
constexpr size_t kMostSlice = size_t{256} << 10;

/// What alone says how a message is compressed: gRPC's reader of it.
class CompressionReader final : public grpc::ProtoBufferReader {
 public:
  using ProtoBufferReader::ProtoBufferReader;
  grpc_compression_algorithm compression() { return reader()->buffer_in->data.raw.compression; }
};

grpc_compression_algorithm CompressionOf(const grpc::ByteBuffer& message) {
  // Looked at alone, which the reader's constructor does not say.
  return CompressionReader(const_cast<grpc::ByteBuffer*>(&message))  // NOLINT(*-const-cast)
      .compression();
}

absl::Status TooLarge(size_t most) {
  return MakeError(absl::StatusCode::kResourceExhausted,
                   "the message is too large: expected at most {} bytes", most);
}

/// zlib's decompression of one message.
class Inflater {
 public:
  explicit Inflater(size_t most) : most_(most) {}

  absl::StatusOr<std::vector<grpc::Slice>> Run(std::span<const grpc::Slice> packed,
                                               int window_bits) {
    if (inflateInit2(&stream_, window_bits) != Z_OK) {
      return absl::ResourceExhaustedError("out of memory for a request");
    }
    const absl::Cleanup end = [this] { inflateEnd(&stream_); };
    size_t bytes = 0;
    for (const grpc::Slice& slice : packed) bytes += slice.size();
    slice_bytes_ = std::clamp(4 * bytes, kLeastSlice, kMostSlice);
    for (const grpc::Slice& slice : packed) OCTET_RETURN_IF_ERROR(Take(slice));
    if (!complete_) return NotCompressed();
    if (made_.empty()) return std::move(made_);
    made_.back() = made_.back().sub(0, slice_bytes_ - stream_.avail_out);
    return std::move(made_);
  }

 private:
  static absl::Status NotCompressed() {
    return absl::InvalidArgumentError("the message is not compressed as it says");
  }

  absl::Status Take(const grpc::Slice& slice) {
    stream_.next_in = const_cast<Bytef*>(slice.begin());  // NOLINT(*-const-cast): zlib reads it
    stream_.avail_in = static_cast<uInt>(slice.size());
    while (stream_.avail_in > 0 || (stream_.avail_out == 0 && !complete_ && !made_.empty())) {
      if (complete_) return NotCompressed();  // Something is left behind its end.
      if (stream_.avail_out == 0) AddSlice();
      const int result = inflate(&stream_, Z_NO_FLUSH);
      if (stream_.total_out > most_) return TooLarge(most_);
      if (result == Z_BUF_ERROR) break;  // All that came is unpacked.
      if (result != Z_OK && result != Z_STREAM_END) return NotCompressed();
      complete_ = result == Z_STREAM_END;
    }
    return absl::OkStatus();
  }

  void AddSlice() {
    const grpc::Slice& slice = made_.emplace_back(slice_bytes_);
    stream_.next_out = const_cast<Bytef*>(slice.begin());  // NOLINT(*-const-cast): it is new
    stream_.avail_out = static_cast<uInt>(slice_bytes_);
  }

  const size_t most_;
  size_t slice_bytes_ = 0;
  z_stream stream_ = {};
  bool complete_ = false;
  std::vector<grpc::Slice> made_;
};

}  // namespace

absl::StatusOr<std::vector<grpc::Slice>> ReadSlices(const grpc::ByteBuffer& message, size_t most) {
  std::vector<grpc::Slice> slices;
  if (message.Length() == 0) return slices;  // An empty message is one, whatever it says of itself.
  if (!message.Dump(&slices).ok()) {
    return absl::InternalError("the slices of a message cannot be read");
  }
  if (message.Length() > most) return TooLarge(most);
  constexpr int kWindowBits = 15;  // Of zlib: any window; and with 16 more: in gzip's wrapper.
  switch (CompressionOf(message)) {
    case GRPC_COMPRESS_NONE:
      return slices;
    case GRPC_COMPRESS_GZIP:
      return Inflater(most).Run(slices, kWindowBits + 16);
    case GRPC_COMPRESS_DEFLATE:
      return Inflater(most).Run(slices, kWindowBits);
    default:
      return absl::UnimplementedError("a message's compression: expected gzip or deflate");
  }
}

absl::Status ReadMessage(const grpc::ByteBuffer& message, google::protobuf::Message& read) {
  OCTET_ASSIGN_OR_RETURN(const std::vector<grpc::Slice> slices,
                         ReadSlices(message, kMaxControlBytes));
  std::string bytes;
  for (const grpc::Slice& slice : slices) bytes.append(slice.begin(), slice.end());
  if (read.ParseFromString(bytes)) return absl::OkStatus();
  return InvalidArgument("the message is not a {}", std::string_view(read.GetDescriptor()->name()));
}

grpc::ByteBuffer WriteMessage(const google::protobuf::Message& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return {&slice, 1};
}

}  // namespace octet

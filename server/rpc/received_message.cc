#include "server/rpc/received_message.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <google/protobuf/descriptor.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include "engine/tensor/status.h"
#include "server/rpc/inflater.h"
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

absl::Status StatusOf(Inflater::Result result, size_t most) {
  switch (result) {
    case Inflater::Result::kOk:
      return absl::OkStatus();
    case Inflater::Result::kTooLarge:
      return TooLarge(most);
    case Inflater::Result::kNoMemory:
      return absl::ResourceExhaustedError("out of memory for a request");
    case Inflater::Result::kDamaged:
      break;
  }
  return absl::InvalidArgumentError("the message is not compressed as it says");
}

absl::StatusOr<std::vector<grpc::Slice>> Unpack(std::span<const grpc::Slice> packed,
                                                Inflater::Coding coding, size_t most) {
  size_t bytes = 0;
  for (const grpc::Slice& slice : packed) bytes += slice.size();
  const size_t slice_bytes = std::clamp(4 * bytes, kLeastSlice, kMostSlice);
  std::vector<grpc::Slice> made;
  const auto make_room = [&] {
    const grpc::Slice& slice = made.emplace_back(slice_bytes);
    auto* begin = const_cast<uint8_t*>(slice.begin());  // NOLINT(*-const-cast): it is new
    return std::span(reinterpret_cast<char*>(begin), slice_bytes);  // NOLINT(*-reinterpret-cast)
  };
  Inflater inflater(coding, most);
  for (const grpc::Slice& slice : packed) {
    const std::string_view piece(reinterpret_cast<const char*>(slice.begin()),  // NOLINT(*-cast)
                                 slice.size());
    OCTET_RETURN_IF_ERROR(StatusOf(inflater.Take(piece, make_room), most));
  }
  OCTET_RETURN_IF_ERROR(StatusOf(inflater.Finish(), most));
  if (!made.empty()) made.back() = made.back().sub(0, slice_bytes - inflater.unused());
  return made;
}

}  // namespace

absl::StatusOr<std::vector<grpc::Slice>> ReadSlices(const grpc::ByteBuffer& message, size_t most) {
  std::vector<grpc::Slice> slices;
  if (message.Length() == 0) return slices;  // An empty message is one, whatever it says of itself.
  if (!message.Dump(&slices).ok()) {
    return absl::InternalError("the slices of a message cannot be read");
  }
  if (message.Length() > most) return TooLarge(most);
  switch (CompressionOf(message)) {
    case GRPC_COMPRESS_NONE:
      return slices;
    case GRPC_COMPRESS_GZIP:
      return Unpack(slices, Inflater::Coding::kGzip, most);
    case GRPC_COMPRESS_DEFLATE:
      return Unpack(slices, Inflater::Coding::kDeflate, most);
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

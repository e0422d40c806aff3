#include "server/rpc/grpc_inference.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <new>
#include <span>
#include <tuple>
#include <utility>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include "engine/tensor/status.h"
#include "server/rpc/received_message.h"
#include "server/rpc/request_split.h"
#include "server/rpc/response_writer.h"

namespace octet {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedOutputStream;

constexpr uint32_t TagOf(int field) {
  return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
}
constexpr uint32_t kRawOutputs =
    TagOf(inference::ModelInferResponse::kRawOutputContentsFieldNumber);
constexpr uint32_t kStreamAnswer =
    TagOf(inference::ModelStreamInferResponse::kInferResponseFieldNumber);

/// The parts of a message that is sent.
class MessageParts {
 public:
  void Tag(uint32_t tag, uint64_t size) {
    std::array<uint8_t, 15> bytes;
    uint8_t* end = CodedOutputStream::WriteTagToArray(tag, bytes.data());
    end = CodedOutputStream::WriteVarint64ToArray(size, end);
    text_.append(bytes.begin(), end);
  }
  void Copy(std::string_view bytes) { text_.append(bytes); }
  /// Sends the bytes from where they are in `owner`.
  void Share(std::string_view bytes, const std::shared_ptr<GrpcInference>& owner) {
    Flush();
    const auto release = [](void* kept) {
      delete static_cast<std::shared_ptr<GrpcInference>*>(kept);
    };
    auto kept = std::make_unique<std::shared_ptr<GrpcInference>>(owner);
    // gRPC does not write there: a slice of its own is all that may be written.
    slices_.emplace_back(const_cast<char*>(bytes.data()), bytes.size(), release,
                         kept.get());  // NOLINT(*-const-cast)
    std::ignore = kept.release();      // the slice's
  }
  grpc::ByteBuffer Take() {
    Flush();
    return {slices_.data(), slices_.size()};
  }

 private:
  void Flush() {
    if (!text_.empty() || slices_.empty()) slices_.emplace_back(text_);
    text_.clear();
  }

  std::vector<grpc::Slice> slices_;
  std::string text_;
};

/// Bytes of a field with `size` bytes, its tag and size included.
uint64_t FieldBytes(uint32_t tag, uint64_t size) {
  return CodedOutputStream::VarintSize32(tag) + CodedOutputStream::VarintSize64(size) + size;
}

absl::StatusOr<grpc::ByteBuffer> Write(const std::shared_ptr<GrpcInference>& call, bool in_stream) {
  std::vector<std::string_view> raws;
  for (int i = 0; i < call->response.raw_output_contents_size(); ++i) {
    raws.push_back(call->RawOutput(i));
  }
  // The strings stay where they are.
  call->sent.Swap(call->response.mutable_raw_output_contents());
  const std::string head = call->response.SerializeAsString();
  uint64_t size = head.size();
  for (const std::string_view raw : raws) size += FieldBytes(kRawOutputs, raw.size());
  if (FieldBytes(kStreamAnswer, size) > std::numeric_limits<int>::max()) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     "the answer is too large for a message: at most {} bytes, got {}",
                     std::numeric_limits<int>::max(), size);
  }
  MessageParts parts;
  if (in_stream) parts.Tag(kStreamAnswer, size);
  parts.Copy(head);
  for (const std::string_view raw : raws) {
    parts.Tag(kRawOutputs, raw.size());
    if (raw.size() < kLeastShared) {
      parts.Copy(raw);
    } else {
      parts.Share(raw, call);
    }
  }
  return parts.Take();
}

/// What Triton says of each answer in a stream; its clients' loops end by it.
void MarkFinal(inference::ModelInferResponse& response) {
  (*response.mutable_parameters())["triton_final_response"].set_bool_param(true);
}

absl::StatusOr<grpc::ByteBuffer> WriteAnswer(const std::shared_ptr<GrpcInference>& call,
                                             bool in_stream) {
  try {
    return Write(call, in_stream);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory for an answer");
  }
}

absl::Status Read(const grpc::ByteBuffer& message, size_t most_bytes, GrpcInference& call) {
  OCTET_ASSIGN_OR_RETURN(call.received, ReadSlices(message, most_bytes));
  std::vector<std::string_view> slices;
  for (const grpc::Slice& slice : call.received) {
    slices.emplace_back(reinterpret_cast<const char*>(slice.begin()),  // NOLINT(*-reinterpret-cast)
                        slice.size());
  }
  SplitFields fields;
  OCTET_RETURN_IF_ERROR(SplitRequest(slices, most_bytes, fields));
  if (PieceStream rest(fields.rest); !call.request.ParseFromZeroCopyStream(&rest)) {
    return NoRequest();
  }
  // As RawInputsOf says; before anything is made for each of these, too.
  const int inputs = call.request.inputs_size();
  if (std::ssize(fields.raw_ends) > inputs) {
    return InvalidArgument("raw_input_contents: expected one per input ({}), got {}", inputs,
                           fields.raw_ends.size());
  }
  if (fields.raw_ends.empty()) {
    call.received.clear();  // All of it is in the message.
    return absl::OkStatus();
  }
  for (const std::string_view slice : slices) call.bytes += slice.size();
  call.pieces = std::move(fields.raw);
  size_t begin = 0;
  for (const size_t end : fields.raw_ends) {
    call.raw_contents.emplace_back(std::span(call.pieces).subspan(begin, end - begin));
    begin = end;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadInferRequest(const grpc::ByteBuffer& message, size_t most_bytes,
                              GrpcInference& call) {
  absl::Status status;
  try {
    status = Read(message, most_bytes, call);
  } catch (const std::bad_alloc&) {
    status = absl::ResourceExhaustedError("out of memory for a request");
  }
  // What was half read may be no UTF-8.
  if (!status.ok()) call.request.Clear();
  return status;
}

absl::StatusOr<grpc::ByteBuffer> WriteInferResponse(const std::shared_ptr<GrpcInference>& call) {
  return WriteAnswer(call, false);
}

absl::StatusOr<grpc::ByteBuffer> WriteStreamResponse(const std::shared_ptr<GrpcInference>& call) {
  MarkFinal(call->response);
  return WriteAnswer(call, true);
}

grpc::ByteBuffer WriteStreamError(const std::string& id, const std::string& message) {
  inference::ModelStreamInferResponse response;
  response.set_error_message(message);
  response.mutable_infer_response()->set_id(id);
  MarkFinal(*response.mutable_infer_response());
  const grpc::Slice slice(response.SerializeAsString());
  return {&slice, 1};
}

}  // namespace octet

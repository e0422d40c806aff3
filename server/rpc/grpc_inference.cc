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
#include <google/protobuf/io/zero_copy_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include "engine/tensor/status.h"
#include "server/rpc/response_writer.h"

namespace octet {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;

constexpr uint32_t TagOf(int field) {
  return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
}
constexpr uint32_t kRawInputs = TagOf(inference::ModelInferRequest::kRawInputContentsFieldNumber);
constexpr uint32_t kRawOutputs =
    TagOf(inference::ModelInferResponse::kRawOutputContentsFieldNumber);
constexpr uint32_t kInputs = TagOf(inference::ModelInferRequest::kInputsFieldNumber);
constexpr uint32_t kOutputs = TagOf(inference::ModelInferRequest::kOutputsFieldNumber);
constexpr uint32_t kParameters = TagOf(inference::ModelInferRequest::kParametersFieldNumber);
constexpr uint32_t kStreamAnswer =
    TagOf(inference::ModelStreamInferResponse::kInferResponseFieldNumber);

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

/// Appends the views of the next `size` bytes. `joins`: to the last one, where they follow it.
bool TakePieces(CodedInputStream& input, size_t size, bool joins,
                std::vector<std::string_view>& pieces) {
  while (size > 0) {
    const void* data = nullptr;
    int available = 0;
    if (!input.GetDirectBufferPointer(&data, &available)) return false;
    const size_t taken = std::min(size, static_cast<size_t>(available));
    if (!input.Skip(static_cast<int>(taken))) return false;
    const std::string_view piece(static_cast<const char*>(data), taken);
    if (joins && !pieces.empty() && pieces.back().data() + pieces.back().size() == piece.data()) {
      pieces.back() = {pieces.back().data(), pieces.back().size() + taken};
    } else {
      pieces.push_back(piece);
    }
    size -= taken;
  }
  return true;
}

/// The fields of a message, in two heaps.
struct SplitFields {
  std::vector<std::string_view> raw;   ///< Pieces of the raw contents.
  std::vector<size_t> raw_ends;        ///< One per raw content: where its pieces end in `raw`.
  std::vector<std::string_view> rest;  ///< All other fields.
  /// Of the message itself: what an input or output holds is not looked into.
  int inputs = 0;
  int outputs = 0;
  int parameters = 0;
};

absl::Status NoRequest() {
  return absl::InvalidArgumentError("the message is not a ModelInferRequest");
}

/// False when the bytes are no fields. The stream is at the beginning of a field between two calls of ReadTag, so that what
/// lies between two raw contents is taken as it is.
bool Split(std::span<const std::string_view> message, SplitFields& fields) {
  PieceStream walked(message);
  PieceStream copied(message);
  CodedInputStream input(&walked);
  CodedInputStream rest(&copied);
  while (true) {
    const int begin = input.CurrentPosition();
    const uint32_t tag = input.ReadTag();
    if (tag == 0) return input.ConsumedEntireMessage();
    uint32_t size = 0;
    fields.inputs += tag == kInputs ? 1 : 0;
    fields.outputs += tag == kOutputs ? 1 : 0;
    fields.parameters += tag == kParameters ? 1 : 0;
    if (tag != kRawInputs) {
      if (!WireFormatLite::SkipField(&input, tag)) return false;
      const int length = input.CurrentPosition() - begin;
      if (!TakePieces(rest, static_cast<size_t>(length), true, fields.rest)) return false;
      continue;
    }
    if (!input.ReadVarint32(&size) || size > std::numeric_limits<int>::max()) return false;
    if (!TakePieces(input, size, false, fields.raw)) return false;
    fields.raw_ends.push_back(fields.raw.size());
    if (!rest.Skip(input.CurrentPosition() - begin)) return false;
  }
}

absl::Status CheckCount(std::string_view name, int count, int most) {
  if (count <= most) return absl::OkStatus();
  return InvalidArgument("{}: expected at most {}, got {}", name, most, count);
}

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

absl::Status Read(const grpc::ByteBuffer& message, GrpcInference& call) {
  // An empty message has no slices, and is one.
  if (message.Valid() && !message.Dump(&call.received).ok()) {
    return absl::InternalError("the slices of a message cannot be read");
  }
  std::vector<std::string_view> slices;
  for (const grpc::Slice& slice : call.received) {
    slices.emplace_back(reinterpret_cast<const char*>(slice.begin()),  // NOLINT(*-reinterpret-cast)
                        slice.size());
  }
  SplitFields fields;
  if (!Split(slices, fields)) return NoRequest();
  // Before anything is made for each of them.
  OCTET_RETURN_IF_ERROR(CheckCount("inputs", fields.inputs, kMaxTensors));
  OCTET_RETURN_IF_ERROR(CheckCount("outputs", fields.outputs, kMaxTensors));
  OCTET_RETURN_IF_ERROR(CheckCount("parameters", fields.parameters, kMaxParameters));
  if (PieceStream rest(fields.rest); !call.request.ParseFromZeroCopyStream(&rest)) {
    return NoRequest();
  }
  // As RawInputsOf says; before anything is made for each of these, too.
  const int inputs = call.request.inputs_size();
  if (std::ssize(fields.raw_ends) > inputs) {
    return InvalidArgument("raw_input_contents: expected one per input ({}), got {}", inputs,
                           fields.raw_ends.size());
  }
  call.pieces = std::move(fields.raw);
  size_t begin = 0;
  for (const size_t end : fields.raw_ends) {
    call.raw_contents.emplace_back(std::span(call.pieces).subspan(begin, end - begin));
    begin = end;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadInferRequest(const grpc::ByteBuffer& message, GrpcInference& call) {
  absl::Status status;
  try {
    status = Read(message, call);
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

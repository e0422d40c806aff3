#include "server/rpc/request_split.h"

#include <limits>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include "engine/tensor/status.h"
#include "proto/inference.pb.h"
#include "server/rpc/infer_messages.h"

namespace octet {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

constexpr uint32_t FieldTag(
    int field, WireFormatLite::WireType type = WireFormatLite::WIRETYPE_LENGTH_DELIMITED) {
  return WireFormatLite::MakeTag(field, type);
}

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

/// Counts one more, while it is read: millions of them must not be kept before they are refused.
absl::Status CountOne(std::string_view name, int& count, int most) {
  if (++count <= most) return absl::OkStatus();
  return InvalidArgument("{}: expected at most {}, got more", name, most);
}

/// Goes over the fields of a request before protobuf makes anything of them, and counts what takes many times its bytes then.
/// The stream is at the beginning of a field between two calls of ReadTag, so that what lies between two raw contents is taken
/// as it is.
class RequestWalk {
 public:
  RequestWalk(std::span<const std::string_view> message, size_t most_bytes, SplitFields& fields)
      : walked_(message),
        copied_(message),
        input_(&walked_),
        rest_(&copied_),
        most_strings_(most_bytes / kStringBytes),
        fields_(fields) {}

  /// INVALID_ARGUMENT when the bytes are no fields, or have more of something than a request may.
  absl::Status Run() {
    while (true) {
      const int begin = input_.CurrentPosition();
      const uint32_t tag = input_.ReadTag();
      if (tag == 0) break;
      OCTET_ASSIGN_OR_RETURN(const bool kept, Field(tag));
      const int length = input_.CurrentPosition() - begin;
      const bool taken = kept ? TakePieces(rest_, static_cast<size_t>(length), true, fields_.rest)
                              : rest_.Skip(length);
      if (!taken) return NoRequest();
    }
    return input_.ConsumedEntireMessage() ? absl::OkStatus() : NoRequest();
  }

 private:
  using Request = inference::ModelInferRequest;
  using Input = Request::InferInputTensor;
  using Output = Request::InferRequestedOutputTensor;
  using Contents = inference::InferTensorContents;
  using Value = inference::InferParameter;

  /// What protobuf takes for one of bytes_contents beside its characters.
  static constexpr size_t kStringBytes = 48;
  /// What is smaller is not looked into: for as many as there may be of it, that takes tens of megabytes at most. Most requests
  /// have nothing larger beside their raw contents.
  static constexpr uint32_t kLeastWalked = 1024;
  /// Of all messages in the request together. Those of the request itself are left out, so that they take nothing.
  static constexpr int kMaxUnknown = 256;
  /// Of the fields of the request that are no lists, all together.
  static constexpr int kMaxNames = 256;

  /// Goes over a field of the request; says whether protobuf gets it.
  absl::StatusOr<bool> Field(uint32_t tag) {
    absl::Status walked;
    switch (tag) {
      case FieldTag(Request::kRawInputContentsFieldNumber):
        OCTET_RETURN_IF_ERROR(CountOne("raw_input_contents", raw_inputs_, kMaxTensors));
        OCTET_RETURN_IF_ERROR(RawInput());
        return false;
      case FieldTag(Request::kInputsFieldNumber):
        OCTET_RETURN_IF_ERROR(CountOne("inputs", inputs_, kMaxTensors));
        walked = InputTensor();
        break;
      case FieldTag(Request::kOutputsFieldNumber):
        OCTET_RETURN_IF_ERROR(CountOne("outputs", outputs_, kMaxTensors));
        walked = OutputTensor();
        break;
      case FieldTag(Request::kParametersFieldNumber):
        OCTET_RETURN_IF_ERROR(CountOne("parameters", parameters_, kMaxParameters));
        walked = Parameter(kLeastWalked);
        break;
      case FieldTag(Request::kModelNameFieldNumber):
      case FieldTag(Request::kModelVersionFieldNumber):
      case FieldTag(Request::kIdFieldNumber):
        // The last of each counts; between others that are left out each would be a piece of its own.
        OCTET_RETURN_IF_ERROR(CountOne("model_name, model_version, id", names_, kMaxNames));
        walked = Skip(tag);
        break;
      default:
        OCTET_RETURN_IF_ERROR(Skip(tag));
        return false;
    }
    OCTET_RETURN_IF_ERROR(walked);
    return true;
  }

  absl::Status RawInput() {
    uint32_t size = 0;
    if (!input_.ReadVarint32(&size) || size > std::numeric_limits<int>::max()) return NoRequest();
    if (!TakePieces(input_, size, false, fields_.raw)) return NoRequest();
    fields_.raw_ends.push_back(fields_.raw.size());
    return absl::OkStatus();
  }

  absl::Status InputTensor() {
    int parameters = 0;
    int extents = 0;
    return Message(
        [&](uint32_t tag) -> absl::Status {
          switch (tag) {
            case FieldTag(Input::kNameFieldNumber):
            case FieldTag(Input::kDatatypeFieldNumber):
              return Skip(tag);
            case FieldTag(Input::kShapeFieldNumber):
              return PackedShape(extents);
            case FieldTag(Input::kShapeFieldNumber, WireFormatLite::WIRETYPE_VARINT):
              OCTET_RETURN_IF_ERROR(CheckRank(extents));
              return Skip(tag);
            case FieldTag(Input::kParametersFieldNumber):
              OCTET_RETURN_IF_ERROR(CountOne("parameters", parameters, kMaxParameters));
              return Parameter();
            case FieldTag(Input::kContentsFieldNumber):
              return TypedContents();
            default:
              return Unknown(tag);
          }
        },
        kLeastWalked);
  }

  absl::Status OutputTensor() {
    int parameters = 0;
    return Message(
        [&](uint32_t tag) -> absl::Status {
          switch (tag) {
            case FieldTag(Output::kNameFieldNumber):
              return Skip(tag);
            case FieldTag(Output::kParametersFieldNumber):
              OCTET_RETURN_IF_ERROR(CountOne("parameters", parameters, kMaxParameters));
              return Parameter();
            default:
              return Unknown(tag);
          }
        },
        kLeastWalked);
  }

  absl::Status TypedContents() {
    return Message([&](uint32_t tag) -> absl::Status {
      if (tag == FieldTag(Contents::kBytesContentsFieldNumber) && ++strings_ > most_strings_) {
        return InvalidArgument("bytes_contents: expected at most {} elements, got more",
                               most_strings_);
      }
      return IsElements(tag) ? Skip(tag) : Unknown(tag);
    });
  }

  /// Numbers come packed or one by one.
  static bool IsElements(uint32_t tag) {
    const int field = WireFormatLite::GetTagFieldNumber(tag);
    switch (WireFormatLite::GetTagWireType(tag)) {
      case WireFormatLite::WIRETYPE_LENGTH_DELIMITED:
        return field <= Contents::kBytesContentsFieldNumber;
      case WireFormatLite::WIRETYPE_VARINT:
        return field <= Contents::kUint64ContentsFieldNumber;
      case WireFormatLite::WIRETYPE_FIXED32:
        return field == Contents::kFp32ContentsFieldNumber;
      case WireFormatLite::WIRETYPE_FIXED64:
        return field == Contents::kFp64ContentsFieldNumber;
      default:
        return false;
    }
  }

  /// An entry of a map of parameters: its key and an InferParameter.
  absl::Status Parameter(uint32_t least = 0) {
    constexpr int kKey = 1;
    constexpr int kValue = 2;
    return Message(
        [&](uint32_t tag) -> absl::Status {
          if (tag == FieldTag(kKey)) return Skip(tag);
          if (tag != FieldTag(kValue)) return Unknown(tag);
          return Message([&](uint32_t choice) {
            switch (choice) {
              case FieldTag(Value::kBoolParamFieldNumber, WireFormatLite::WIRETYPE_VARINT):
              case FieldTag(Value::kInt64ParamFieldNumber, WireFormatLite::WIRETYPE_VARINT):
              case FieldTag(Value::kUint64ParamFieldNumber, WireFormatLite::WIRETYPE_VARINT):
              case FieldTag(Value::kDoubleParamFieldNumber, WireFormatLite::WIRETYPE_FIXED64):
              case FieldTag(Value::kStringParamFieldNumber):
                return Skip(choice);
              default:
                return Unknown(choice);
            }
          });
        },
        least);
  }

  absl::Status PackedShape(int& extents) {
    uint32_t size = 0;
    if (!input_.ReadVarint32(&size) || size > std::numeric_limits<int>::max()) return NoRequest();
    const auto limit = input_.PushLimit(static_cast<int>(size));
    while (input_.BytesUntilLimit() > 0) {
      uint64_t extent = 0;
      if (!input_.ReadVarint64(&extent)) return NoRequest();
      OCTET_RETURN_IF_ERROR(CheckRank(extents));
    }
    input_.PopLimit(limit);
    return absl::OkStatus();
  }

  /// Calls `field` with each tag of the message that begins here, unless it has fewer than `least` bytes.
  template <typename FieldWalk>
  absl::Status Message(FieldWalk field, uint32_t least = 0) {
    uint32_t size = 0;
    if (!input_.ReadVarint32(&size) || size > std::numeric_limits<int>::max()) return NoRequest();
    if (size < least) {
      return input_.Skip(static_cast<int>(size)) ? absl::OkStatus() : NoRequest();
    }
    const auto limit = input_.PushLimit(static_cast<int>(size));
    while (const uint32_t tag = input_.ReadTag()) {
      // A group holds any number of fields of its own; nobody sends one.
      const auto type = WireFormatLite::GetTagWireType(tag);
      if (type == WireFormatLite::WIRETYPE_START_GROUP) return NoRequest();
      OCTET_RETURN_IF_ERROR(field(tag));
    }
    if (!input_.ConsumedEntireMessage()) return NoRequest();
    input_.PopLimit(limit);
    return absl::OkStatus();
  }

  absl::Status Skip(uint32_t tag) {
    return WireFormatLite::SkipField(&input_, tag) ? absl::OkStatus() : NoRequest();
  }
  absl::Status Unknown(uint32_t tag) {
    if (++unknown_ > kMaxUnknown) {
      return InvalidArgument("unknown fields: expected at most {}, got more", kMaxUnknown);
    }
    return Skip(tag);
  }

  static absl::Status CheckRank(int& extents) {
    if (++extents <= kMaxExtents) return absl::OkStatus();
    return InvalidArgument("shape: expected at most {} extents, got more", kMaxExtents);
  }

  PieceStream walked_;
  PieceStream copied_;
  CodedInputStream input_;
  CodedInputStream rest_;
  const size_t most_strings_;
  SplitFields& fields_;
  int inputs_ = 0;
  int outputs_ = 0;
  int parameters_ = 0;
  int raw_inputs_ = 0;
  int names_ = 0;
  size_t strings_ = 0;
  int unknown_ = 0;
};

}  // namespace

absl::Status NoRequest() {
  return absl::InvalidArgumentError("the message is not a ModelInferRequest");
}

absl::Status SplitRequest(std::span<const std::string_view> message, size_t most_bytes,
                          SplitFields& fields) {
  return RequestWalk(message, most_bytes, fields).Run();
}

}  // namespace octet

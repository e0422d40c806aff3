#include "server/http/json_writer.h"

#include <array>
#include <charconv>
#include <cmath>
#include <vector>

#include <google/protobuf/descriptor.h>

#include "engine/tensor/bytes_elements.h"
#include "engine/tensor/status.h"
#include "engine/tensor/utf8.h"

namespace octet {
namespace {

using google::protobuf::FieldDescriptor;
using ProtoMessage = google::protobuf::Message;
using google::protobuf::Reflection;

template <typename T>
void AppendNumber(T value, std::string& json) {
  if constexpr (std::is_floating_point_v<T>) {
    if (std::isnan(value)) {
      json += "NaN";
      return;
    }
    if (std::isinf(value)) {
      json += value < 0 ? "-Infinity" : "Infinity";
      return;
    }
  }
  std::array<char, 32> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  json.append(digits.data(), end);
}

/// Appends one value of a field: the `index`th of a repeated one, or with index < 0 the only one.
void AppendField(const ProtoMessage& message, const FieldDescriptor& field, int index,
                 std::string& json) {
  const Reflection& r = *message.GetReflection();
  const bool repeated = index >= 0;
#define OCTET_FIELD(Type) \
  (repeated ? r.GetRepeated##Type(message, &field, index) : r.Get##Type(message, &field))
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return AppendNumber(OCTET_FIELD(Int32), json);
    case FieldDescriptor::CPPTYPE_INT64:
      return AppendNumber(OCTET_FIELD(Int64), json);
    case FieldDescriptor::CPPTYPE_UINT32:
      return AppendNumber(OCTET_FIELD(UInt32), json);
    case FieldDescriptor::CPPTYPE_UINT64:
      return AppendNumber(OCTET_FIELD(UInt64), json);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return AppendNumber(OCTET_FIELD(Double), json);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return AppendNumber(OCTET_FIELD(Float), json);
    case FieldDescriptor::CPPTYPE_BOOL:
      json += OCTET_FIELD(Bool) ? "true" : "false";
      return;
    case FieldDescriptor::CPPTYPE_ENUM:
      return AppendJsonText(OCTET_FIELD(Enum)->name(), json);
    case FieldDescriptor::CPPTYPE_STRING:
      return AppendJsonText(OCTET_FIELD(String), json);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return AppendJsonMessage(OCTET_FIELD(Message), json);
  }
#undef OCTET_FIELD
}

/// Appends a map: its entries are messages with the fields key and value.
void AppendMap(const ProtoMessage& message, const FieldDescriptor& field, std::string& json) {
  const Reflection& r = *message.GetReflection();
  json += '{';
  for (int i = 0; i < r.FieldSize(message, &field); ++i) {
    const ProtoMessage& entry = r.GetRepeatedMessage(message, &field, i);
    const auto& entry_type = *entry.GetDescriptor();
    if (i > 0) json += ',';
    AppendField(entry, *entry_type.map_key(), -1, json);
    json += ':';
    AppendField(entry, *entry_type.map_value(), -1, json);
  }
  json += '}';
}

void AppendRepeated(const ProtoMessage& message, const FieldDescriptor& field, std::string& json) {
  json += '[';
  for (int i = 0; i < message.GetReflection()->FieldSize(message, &field); ++i) {
    if (i > 0) json += ',';
    AppendField(message, field, i, json);
  }
  json += ']';
}

template <typename T>
void AppendAll(std::string_view raw, std::string& json) {
  for (size_t at = 0; at < raw.size(); at += sizeof(T)) {
    T value;
    std::memcpy(&value, raw.data() + at, sizeof(T));
    if (at > 0) json += ',';
    AppendNumber(value, json);
  }
}

/// BOOL: of a byte that a client sent, and a model passed on, any but 0 is true.
void AppendTruths(std::string_view raw, std::string& json) {
  for (size_t i = 0; i < raw.size(); ++i) {
    if (i > 0) json += ',';
    json += raw[i] != 0 ? "true" : "false";
  }
}

absl::Status AppendStrings(const Shape& shape, std::string_view raw, std::string& json) {
  std::vector<std::string_view> elements;
  OCTET_RETURN_IF_ERROR(ReadBytesElements(raw, static_cast<uint64_t>(shape.elements()), elements));
  for (size_t i = 0; i < elements.size(); ++i) {
    if (i > 0) json += ',';
    AppendJsonText(elements[i], json);
  }
  return absl::OkStatus();
}

}  // namespace

void AppendJsonText(std::string_view text, std::string& json) {
  json += '"';
  for (size_t at = 0; at < text.size();) {
    const CodePoint next = DecodeUtf8(text, at);
    const char c = text[at];
    if (!next.valid) {
      json += "\uFFFD";
    } else if (c == '"' || c == '\\') {
      json += '\\';
      json += c;
    } else if (c == '\n') {
      json += "\\n";
    } else if (next.point < 0x20) {
      json += Format("\\u{:04x}", static_cast<int>(c));
    } else {
      json += text.substr(at, next.bytes);
    }
    at += next.bytes;
  }
  json += '"';
}

void AppendJsonMessage(const ProtoMessage& message, std::string& json) {
  const auto& type = *message.GetDescriptor();
  const Reflection& r = *message.GetReflection();
  json += '{';
  bool first = true;
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (field.has_presence() && !r.HasField(message, &field)) continue;
    if (!first) json += ',';
    first = false;
    AppendJsonText(field.name(), json);
    json += ':';
    if (field.is_map()) {
      AppendMap(message, field, json);
    } else if (field.is_repeated()) {
      AppendRepeated(message, field, json);
    } else {
      AppendField(message, field, -1, json);
    }
  }
  json += '}';
}

void AppendJsonArray(const ProtoMessage& message, const std::string& field, std::string& json) {
  AppendRepeated(message, *message.GetDescriptor()->FindFieldByName(field), json);
}

absl::Status AppendJsonElements(DType dtype, const Shape& shape, std::string_view raw,
                                std::string& json) {
  json += '[';
  switch (dtype) {
    case DType::kBool:
      AppendTruths(raw, json);
      break;
#define OCTET_ELEMENTS(kDType, Type) \
  case DType::kDType:                \
    AppendAll<Type>(raw, json);      \
    break;
      OCTET_ELEMENTS(kI8, int8_t)
      OCTET_ELEMENTS(kU8, uint8_t)
      OCTET_ELEMENTS(kI16, int16_t)
      OCTET_ELEMENTS(kU16, uint16_t)
      OCTET_ELEMENTS(kI32, int32_t)
      OCTET_ELEMENTS(kU32, uint32_t)
      OCTET_ELEMENTS(kI64, int64_t)
      OCTET_ELEMENTS(kU64, uint64_t)
      OCTET_ELEMENTS(kF32, float)
      OCTET_ELEMENTS(kF64, double)
#undef OCTET_ELEMENTS
    case DType::kF16:
    case DType::kBF16: {
      Tensor reals(DType::kF32, shape);
      // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): the shape says how long it is
      ConvertTensor({raw.data(), {dtype, shape}}, reals.mutable_view());
      AppendAll<float>({static_cast<const char*>(reals.data()), reals.bytes()}, json);
      break;
    }
    case DType::kString:
      OCTET_RETURN_IF_ERROR(AppendStrings(shape, raw, json));
      break;
    case DType::kUndefined:
      return Internal("an output without a datatype");
  }
  json += ']';
  return absl::OkStatus();
}

}  // namespace octet

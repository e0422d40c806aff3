#include "server/http/json_reader.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <type_traits>
#include <vector>

#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr std::string_view kNotANumber = "NaN";
constexpr std::string_view kInfinity = "Infinity";

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

/// The length of the number that `text` begins with, by RFC 8259's grammar; 0 = none.
size_t NumberLength(std::string_view text) {
  size_t at = text.starts_with('-') ? 1 : 0;
  const std::string_view rest = text.substr(at);
  if (rest.starts_with(kInfinity)) return at + kInfinity.size();
  if (at == 0 && rest.starts_with(kNotANumber)) return kNotANumber.size();
  const auto digits = [&] {
    const size_t begin = at;
    while (at < text.size() && IsDigit(text[at])) ++at;
    return at - begin;
  };
  const bool zero = rest.starts_with('0');
  const size_t whole = digits();
  if (whole == 0 || (zero && whole > 1)) return 0;
  if (at < text.size() && text[at] == '.') {
    ++at;
    if (digits() == 0) return 0;
  }
  if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    ++at;
    if (at < text.size() && (text[at] == '+' || text[at] == '-')) ++at;
    if (digits() == 0) return 0;
  }
  return at;
}

void AppendUtf8(uint32_t code, std::string& text) {
  const auto put = [&](uint32_t byte) { text += static_cast<char>(byte); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xC0 | (code >> 6));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
  }
  put(0x80 | (code & 0x3F));
}

}  // namespace

void JsonReader::Blanks() {
  while (at_ < text_.size() &&
         (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) {
    ++at_;
  }
}

bool JsonReader::Take(char c) {
  Blanks();
  if (at_ == text_.size() || text_[at_] != c) return false;
  ++at_;
  return true;
}

JsonReader::Kind JsonReader::Next() {
  Blanks();
  if (at_ == text_.size()) return Kind::kNothing;
  switch (text_[at_]) {
    case '{':
      return Kind::kObject;
    case '[':
      return Kind::kArray;
    case '"':
      return Kind::kText;
    case 't':
    case 'f':
      return Kind::kTruth;
    case 'n':
      return Kind::kNull;
    case '-':
    case 'N':
    case 'I':
      return Kind::kNumber;
    default:
      return IsDigit(text_[at_]) ? Kind::kNumber : Kind::kNothing;
  }
}

absl::Status JsonReader::Expected(std::string_view what) {
  Blanks();
  if (at_ >= text_.size()) return InvalidArgument("JSON: expected {}, got the end", what);
  constexpr size_t kShown = 20;
  return InvalidArgument("JSON: expected {}, got `{}` at byte {}", what, text_.substr(at_, kShown),
                         at_);
}

absl::Status JsonReader::Object(absl::FunctionRef<absl::Status(const std::string& key)> member) {
  if (!Take('{')) return Expected("an object");
  if (++depth_ > kMaxDepth) return Expected("values less deep in each other");
  constexpr size_t kWatched = 64;
  std::vector<std::string> keys;
  std::string key;
  for (bool first = true; !Take('}'); first = false) {
    if (!first && !Take(',')) return Expected("`,` or `}`");
    if (Next() != Kind::kText) return Expected("a key");
    OCTET_RETURN_IF_ERROR(Text(key));
    if (std::ranges::find(keys, key) != keys.end()) {
      return InvalidArgument("JSON: the key \"{}\" comes twice in an object", key);
    }
    if (keys.size() < kWatched) keys.push_back(key);
    if (!Take(':')) return Expected("`:`");
    OCTET_RETURN_IF_ERROR(member(key));
  }
  --depth_;
  return absl::OkStatus();
}

absl::Status JsonReader::Array(absl::FunctionRef<absl::Status()> element) {
  if (!Take('[')) return Expected("an array");
  if (++depth_ > kMaxDepth) return Expected("values less deep in each other");
  for (bool first = true; !Take(']'); first = false) {
    if (!first && !Take(',')) return Expected("`,` or `]`");
    OCTET_RETURN_IF_ERROR(element());
  }
  --depth_;
  return absl::OkStatus();
}

absl::Status JsonReader::Leaves(absl::FunctionRef<absl::Status()> leaf) {
  return Array([&]() -> absl::Status { return Next() == Kind::kArray ? Leaves(leaf) : leaf(); });
}

absl::StatusOr<uint32_t> JsonReader::Hex4() {
  uint32_t code = 0;
  const char* begin = text_.data() + at_;
  const char* end = begin + std::min<size_t>(4, text_.size() - at_);
  const auto [stopped, error] = std::from_chars(begin, end, code, 16);
  if (error != std::errc() || stopped != begin + 4) return Expected("four hexadecimal digits");
  at_ += 4;
  return code;
}

absl::Status JsonReader::Escape(std::string& text) {
  constexpr std::string_view kEscapes = "\"\\/bfnrt";
  constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
  if (at_ == text_.size()) return Expected("an escaped character");
  const size_t simple = kEscapes.find(text_[at_]);
  if (simple != std::string_view::npos) {
    text += kMeanings[simple];
    ++at_;
    return absl::OkStatus();
  }
  if (text_[at_] != 'u') return Expected("an escaped character");
  ++at_;
  OCTET_ASSIGN_OR_RETURN(uint32_t code, Hex4());
  if (code >= 0xDC00 && code <= 0xDFFF) return Expected("the first half of the pair before");
  if (code >= 0xD800 && code <= 0xDBFF) {
    if (!text_.substr(at_).starts_with("\\u")) return Expected("the second half of a pair");
    at_ += 2;
    OCTET_ASSIGN_OR_RETURN(const uint32_t low, Hex4());
    if (low < 0xDC00 || low > 0xDFFF) return Expected("the second half of the pair before");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  }
  AppendUtf8(code, text);
  return absl::OkStatus();
}

absl::Status JsonReader::Text(std::string& text) {
  text.clear();
  if (!Take('"')) return Expected("text");
  while (true) {
    size_t end = at_;
    while (end < text_.size() && text_[end] != '"' && text_[end] != '\\' &&
           static_cast<unsigned char>(text_[end]) >= 0x20) {
      ++end;
    }
    text += text_.substr(at_, end - at_);
    at_ = end;
    if (at_ == text_.size()) return Expected("the end of a text");
    if (text_[at_] == '"') break;
    if (text_[at_] != '\\') return InvalidArgument("JSON: a control character at byte {}", at_);
    ++at_;
    OCTET_RETURN_IF_ERROR(Escape(text));
  }
  ++at_;
  return absl::OkStatus();
}

absl::Status JsonReader::Literal(std::string_view word) {
  if (!text_.substr(at_).starts_with(word)) return Expected(word);
  at_ += word.size();
  return absl::OkStatus();
}

absl::StatusOr<bool> JsonReader::Truth() {
  if (Next() != Kind::kTruth) return Expected("true or false");
  const bool truth = text_[at_] == 't';
  OCTET_RETURN_IF_ERROR(Literal(truth ? "true" : "false"));
  return truth;
}

absl::StatusOr<std::string_view> JsonReader::Number() {
  Blanks();
  const size_t length = NumberLength(text_.substr(at_));
  if (length == 0) return Expected("a number");
  const std::string_view number = text_.substr(at_, length);
  at_ += length;
  return number;
}

absl::Status JsonReader::SkipValue() {
  switch (Next()) {
    case Kind::kObject:
      return Object([this](const std::string&) { return SkipValue(); });
    case Kind::kArray:
      return Array([this] { return SkipValue(); });
    case Kind::kText: {
      std::string unused;
      return Text(unused);
    }
    case Kind::kNumber:
      return Number().status();
    case Kind::kTruth:
      return Truth().status();
    case Kind::kNull:
      return Literal("null");
    case Kind::kNothing:
      break;
  }
  return Expected("a value");
}

absl::StatusOr<std::string_view> JsonReader::Skip() {
  Blanks();
  const size_t begin = at_;
  OCTET_RETURN_IF_ERROR(SkipValue());
  return text_.substr(begin, at_ - begin);
}

absl::Status JsonReader::End() {
  Blanks();
  return at_ == text_.size() ? absl::OkStatus() : Expected("the end");
}

template <typename T>
absl::StatusOr<T> ConvertNumber(std::string_view number) {
  T value{};
  const char* end = number.data() + number.size();
  if constexpr (std::is_floating_point_v<T>) {
    if (number == kNotANumber) return std::numeric_limits<T>::quiet_NaN();
    if (number.ends_with(kInfinity)) {
      return number[0] == '-' ? -std::numeric_limits<T>::infinity()
                              : std::numeric_limits<T>::infinity();
    }
  }
  // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): `end` says how long it is
  const auto [stopped, error] = std::from_chars(number.data(), end, value);
  if (error == std::errc() && stopped == end) return value;
  if constexpr (std::is_floating_point_v<T>) {
    // Too large, or too small, which rounds to zero or to the smallest number.
    const double real = std::strtod(std::string(number).c_str(), nullptr);
    if (std::abs(real) < 1) return static_cast<T>(real);
    return InvalidArgument("expected a number up to {}, got {}", std::numeric_limits<T>::max(),
                           number);
  } else {
    return InvalidArgument("expected a whole number in {} .. {}, got {}",
                           std::numeric_limits<T>::min(), std::numeric_limits<T>::max(), number);
  }
}

template absl::StatusOr<int8_t> ConvertNumber(std::string_view);
template absl::StatusOr<int16_t> ConvertNumber(std::string_view);
template absl::StatusOr<int32_t> ConvertNumber(std::string_view);
template absl::StatusOr<int64_t> ConvertNumber(std::string_view);
template absl::StatusOr<uint8_t> ConvertNumber(std::string_view);
template absl::StatusOr<uint16_t> ConvertNumber(std::string_view);
template absl::StatusOr<uint32_t> ConvertNumber(std::string_view);
template absl::StatusOr<uint64_t> ConvertNumber(std::string_view);
template absl::StatusOr<float> ConvertNumber(std::string_view);
template absl::StatusOr<double> ConvertNumber(std::string_view);

absl::Status ReadObject(std::string_view text,
                        absl::FunctionRef<absl::Status(JsonReader&, const std::string&)> member) {
  JsonReader json(text);
  if (json.End().ok()) return absl::OkStatus();
  OCTET_RETURN_IF_ERROR(json.Object([&](const std::string& key) { return member(json, key); }));
  return json.End();
}

}  // namespace octet

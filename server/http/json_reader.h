// JSON from the front, value by value: a tensor's text goes into its elements without a tree between.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace octet {

/// Reads one document. Beside RFC 8259 the numbers NaN, Infinity and -Infinity, as Python's json and
/// other servers of the protocol write and read them. Values lie at most kMaxDepth deep.
/// Errors are INVALID_ARGUMENT: what was expected, what came, and at which byte. A reader that has
/// failed is of no more use.
class JsonReader {
 public:
  enum class Kind : uint8_t { kNothing, kObject, kArray, kText, kNumber, kTruth, kNull };
  static constexpr int kMaxDepth = 64;

  /// The text outlives the reader.
  explicit JsonReader(std::string_view text) : text_(text) {}

  /// What the next character begins.
  Kind Next();

  /// Calls `member` for each key of an object; it reads the value, all of it. INVALID_ARGUMENT for a
  /// key that comes twice among the first 64.
  absl::Status Object(absl::FunctionRef<absl::Status(const std::string& key)> member);
  /// Calls `element` for each element of an array; it reads it.
  absl::Status Array(absl::FunctionRef<absl::Status()> element);
  /// Calls `leaf` for each value that is no array, however deep in arrays, in order; it reads it.
  absl::Status Leaves(absl::FunctionRef<absl::Status()> leaf);

  /// Replaces `text`.
  absl::Status Text(std::string& text);
  absl::StatusOr<bool> Truth();
  /// The number's characters, to be converted by who knows its type.
  absl::StatusOr<std::string_view> Number();
  /// Passes over a value and returns its characters, which are JSON.
  absl::StatusOr<std::string_view> Skip();
  /// Nothing but blanks is left.
  absl::Status End();

  /// INVALID_ARGUMENT for the next value.
  absl::Status Expected(std::string_view what);

 private:
  void Blanks();
  bool Take(char c);
  absl::Status Literal(std::string_view word);
  absl::Status Escape(std::string& text);
  absl::StatusOr<uint32_t> Hex4();
  absl::Status SkipValue();

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
};

/// Reads a text that is empty or one object: calls `member` for each key; it reads the value.
absl::Status ReadObject(std::string_view text,
                        absl::FunctionRef<absl::Status(JsonReader&, const std::string&)> member);

/// The number as a T, rounded to nearest where T is real. INVALID_ARGUMENT when it is not in T's range, or
/// T is whole and the number is not.
template <typename T>
absl::StatusOr<T> ConvertNumber(std::string_view number);

}  // namespace octet

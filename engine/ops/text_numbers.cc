#include "engine/ops/text_numbers.h"

#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "absl/strings/escaping.h"

#include "engine/ops/dispatch.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr auto kTextNumbers = kNumberAndBoolKernels + Types<Half, BFloat16>{};

/// Calls fn<T>() for the T of `types` whose DType is `dtype`.
template <typename... Ts, typename Fn>
void WithNumberType(Types<Ts...>, DType dtype, const Fn& fn) {
  (void)((DTypeOf<Ts> == dtype && (fn.template operator()<Ts>(), true)) || ...);
}

std::string DigitsOf(auto value, std::chars_format format) {
  // The largest FP64 has 309 digits, the smallest 1074 behind the point: but that one is not written out.
  std::array<char, 400> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, format).ptr;
  return {buffer.data(), end};
}

template <typename T>
std::string TextOfReal(T value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "INF" : "-INF";
  constexpr int kPlainDigits = std::is_same_v<T, float> ? 8 : 16;
  std::string scientific = DigitsOf(value, std::chars_format::scientific);
  const size_t e = scientific.find('e');
  int exponent = 0;
  const char* digits = scientific.data() + e + (scientific[e + 1] == '+' ? 2 : 1);
  std::from_chars(digits, scientific.data() + scientific.size(), exponent);
  const bool plain = -4 <= exponent && exponent < kPlainDigits;
  return plain ? DigitsOf(value, std::chars_format::fixed) : scientific;
}

template <typename T>
std::string TextOf(T value) {
  if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>) {
    return TextOfReal(ToFloat(value));
  } else if constexpr (std::is_floating_point_v<T>) {
    return TextOfReal(value);
  } else {
    return std::to_string(value);
  }
}

std::string_view WithoutSpaceAround(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\v\f\r";
  text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
  return text.substr(0, text.find_last_not_of(kSpace) + 1);
}

/// All of `text` as a T; nullopt when it is none, or out of T's range.
template <typename T>
std::optional<T> Parsed(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

template <typename T>
std::optional<T> ParseNumber(std::string_view text) {
  if constexpr (std::is_same_v<T, Half>) {
    const std::optional<float> value = ParseNumber<float>(text);
    return value ? std::optional(ToHalf(*value)) : std::nullopt;
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    const std::optional<float> value = ParseNumber<float>(text);
    return value ? std::optional(ToBFloat16(*value)) : std::nullopt;
  } else if constexpr (std::is_same_v<T, bool>) {
    const std::optional<double> value = Parsed<double>(text);
    return value ? std::optional(*value != 0) : std::nullopt;
  } else if constexpr (std::is_same_v<T, float>) {
    if (const std::optional<float> value = Parsed<float>(text)) return value;
    // Too large or too small for FP32: an infinity or 0.
    const std::optional<double> wide = Parsed<double>(text);
    return wide ? std::optional(static_cast<float>(*wide)) : std::nullopt;
  } else if constexpr (std::is_same_v<T, double>) {
    return Parsed<double>(text);
  } else {
    if (const std::optional<T> value = Parsed<T>(text)) return value;
    const std::optional<double> real = Parsed<double>(text);
    // Exact in FP64: the type's least number, and the first one behind its largest.
    constexpr double kLeast = static_cast<double>(std::numeric_limits<T>::min());
    constexpr T kHalf = std::numeric_limits<T>::max() / 2 + 1;
    constexpr double kEnd = 2.0 * static_cast<double>(kHalf);
    if (!real || !(std::trunc(*real) >= kLeast && std::trunc(*real) < kEnd)) return std::nullopt;
    return static_cast<T>(*real);
  }
}

/// Some of a string for a message: it may be long, and hold anything.
std::string Excerpt(std::string_view text) {
  constexpr size_t kMost = 40;
  return absl::CHexEscape(std::string(text.substr(0, kMost))) + (text.size() > kMost ? "..." : "");
}

}  // namespace

Tensor TextOfNumbers(const Tensor& numbers) {
  std::vector<std::string> texts;
  texts.reserve(static_cast<size_t>(numbers.elements()));
  WithNumberType(kTextNumbers, numbers.dtype(), [&]<typename T>() {
    for (const T number : numbers.span<T>()) texts.push_back(TextOf(number));
  });
  return Tensor::Strings(numbers.shape(),
                         std::vector<std::string_view>(texts.begin(), texts.end()));
}

absl::StatusOr<Tensor> NumbersInText(const Tensor& texts, DType dtype) {
  Tensor numbers(dtype, texts.shape());
  absl::Status status;
  const std::span<const std::string_view> from = texts.span<std::string_view>();
  WithNumberType(kTextNumbers, dtype, [&]<typename T>() {
    for (size_t i = 0; i < from.size() && status.ok(); ++i) {
      std::string_view text = WithoutSpaceAround(from[i]);
      const bool sign = text.size() > 1 && text[0] == '+' && text[1] != '-';
      const std::optional<T> number = ParseNumber<T>(sign ? text.substr(1) : text);
      if (number) {
        numbers.mutable_span<T>()[i] = *number;
      } else {
        status = InvalidArgument("element {} is no number of {}: '{}'", i, DTypeName(dtype),
                                 Excerpt(from[i]));
      }
    }
  });
  if (!status.ok()) return status;
  return numbers;
}

}  // namespace octet

#include "cli/load/load_target.h"

#include <charconv>

#include "engine/tensor/status.h"

namespace octet::cli {

absl::StatusOr<LoadTarget> LoadTarget::Parse(std::string_view text) {
  constexpr double kMostWeight = 1e6;
  LoadTarget target;
  std::string_view who = text;
  if (const size_t equals = text.rfind('='); equals != std::string_view::npos) {
    who = text.substr(0, equals);
    const std::string_view weight = text.substr(equals + 1);
    const char* const begin = weight.data();
    const char* const end = begin + weight.size();
    const auto [stop, error] = std::from_chars(begin, end, target.weight);
    if (error != std::errc() || stop != end || !(target.weight > 0 && target.weight <= kMostWeight))
      return InvalidArgument("a model's weight is a number from 0 to {}, got \"{}\"", kMostWeight,
                             text);
  }
  const size_t at = who.rfind('@');
  target.model = who.substr(0, at);
  if (at != std::string_view::npos) target.precision = who.substr(at + 1);
  if (target.model.empty() || (at != std::string_view::npos && target.precision.empty()))
    return InvalidArgument("a model is NAME[@PRECISION][=WEIGHT], got \"{}\"", text);
  return target;
}

}  // namespace octet::cli

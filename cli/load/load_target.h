// Whom a load asks: models, precisions and their shares.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace octet::cli {

struct LoadTarget {
  std::string model;
  std::string precision;  ///< Asked for; empty: what the server chooses.
  double weight = 1;      ///< Share of the requests, relative to the others'.

  /// "NAME[@PRECISION][=WEIGHT]". INVALID_ARGUMENT naming the text without a name, with an empty precision, or unless the
  /// weight is in (0, 1e6].
  static absl::StatusOr<LoadTarget> Parse(std::string_view text);
};

}  // namespace octet::cli

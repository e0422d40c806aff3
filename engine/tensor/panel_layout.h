// Matrices in panels of columns.
#pragma once

#include <cstdint>

namespace octet {

/// Where the elements of B [K, N] are: in panels of `width` columns, zeros behind column N and row K. Rows of a panel are
/// behind each other, groups of `group` rows column by column: element (k, n) is at
///
///   n / width * pitch + (k / group * width + n % width) * group + k % group
///
/// oneDNN's BA16a64b (f32, group 1), BA16a64b2a (bf16, group 2) and BA16a64b4a (int8, group 4) are of this kind.
struct PanelLayout {
  int64_t k = 0;
  int64_t n = 0;
  int64_t width = 0;  ///< 16, 32, 48 or 64.
  int64_t group = 1;
  int64_t pitch = 0;  ///< Elements between panels.

  int64_t panel_count() const { return (n + width - 1) / width; }
};

}  // namespace octet

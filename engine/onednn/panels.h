// Matrices in panels of columns: what oneDNN's products want constant weights in. Packed here, at the speed of memory, and
// where the matrix itself lies if nobody needs it any more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"

namespace octet::onednn {

/// B [K, N] in panels of `width` columns, groups of `group` rows behind each other in them, column by column: element (k, n) is at
///
///   n / width * K * width + (k / group * width + n % width) * group + k % group
///
/// (BA16a64b: group 1, BA16a64b2a: 2, BA16a64b4a: 4). Behind all elements are, for each of `sum_factors`, N numbers of 32 bits: this
/// factor times the sum of each column, which oneDNN takes zero points out with.
struct Panels {
  int64_t k = 0;
  int64_t n = 0;  ///< A multiple of width.
  int64_t width = 0;
  int64_t group = 1;
  int64_t block = 1;  ///< Rows that K is a multiple of, itself one of group.
  size_t element_bytes = 0;
  bool turned = false;  ///< The matrix to be packed lies column by column.
  std::vector<int32_t> sum_factors = {};

  int64_t panel_count() const { return n / width; }
  size_t row_bytes() const { return static_cast<size_t>(n) * element_bytes; }
};

/// `to` as panels that a matrix as `from` says, row behind row or column behind column and of the same type, is packed into;
/// nullopt for any other layout.
std::optional<Panels> PanelsOf(const dnnl::memory::desc& from, const dnnl::memory::desc& to);

/// Packs B into `out`, which has the bytes of the layout; on the calling thread's OpenMP team. Requires: they do not overlap.
void PackPanels(const Panels& panels, const std::byte* matrix, std::byte* out);

/// The same where the matrix lies, of which 2 MB or a block of rows is elsewhere at a time. Each few rows become tiles, panels of these rows
/// alone, and the tiles are moved to where they belong; columns lie at their panel's place already.
///
///   rows 0-1 | rows 2-3 | ..  =>  tiles of rows 0-1 | of rows 2-3 | ..  =>  panel 0 | panel 1 | ..
///
/// Requires: `matrix` has room for the bytes of the layout.
void PackPanelsInPlace(const Panels& panels, std::byte* matrix);

}  // namespace octet::onednn

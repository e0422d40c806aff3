// Matrices in panels of columns: what oneDNN's products want constant weights in. Packed here, at the speed of memory, and
// where the matrix itself lies if nobody needs it any more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"

#include "engine/tensor/panel_layout.h"

namespace octet::onednn {

/// The layout of weights [K, N] of F32, BF16 or S8 where it is one of panels, whose groups of rows are words of 32 bits; nullopt for any other.
std::optional<PanelLayout> PanelLayoutOf(const dnnl::memory::desc& weights);

/// What oneDNN puts behind 8-bit weights [K, N] and their padding, which it takes zero points out with: for each of these factors the factor times the
/// sum of each column, as numbers of 32 bits, padding included. None where nothing is behind them; nullopt where it is anything else, or the
/// elements are not those that were packed. Packs a panel of ones to find out, since descriptors do not tell. Requires: a blocked layout.
std::optional<std::vector<int32_t>> SumFactorsOf(const dnnl::memory::desc& to);
/// Adds the sums of the columns of a matrix that lies row by row or column by column, as `from` says, from `matrix` on.
void AddColumnSums(const int8_t* matrix, const dnnl::memory::desc& from, std::span<int32_t> sums);
/// Writes each factor times the sums.
void WriteSums(std::span<const int32_t> factors, std::span<const int32_t> sums, std::byte* out);

/// How a matrix becomes panels without padding.
struct Panels : PanelLayout {
  size_t element_bytes = 0;
  bool turned = false;  ///< The matrix to be packed lies column by column.
  std::vector<int32_t> sum_factors = {};

  size_t row_bytes() const { return static_cast<size_t>(n) * element_bytes; }
};

/// `to` as panels that a matrix as `from` says, row behind row or column behind column and of the same type, is packed into;
/// nullopt for any other layout.
std::optional<Panels> PanelsOf(const dnnl::memory::desc& from, const dnnl::memory::desc& to);

/// Packs B into `out`, which has the bytes of the layout; on the calling thread's OpenMP team. Requires: they do not overlap.
void PackPanels(const Panels& panels, const std::byte* matrix, std::byte* out);

/// The same where the matrix lies, of which 2 MB or a group of rows is elsewhere at a time. Each few rows become tiles, panels of these rows
/// alone, and the tiles are moved to where they belong; columns lie at their panel's place already.
///
///   rows 0-1 | rows 2-3 | ..  =>  tiles of rows 0-1 | of rows 2-3 | ..  =>  panel 0 | panel 1 | ..
///
/// Requires: `matrix` has room for the bytes of the layout.
void PackPanelsInPlace(const Panels& panels, std::byte* matrix);

}  // namespace octet::onednn

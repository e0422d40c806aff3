#include "engine/onednn/panels.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "engine/onednn/runtime.h"
#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/in_place.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/tensor.h"
#include "engine/tensor/transpose_words.h"

namespace octet::onednn {
namespace {

using MatrixDims = dnnl::memory::dims;

/// Of what is elsewhere while a matrix is packed in place, unless the rows of one block have more: rows and tiles stay in a core's caches.
constexpr size_t kTilesBytes = size_t{2} << 20;
/// Of a column, likewise: such parts of a panel's columns stay in the caches.
constexpr int64_t kPartWords = 512;
/// Bytes that a thread packs at least.
constexpr int64_t kPackGrain = int64_t{1} << 18;

OCTET_CPU_CLONES
void InterleavePairs(const uint16_t* rows, int64_t pitch, int64_t count, uint16_t* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[2 * i] = rows[i];
    out[2 * i + 1] = rows[pitch + i];
  }
}

OCTET_CPU_CLONES
void InterleaveQuads(const uint8_t* rows, int64_t pitch, int64_t count, uint8_t* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[4 * i] = rows[i];
    out[4 * i + 1] = rows[pitch + i];
    out[4 * i + 2] = rows[2 * pitch + i];
    out[4 * i + 3] = rows[3 * pitch + i];
  }
}

OCTET_CPU_CLONES
void AddRow(const int8_t* row, int64_t count, int32_t* sums) {
  for (int64_t i = 0; i < count; ++i) sums[i] += row[i];
}

OCTET_CPU_CLONES
int32_t SumOf(const int8_t* elements, int64_t count) {
  int32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += elements[i];
  return sum;
}

// One group of rows, as far as one panel reaches.
void PackGroup(const Panels& panels, const std::byte* rows, std::byte* out) {
  if (panels.group == 1) {
    std::memcpy(out, rows, static_cast<size_t>(panels.width) * sizeof(float));
  } else if (panels.group == 2) {
    InterleavePairs(reinterpret_cast<const uint16_t*>(rows), panels.n, panels.width,
                    reinterpret_cast<uint16_t*>(out));
  } else {
    InterleaveQuads(reinterpret_cast<const uint8_t*>(rows), panels.n, panels.width,
                    reinterpret_cast<uint8_t*>(out));
  }
}

// Packs `count` rows into panels of so many rows, and adds them to the sums of the columns, where there are such.
void PackRows(const Panels& panels, const std::byte* rows, int64_t count, std::byte* out,
              std::span<int32_t> sums) {
  const auto bytes = static_cast<int64_t>(panels.element_bytes);
  const int64_t panel_bytes = count * panels.width * bytes;
  const auto pack = [&](int64_t first, int64_t last) {
    for (int64_t k = 0; k < count; ++k) {
      const std::byte* row = rows + k * panels.n * bytes;
      if (k % panels.group == 0) {
        for (int64_t panel = first; panel < last; ++panel)
          PackGroup(panels, row + panel * panels.width * bytes,
                    out + panel * panel_bytes + k * panels.width * bytes);
      }
      if (sums.empty()) continue;
      const int64_t begin = first * panels.width;
      AddRow(reinterpret_cast<const int8_t*>(row) + begin, (last - first) * panels.width,
             sums.data() + begin);
    }
  };
  ParallelFor(panels.panel_count(), 1 + kPackGrain / panel_bytes, pack);
}

// Calls fn(words, panel) for each panel of a matrix that lies column by column, with the words of its columns, which its sums have been taken of.
template <typename Bytes, typename Fn>
void ForPanelsOfColumns(const Panels& panels, Bytes* matrix, std::span<int32_t> sums,
                        const Fn& fn) {
  const auto panel_bytes = static_cast<int64_t>(panels.element_bytes) * panels.k * panels.width;
  ParallelFor(panels.panel_count(), 1 + kPackGrain / panel_bytes, [&](int64_t first, int64_t last) {
    for (int64_t panel = first; panel < last; ++panel) {
      Bytes* columns = matrix + panel * panel_bytes;
      for (int64_t i = 0; i < panels.width && !sums.empty(); ++i)
        sums[static_cast<size_t>(panel * panels.width + i)] =
            SumOf(reinterpret_cast<const int8_t*>(columns) + i * panels.k, panels.k);
      fn(columns, panel * panel_bytes);
    }
  });
}

// Groups of rows are words.
void PackColumns(const Panels& panels, const std::byte* matrix, std::byte* out,
                 std::span<int32_t> sums) {
  const int64_t words = panels.k / panels.group;
  ForPanelsOfColumns(panels, matrix, sums, [&](const std::byte* columns, int64_t place) {
    TransposeWords(reinterpret_cast<const uint32_t*>(columns), words, panels.width, words,
                   reinterpret_cast<uint32_t*>(out + place), panels.width);
  });
}

std::vector<int32_t> NoSums(const Panels& panels) {
  return std::vector<int32_t>(panels.sum_factors.empty() ? 0 : static_cast<size_t>(panels.n));
}

void WriteSums(const Panels& panels, std::span<const int32_t> sums, std::byte* packed) {
  std::byte* out = packed + static_cast<size_t>(panels.k) * panels.row_bytes();
  for (const int32_t factor : panels.sum_factors) {
    for (const int32_t sum : sums) {
      const int32_t number = factor * sum;
      std::memcpy(out, &number, sizeof(number));
      out += sizeof(number);
    }
  }
}

// Where tiles [columns, rows] come from, which were [rows, columns].
std::vector<int64_t> TransposedTiles(int64_t rows, int64_t columns) {
  std::vector<int64_t> sources(static_cast<size_t>(rows * columns));
  for (int64_t place = 0; place < rows * columns; ++place)
    sources[static_cast<size_t>(place)] = place % rows * columns + place / rows;
  return sources;
}

// The largest divisor of `count` that is not above `most`; 1 at least.
int64_t DivisorUpTo(int64_t most, int64_t count) {
  int64_t divisor = std::clamp<int64_t>(most, 1, count);
  while (count % divisor != 0) --divisor;
  return divisor;
}

void PackRowsInPlace(const Panels& panels, std::byte* matrix, std::span<int32_t> sums) {
  const size_t block_bytes = static_cast<size_t>(panels.block) * panels.row_bytes();
  const int64_t blocks =
      DivisorUpTo(static_cast<int64_t>(kTilesBytes / block_bytes), panels.k / panels.block);
  const int64_t count = blocks * panels.block;
  const size_t bytes = static_cast<size_t>(blocks) * block_bytes;
  const std::shared_ptr<std::byte[]> tiles = AllocateAligned(bytes);
  for (int64_t k = 0; k < panels.k; k += count) {
    std::byte* rows = matrix + static_cast<size_t>(k) * panels.row_bytes();
    PackRows(panels, rows, count, tiles.get(), sums);
    std::memcpy(rows, tiles.get(), bytes);
  }
  const size_t tile_bytes = bytes / static_cast<size_t>(panels.panel_count());
  PermuteBlocks(matrix, tile_bytes, TransposedTiles(panels.k / count, panels.panel_count()),
                tiles.get());
}

// A panel's columns are cut into parts, and all first parts are put side by side, all second ones, ..; these are transposed one by one.
void PackColumnsInPlace(const Panels& panels, std::byte* matrix, std::span<int32_t> sums) {
  const int64_t words = panels.k / panels.group;
  const int64_t part = DivisorUpTo(kPartWords, words);
  const size_t part_bytes = static_cast<size_t>(part) * sizeof(uint32_t);
  const std::vector<int64_t> sources = TransposedTiles(panels.width, words / part);
  ForPanelsOfColumns(panels, matrix, sums, [&](std::byte* columns, int64_t) {
    std::vector<uint32_t> spare(static_cast<size_t>(panels.width * part));
    PermuteBlocks(columns, part_bytes, sources, reinterpret_cast<std::byte*>(spare.data()));
    for (int64_t k = 0; k < words; k += part) {
      auto* parts = reinterpret_cast<uint32_t*>(columns) + k * panels.width;
      TransposeWords(parts, part, panels.width, part, spare.data(), panels.width);
      std::ranges::copy(spare, parts);
    }
  });
}

// What oneDNN puts behind 8-bit elements, found with a panel of ones, since its descriptors do not tell: factors of the columns' sums. nullopt where it
// is anything else, or where the elements are not what they were.
std::optional<std::vector<int32_t>> SumFactorsOf(const Panels& panels,
                                                 const dnnl::memory::desc& to) {
  const size_t behind = to.get_size() - static_cast<size_t>(panels.k) * panels.row_bytes();
  if (behind == 0) return std::vector<int32_t>();
  const size_t count = behind / (static_cast<size_t>(panels.n) * sizeof(int32_t));
  if (panels.element_bytes != 1) return std::nullopt;
  const MatrixDims dims{panels.k, panels.width};
  const auto ones_count = static_cast<size_t>(panels.k * panels.width);
  std::vector<int8_t> ones(ones_count, 1);
  std::vector<int32_t> sums(count * static_cast<size_t>(panels.width));
  std::vector<std::byte> out;
  const auto done = Catch([&] {
    const dnnl::memory::desc one = to.submemory_desc(dims, {0, 0});
    out.resize(one.get_size());
    dnnl::memory src({dims, dnnl::memory::data_type::s8, MatrixDims{panels.width, 1}}, CpuEngine(),
                     ones.data());
    dnnl::memory dst(one, CpuEngine(), out.data());
    dnnl::stream stream(CpuEngine());
    dnnl::reorder(src, dst).execute(stream, src, dst);
    stream.wait();
    return true;
  });
  if (!done.ok() || out.size() != ones_count + sums.size() * sizeof(int32_t)) return std::nullopt;
  if (std::memcmp(out.data(), ones.data(), ones_count) != 0) return std::nullopt;
  std::memcpy(sums.data(), out.data() + ones_count, sums.size() * sizeof(int32_t));
  std::vector<int32_t> factors;
  for (size_t i = 0; i < count; ++i) {
    const auto of_one = std::span(sums).subspan(i * static_cast<size_t>(panels.width),
                                                static_cast<size_t>(panels.width));
    if (std::ranges::count(of_one, of_one[0]) != panels.width || of_one[0] == 0 ||
        of_one[0] % panels.k != 0)
      return std::nullopt;
    factors.push_back(static_cast<int32_t>(of_one[0] / panels.k));
  }
  return factors;
}

}  // namespace

std::optional<Panels> PanelsOf(const dnnl::memory::desc& from, const dnnl::memory::desc& to) {
  constexpr auto kBlocked = dnnl::memory::format_kind::blocked;
  if (to.get_format_kind() != kBlocked || from.get_format_kind() != kBlocked) return std::nullopt;
  if (to.get_ndims() != 2 || to.get_dims() != to.get_padded_dims() ||
      to.get_submemory_offset() != 0)
    return std::nullopt;
  const MatrixDims dims = to.get_dims();
  const bool turned = from.get_strides() == MatrixDims{1, dims[0]};
  if (from.get_data_type() != to.get_data_type() || from.get_inner_nblks() != 0 ||
      from.get_submemory_offset() != 0 || (!turned && from.get_strides() != MatrixDims{dims[1], 1}))
    return std::nullopt;
  const MatrixDims blocks = to.get_inner_blks();
  const MatrixDims block_axes = to.get_inner_idxs();
  const bool grouped = block_axes == MatrixDims{0, 1, 0};
  if (!grouped && block_axes != MatrixDims{0, 1}) return std::nullopt;
  Panels panels{.k = dims[0],
                .n = dims[1],
                .width = blocks[1],
                .group = grouped ? blocks[2] : 1,
                .element_bytes = dnnl::memory::data_type_size(to.get_data_type()),
                .turned = turned};
  panels.block = blocks[0] * panels.group;
  const bool words = static_cast<size_t>(panels.group) * panels.element_bytes == sizeof(uint32_t);
  if (!words ||
      to.get_strides() != MatrixDims{panels.block * panels.width, panels.k * panels.width})
    return std::nullopt;
  std::optional<std::vector<int32_t>> factors = SumFactorsOf(panels, to);
  if (!factors) return std::nullopt;
  panels.sum_factors = *std::move(factors);
  return panels;
}

void PackPanels(const Panels& panels, const std::byte* matrix, std::byte* out) {
  std::vector<int32_t> sums = NoSums(panels);
  if (panels.turned) {
    PackColumns(panels, matrix, out, sums);
  } else {
    PackRows(panels, matrix, panels.k, out, sums);
  }
  WriteSums(panels, sums, out);
}

void PackPanelsInPlace(const Panels& panels, std::byte* matrix) {
  std::vector<int32_t> sums = NoSums(panels);
  if (panels.turned) {
    PackColumnsInPlace(panels, matrix, sums);
  } else {
    PackRowsInPlace(panels, matrix, sums);
  }
  WriteSums(panels, sums, matrix);
}

}  // namespace octet::onednn

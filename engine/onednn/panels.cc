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

/// Of what is elsewhere while a matrix is packed in place, unless the rows of one group have more: rows and tiles stay in a core's caches.
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

void WriteSumsBehind(const Panels& panels, std::span<const int32_t> sums, std::byte* packed) {
  WriteSums(panels.sum_factors, sums, packed + static_cast<size_t>(panels.k) * panels.row_bytes());
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
  const int64_t group = panels.group;
  const size_t group_bytes = static_cast<size_t>(group) * panels.row_bytes();
  const int64_t groups =
      DivisorUpTo(static_cast<int64_t>(kTilesBytes / group_bytes), panels.k / group);
  const int64_t count = groups * group;
  const size_t bytes = static_cast<size_t>(groups) * group_bytes;
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

// The elements of a matrix [K, columns] of ones in the layout, padding included, and what oneDNN puts behind them.
struct PackedOnes {
  std::vector<int8_t> elements;
  std::vector<int32_t> behind;
};

std::optional<PackedOnes> PackOnes(const dnnl::memory::desc& to, int64_t columns) {
  const MatrixDims dims{to.get_dims()[0], columns};
  std::vector<int8_t> ones(static_cast<size_t>(dims[0] * dims[1]), 1);
  PackedOnes packed;
  const auto done = Catch([&] {
    const dnnl::memory::desc part = to.submemory_desc(dims, {0, 0});
    const MatrixDims padded = part.get_padded_dims();
    packed.elements.resize(static_cast<size_t>(padded[0] * padded[1]));
    if (part.get_size() % sizeof(int32_t) != 0 || part.get_size() < packed.elements.size())
      return false;
    std::vector<std::byte> out(part.get_size());
    dnnl::memory src({dims, dnnl::memory::data_type::s8, MatrixDims{columns, 1}}, CpuEngine(),
                     ones.data());
    dnnl::memory dst(part, CpuEngine(), out.data());
    dnnl::stream stream(CpuEngine());
    dnnl::reorder(src, dst).execute(stream, src, dst);
    stream.wait();
    std::memcpy(packed.elements.data(), out.data(), packed.elements.size());
    packed.behind.resize((out.size() - packed.elements.size()) / sizeof(int32_t));
    std::memcpy(packed.behind.data(), out.data() + packed.elements.size(),
                packed.behind.size() * sizeof(int32_t));
    return true;
  });
  if (!done.ok() || !*done) return std::nullopt;
  return packed;
}

}  // namespace

std::optional<PanelLayout> PanelLayoutOf(const dnnl::memory::desc& weights) {
  using Type = dnnl::memory::data_type;
  const Type type = weights.get_data_type();
  if (weights.get_format_kind() != dnnl::memory::format_kind::blocked || weights.get_ndims() != 2 ||
      weights.get_submemory_offset() != 0)
    return std::nullopt;
  if (type != Type::f32 && type != Type::bf16 && type != Type::s8) return std::nullopt;
  const MatrixDims blocks = weights.get_inner_blks();
  const MatrixDims block_axes = weights.get_inner_idxs();
  const bool grouped = block_axes == MatrixDims{0, 1, 0};
  if (!grouped && block_axes != MatrixDims{0, 1}) return std::nullopt;
  const PanelLayout layout{.k = weights.get_dims()[0],
                           .n = weights.get_dims()[1],
                           .width = blocks[1],
                           .group = grouped ? blocks[2] : 1,
                           .pitch = weights.get_padded_dims()[0] * blocks[1]};
  const auto group = static_cast<size_t>(layout.group);
  const bool words = group * dnnl::memory::data_type_size(type) == sizeof(uint32_t);
  if (layout.width % 16 != 0 || layout.width > 64 || !words) return std::nullopt;
  // Blocks of one panel behind each other.
  if (weights.get_strides() != MatrixDims{blocks[0] * layout.group * layout.width, layout.pitch})
    return std::nullopt;
  return layout;
}

std::optional<std::vector<int32_t>> SumFactorsOf(const dnnl::memory::desc& to) {
  const MatrixDims padded = to.get_padded_dims();
  const size_t behind = to.get_size() - static_cast<size_t>(padded[0] * padded[1]) *
                                            dnnl::memory::data_type_size(to.get_data_type());
  if (behind == 0) return std::vector<int32_t>();
  const int64_t k = to.get_dims()[0];
  const size_t count = behind / (static_cast<size_t>(padded[1]) * sizeof(int32_t));
  if (to.get_data_type() != dnnl::memory::data_type::s8 || k == 0 ||
      behind % (static_cast<size_t>(padded[1]) * sizeof(int32_t)) != 0)
    return std::nullopt;
  int64_t columns = 1;  // Of a block.
  for (size_t b = 0; b < to.get_inner_idxs().size(); ++b) {
    if (to.get_inner_idxs()[b] == 1) columns *= to.get_inner_blks()[b];
  }
  columns = std::min(columns, to.get_dims()[1]);
  const std::optional<PackedOnes> packed = PackOnes(to, columns);
  if (!packed || packed->behind.size() % count != 0) return std::nullopt;
  const int64_t ones = std::ranges::count(packed->elements, int8_t{1});
  const int64_t zeros = std::ranges::count(packed->elements, int8_t{0});
  if (ones != k * columns || ones + zeros != std::ssize(packed->elements)) return std::nullopt;
  std::vector<int32_t> factors;
  const size_t pitch = packed->behind.size() / count;
  for (size_t i = 0; i < count; ++i) {
    const auto of_one = std::span(packed->behind).subspan(i * pitch, static_cast<size_t>(columns));
    if (std::ranges::count(of_one, of_one[0]) != columns || of_one[0] == 0 || of_one[0] % k != 0)
      return std::nullopt;
    factors.push_back(static_cast<int32_t>(of_one[0] / k));
  }
  return factors;
}

void AddColumnSums(const int8_t* matrix, const dnnl::memory::desc& from, std::span<int32_t> sums) {
  const MatrixDims dims = from.get_dims();
  const MatrixDims strides = from.get_strides();
  const int8_t* first = matrix + from.get_submemory_offset();
  if (strides[1] == 1) {
    for (int64_t k = 0; k < dims[0]; ++k) AddRow(first + k * strides[0], dims[1], sums.data());
    return;
  }
  for (int64_t n = 0; n < dims[1]; ++n)
    sums[static_cast<size_t>(n)] += SumOf(first + n * strides[1], dims[0]);
}

void WriteSums(std::span<const int32_t> factors, std::span<const int32_t> sums, std::byte* out) {
  for (const int32_t factor : factors) {
    for (const int32_t sum : sums) {
      const int32_t number = factor * sum;
      std::memcpy(out, &number, sizeof(number));
      out += sizeof(number);
    }
  }
}

std::optional<Panels> PanelsOf(const dnnl::memory::desc& from, const dnnl::memory::desc& to) {
  const std::optional<PanelLayout> layout = PanelLayoutOf(to);
  if (!layout || to.get_dims() != to.get_padded_dims()) return std::nullopt;
  if (from.get_format_kind() != dnnl::memory::format_kind::blocked) return std::nullopt;
  const bool turned = from.get_strides() == MatrixDims{1, layout->k};
  if (from.get_data_type() != to.get_data_type() || from.get_inner_nblks() != 0 ||
      from.get_submemory_offset() != 0 ||
      (!turned && from.get_strides() != MatrixDims{layout->n, 1}))
    return std::nullopt;
  std::optional<std::vector<int32_t>> factors = SumFactorsOf(to);
  if (!factors) return std::nullopt;
  Panels panels{*layout};
  panels.element_bytes = dnnl::memory::data_type_size(to.get_data_type());
  panels.turned = turned;
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
  WriteSumsBehind(panels, sums, out);
}

void PackPanelsInPlace(const Panels& panels, std::byte* matrix) {
  std::vector<int32_t> sums = NoSums(panels);
  if (panels.turned) {
    PackColumnsInPlace(panels, matrix, sums);
  } else {
    PackRowsInPlace(panels, matrix, sums);
  }
  WriteSumsBehind(panels, sums, matrix);
}

}  // namespace octet::onednn

#include "engine/ops/strided_copy.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/transpose_words.h"

namespace octet {
namespace {

/// Bytes below which a thread is not worth waking.
constexpr int64_t kBytesPerThread = int64_t{64} * 1024;
/// Side of the square blocks of a transposing copy, in elements: one cache line on both sides.
template <typename T>
constexpr int64_t kTransposeBlock = 64 / sizeof(T);

/// Orders the loops by destination stride, slowest first, drops those of extent 1 and merges neighbours
/// that are one loop in both layouts.
std::vector<CopyLoop> Canonical(std::span<const CopyLoop> loops) {
  std::vector<CopyLoop> sorted;
  for (const CopyLoop& loop : loops) {
    if (loop.extent != 1) sorted.push_back(loop);
  }
  std::ranges::stable_sort(sorted, std::ranges::greater{}, &CopyLoop::dst_stride);
  std::vector<CopyLoop> merged;
  for (const CopyLoop& loop : sorted) {
    if (!merged.empty() && merged.back().src_stride == loop.src_stride * loop.extent &&
        merged.back().dst_stride == loop.dst_stride * loop.extent) {
      merged.back() = {merged.back().extent * loop.extent, loop.src_stride, loop.dst_stride};
    } else {
      merged.push_back(loop);
    }
  }
  return merged;
}

template <typename T>
void CopyColumns(const CopyLoop& columns, const std::byte* src, std::byte* dst) {
  for (int64_t i = 0; i < columns.extent; ++i) {
    std::memcpy(dst + i * columns.dst_stride, src + i * columns.src_stride, sizeof(T));
  }
}

/// Both layouts are dense along different loops: blocks keep the cache lines of both sides in L1.
template <typename T>
void CopyBlocked(const CopyLoop& rows, const CopyLoop& columns, const std::byte* src,
                 std::byte* dst) {
  for (int64_t r0 = 0; r0 < rows.extent; r0 += kTransposeBlock<T>) {
    const int64_t r1 = std::min(r0 + kTransposeBlock<T>, rows.extent);
    for (int64_t c0 = 0; c0 < columns.extent; c0 += kTransposeBlock<T>) {
      const CopyLoop block{std::min(kTransposeBlock<T>, columns.extent - c0), columns.src_stride,
                           columns.dst_stride};
      for (int64_t r = r0; r < r1; ++r) {
        CopyColumns<T>(block, src + r * rows.src_stride + c0 * columns.src_stride,
                       dst + r * rows.dst_stride + c0 * columns.dst_stride);
      }
    }
  }
}

/// Whether the source is dense along `read` and the destination along `written`, in words.
bool TransposesWords(const CopyLoop& read, const CopyLoop& written) {
  constexpr int64_t kWord = sizeof(uint32_t);
  return read.src_stride == kWord && written.dst_stride == kWord &&
         written.src_stride % kWord == 0 && read.dst_stride % kWord == 0;
}

bool IsAligned(const std::byte* words) {
  return reinterpret_cast<uintptr_t>(words) % alignof(uint32_t) == 0;
}

/// CopyBlocked of words, which takes them one by one, wherever they lie: a tensor in a request has any address.
void CopyWords(const CopyLoop& rows, const CopyLoop& columns, const std::byte* src,
               std::byte* dst) {
  constexpr int64_t kWord = sizeof(uint32_t);
  const bool by_rows = TransposesWords(rows, columns);
  const CopyLoop& read = by_rows ? rows : columns;
  const CopyLoop& written = by_rows ? columns : rows;
  if (!TransposesWords(read, written) || !IsAligned(src) || !IsAligned(dst))
    return CopyBlocked<uint32_t>(rows, columns, src, dst);
  TransposeWords(reinterpret_cast<const uint32_t*>(src), written.src_stride / kWord, written.extent,
                 read.extent, reinterpret_cast<uint32_t*>(dst), read.dst_stride / kWord);
}

/// dst[kPlanes * i + p] = src[p * stride + i].
template <typename T, int kPlanes>
inline void InterleavePlanes(const T* __restrict src, int64_t stride, int64_t n,
                             T* __restrict dst) {
  for (int64_t i = 0; i < n; ++i) {
    for (int p = 0; p < kPlanes; ++p) dst[kPlanes * i + p] = src[p * stride + i];
  }
}

template <typename T>
inline void Interleave(const std::byte* src, int64_t planes, int64_t stride, int64_t n,
                       std::byte* dst) {
  const auto* from = reinterpret_cast<const T*>(src);
  auto* to = reinterpret_cast<T*>(dst);
  constexpr auto kSize = static_cast<int64_t>(sizeof(T));
  if (planes == 2) return InterleavePlanes<T, 2>(from, stride / kSize, n, to);
  if (planes == 3) return InterleavePlanes<T, 3>(from, stride / kSize, n, to);
  InterleavePlanes<T, 4>(from, stride / kSize, n, to);
}

/// 2 to 4 planes of elements, `stride` bytes apart, become n groups of one element of each.
OCTET_CPU_CLONES void InterleaveElements(size_t element_size, const std::byte* src, int64_t planes,
                                         int64_t stride, int64_t n, std::byte* dst) {
  if (element_size == 1) return Interleave<uint8_t>(src, planes, stride, n, dst);
  if (element_size == 2) return Interleave<uint16_t>(src, planes, stride, n, dst);
  if (element_size == 4) return Interleave<uint32_t>(src, planes, stride, n, dst);
  Interleave<uint64_t>(src, planes, stride, n, dst);
}

}  // namespace

StridedCopy::StridedCopy(std::span<const CopyLoop> loops, size_t element_size)
    : element_size_(element_size) {
  elements_ = 1;
  for (const CopyLoop& loop : loops) elements_ *= loop.extent;
  if (elements_ == 0) return;
  outer_ = Canonical(loops);
  const auto size = static_cast<int64_t>(element_size);
  for (CopyLoop& loop : outer_) {
    loop.src_stride *= size;
    loop.dst_stride *= size;
  }
  columns_ = rows_ = {1, size, size};
  if (!outer_.empty()) {
    columns_ = outer_.back();
    outer_.pop_back();
  }
  if (columns_.src_stride == size && columns_.dst_stride == size) {
    run_bytes_ = static_cast<size_t>(columns_.extent) * element_size;
  }
  if (!outer_.empty()) {
    // A run is copied row by row; anything else is blocked with the loop that reads the source densest.
    auto densest = [](const CopyLoop& loop) {
      return std::abs(loop.src_stride) + (loop.src_stride == 0);
    };
    auto rows =
        run_bytes_ != 0 ? std::prev(outer_.end()) : std::ranges::min_element(outer_, {}, densest);
    rows_ = *rows;
    outer_.erase(rows);
    // A few channels beside many pixels: the long loop is the inner one.
    if (run_bytes_ == 0 && columns_.extent < rows_.extent && columns_.extent < 16)
      std::swap(rows_, columns_);
  }
  interleaves_ = size <= 8 && rows_.extent >= 2 && rows_.extent <= 4 && rows_.dst_stride == size &&
                 rows_.src_stride % size == 0 && columns_.src_stride == size &&
                 columns_.dst_stride == rows_.extent * size;
  for (const CopyLoop& loop : outer_) outer_count_ *= loop.extent;
}

void StridedCopy::CopyInner(const CopyLoop& rows, const CopyLoop& columns, const std::byte* src,
                            std::byte* dst) const {
  if (interleaves_) {
    return InterleaveElements(element_size_, src, rows.extent, rows.src_stride, columns.extent,
                              dst);
  }
  if (run_bytes_ != 0) {
    for (int64_t r = 0; r < rows.extent; ++r) {
      std::memcpy(dst + r * rows.dst_stride, src + r * rows.src_stride, run_bytes_);
    }
    return;
  }
  switch (element_size_) {
    case 1:
      return CopyBlocked<uint8_t>(rows, columns, src, dst);
    case 2:
      return CopyBlocked<uint16_t>(rows, columns, src, dst);
    case 4:
      return CopyWords(rows, columns, src, dst);
    case 8:
      return CopyBlocked<uint64_t>(rows, columns, src, dst);
    default:
      return CopyBlocked<std::string_view>(rows, columns, src, dst);
  }
}

void StridedCopy::RunOuter(int64_t begin, int64_t end, const std::byte* src, std::byte* dst) const {
  for (int64_t i = begin; i < end; ++i) {
    int64_t rest = i;
    int64_t src_offset = 0;
    int64_t dst_offset = 0;
    for (size_t k = outer_.size(); k-- > 0;) {
      const int64_t index = rest % outer_[k].extent;
      rest /= outer_[k].extent;
      src_offset += index * outer_[k].src_stride;
      dst_offset += index * outer_[k].dst_stride;
    }
    CopyInner(rows_, columns_, src + src_offset, dst + dst_offset);
  }
}

void StridedCopy::Run(const void* src, void* dst) const {
  if (elements_ == 0) return;
  const auto* from = static_cast<const std::byte*>(src);
  auto* to = static_cast<std::byte*>(dst);
  const int64_t parts = bytes() / kBytesPerThread;
  if (parts < 2) return RunOuter(0, outer_count_, from, to);
  if (outer_count_ > 1) {
    ParallelFor(outer_count_, std::max<int64_t>(1, outer_count_ / parts),
                [&](int64_t begin, int64_t end) { RunOuter(begin, end, from, to); });
    return;
  }
  // A run is whole in every part; else the longer loop is divided.
  const bool by_rows = run_bytes_ != 0 || (rows_.extent >= columns_.extent && !interleaves_);
  const CopyLoop& divided = by_rows ? rows_ : columns_;
  ParallelFor(divided.extent, std::max<int64_t>(1, divided.extent / parts),
              [&](int64_t begin, int64_t end) {
                const CopyLoop part{end - begin, divided.src_stride, divided.dst_stride};
                CopyInner(by_rows ? part : rows_, by_rows ? columns_ : part,
                          from + begin * divided.src_stride, to + begin * divided.dst_stride);
              });
}

std::vector<CopyLoop> DenseDestination(const Shape& shape, std::span<const int64_t> src_strides) {
  const auto dst_strides = shape.strides();
  std::vector<CopyLoop> loops;
  for (int i = 0; i < shape.rank(); ++i)
    loops.push_back({shape[i], src_strides[i], dst_strides[i]});
  return loops;
}

}  // namespace octet

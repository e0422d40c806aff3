#include "engine/plan/arena.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "engine/tensor/tensor.h"

namespace octet {
namespace {

bool Overlap(const BufferLife& a, const BufferLife& b) {
  return a.first <= b.last && b.first <= a.last;
}

// The offset of the smallest gap that fits among the buffers placed so far (`placed` is sorted by offset), or
// behind the last of them.
size_t BestGap(std::span<const BufferLife> buffers, std::span<const size_t> offsets,
               std::span<const int> placed, const BufferLife& wanted) {
  const size_t size = AlignUp(wanted.bytes);
  size_t end = 0;  // Of the buffers looked at so far.
  size_t best = SIZE_MAX;
  size_t best_gap = SIZE_MAX;
  for (const int id : placed) {
    if (!Overlap(buffers[id], wanted)) continue;
    const size_t begin = offsets[id];
    if (begin > end && begin - end >= size && begin - end < best_gap) {
      best = end;
      best_gap = begin - end;
    }
    end = std::max(end, begin + AlignUp(buffers[id].bytes));
  }
  return best == SIZE_MAX ? end : best;
}

ArenaLayout PlaceInOrder(std::span<const BufferLife> buffers, std::span<const int> order) {
  ArenaLayout layout;
  layout.offsets.resize(buffers.size());
  std::vector<int> placed;
  for (const int id : order) {
    const size_t offset = BestGap(buffers, layout.offsets, placed, buffers[id]);
    layout.offsets[id] = offset;
    layout.bytes = std::max(layout.bytes, offset + AlignUp(buffers[id].bytes));
    const auto behind = [&](int other) { return layout.offsets[other] > offset; };
    placed.insert(std::ranges::find_if(placed, behind), id);
  }
  return layout;
}

// Bytes alive at each step, and their maximum.
std::vector<size_t> LiveBytes(std::span<const BufferLife> buffers) {
  int steps = 0;
  for (const BufferLife& buffer : buffers) steps = std::max(steps, buffer.last + 1);
  std::vector<size_t> live(steps, 0);
  for (const BufferLife& buffer : buffers) {
    for (int step = buffer.first; step <= buffer.last; ++step) live[step] += AlignUp(buffer.bytes);
  }
  return live;
}

}  // namespace

ArenaLayout LayOutArena(std::span<const BufferLife> buffers) {
  const std::vector<size_t> live = LiveBytes(buffers);
  // The busiest step that a buffer lives through: buffers around the peak are placed first by one order.
  std::vector<size_t> busiest(buffers.size(), 0);
  for (size_t i = 0; i < buffers.size(); ++i) {
    for (int step = buffers[i].first; step <= buffers[i].last; ++step) {
      busiest[i] = std::max(busiest[i], live[step]);
    }
  }
  const auto length = [&](int i) {
    return static_cast<size_t>(buffers[i].last - buffers[i].first + 1);
  };
  const std::function<bool(int, int)> orders[] = {
      [&](int a, int b) { return buffers[a].bytes > buffers[b].bytes; },
      [&](int a, int b) { return buffers[a].first < buffers[b].first; },
      [&](int a, int b) { return buffers[a].bytes * length(a) > buffers[b].bytes * length(b); },
      [&](int a, int b) {
        return busiest[a] != busiest[b] ? busiest[a] > busiest[b]
                                        : buffers[a].bytes > buffers[b].bytes;
      },
      [&](int a, int b) { return length(a) > length(b); },
  };
  const size_t peak = live.empty() ? 0 : *std::ranges::max_element(live);
  ArenaLayout best;
  best.bytes = SIZE_MAX;
  std::vector<int> order(buffers.size());
  for (const auto& before : orders) {
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, before);
    ArenaLayout layout = PlaceInOrder(buffers, order);
    if (layout.bytes < best.bytes) best = std::move(layout);
    if (best.bytes == peak) break;
  }
  best.live_peak = peak;
  return best;
}

}  // namespace octet

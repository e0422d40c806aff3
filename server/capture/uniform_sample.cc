#include "server/capture/uniform_sample.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace octet {

UniformSample::Verdict UniformSample::FindVictims(double draw, size_t bytes,
                                                  std::vector<Entries::iterator>& victims) {
  size_t held = totals_.bytes;
  for (auto it = entries_.end(); held > max_bytes_ - bytes;) {
    if (it == entries_.begin() || std::prev(it)->first < draw) return Verdict::kPassed;
    --it;
    // Somebody reads or fills it: its memory would not be free at once.
    if (it->second.use_count() > 1) return Verdict::kBusy;
    held -= it->second->bytes;
    victims.push_back(it);
  }
  return Verdict::kTaken;
}

UniformSample::Reservation UniformSample::Reserve(double draw, size_t bytes, int64_t rows,
                                                  const std::string& shape) {
  if (bytes > max_bytes_) return {.verdict = Verdict::kTooLarge};
  auto entry = std::make_shared<Entry>(Entry{.rows = rows, .bytes = bytes});
  absl::MutexLock lock(&mutex_);
  if (!MayTake(draw)) return {.verdict = Verdict::kPassed};
  const auto known = std::ranges::find(shapes_, shape, &ShapeState::name);
  entry->shape = static_cast<size_t>(known - shapes_.begin());
  if (entry->shape == kMostShapes) return {.verdict = Verdict::kTooManyShapes};
  std::vector<Entries::iterator> victims;
  const Verdict verdict = FindVictims(draw, bytes, victims);
  if (verdict == Verdict::kBusy) return {.verdict = verdict};
  for (const Entries::iterator victim : victims) {
    threshold_ = victim->first;
    Remove(victim);
  }
  if (verdict == Verdict::kPassed) {
    threshold_ = draw;  // It ends the sample, also before those that would fit without it.
    return {.verdict = verdict};
  }
  if (known == shapes_.end()) shapes_.push_back({.name = shape});
  entries_.emplace(draw, entry);
  totals_.requests += 1;
  totals_.rows += rows;
  totals_.bytes += bytes;
  return {.verdict = Verdict::kTaken, .draw = draw, .entry = std::move(entry)};
}

void UniformSample::Fill(Reservation reservation, std::vector<Input> inputs) {
  absl::MutexLock lock(&mutex_);
  reservation.entry->inputs = std::move(inputs);
  Changed(reservation.entry->shape);
  reservation.entry.reset();  // Under the lock: nobody finds it in use who looks next.
}

void UniformSample::Abandon(Reservation reservation) {
  absl::MutexLock lock(&mutex_);
  const auto [first, last] = entries_.equal_range(reservation.draw);
  for (auto it = first; it != last; ++it) {
    if (it->second == reservation.entry) return Remove(it);
  }
}

void UniformSample::Remove(Entries::iterator entry) {
  totals_.requests -= 1;
  totals_.rows -= entry->second->rows;
  totals_.bytes -= entry->second->bytes;
  Changed(entry->second->shape);
  entries_.erase(entry);
}

void UniformSample::Changed(size_t shape) {
  ++shapes_[shape].changes;
  changes_.fetch_add(1, std::memory_order_release);
}

UniformSample::Snapshot UniformSample::Take() const {
  absl::MutexLock lock(&mutex_);
  Snapshot snapshot{.shapes = shapes_, .entries = {}};
  snapshot.entries.reserve(entries_.size());
  for (const auto& [draw, entry] : entries_) {
    if (!entry->inputs.empty()) snapshot.entries.push_back(entry);
  }
  return snapshot;
}

UniformSample::Totals UniformSample::totals() const {
  absl::MutexLock lock(&mutex_);
  return totals_;
}

}  // namespace octet

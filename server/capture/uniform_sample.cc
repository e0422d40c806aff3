#include "server/capture/uniform_sample.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <utility>

namespace octet {
namespace {

/// The longest length of so many bits; NumPy knows no strings of no length.
uint64_t WidthOf(size_t bits) {
  return std::max<uint64_t>(1, bits == 64 ? ~0ULL : (1ULL << bits) - 1);
}

/// A request's file without any other.
uint64_t BytesAlone(const UniformSample::FileShare& file) {
  uint64_t bytes = file.fixed;
  for (const UniformSample::Texts& texts : file.texts) {
    bytes += texts.count * WidthOf(static_cast<size_t>(std::bit_width(texts.longest)));
  }
  return bytes;
}

}  // namespace

uint64_t UniformSample::Column::bytes() const {
  size_t bits = requests.size() - 1;
  while (bits > 0 && requests[bits] == 0) --bits;
  return count * WidthOf(bits);
}

void UniformSample::AddToFile(size_t shape, const FileShare& file) {
  file_bytes_ += file.fixed;
  for (size_t i = 0; i < file.texts.size(); ++i) {
    Column& column = columns_[shape][i];
    file_bytes_ -= column.bytes();
    column.count += file.texts[i].count;
    ++column.requests[static_cast<size_t>(std::bit_width(file.texts[i].longest))];
    file_bytes_ += column.bytes();
  }
}

void UniformSample::TakeFromFile(size_t shape, const FileShare& file) {
  file_bytes_ -= file.fixed;
  for (size_t i = 0; i < file.texts.size(); ++i) {
    Column& column = columns_[shape][i];
    file_bytes_ -= column.bytes();
    column.count -= file.texts[i].count;
    --column.requests[static_cast<size_t>(std::bit_width(file.texts[i].longest))];
    file_bytes_ += column.bytes();
  }
}

UniformSample::Verdict UniformSample::FindVictims(double draw, size_t bytes,
                                                  std::vector<Entries::iterator>& victims) {
  size_t held = totals_.bytes;
  for (auto it = entries_.end(); held > max_bytes_ - bytes || file_bytes_ > max_file_bytes_;) {
    if (it == entries_.begin() || std::prev(it)->first < draw) return Verdict::kPassed;
    --it;
    // Somebody reads or fills it: its memory would not be free at once.
    if (it->second.use_count() > 1) return Verdict::kBusy;
    held -= it->second->bytes;
    TakeFromFile(it->second->shape, it->second->file);
    victims.push_back(it);
  }
  return Verdict::kTaken;
}

UniformSample::Reservation UniformSample::Reserve(double draw, size_t bytes, int64_t rows,
                                                  const std::string& shape, FileShare file) {
  if (bytes > max_bytes_ || BytesAlone(file) > max_file_bytes_) {
    return {.verdict = Verdict::kTooLarge};
  }
  auto entry =
      std::make_shared<Entry>(Entry{.rows = rows, .bytes = bytes, .file = std::move(file)});
  absl::MutexLock lock(&mutex_);
  if (!MayTake(draw)) return {.verdict = Verdict::kPassed};
  const auto known = std::ranges::find(shapes_, shape, &ShapeState::name);
  entry->shape = static_cast<size_t>(known - shapes_.begin());
  if (entry->shape == kMostShapes) return {.verdict = Verdict::kTooManyShapes};
  if (columns_.size() <= entry->shape) columns_.resize(entry->shape + 1);
  columns_[entry->shape].resize(entry->file.texts.size());
  AddToFile(entry->shape, entry->file);
  std::vector<Entries::iterator> victims;
  const Verdict verdict = FindVictims(draw, bytes, victims);
  if (verdict != Verdict::kTaken) TakeFromFile(entry->shape, entry->file);
  if (verdict == Verdict::kBusy) {
    for (const Entries::iterator kept : victims) AddToFile(kept->second->shape, kept->second->file);
    return {.verdict = verdict};
  }
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
    if (it->second != reservation.entry) continue;
    TakeFromFile(reservation.entry->shape, reservation.entry->file);
    return Remove(it);
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

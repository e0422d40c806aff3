#include "engine/plan/plan_cache.h"

#include <algorithm>
#include <chrono>

#include "absl/cleanup/cleanup.h"

namespace octet {
namespace {

// Ranks and extents in a row name the shapes.
std::vector<int64_t> KeyOf(std::span<const Shape> shapes) {
  std::vector<int64_t> key;
  for (const Shape& shape : shapes) {
    key.push_back(shape.rank());
    key.insert(key.end(), shape.begin(), shape.end());
  }
  return key;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Plan>> PlanCache::Get(std::span<const Shape> shapes,
                                                           bool pinned, const Compile& compile) {
  const Key key = KeyOf(shapes);
  std::shared_ptr<Entry> entry;
  bool mine = false;
  {
    absl::MutexLock lock(&mutex_);
    std::shared_ptr<Entry>& slot = entries_[key];
    if (!slot) {
      slot = std::make_shared<Entry>();
      mine = true;
    }
    entry = slot;
    entry->last_use = ++uses_;
    entry->pinned |= pinned;
  }
  if (!mine) {
    entry->done.WaitForNotification();
    return entry->plan;
  }
  // Whatever way this scope is left, nobody waits for ever.
  const absl::Cleanup finish = [&] {
    {
      absl::MutexLock lock(&mutex_);
      entry->ready = entry->plan.ok();
      if (!entry->ready) entries_.erase(key);
      DropOldest();
    }
    entry->done.Notify();
  };
  const auto start = std::chrono::steady_clock::now();
  entry->plan = compile();
  if (on_compile_ && entry->plan.ok()) on_compile_(std::chrono::steady_clock::now() - start);
  return entry->plan;
}

void PlanCache::DropOldest() {
  const auto droppable = [](const auto& item) {
    return item.second->ready && !item.second->pinned;
  };
  while (std::ranges::count_if(entries_, droppable) > max_unpinned_) {
    auto oldest = entries_.end();
    for (auto it = entries_.begin(); it != entries_.end(); ++it) {
      if (!droppable(*it)) continue;
      if (oldest == entries_.end() || it->second->last_use < oldest->second->last_use) oldest = it;
    }
    entries_.erase(oldest);
  }
}

int PlanCache::size() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(
      std::ranges::count_if(entries_, [](const auto& item) { return item.second->ready; }));
}

}  // namespace octet

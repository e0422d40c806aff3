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

// Whether every later attempt would end alike: it is the shapes' fault, or nothing computes what the model does with them.
bool IsRefusal(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsUnimplemented(status);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Plan>> PlanCache::Get(std::span<const Shape> shapes,
                                                           bool pinned, const Compile& compile) {
  const Key key = KeyOf(shapes);
  std::shared_ptr<Entry> entry;
  bool mine = false;
  {
    absl::MutexLock lock(&mutex_);
    if (const auto found = entries_.find(key); found != entries_.end()) {
      entry = found->second;
    } else {
      entry = std::make_shared<Entry>();  // May throw: no key is without its entry then.
      entries_.emplace(key, entry);
      mine = true;
    }
    entry->last_use = ++uses_;
    entry->pinned |= pinned;
  }
  if (!mine) {
    entry->done.WaitForNotification();
    return entry->plan;
  }
  // Whatever way this scope is left, nobody waits for ever.
  const absl::Cleanup finish = [&] {
    Entries dropped;
    {
      absl::MutexLock lock(&mutex_);
      dropped = Finish(key, *entry);
    }
    entry->done.Notify();
  };
  const auto start = std::chrono::steady_clock::now();
  entry->plan = compile();
  if (on_compile_ && entry->plan.ok()) on_compile_(std::chrono::steady_clock::now() - start);
  return entry->plan;
}

PlanCache::Entries PlanCache::Finish(const Key& key, Entry& entry) {
  if (entry.plan.ok()) {
    entry.state = State::kReady;
  } else if (IsRefusal(entry.plan.status())) {
    entry.state = State::kRefused;
  } else {
    entries_.erase(key);
    return {};
  }
  return TakeOldest(entry.state);
}

PlanCache::Entries PlanCache::TakeOldest(State state) {
  const auto droppable = [state](const auto& item) {
    return item.second->state == state && (state == State::kRefused || !item.second->pinned);
  };
  Entries dropped;
  while (std::ranges::count_if(entries_, droppable) > max_unpinned_) {
    auto oldest = entries_.end();
    for (auto it = entries_.begin(); it != entries_.end(); ++it) {
      if (!droppable(*it)) continue;
      if (oldest == entries_.end() || it->second->last_use < oldest->second->last_use) oldest = it;
    }
    dropped.insert(entries_.extract(oldest));
  }
  return dropped;
}

int PlanCache::size() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(std::ranges::count_if(
      entries_, [](const auto& item) { return item.second->state == State::kReady; }));
}

}  // namespace octet

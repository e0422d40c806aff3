#include "server/scheduling/gate.h"

namespace octet {

std::optional<Gate::Pass> Gate::TryEnter() {
  absl::MutexLock lock(&mutex_);
  if (closed_) return std::nullopt;
  ++inside_;
  return Pass(this);
}

void Gate::Close() {
  Announce();
  absl::MutexLock lock(&mutex_);
  closed_ = true;
}

void Gate::Abandon() {
  Close();
  abandoned_.store(true, std::memory_order_relaxed);
}

bool Gate::WaitUntilEmpty(TimePoint deadline) {
  absl::MutexLock lock(&mutex_);
  while (inside_ > 0 && clock_.Now() < deadline) clock_.WaitUntil(empty_, mutex_, deadline);
  return inside_ == 0;
}

bool Gate::closed() const {
  absl::MutexLock lock(&mutex_);
  return closed_;
}

int64_t Gate::inside() const {
  absl::MutexLock lock(&mutex_);
  return inside_;
}

void Gate::Leave() {
  absl::MutexLock lock(&mutex_);
  if (--inside_ == 0) empty_.SignalAll();
}

}  // namespace octet

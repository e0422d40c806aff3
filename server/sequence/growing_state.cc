#include "server/sequence/growing_state.h"

namespace octet {

GrowingState::GrowingState(GrowingState&& other) noexcept
    : total_(std::move(other.total_)),
      bytes_(std::move(other.bytes_)),
      capacity_(std::exchange(other.capacity_, 0)),
      spec_(std::move(other.spec_)) {}

void GrowingState::Clear() {
  if (capacity_ > 0) total_->fetch_sub(capacity_, std::memory_order_relaxed);
  bytes_.reset();
  capacity_ = 0;
}

bool GrowingState::Reserve(TensorSpec spec, size_t most_total) {
  const size_t bytes = spec.bytes();
  if (bytes_ == nullptr || bytes > capacity_) {
    // A first content is as large as it is; what has grown once will again, and not be moved for each step.
    const size_t more = capacity_ > 0 ? bytes / 4 : 0;
    Clear();
    for (const size_t wanted : {bytes + more, bytes}) {
      if (total_->fetch_add(wanted, std::memory_order_relaxed) + wanted <= most_total) {
        capacity_ = wanted;
        break;
      }
      total_->fetch_sub(wanted, std::memory_order_relaxed);
      if (wanted == bytes) return false;
    }
    bytes_ = AllocateAligned(capacity_);
  }
  spec_ = std::move(spec);
  return true;
}

}  // namespace octet

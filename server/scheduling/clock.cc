#include "server/scheduling/clock.h"

#include "absl/time/time.h"

namespace octet {
namespace {

class RealClock final : public Clock {
 public:
  TimePoint Now() const override { return std::chrono::steady_clock::now(); }

  void WaitUntil(absl::CondVar& signal, absl::Mutex& mutex, TimePoint time) override {
    if (time == kNever) {
      signal.Wait(&mutex);
    } else {
      signal.WaitWithTimeout(&mutex, absl::FromChrono(time - Now()));
    }
  }
};

}  // namespace

Clock& Clock::Real() {
  static RealClock clock;
  return clock;
}

}  // namespace octet

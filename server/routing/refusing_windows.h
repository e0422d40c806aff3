// Whether requests are refused by what comes in alone, or by everybody: an overload that both share says nothing of either.
#pragma once

#include <cstdint>

namespace octet {

/// What is known of a guard's windows, and of the requests to those that it is compared with: sums since any one moment.
struct RefusalSums {
  uint64_t windows = 0;   ///< Of the guard.
  uint64_t refusing = 0;  ///< Of these, GuardVerdict::kRefusing.
  uint64_t requests = 0;  ///< Of the others, that ran.
  uint64_t refused = 0;   ///< Of the others, for want of room or time.
};

/// Counts the refusing windows of one guard in which no more than kMostRefused of the others' requests were refused (none of
/// none, too). Between two looks several windows may end; they are taken together. A value.
class RefusingWindows {
 public:
  /// Begins with sums of 0.
  RefusingWindows() = default;
  /// Begins with these.
  explicit RefusingWindows(const RefusalSums& begin) : begin_(begin) {}

  /// Sums that fell are those of another guard or of other variants: what they show begins with this look.
  void Look(const RefusalSums& now);
  uint64_t count() const { return count_; }

 private:
  RefusalSums begin_;  ///< When the window before ended, as far as it was seen.
  uint64_t count_ = 0;
};

}  // namespace octet

#include "server/routing/refusing_windows.h"

#include "server/routing/guard.h"

namespace octet {

void RefusingWindows::Look(const RefusalSums& now) {
  const bool fell = now.windows < begin_.windows || now.refusing < begin_.refusing ||
                    now.requests < begin_.requests || now.refused < begin_.refused;
  if (fell) begin_ = now;
  if (now.windows == begin_.windows) return;
  const auto refused = static_cast<double>(now.refused - begin_.refused);
  const auto requests = static_cast<double>(now.requests - begin_.requests);
  if (refused <= kMostRefused * (requests + refused)) count_ += now.refusing - begin_.refusing;
  begin_ = now;
}

}  // namespace octet

// Looks at files without root's right to read everything.
#pragma once

#include <sys/fsuid.h>

namespace octet {

/// While it lives, the permissions of files hold for this thread, and those that it starts, as for a user who owns none of
/// them. Without effect, and without need, where the tests do not run as root.
class AsNobody {
 public:
  AsNobody() : user_(setfsuid(kNobody)) {}
  ~AsNobody() { setfsuid(static_cast<uid_t>(user_)); }
  AsNobody(const AsNobody&) = delete;
  AsNobody& operator=(const AsNobody&) = delete;

 private:
  static constexpr uid_t kNobody = 65534;
  const int user_;
};

}  // namespace octet

// Preloaded into a process: its time of day is as many seconds ahead as the file says that OCTET_CLOCK_SHIFT names, at any time.
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <ctime>

namespace {

long Shift() {
  const char* path = std::getenv("OCTET_CLOCK_SHIFT");
  const int file = path == nullptr ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  std::array<char, 32> text = {};
  const ssize_t bytes = read(file, text.data(), text.size() - 1);
  close(file);
  return bytes > 0 ? std::strtol(text.data(), nullptr, 10) : 0;
}

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  using Function = int(clockid_t, timespec*);
  static auto* const next = reinterpret_cast<Function*>(dlsym(RTLD_NEXT, "clock_gettime"));
  const int failed = next(clock, time);
  if (failed == 0 && clock == CLOCK_REALTIME) time->tv_sec += Shift();
  return failed;
}

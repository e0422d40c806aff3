#include "cli/report/resident_memory.h"

#include <fcntl.h>
#include <spawn.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/strings/numbers.h"
#include <sys/wait.h>

#include "engine/tensor/status.h"

extern char** environ;

namespace octet::cli {
namespace {

constexpr std::string_view kPeakKey = "VmHWM:";

// A child with pipes to its standard input and from its output; closing them ends it.
class Child {
 public:
  ~Child() {
    Close(to_);
    Close(from_);
    if (pid_ > 0) waitpid(pid_, nullptr, 0);
  }

  absl::Status Start(const std::vector<std::string>& words) {
    std::array<int, 2> in{};
    std::array<int, 2> out{};
    if (pipe2(in.data(), O_CLOEXEC) != 0) return Failed();
    to_ = in[1];
    if (pipe2(out.data(), O_CLOEXEC) != 0) {
      close(in[0]);
      return Failed();
    }
    from_ = out[0];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    std::vector<char*> argv;
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    const int error = posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    if (error == 0) return absl::OkStatus();
    pid_ = 0;
    errno = error;
    return Failed();
  }

  /// Reads up to the end of the first line; false when the output ends before.
  bool SkipLine() const {
    std::array<char, 4096> buffer;
    for (;;) {
      const ssize_t got = read(from_, buffer.data(), buffer.size());
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      if (std::memchr(buffer.data(), '\n', static_cast<size_t>(got)) != nullptr) return true;
    }
  }

  pid_t pid() const { return pid_; }

 private:
  static absl::Status Failed() {
    return Internal("cannot start a process of its own to measure memory: {}",
                    std::strerror(errno));
  }
  static void Close(int& fd) {
    if (fd >= 0) close(fd);
    fd = -1;
  }

  pid_t pid_ = 0;
  int to_ = -1;
  int from_ = -1;
};

}  // namespace

absl::StatusOr<int64_t> PeakResidentBytes(const std::string& model, int threads) {
  Child child;
  OCTET_RETURN_IF_ERROR(child.Start(
      {"octet", "bench", "--rounds", "--threads", std::to_string(threads), "--", model}));
  if (!child.SkipLine()) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     "memory could not be measured, the process did not answer: {}", model);
  }
  std::ifstream status(Format("/proc/{}/status", child.pid()));
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with(kPeakKey)) continue;
    int64_t kilobytes = 0;
    const size_t digits = line.find_first_of("0123456789");
    if (digits != std::string::npos &&
        absl::SimpleAtoi(line.substr(digits, line.find(' ', digits) - digits), &kilobytes))
      return 1024 * kilobytes;
  }
  return Internal("no {} in the process's status: {}", kPeakKey, model);
}

}  // namespace octet::cli

#include "cli/start_pages.h"

#include <unistd.h>

#include <csignal>
#include <cstdint>

#include <gtest/gtest.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

namespace octet::cli {
namespace start_pages_test {

constexpr uint8_t kBreakpoint = 0xcc;

/// Where a debugger writes one; nobody calls it.
[[gnu::noinline]] int Stopped() { return 7; }

class StartPagesTest : public ::testing::Test {
 protected:
  ~StartPagesTest() override {
    if (child_ <= 0) return;
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }

  /// Begins a process that waits, has a breakpoint in Stopped, and tells by its exit code whether it is still there when the pages
  /// were given back.
  void Begin() {
    child_ = fork();
    if (child_ == 0) {
      if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(2);
      (void)raise(SIGSTOP);
      GiveBackStartPages();
      _exit(*reinterpret_cast<const volatile uint8_t*>(&Stopped) == kBreakpoint ? 1 : 0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child_, &status, 0), child_);
    if (!WIFSTOPPED(status)) {
      child_ = 0;
      GTEST_SKIP() << "no process may trace another one here";
    }
    void* const place = reinterpret_cast<void*>(&Stopped);
    const auto word = static_cast<uint64_t>(ptrace(PTRACE_PEEKTEXT, child_, place, nullptr));
    const uint64_t broken = (word & ~uint64_t{0xff}) | kBreakpoint;
    ASSERT_EQ(ptrace(PTRACE_POKETEXT, child_, place, reinterpret_cast<void*>(broken)), 0);
  }

  int ExitCode() {
    int status = 0;
    EXPECT_EQ(waitpid(child_, &status, 0), child_);
    child_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  pid_t child_ = 0;
};

TEST_F(StartPagesTest, WhatWasReadIsReadAgainFromItsFile) {
  Begin();
  if (IsSkipped() || HasFatalFailure()) return;
  ASSERT_EQ(ptrace(PTRACE_DETACH, child_, nullptr, nullptr), 0);
  EXPECT_EQ(ExitCode(), 0) << "what a debugger that has gone left there";
}

TEST_F(StartPagesTest, ADebuggerKeepsItsBreakpoints) {
  Begin();
  if (IsSkipped() || HasFatalFailure()) return;
  ASSERT_EQ(ptrace(PTRACE_CONT, child_, nullptr, nullptr), 0);
  EXPECT_EQ(ExitCode(), 1);
}

}  // namespace start_pages_test
}  // namespace octet::cli

#include "cli/interrupt.h"

#include <atomic>
#include <csignal>

namespace octet::cli {
namespace {

std::atomic<bool> interrupted{false};

void OnInterrupt(int signal) {
  if (!interrupted.exchange(true)) return;
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

void StopOnInterrupt() {
  std::signal(SIGINT, OnInterrupt);
  std::signal(SIGTERM, OnInterrupt);
}

bool Interrupted() { return interrupted; }

}  // namespace octet::cli

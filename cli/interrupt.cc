#include "cli/interrupt.h"

#include <atomic>
#include <csignal>

namespace octet::cli {
namespace {

std::atomic<bool> interrupted{false};

void OnInterrupt(int signal) {
  interrupted = true;
  std::signal(signal, SIG_DFL);
}

}  // namespace

void StopOnInterrupt() {
  std::signal(SIGINT, OnInterrupt);
  std::signal(SIGTERM, OnInterrupt);
}

bool Interrupted() { return interrupted; }

}  // namespace octet::cli

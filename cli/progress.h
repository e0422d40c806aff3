// Progress of long work, on stderr, so that stdout holds the result alone.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace octet::cli {

/// A bar that redraws itself at most ten times a second on a terminal, and one line per quarter elsewhere. Not
/// thread-safe.
class ProgressBar {
 public:
  ProgressBar(std::string label, int64_t total);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  void Update(int64_t done);

 private:
  void Draw(int64_t done);

  std::string label_;
  int64_t total_;
  bool terminal_;
  int64_t drawn_quarter_ = 0;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point drawn_at_{};
};

}  // namespace octet::cli

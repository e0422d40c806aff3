#include "cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace octet::cli {

ProgressBar::ProgressBar(std::string label, int64_t total)
    : label_(std::move(label)),
      total_(std::max<int64_t>(total, 1)),
      terminal_(isatty(STDERR_FILENO) == 1) {}

ProgressBar::~ProgressBar() {
  if (terminal_ && drawn_at_ != std::chrono::steady_clock::time_point{}) std::fputc('\n', stderr);
}

void ProgressBar::Update(int64_t done) {
  const auto now = std::chrono::steady_clock::now();
  if (terminal_) {
    if (done < total_ && now - drawn_at_ < std::chrono::milliseconds(100)) return;
    drawn_at_ = now;
    Draw(done);
    return;
  }
  const int64_t quarter = 4 * done / total_;
  if (quarter == drawn_quarter_) return;
  drawn_quarter_ = quarter;
  std::fprintf(stderr, "%s: %lld of %lld\n", label_.c_str(), static_cast<long long>(done),
               static_cast<long long>(total_));
}

void ProgressBar::Draw(int64_t done) {
  constexpr int kWidth = 30;
  const int filled = static_cast<int>(kWidth * std::min(done, total_) / total_);
  const double seconds = std::chrono::duration<double>(drawn_at_ - started_).count();
  std::fprintf(stderr, "\r%s [%.*s%*s] %lld/%lld %.1f s ", label_.c_str(), filled,
               "##############################", kWidth - filled, "", static_cast<long long>(done),
               static_cast<long long>(total_), seconds);
  std::fflush(stderr);
}

}  // namespace octet::cli

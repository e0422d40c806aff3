// Errors of one run by what they say: bounded memory and a bounded report, however many different ones there are.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

namespace octet::cli {

/// Counts errors "code: message". Messages may hold numbers that differ from request to request: when there are kMostRows of them, those
/// not yet seen count as "code: other messages". Thread-safety: one call at a time.
class ErrorCounts {
 public:
  static constexpr size_t kMostRows = 100;

  void Add(std::string error, int64_t count = 1) {
    if (rows_.size() >= kMostRows && !rows_.contains(error))
      error.replace(std::min(error.find(':'), error.size()), std::string::npos, ": other messages");
    rows_[std::move(error)] += count;
  }
  void Merge(const ErrorCounts& other) {
    for (const auto& [error, count] : other.rows_) Add(error, count);
  }

  bool empty() const { return rows_.empty(); }
  int64_t total() const {
    int64_t sum = 0;
    for (const auto& [unused, count] : rows_) sum += count;
    return sum;
  }
  const std::map<std::string, int64_t>& rows() const { return rows_; }
  /// The most frequent one. Requires: not empty.
  const std::pair<const std::string, int64_t>& most() const {
    return *std::ranges::max_element(rows_, {}, [](const auto& row) { return row.second; });
  }

 private:
  std::map<std::string, int64_t> rows_;
};

}  // namespace octet::cli

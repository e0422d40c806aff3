// Loops over the calling worker's OpenMP team.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>

namespace octet {

/// Calls fn(begin, end) for disjoint ranges that cover [0, count), on the calling thread's OpenMP team;
/// on the calling thread alone when fewer than two ranges of `grain` elements would result.
/// What fn throws (bad_alloc), it throws once all ranges have ended; of several exceptions the first one.
template <typename Fn>
void ParallelFor(int64_t count, int64_t grain, const Fn& fn) {
  const int64_t parts =
      std::min<int64_t>(omp_get_max_threads(), count / std::max<int64_t>(grain, 1));
  if (parts < 2 || omp_in_parallel()) {
    if (count > 0) fn(int64_t{0}, count);
    return;
  }
  std::exception_ptr failure;  // An exception that left the region would end the process.
  std::mutex mutex;
#pragma omp parallel for num_threads(static_cast<int>(parts)) schedule(static, 1)
  for (int64_t part = 0; part < parts; ++part) {
    try {
      fn(count * part / parts, count * (part + 1) / parts);
    } catch (...) {
      const std::scoped_lock lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

/// ParallelFor with scratch for each thread: calls fn(part, begin, end) for at most `threads` disjoint ranges of `grain` elements
/// at least (but for a shorter [0, count)), which cover [0, count); part in [0, threads) says which scratch is the range's.
/// Requires: threads > 0, the team that the scratch was made for; grain > 0.
template <typename Fn>
void ParallelParts(int64_t count, int64_t grain, int64_t threads, const Fn& fn) {
  const int64_t parts = std::min(threads, std::max<int64_t>(count / grain, 1));
  ParallelFor(parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part)
      fn(part, count * part / parts, count * (part + 1) / parts);
  });
}

}  // namespace octet

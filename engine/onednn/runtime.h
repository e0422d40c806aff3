// The process-wide oneDNN engine, one stream per thread, and oneDNN's errors as absl::Status.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "oneapi/dnnl/dnnl.hpp"

namespace octet::onednn {

/// The CPU engine; lives as long as the process.
const dnnl::engine& CpuEngine();

/// The calling thread's stream. CPU execution is synchronous: when execute returns, the work is done.
dnnl_stream_t ThreadStream();

/// UNIMPLEMENTED when oneDNN has no implementation, RESOURCE_EXHAUSTED without memory, else INTERNAL.
absl::Status ToStatus(dnnl_status_t status, const char* message);

/// Calls fn, which may throw dnnl::error, and returns its value or the error. No exception leaves.
template <typename Fn>
auto Catch(Fn&& fn) -> absl::StatusOr<decltype(fn())> {
  try {
    return std::forward<Fn>(fn)();
  } catch (const dnnl::error& error) {
    return ToStatus(error.status, error.message);
  }
}

/// Sets the calling thread's OpenMP team size for a scope: oneDNN's primitives depend on it when they are
/// created, and must run with the same.
class TeamSizeScope {
 public:
  explicit TeamSizeScope(int threads);
  ~TeamSizeScope();
  TeamSizeScope(const TeamSizeScope&) = delete;
  TeamSizeScope& operator=(const TeamSizeScope&) = delete;

 private:
  int before_;
};

}  // namespace octet::onednn

#include "engine/onednn/runtime.h"

#include <omp.h>

namespace octet::onednn {

const dnnl::engine& CpuEngine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl_stream_t ThreadStream() {
  thread_local const dnnl::stream stream(CpuEngine());
  return stream.get();
}

absl::Status ToStatus(dnnl_status_t status, const char* message) {
  switch (status) {
    case dnnl_success:
      return absl::OkStatus();
    case dnnl_unimplemented:
      return absl::UnimplementedError(message);
    case dnnl_out_of_memory:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::InternalError(message);
  }
}

TeamSizeScope::TeamSizeScope(int threads) : before_(omp_get_max_threads()) {
  if (threads != before_) omp_set_num_threads(threads);
}

TeamSizeScope::~TeamSizeScope() {
  if (omp_get_max_threads() != before_) omp_set_num_threads(before_);
}

}  // namespace octet::onednn

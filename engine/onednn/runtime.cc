#include "engine/onednn/runtime.h"

#include <dlfcn.h>
#include <omp.h>

#include "engine/onednn/cache_sizes.h"

// oneDNN 3.7 divides by what it makes of the caches' sizes: where the processor hides them, creating a primitive for
// products as plain as [196, 256] x [256, 1024] ends the process, and all its blocks are chosen for caches of 1 byte.
// It asks through this exported function, which the dynamic linker finds here first.
namespace dnnl::impl::cpu::platform {
unsigned get_per_core_cache_size(int level);
unsigned get_per_core_cache_size(int level) {
  using Function = unsigned(int);
  static auto* const own = reinterpret_cast<Function*>(
      dlsym(RTLD_NEXT, "_ZN4dnnl4impl3cpu8platform23get_per_core_cache_sizeEi"));
  return static_cast<unsigned>(
      octet::onednn::PerCoreCacheBytes(level, own == nullptr ? 0 : own(level)));
}
}  // namespace dnnl::impl::cpu::platform

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

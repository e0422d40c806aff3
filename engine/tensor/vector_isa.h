// How wide the vectors of Octet's own kernels may be.
#pragma once

#include <cstdint>

namespace octet {

enum class VectorIsa : uint8_t { kSse4, kAvx2, kAvx512, kAny };

/// Keeps kernels on Highway to `widest`, in the whole process, so that ONEDNN_MAX_CPU_ISA means every kernel that is chosen when it runs
/// (loops of OCTET_CPU_CLONES are chosen before, by the processor alone). kAvx512 is without VNNI. What the processor lacks it lacks still.
/// Thread-safety: none; call it before kernels run.
void LimitVectors(VectorIsa widest);

}  // namespace octet

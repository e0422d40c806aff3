// How large a core's caches are, where the processor hides it.
#pragma once

#include <cstddef>

namespace octet::onednn {

/// What oneDNN should count on as one core's share of the data cache of `level` (1, 2 or 3), in bytes: `told`, its own
/// reading of CPUID, where that can be true, else what the system says, else sizes that any server has.
/// Hypervisors may blank the leaves that describe caches (4 and 0x8000001D); read without doubt they say 1 byte.
size_t PerCoreCacheBytes(int level, size_t told);

}  // namespace octet::onednn

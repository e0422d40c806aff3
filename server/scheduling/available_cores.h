// How many cores this process may compute on.
#pragma once

#include <string>

namespace octet {

/// Where Linux says so.
struct CpuFiles {
  std::string own_cgroup = "/proc/self/cgroup";
  std::string cgroups = "/sys/fs/cgroup";
};

/// The cores that the process may run on, or as many whole ones as its control group, or one around it, may use of their time,
/// whichever is less: more workers than that would be stopped in the middle of their work. At least 1.
/// Source: Linux, cgroup-v2.rst (cpu.max) and sched-bwc.rst (cpu.cfs_quota_us).
int AvailableCores(const CpuFiles& files = {});

}  // namespace octet

#include "server/scheduling/available_cores.h"

#include <sched.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

namespace octet {
namespace {

namespace fs = std::filesystem;

/// Whole cores that `quota` microseconds of every `period` come to; nullopt without a limit.
std::optional<int> CoresOf(double quota, double period) {
  if (quota <= 0 || period <= 0) return std::nullopt;
  return std::max(1, static_cast<int>(quota / period));
}

std::optional<double> ReadNumber(const fs::path& path) {
  std::ifstream file(path);
  double number = 0;
  if (!(file >> number)) return std::nullopt;
  return number;
}

/// "200000 100000", or "max 100000".
std::optional<int> Version2(const fs::path& group) {
  std::ifstream file(group / "cpu.max");
  double quota = 0;
  double period = 0;
  if (!(file >> quota >> period)) return std::nullopt;
  return CoresOf(quota, period);
}

std::optional<int> Version1(const fs::path& group) {
  const auto quota = ReadNumber(group / "cpu.cfs_quota_us");
  const auto period = ReadNumber(group / "cpu.cfs_period_us");
  if (!quota || !period) return std::nullopt;
  return CoresOf(*quota, *period);
}

/// The least of `limit` from the group up to the top. In a container the group's name may be the host's, of which nothing is
/// to be seen from inside: the top is the container's own group then.
int Least(int cores, const fs::path& top, fs::path group,
          std::optional<int> (*limit)(const fs::path&)) {
  group = group.relative_path();
  while (true) {
    if (const auto here = limit(top / group)) cores = std::min(cores, *here);
    if (group.empty()) return cores;
    group = group.parent_path();
  }
}

}  // namespace

int AvailableCores(const CpuFiles& files) {
  cpu_set_t set;
  CPU_ZERO(&set);
  const bool known = sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0;
  int cores = known ? CPU_COUNT(&set) : static_cast<int>(std::thread::hardware_concurrency());
  cores = std::max(1, cores);
  std::ifstream groups(files.own_cgroup);
  // "0::/a/b" in version 2, "4:cpu,cpuacct:/a/b" in version 1.
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const fs::path group = line.substr(second + 1);
    if (controllers == ",,") cores = Least(cores, files.cgroups, group, Version2);
    if (controllers.find(",cpu,") != std::string::npos) {
      cores = Least(cores, fs::path(files.cgroups) / "cpu", group, Version1);
    }
  }
  return cores;
}

}  // namespace octet

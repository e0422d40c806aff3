#include "server/metrics/process_metrics.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include <sys/resource.h>

namespace octet {
namespace {

/// Of /proc/self/stat, in the order of proc(5).
struct ProcStat {
  double user_ticks = 0;
  double system_ticks = 0;
  double threads = 0;
  double start_ticks = 0;
  double virtual_bytes = 0;
  double resident_pages = 0;
};

std::optional<ProcStat> ReadStat() {
  std::ifstream in("/proc/self/stat");
  std::string line;
  std::getline(in, line);
  // The second field is the command in parentheses and may hold anything; the third follows the
  // last ')'.
  const size_t end = line.rfind(')');
  if (!in || end == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(end + 1));
  std::string state;
  fields >> state;
  double value[22] = {};  // value[i] is field i + 4
  for (double& v : value) fields >> v;
  if (!fields) return std::nullopt;
  return ProcStat{value[10], value[11], value[16], value[18], value[19], value[20]};
}

/// Seconds since the epoch at which the machine started.
std::optional<double> ReadBootTime() {
  std::ifstream in("/proc/stat");
  for (std::string key; in >> key; in.ignore(1 << 16, '\n')) {
    double value = 0;
    if (key == "btime" && in >> value) return value;
  }
  return std::nullopt;
}

std::optional<double> CountOpenFiles() {
  std::error_code error;
  double count = 0;
  for (std::filesystem::directory_iterator it("/proc/self/fd", error), end; !error && it != end;
       it.increment(error)) {
    ++count;
  }
  if (error) return std::nullopt;
  return count - 1;  // the iterator's own
}

}  // namespace

std::vector<ProcessMetric> ReadProcessMetrics() {
  std::vector<ProcessMetric> metrics;
  if (const auto stat = ReadStat()) {
    const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
    const auto page = static_cast<double>(sysconf(_SC_PAGESIZE));
    metrics.push_back({"process_cpu_seconds_total", "User and system CPU time spent.", true,
                       (stat->user_ticks + stat->system_ticks) / ticks});
    metrics.push_back(
        {"process_resident_memory_bytes", "Resident memory.", false, stat->resident_pages * page});
    metrics.push_back(
        {"process_virtual_memory_bytes", "Virtual memory.", false, stat->virtual_bytes});
    metrics.push_back({"process_threads", "Threads of the process.", false, stat->threads});
    if (const auto boot = ReadBootTime()) {
      metrics.push_back({"process_start_time_seconds",
                         "Start of the process, since the Unix epoch.", false,
                         *boot + stat->start_ticks / ticks});
    }
  }
  if (const auto files = CountOpenFiles()) {
    metrics.push_back({"process_open_fds", "Open file descriptors.", false, *files});
  }
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    metrics.push_back({"process_max_fds", "Most open file descriptors allowed.", false,
                       static_cast<double>(limit.rlim_cur)});
  }
  return metrics;
}

}  // namespace octet

// What the kernel says about this process, under the names that Prometheus' client libraries share.
#pragma once

#include <string>
#include <vector>

namespace octet {

struct ProcessMetric {
  std::string name;
  std::string help;
  bool is_counter = false;
  double value = 0;
};

/// Reads /proc/self: CPU seconds, resident and virtual memory, open and most open files, threads,
/// start time. What cannot be read is left out.
std::vector<ProcessMetric> ReadProcessMetrics();

}  // namespace octet

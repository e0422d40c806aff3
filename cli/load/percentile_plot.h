// Latencies by percentile, drawn as HdrHistogram draws them.
#pragma once

#include <string>
#include <vector>

#include "cli/latencies.h"

namespace octet::cli {

struct PlotLine {
  std::string label;
  Latencies latencies;
};

/// A page of SVG. x: log10(1 / (1 - quantile)), so that 90, 99 and 99.9 % are equally far apart, up to where the longest line
/// has one value left; y: the latency, logarithmic. Each line has a dash pattern, a mark and its label at its end, so that no
/// colour is needed to tell them apart. Lines without a value are left out.
std::string PercentilePlot(const std::string& title, const std::vector<PlotLine>& lines);

}  // namespace octet::cli

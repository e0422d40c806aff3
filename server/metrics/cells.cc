#include "server/metrics/cells.h"

namespace octet {

uint64_t HistogramCounts::total() const {
  uint64_t observations = 0;
  for (size_t i = 0; i <= bounds.size(); ++i) observations += counts[i];
  return observations;
}

HistogramCounts Between(const HistogramCounts& from, const HistogramCounts& to) {
  HistogramCounts counts = to;
  for (size_t i = 0; i <= to.bounds.size(); ++i) counts.counts[i] -= from.counts[i];
  counts.sum -= from.sum;
  counts.sum_of_squares -= from.sum_of_squares;
  return counts;
}

}  // namespace octet

// Statistics kept in a file, so that the next recipe needs no pass over the data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/quantizer.h"
#include "engine/quantize/statistics.h"

namespace octet {

/// What a calibration file says beside the statistics.
struct CalibrationState {
  int64_t seen = 0;   ///< Samples that the statistics are of.
  int64_t total = 0;  ///< Samples of the set; more than `seen` when the run was stopped.
  /// 64 bits each that stand for all the elements of a set, ascending; several where files were merged.
  std::vector<uint64_t> sets;
};

/// Writes an .npz archive that NumPy reads, whole or not at all (WriteNpz):
///   version, model            what it is, and 64 bits that stand for the graph: interface, operators, names and constants
///   data                      CalibrationState::sets
///   samples                   [seen, total]
///   histograms/..., channel_histograms/...   names; channels of each; limits, extremes, counts of every histogram
///   moving/...                               samples, and both sums of MovingExtremes, of each of histograms/names
///   moments/..., channels/...                names; channels of each; elements; sums, squares and extremes of every channel
///   patches/...                              names; [groups, length] and count of each; sums, products of all
/// Values go by their names, a node by its result's. Errors: as WriteNpz. Requires: state.seen > 0.
absl::Status WriteCalibrationFile(const Graph& graph, const Statistics& statistics,
                                  const CalibrationState& state, const std::string& path);

/// Adds what the file holds to statistics of the same graph. Counts are added exactly, sums in the order of the calls, moving averages as of samples
/// that follow each other in that order; the moments of
/// patches weigh every run by the patches that it drew.
/// Errors: as ReadNpz; INVALID_ARGUMENT naming the file, and the array where it is malformed, when it is none, of another version, or
/// of another model, or when its values or their channels are not the graph's, each once; the statistics are of no use then.
absl::StatusOr<CalibrationState> AddCalibrationFile(const Graph& graph, const std::string& path,
                                                    Statistics& statistics);

/// Statistics as `run.statistics_from` and `run.statistics_to` say: what the files hold together, where there are any, else those of the
/// set. The result is kept in `run.statistics_to`. A run over the set that was stopped keeps what it has; the next one goes on behind
/// it, to the same result bit by bit, and one over a set that is in the file already needs no pass at all.
/// Errors: as AddCalibrationFile, WriteCalibrationFile and GatherStatistics; INVALID_ARGUMENT for files to read that were stopped or
/// share samples, and one to write that is there with other samples; CANCELLED when `run.progress` says so.
absl::StatusOr<Statistics> FileStatistics(const Graph& graph, const CalibrationData& set,
                                          const CalibrationRun& run);

/// Records that what judges has been seen (Statistics::of_judges).
void RecordSeenJudges(const Statistics& statistics, std::vector<QuantizeRecord>& records);

}  // namespace octet

#include "engine/quantize/choose_ranges.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "engine/quantize/held_back.h"
#include "engine/quantize/insert_integers.h"
#include "engine/quantize/ranges.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// What a change has to leave of the noise to be worth more than chance.
constexpr double kLeftAtMost = 0.98;
constexpr size_t kAlternatives = 2;

// Values that are decided together.
struct Block {
  std::vector<ValueId> values;
  size_t candidate = 0;
};

std::vector<QuantizeRecipe> AllCandidates(const QuantizeRecipe& recipe) {
  std::vector<QuantizeRecipe> candidates = RangeCandidates(recipe);
  for (const RangeMethod method : {RangeMethod::kMse, RangeMethod::kEntropy})
    candidates.emplace_back(recipe).method = method;
  return candidates;
}

class RangeSearch {
 public:
  RangeSearch(const Graph& graph, const QuantizeRecipe& recipe, const Statistics& statistics,
              const Judge& judge, const CalibrationRun& run)
      : graph_(graph),
        statistics_(statistics),
        judge_(judge),
        run_(run),
        candidates_(AllCandidates(recipe)) {}

  absl::StatusOr<ChosenRanges> Run() {
    FormBlocks();
    OCTET_RETURN_IF_ERROR(TryCandidates());
    double noise = noise_[ranking_[0]];
    if (blocks_.size() > 1) {
      OCTET_ASSIGN_OR_RETURN(noise, TryBlocks(noise));
    }
    tables_.clear();
    for (const QuantizeRecipe& candidate : candidates_)
      tables_.push_back(RangesOf(graph_, candidate, statistics_.histograms));
    OCTET_ASSIGN_OR_RETURN(QuantizeResult result, Make());
    result.records.insert(result.records.begin(), records_.begin(), records_.end());
    return ChosenRanges{std::move(result), noise};
  }

 private:
  void FormBlocks() {
    std::vector<ValueId> owners;
    for (const ValueId id : statistics_.selection.quantized) {
      const ValueId owner = statistics_.selection.RangeOwner(id);
      if (!std::ranges::contains(owners, owner)) owners.push_back(owner);
    }
    const size_t per_block = (owners.size() + kMostBlocks - 1) / kMostBlocks;
    for (size_t i = 0; i < owners.size(); ++i) {
      if (i % per_block == 0) blocks_.emplace_back();
      blocks_.back().values.push_back(owners[i]);
    }
  }

  RangeTable Table() const {
    RangeTable table = tables_[ranking_.empty() ? 0 : ranking_[0]];
    for (const Block& block : blocks_) {
      for (const ValueId id : block.values)
        table.insert_or_assign(id, tables_[block.candidate].at(id));
    }
    return table;
  }

  absl::StatusOr<QuantizeResult> Make() {
    return InsertIntegers(graph_, candidates_[0], statistics_, statistics_.selection, Table(),
                          rounded_);
  }

  absl::StatusOr<double> Noise(const CalibrationData& samples) {
    OCTET_ASSIGN_OR_RETURN(const QuantizeResult result, Make());
    return judge_.outputs.NoiseOf(result.graph, samples, run_);
  }

  void ChooseEverywhere(size_t candidate) {
    for (Block& block : blocks_) block.candidate = candidate;
  }

  absl::Status TryCandidates() {
    for (size_t i = 0; i < candidates_.size(); ++i) {
      tables_.push_back(RangesOf(graph_, candidates_[i], judge_.histograms));
      ChooseEverywhere(i);
      OCTET_ASSIGN_OR_RETURN(const double noise, Noise(judge_.samples));
      noise_.push_back(noise);
      records_.push_back({RangesName(candidates_[i]), "tried",
                          Format("outputs' noise over signal {:.3g} on {} samples", noise,
                                 judge_.samples.count())});
    }
    ranking_.resize(candidates_.size());
    std::iota(ranking_.begin(), ranking_.end(), size_t{0});
    std::ranges::stable_sort(ranking_, {}, [&](size_t i) { return noise_[i]; });
    ChooseEverywhere(ranking_[0]);
    return absl::OkStatus();
  }

  bool SameRanges(const Block& block, size_t candidate) const {
    return std::ranges::all_of(block.values, [&](ValueId id) {
      return tables_[candidate].at(id).range == tables_[block.candidate].at(id).range;
    });
  }

  // Returns the noise of what is chosen in the end.
  absl::StatusOr<double> TryBlocks(double everywhere) {
    // A model with a batch of its own takes no less.
    const CalibrationData few =
        FirstSamples(judge_.samples, std::max(kBlockSamples, OwnBatch(graph_, judge_.samples)));
    OCTET_ASSIGN_OR_RETURN(double least, Noise(few));
    const size_t alternatives = std::min(kAlternatives + 1, ranking_.size());
    std::vector<QuantizeRecord> kept;
    for (Block& block : blocks_) {
      for (size_t i = 1; i < alternatives; ++i) {
        if (SameRanges(block, ranking_[i])) continue;
        const size_t before = std::exchange(block.candidate, ranking_[i]);
        OCTET_ASSIGN_OR_RETURN(const double noise, Noise(few));
        if (!(noise < kLeftAtMost * least)) {
          block.candidate = before;
          continue;
        }
        kept.push_back(
            {graph_.value(block.values.front()).name, "ranges",
             Format("{} for {} values: outputs' noise over signal {:.3g}, not {:.3g}",
                    RangesName(candidates_[block.candidate]), block.values.size(), noise, least)});
        least = noise;
      }
    }
    if (kept.empty()) return everywhere;
    OCTET_ASSIGN_OR_RETURN(const double mixed, Noise(judge_.samples));
    const bool better = mixed < everywhere;
    records_.push_back({Format("block by block, {} of {} changed", kept.size(), blocks_.size()),
                        "tried",
                        Format("outputs' noise over signal {:.3g} on {} samples{}", mixed,
                               judge_.samples.count(), better ? "" : ", not kept")});
    if (better) {
      records_.insert(records_.end(), kept.begin(), kept.end());
      return mixed;
    }
    ChooseEverywhere(ranking_[0]);
    return everywhere;
  }

  const Graph& graph_;
  const Statistics& statistics_;
  const Judge& judge_;
  const CalibrationRun& run_;
  std::vector<QuantizeRecipe> candidates_;
  std::vector<RangeTable> tables_;  ///< By candidate.
  std::vector<double> noise_;       ///< By candidate.
  std::vector<size_t> ranking_;     ///< Candidates, the best one first.
  std::vector<Block> blocks_;
  RoundedWeights rounded_;
  std::vector<QuantizeRecord> records_;
};

}  // namespace

absl::StatusOr<ChosenRanges> ChooseRanges(const Graph& graph, const QuantizeRecipe& recipe,
                                          const Statistics& statistics, const Judge& judge,
                                          const CalibrationRun& run) {
  constexpr int64_t kMostRuns = 5 + 2 + kAlternatives * kMostBlocks;
  int64_t runs = 0;
  CalibrationRun counted = run;
  if (run.progress) {
    // One step per run of the model, whose own steps are short.
    counted.progress = [&](int64_t done, int64_t total) {
      runs += done == total;
      return run.progress(std::min(runs, kMostRuns), kMostRuns);
    };
  }
  return RangeSearch(graph, recipe, statistics, judge, counted).Run();
}

}  // namespace octet

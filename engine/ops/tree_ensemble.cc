// ai.onnx.ml TreeEnsemble, TreeEnsembleRegressor, TreeEnsembleClassifier: each row of X falls through every tree, and the leaves
// that it reaches are aggregated. Source: ONNX TreeEnsemble-5, TreeEnsembleRegressor-1, -3, TreeEnsembleClassifier-1, -3;
// what they leave open of two classes is as ONNX Runtime has it.
#include "engine/ops/tree_ensemble.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/ops/tree_walk.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr int64_t kRowsAtOnce = 64;       // While a tree's nodes are at hand.
constexpr int64_t kSumsAtOnce = 1 << 15;  // Fewer rows where each has many targets.
constexpr int64_t kWaysPerPart = 4096;    // Ways down that are worth a thread.

// ---- Sums of a block of rows

template <typename T, typename S>
struct Forest {
  explicit Forest(Ensemble read) : walk(read), e(std::move(read)) {
    e.nodes = {};  // The walk has its own.
    e.roots = {};
  }

  TreeWalk<T, S> walk;
  Ensemble e;
};

void AddGift(Aggregate aggregate, double weight, double& sum, uint8_t& given) {
  if (given == 0) {
    sum = weight;
  } else if (aggregate == Aggregate::kMin) {
    sum = std::min(sum, weight);
  } else if (aggregate == Aggregate::kMax) {
    sum = std::max(sum, weight);
  } else {
    sum += weight;
  }
  given = 1;
}

// What the leaves give to each target of each row, and to which targets they give at all; of the others the sum is 0.
template <typename T, typename S>
void AddLeaves(const Forest<T, S>& forest, const T* x, int64_t columns, size_t rows,
               std::span<double> sums, std::span<uint8_t> given) {
  const Ensemble& e = forest.e;
  const TreeWalk<T, S>& walk = forest.walk;
  const auto targets = static_cast<size_t>(e.targets);
  std::ranges::fill(sums, 0.0);
  std::ranges::fill(given, uint8_t{0});
  if (walk.single() && (e.aggregate == Aggregate::kSum || e.aggregate == Aggregate::kAverage)) {
    walk.ForEachLeaf(x, columns, rows, [&](size_t row, uint32_t node) {
      const size_t at = row * targets + walk.target(node);
      sums[at] += static_cast<double>(walk.weight(node));
      given[at] = 1;
    });
    return;
  }
  walk.ForEachLeaf(x, columns, rows, [&](size_t row, uint32_t node) {
    const Leaf& leaf = e.leaves[walk.leaf(node)];
    for (size_t i = leaf.first; i < leaf.last; ++i) {
      const size_t at = row * targets + e.gifts[i].target;
      AddGift(e.aggregate, e.gifts[i].weight, sums[at], given[at]);
    }
  });
}

// Calls finish(row, sums, given) with the targets of each row.
template <typename T, typename S, typename Finish>
void ForEachForestRow(const Forest<T, S>& forest, const ConstTensorView& x, const Finish& finish) {
  const int64_t columns = x.shape()[1];
  const auto targets = static_cast<size_t>(forest.e.targets);
  const auto trees = static_cast<int64_t>(forest.walk.trees());
  const int64_t block = std::clamp<int64_t>(kSumsAtOnce / forest.e.targets, 1, kRowsAtOnce);
  const int64_t grain = std::max<int64_t>(kWaysPerPart / (trees + 1), 1);
  ParallelFor(x.shape()[0], grain, [&](int64_t begin, int64_t end) {
    const auto most = static_cast<size_t>(std::min(block, end - begin));
    std::vector<double> sums(most * targets);
    std::vector<uint8_t> given(most * targets);
    for (int64_t at = begin; at < end; at += block) {
      const auto rows = static_cast<size_t>(std::min(block, end - at));
      AddLeaves<T, S>(forest, x.as<T>() + at * columns, columns, rows,
                      std::span(sums).first(rows * targets),
                      std::span(given).first(rows * targets));
      for (size_t row = 0; row < rows; ++row) {
        finish(at + static_cast<int64_t>(row), std::span(sums).subspan(row * targets, targets),
               std::span(given).subspan(row * targets, targets));
      }
    }
  });
}

// Whether FP32 holds every split and weight.
bool FitsFloat(const Ensemble& e) {
  const auto fits = [](double x) {
    return std::isnan(x) || static_cast<double>(static_cast<float>(x)) == x;
  };
  const auto node_fits = [&](const TreeNode& node) {
    return fits(node.split) && std::ranges::all_of(node.members, fits);
  };
  return std::ranges::all_of(e.nodes, node_fits) &&
         std::ranges::all_of(e.gifts, [&](const Gift& gift) { return fits(gift.weight); });
}

// make(forest) for the element type of X.
template <typename Make>
absl::StatusOr<Kernel> KernelOverForest(const KernelContext& context, const Make& make) {
  OCTET_ASSIGN_OR_RETURN(Ensemble e, ReadEnsemble(context.node));
  return KernelFor(Types<float, double, int32_t, int64_t>{}, context.inputs[0].dtype(),
                   context.node, [&]<typename T>() -> Kernel {
                     if constexpr (std::is_same_v<T, float>) {
                       if (FitsFloat(e))
                         return make(std::make_shared<const Forest<T, float>>(std::move(e)));
                     }
                     return make(std::make_shared<const Forest<T, double>>(std::move(e)));
                   });
}

// ---- TreeEnsemble, TreeEnsembleRegressor

/// TreeEnsemble answers in the type of X, the older operator in floats.
DType AnswerType(const Node& node, DType input) {
  return node.op == "TreeEnsemble" ? input : DType::kF32;
}

absl::Status CheckRows(InferContext& context, const Ensemble& e) {
  if (!context.shape(0)) return absl::OkStatus();
  const int64_t columns = (*context.shape(0))[1];
  if (columns == kUnknownDim || columns >= e.features) return absl::OkStatus();
  return context.Error(Format("rows of {} features, the trees read {}", columns, e.features));
}

absl::Status InferTreeEnsemble(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  const bool older = context.node().op != "TreeEnsemble";
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, older ? kFloats | kIndexTypes : kFloats));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 2, 2));
  OCTET_ASSIGN_OR_RETURN(const Ensemble e, ReadEnsemble(context.node()));
  OCTET_RETURN_IF_ERROR(CheckRows(context, e));
  const DType dtype = AnswerType(context.node(), context.dtype(0));
  if (!context.shape(0)) return context.SetOutput(0, dtype, std::nullopt);
  return context.SetOutput(0, dtype, Shape{(*context.shape(0))[0], e.targets});
}

template <typename Y>
void FinishTargets(const Ensemble& e, double divisor, std::span<const double> sums, Y* y) {
  for (size_t t = 0; t < sums.size(); ++t)
    y[t] = static_cast<Y>(sums[t] / divisor + (e.base.empty() ? 0.0 : e.base[t]));
  if (e.post == PostTransform::kKeep) return;
  std::vector<float> scores(y, y + sums.size());
  TransformScores(e.post, scores);
  std::ranges::copy(scores, y);
}

template <typename Y, typename ForestPointer>
Kernel EnsembleKernel(ForestPointer forest) {
  const auto trees = static_cast<double>(forest->walk.trees());
  const double divisor = forest->e.aggregate == Aggregate::kAverage && trees > 0 ? trees : 1.0;
  return [forest, divisor](std::span<const ConstTensorView> inputs,
                           std::span<const TensorView> outputs) {
    ForEachForestRow(
        *forest, inputs[0], [&](int64_t row, std::span<double> sums, std::span<uint8_t>) {
          FinishTargets(forest->e, divisor, sums, outputs[0].as<Y>() + row * forest->e.targets);
        });
    return absl::OkStatus();
  };
}

absl::StatusOr<Kernel> MakeTreeEnsemble(const KernelContext& context) {
  const bool wide = context.outputs[0].dtype == DType::kF64;
  return KernelOverForest(context, [&](auto forest) -> Kernel {
    return wide ? EnsembleKernel<double>(std::move(forest))
                : EnsembleKernel<float>(std::move(forest));
  });
}

// ---- TreeEnsembleClassifier

absl::Status InferTreeClassifier(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats | kIndexTypes));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 2, 2));
  OCTET_ASSIGN_OR_RETURN(const Ensemble e, ReadEnsemble(context.node()));
  OCTET_RETURN_IF_ERROR(CheckRows(context, e));
  const int64_t rows = context.shape(0) ? (*context.shape(0))[0] : kUnknownDim;
  OCTET_RETURN_IF_ERROR(context.SetOutput(0, DType::kI64, Shape{rows}));
  return context.SetOutput(1, DType::kF32, Shape{rows, e.targets});
}

// How the scores of one row become a class.
struct ClassRule {
  std::vector<double> base;
  PostTransform post = PostTransform::kKeep;
  bool one_of_two = false;  ///< Of two classes the leaves give to one alone.
  bool shares = false;      ///< No leaf gives less than 0.
};

ClassRule RuleOf(const Ensemble& e) {
  ClassRule rule{e.base, e.post};
  const auto same = [&](const Gift& gift) { return gift.target == e.gifts.front().target; };
  rule.one_of_two = e.targets == 2 && !e.gifts.empty() && std::ranges::all_of(e.gifts, same);
  rule.shares = std::ranges::none_of(e.gifts, [](const Gift& gift) { return gift.weight < 0; });
  return rule;
}

// A score that stands for both classes: of the second one, of which the first one's is the counterpart.
int64_t FinishOneOfTwo(const ClassRule& rule, float score, float* y) {
  const bool shares = rule.one_of_two && rule.shares;
  y[1] = score;
  if (rule.post == PostTransform::kProbit) {
    y[0] = Probit(score);  // ONNX Runtime leaves the other one as it is found in memory.
    y[1] = 0;
  } else if (shares) {
    y[0] = 1.0F - score;
  } else if (rule.post == PostTransform::kLogistic) {
    y[0] = Logistic(-score);
    y[1] = Logistic(score);
  } else {
    y[0] = -score;
  }
  return score > (shares ? 0.5F : 0.0F) ? 1 : 0;
}

// Two classes. The second one wins above 0, or above a half where a score is the share of trees that are for it.
int64_t FinishTwo(const ClassRule& rule, std::span<double> sums, std::span<const uint8_t> given,
                  float* y) {
  if (rule.base.size() == 2 && given[1] != 0) {
    // ONNX Runtime takes the first class's sum here, whatever the second one's is.
    sums[1] = rule.base[1] + sums[0];
    sums[0] = -sums[1];
  } else {
    for (size_t k = 0; k < rule.base.size(); ++k) sums[k] += rule.base[k];
  }
  // A base does not stand for what no leaf has given to.
  y[0] = given[0] != 0 ? static_cast<float>(sums[0]) : 0.0F;
  y[1] = given[1] != 0 ? static_cast<float>(sums[1]) : 0.0F;
  if (given[1] == 0 && rule.base.size() < 2) return FinishOneOfTwo(rule, y[0], y);
  const float second = given[1] != 0 ? y[1] : y[0];
  const float bound = rule.one_of_two && rule.shares ? 0.5F : 0.0F;
  TransformScores(rule.post, {y, 2});
  return second > bound ? 1 : 0;
}

// Three classes or more: the largest score wins, among equal ones the first, of those that leaves or bases have given to.
int64_t FinishMany(const ClassRule& rule, std::span<double> sums, std::span<uint8_t> given,
                   float* y) {
  for (size_t k = 0; k < rule.base.size(); ++k) {
    sums[k] += rule.base[k];
    given[k] = 1;
  }
  int64_t best = -1;
  for (size_t k = 0; k < sums.size(); ++k) {
    y[k] = static_cast<float>(sums[k]);
    if (given[k] != 0 && (best < 0 || y[k] > y[best])) best = static_cast<int64_t>(k);
  }
  TransformScores(rule.post, {y, sums.size()});
  return std::max<int64_t>(best, 0);
}

// One class is there or not: the answer is 1 above 0.
int64_t FinishOne(const ClassRule& rule, double sum, float* y) {
  y[0] = static_cast<float>(sum + (rule.base.empty() ? 0.0 : rule.base[0]));
  const int64_t answer = y[0] > 0 ? 1 : 0;
  TransformScores(rule.post, {y, 1});
  return answer;
}

absl::StatusOr<Kernel> MakeTreeClassifier(const KernelContext& context) {
  return KernelOverForest(context, [](auto forest) -> Kernel {
    return [forest, rule = RuleOf(forest->e)](std::span<const ConstTensorView> inputs,
                                              std::span<const TensorView> outputs) {
      const auto finish = [&](int64_t row, std::span<double> sums, std::span<uint8_t> given) {
        std::vector<float> spare;
        float* y = nullptr;
        if (outputs[1].data != nullptr) {
          y = outputs[1].as<float>() + row * std::ssize(sums);
        } else {
          spare.resize(sums.size());
          y = spare.data();
        }
        const int64_t index = sums.size() == 1   ? FinishOne(rule, sums[0], y)
                              : sums.size() == 2 ? FinishTwo(rule, sums, given, y)
                                                 : FinishMany(rule, sums, given, y);
        if (outputs[0].data != nullptr) outputs[0].as<int64_t>()[row] = index;
      };
      ForEachForestRow(*forest, inputs[0], finish);
      return absl::OkStatus();
    };
  });
}

// The class's number by octet:TreeClassifier, and its label by that.
absl::Status ExpandTreeClassifier(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 1));
  OCTET_ASSIGN_OR_RETURN(Tensor labels, ReadClassLabels(body.attributes(), "classlabels_strings",
                                                        "classlabels_int64s"));
  if (labels.elements() == 1) {
    if (labels.dtype() == DType::kString)
      return Unimplemented("one label in 'classlabels_strings', expected at least 2");
    labels = Tensor::From<int64_t>(Shape{2}, {0, 1});
  }
  const std::vector<FunctionBody::Attribute> attributes(body.attributes().begin(),
                                                        body.attributes().end());
  const std::vector<ValueId> made =
      body.Ops("octet:TreeClassifier", {body.input(0)}, 2, attributes);
  body.Output(0, LabelsAt(body, std::move(labels), made[0]));
  body.Output(1, made[1]);
  return absl::OkStatus();
}

constexpr OpTraits kTreeTraits = {.strings = true};

}  // namespace

std::span<const OpDef> TreeEnsembleOps() {
  static constexpr OpDef kOps[] = {
      {kMlDomain, "TreeEnsemble", 5, INT_MAX, InferTreeEnsemble, MakeTreeEnsemble},
      {kMlDomain, "TreeEnsembleRegressor", 1, INT_MAX, InferTreeEnsemble, MakeTreeEnsemble},
      {kOctetDomain, "TreeClassifier", 1, INT_MAX, InferTreeClassifier, MakeTreeClassifier},
      Function(kMlDomain, "TreeEnsembleClassifier", ExpandTreeClassifier, kTreeTraits),
  };
  return kOps;
}

}  // namespace octet

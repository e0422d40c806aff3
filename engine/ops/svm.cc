// ai.onnx.ml SVMClassifier, SVMRegressor: sums over kernels of a row and the support vectors.
// Source: ONNX SVMClassifier-1, SVMRegressor-1; C.-C. Chang, C.-J. Lin, "LIBSVM: a library for support vector machines", 2011,
// whose models converters write; what both leave open is as ONNX Runtime has it.
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/ops/class_scores.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

enum class KernelType : uint8_t { kLinear, kPoly, kRbf, kSigmoid };
constexpr std::array<std::string_view, 4> kKernelTypes = {"LINEAR", "POLY", "RBF", "SIGMOID"};

// ---- Kernels: what one row is to each support vector

/// LINEAR x.v, POLY (gamma x.v + coef0)^degree, RBF exp(-gamma |x - v|^2), SIGMOID tanh(gamma x.v + coef0).
struct Vectors {
  KernelType type = KernelType::kLinear;
  float gamma = 0;
  float coef0 = 0;
  float degree = 0;
  int64_t count = 0;
  int64_t features = 0;
  std::vector<float> columns;  ///< [features, count]: feature f of all vectors side by side.
};

// y[v] = x . vector v.
OCTET_CPU_CLONES void Products(const float* x, const float* columns, int64_t features,
                               int64_t count, float* y) {
  std::fill_n(y, count, 0.0F);
  for (int64_t f = 0; f < features; ++f) {
    const float* column = columns + f * count;
    for (int64_t v = 0; v < count; ++v) y[v] += x[f] * column[v];
  }
}

// y[v] = |x - vector v|^2.
OCTET_CPU_CLONES void Distances(const float* x, const float* columns, int64_t features,
                                int64_t count, float* y) {
  std::fill_n(y, count, 0.0F);
  for (int64_t f = 0; f < features; ++f) {
    const float* column = columns + f * count;
    for (int64_t v = 0; v < count; ++v) y[v] += (x[f] - column[v]) * (x[f] - column[v]);
  }
}

void EvaluateKernels(const Vectors& vectors, const float* x, std::span<float> y) {
  const auto distances = vectors.type == KernelType::kRbf;
  (distances ? Distances : Products)(x, vectors.columns.data(), vectors.features, vectors.count,
                                     y.data());
  for (float& k : y) {
    switch (vectors.type) {
      case KernelType::kLinear:
        return;
      case KernelType::kPoly:
        k = std::pow(vectors.gamma * k + vectors.coef0, vectors.degree);
        break;
      case KernelType::kRbf:
        k = std::exp(-vectors.gamma * k);
        break;
      case KernelType::kSigmoid:
        k = std::tanh(vectors.gamma * k + vectors.coef0);
        break;
    }
  }
}

/// `count` vectors, one behind the other. A linear model is what its coefficients are: vectors, with no kernel.
absl::StatusOr<Vectors> ReadVectors(const Attributes& attributes, std::string_view name,
                                    int64_t count, bool linear) {
  OCTET_ASSIGN_OR_RETURN(const auto type, attributes.String("kernel_type", "LINEAR"));
  OCTET_ASSIGN_OR_RETURN(const auto parameters, attributes.Floats("kernel_params", {}));
  OCTET_ASSIGN_OR_RETURN(const auto rows, attributes.Floats(name, {}));
  const auto at = std::ranges::find(kKernelTypes, std::string_view(type));
  if (at == kKernelTypes.end())
    return InvalidArgument("'kernel_type' must be LINEAR, POLY, RBF or SIGMOID, not '{}'", type);
  const auto elements = std::ssize(rows);
  if (count < 1 || elements == 0 || elements % count != 0)
    return InvalidArgument("'{}' has {} elements for {} vectors", name, elements, count);
  Vectors vectors;
  vectors.count = count;
  vectors.features = elements / count;
  if (!linear) vectors.type = static_cast<KernelType>(at - kKernelTypes.begin());
  if (vectors.type != KernelType::kLinear) {
    if (parameters.size() != 3) {
      return InvalidArgument("'kernel_params' must be gamma, coef0 and degree, got {} elements",
                             parameters.size());
    }
    vectors.gamma = parameters[0];
    vectors.coef0 = parameters[1];
    vectors.degree = parameters[2];
  }
  vectors.columns.resize(rows.size());
  for (int64_t v = 0; v < count; ++v) {
    for (int64_t f = 0; f < vectors.features; ++f) {
      vectors.columns[static_cast<size_t>(f * count + v)] =
          rows[static_cast<size_t>(v * vectors.features + f)];
    }
  }
  return vectors;
}

// Calls answer(row, kernels) for each row of X, which is [N, features] or [features].
template <typename Answer>
void ForEachKernelRow(const Vectors& vectors, const ConstTensorView& x, const Answer& answer) {
  const int64_t rows = x.elements() / vectors.features;
  Tensor reals(DType::kF32, x.shape());
  ConvertTensor(x, reals.mutable_view());
  const float* data = reals.span<float>().data();
  const int64_t work = vectors.count * vectors.features;
  ParallelFor(rows, std::max<int64_t>((1 << 16) / work, 1), [&](int64_t begin, int64_t end) {
    std::vector<float> kernels(static_cast<size_t>(vectors.count));
    for (int64_t row = begin; row < end; ++row) {
      EvaluateKernels(vectors, data + row * vectors.features, kernels);
      answer(row, std::span<const float>(kernels));
    }
  });
}

absl::Status ExpectRows(InferContext& context, int64_t features) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats | kIndexTypes));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 1, 2));
  if (!context.shape(0)) return absl::OkStatus();
  const Shape& x = *context.shape(0);
  const int64_t columns = x[x.rank() - 1];
  if (columns == kUnknownDim || columns == features) return absl::OkStatus();
  return context.Error(Format("rows of {} features, the vectors have {}", columns, features));
}

int64_t RowsOf(const InferContext& context) {
  if (!context.shape(0)) return kUnknownDim;
  return context.shape(0)->rank() == 1 ? 1 : (*context.shape(0))[0];
}

// ---- SVMRegressor

struct SvmRegressor {
  Vectors vectors;
  std::vector<float> coefficients;  ///< One for each vector.
  float rho = 0;
  bool one_class = false;
  PostTransform post = PostTransform::kKeep;
};

absl::StatusOr<SvmRegressor> ReadSvmRegressor(const Attributes& attributes) {
  SvmRegressor svm;
  OCTET_ASSIGN_OR_RETURN(const int64_t supports, attributes.Int("n_supports", 0));
  OCTET_ASSIGN_OR_RETURN(svm.coefficients, attributes.Floats("coefficients", {}));
  OCTET_ASSIGN_OR_RETURN(const auto rho, attributes.Floats("rho", {}));
  OCTET_ASSIGN_OR_RETURN(const int64_t one_class, attributes.Int("one_class", 0));
  OCTET_ASSIGN_OR_RETURN(svm.post, ReadPostTransform(attributes));
  if (rho.empty()) return InvalidArgument("'rho' must have an element");
  svm.rho = rho[0];
  svm.one_class = one_class != 0;
  if (supports > 0) {
    OCTET_ASSIGN_OR_RETURN(svm.vectors,
                           ReadVectors(attributes, "support_vectors", supports, false));
    if (std::ssize(svm.coefficients) == supports) return svm;
    return InvalidArgument("'coefficients' has {} elements for {} support vectors",
                           svm.coefficients.size(), supports);
  }
  OCTET_ASSIGN_OR_RETURN(svm.vectors, ReadVectors(attributes, "coefficients", 1, true));
  svm.coefficients = {1.0F};
  return svm;
}

absl::Status InferSvmRegressor(InferContext& context) {
  OCTET_ASSIGN_OR_RETURN(const SvmRegressor svm, ReadSvmRegressor(context.attributes()));
  OCTET_RETURN_IF_ERROR(ExpectRows(context, svm.vectors.features));
  return context.SetOutput(0, DType::kF32, Shape{RowsOf(context), 1});
}

absl::StatusOr<Kernel> MakeSvmRegressor(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(SvmRegressor read, ReadSvmRegressor(context.node.attributes));
  auto svm = std::make_shared<const SvmRegressor>(std::move(read));
  return Kernel(
      [svm](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
        float* y = outputs[0].as<float>();
        ForEachKernelRow(svm->vectors, inputs[0], [&](int64_t row, std::span<const float> kernels) {
          double sum = double{svm->rho};
          for (size_t v = 0; v < kernels.size(); ++v)
            sum += double{kernels[v]} * double{svm->coefficients[v]};
          y[row] = static_cast<float>(sum);
          TransformScores(svm->post, {y + row, 1});
          if (svm->one_class) y[row] = y[row] > 0 ? 1.0F : -1.0F;
        });
        return absl::OkStatus();
      });
}

// ---- SVMClassifier

/// Without support vectors: a row of coefficients for each class. With them: a classifier for each pair of classes (i, j), i < j,
/// which sums over the vectors of both. Class j's row of coefficients j - 1 is for the vectors of classes before j, i's row i
/// for those of classes behind i.
struct SvmClassifier {
  Vectors vectors;
  bool linear = false;
  size_t classes = 0;
  std::vector<size_t> first;  ///< Vector of each class, and their number: classes + 1.
  std::vector<float> coefficients, rho, prob_a, prob_b;
  bool all_positive = false;  ///< No coefficient is below 0.
  PostTransform post = PostTransform::kKeep;

  size_t pairs() const { return classes * (classes - 1) / 2; }
  bool has_probabilities() const { return !prob_a.empty(); }
  /// Scores of a row: of the classes, or of the pairs of them.
  size_t scores() const {
    return linear || has_probabilities() || classes == 2 ? classes : pairs();
  }
};

absl::Status ReadClasses(const Attributes& attributes, SvmClassifier& svm) {
  OCTET_ASSIGN_OR_RETURN(const Tensor labels,
                         ReadClassLabels(attributes, "classlabels_strings", "classlabels_ints"));
  OCTET_ASSIGN_OR_RETURN(const auto counts, attributes.Ints("vectors_per_class", {}));
  svm.classes = static_cast<size_t>(labels.elements());
  if (svm.classes >= size_t{1} << 16)
    return InvalidArgument("more classes than 65535: {}", svm.classes);
  svm.first = {0};
  for (const int64_t count : counts) {
    if (count < 0 || count > INT32_MAX)
      return InvalidArgument("'vectors_per_class' holds {}", count);
    svm.first.push_back(svm.first.back() + static_cast<size_t>(count));
  }
  svm.linear = svm.first.back() == 0;
  if (svm.linear) return absl::OkStatus();
  if (counts.size() != svm.classes || svm.classes < 2)
    return InvalidArgument("'vectors_per_class' has {} elements for {} classes", counts.size(),
                           svm.classes);
  return absl::OkStatus();
}

absl::StatusOr<SvmClassifier> ReadSvmClassifier(const Attributes& attributes) {
  SvmClassifier svm;
  OCTET_RETURN_IF_ERROR(ReadClasses(attributes, svm));
  OCTET_ASSIGN_OR_RETURN(svm.coefficients, attributes.Floats("coefficients", {}));
  OCTET_ASSIGN_OR_RETURN(svm.rho, attributes.Floats("rho", {}));
  OCTET_ASSIGN_OR_RETURN(svm.prob_a, attributes.Floats("prob_a", {}));
  OCTET_ASSIGN_OR_RETURN(svm.prob_b, attributes.Floats("prob_b", {}));
  OCTET_ASSIGN_OR_RETURN(svm.post, ReadPostTransform(attributes));
  svm.all_positive = std::ranges::none_of(svm.coefficients, [](float c) { return c < 0; });
  const size_t vectors = svm.first.back();
  const size_t biases = svm.linear ? 1 : svm.pairs();
  if (svm.rho.size() < biases)
    return InvalidArgument("'rho' has {} elements, expected {}", svm.rho.size(), biases);
  const bool fits = svm.prob_a.empty() || svm.linear || svm.prob_a.size() >= svm.pairs();
  if (svm.prob_a.size() != svm.prob_b.size() || !fits) {
    return InvalidArgument("'prob_a' and 'prob_b' have {} and {} elements for {} pairs of classes",
                           svm.prob_a.size(), svm.prob_b.size(), svm.pairs());
  }
  if (svm.linear) {
    OCTET_ASSIGN_OR_RETURN(svm.vectors, ReadVectors(attributes, "coefficients",
                                                    static_cast<int64_t>(svm.classes), true));
    return svm;
  }
  OCTET_ASSIGN_OR_RETURN(svm.vectors, ReadVectors(attributes, "support_vectors",
                                                  static_cast<int64_t>(vectors), false));
  if (svm.coefficients.size() != (svm.classes - 1) * vectors) {
    return InvalidArgument("'coefficients' has {} elements for {} classes of {} vectors",
                           svm.coefficients.size(), svm.classes, vectors);
  }
  return svm;
}

absl::Status InferSvmClassifier(InferContext& context) {
  OCTET_ASSIGN_OR_RETURN(const SvmClassifier svm, ReadSvmClassifier(context.attributes()));
  OCTET_RETURN_IF_ERROR(ExpectRows(context, svm.vectors.features));
  const int64_t rows = RowsOf(context);
  OCTET_RETURN_IF_ERROR(context.SetOutput(0, DType::kI64, Shape{rows}));
  return context.SetOutput(1, DType::kF32, Shape{rows, static_cast<int64_t>(svm.scores())});
}

/// The probabilities p that fit best to those of pairs: r[i, j] of class i when it is i or j, r of [K, K].
/// Minimizes sum of (r[j, i] p[i] - r[i, j] p[j])^2 by fixed-point steps until no p moves by 0.005 / K.
/// Source: T.-F. Wu, C.-J. Lin, R. C. Weng, "Probability estimates for multi-class classification by pairwise coupling",
/// 2004, algorithm 2.
void CouplePairs(std::span<const float> r, std::span<float> p) {
  const size_t classes = p.size();
  std::vector<float> q(classes * classes);
  std::vector<float> qp(classes);
  for (size_t i = 0; i < classes; ++i) {
    for (size_t j = 0; j < classes; ++j) {
      if (i == j) continue;
      q[i * classes + i] += r[j * classes + i] * r[j * classes + i];
      q[i * classes + j] = -r[j * classes + i] * r[i * classes + j];
    }
  }
  std::ranges::fill(p, 1.0F / static_cast<float>(classes));
  const float bound = 0.005F / static_cast<float>(classes);
  for (int step = 0; step < 100; ++step) {
    float pqp = 0;
    for (size_t i = 0; i < classes; ++i) {
      qp[i] = 0;
      for (size_t j = 0; j < classes; ++j) qp[i] += q[i * classes + j] * p[j];
      pqp += p[i] * qp[i];
    }
    float worst = 0;
    for (const float one : qp) worst = std::max(worst, std::fabs(one - pqp));
    if (worst < bound) return;
    for (size_t i = 0; i < classes; ++i) {
      const float own = q[i * classes + i];
      const float change = (pqp - qp[i]) / own;
      const float scale = 1.0F + change;
      p[i] += change;
      pqp = (pqp + change * (change * own + 2 * qp[i])) / scale / scale;
      for (size_t j = 0; j < classes; ++j) {
        qp[j] = (qp[j] + change * q[i * classes + j]) / scale;
        p[j] /= scale;
      }
    }
  }
}

// The score of each pair, in order, and how many pairs each class has won.
void ScorePairs(const SvmClassifier& svm, std::span<const float> kernels, std::span<float> scores,
                std::span<int> votes) {
  size_t pair = 0;
  for (size_t i = 0; i + 1 < svm.classes; ++i) {
    for (size_t j = i + 1; j < svm.classes; ++j, ++pair) {
      double sum = double{svm.rho[pair]};
      const auto add = [&](size_t row, size_t of) {
        const float* coefficients = svm.coefficients.data() + row * kernels.size();
        for (size_t v = svm.first[of]; v < svm.first[of + 1]; ++v)
          sum += double{coefficients[v]} * double{kernels[v]};
      };
      add(j - 1, i);
      add(i, j);
      scores[pair] = static_cast<float>(sum);
      ++votes[sum > 0 ? i : j];
    }
  }
}

// Each pair's score to the probability of its first class, a logistic of it (Platt's), and these to probabilities of classes.
void FindProbabilities(const SvmClassifier& svm, std::span<const float> scores,
                       std::span<float> p) {
  std::vector<float> r(svm.classes * svm.classes);
  size_t pair = 0;
  for (size_t i = 0; i + 1 < svm.classes; ++i) {
    for (size_t j = i + 1; j < svm.classes; ++j, ++pair) {
      const float first = 1.0F - Logistic(scores[pair] * svm.prob_a[pair] + svm.prob_b[pair]);
      r[i * svm.classes + j] = std::clamp(first, 1e-7F, 1.0F - 1e-7F);
      r[j * svm.classes + i] = 1.0F - r[i * svm.classes + j];
    }
  }
  CouplePairs(r, p);
}

// The class with the most pairs wins, among equal ones the first. Of two classes without probabilities the scores are -s and s, or
// 1 - s and s under any transform.
int64_t FinishPairs(const SvmClassifier& svm, std::span<const float> kernels, std::span<float> y) {
  std::vector<float> scores(svm.pairs());
  std::vector<int> votes(svm.classes);
  ScorePairs(svm, kernels, scores, votes);
  const auto best = std::ranges::max_element(votes) - votes.begin();
  if (svm.has_probabilities()) {
    FindProbabilities(svm, scores, y);
    TransformScores(svm.post, y);
  } else if (svm.classes > 2) {
    std::ranges::copy(scores, y.begin());
    TransformScores(svm.post, y);
  } else if (svm.post == PostTransform::kProbit) {
    y[0] = Probit(scores[0]);  // ONNX Runtime leaves the other one as it is found in memory.
    y[1] = 0;
  } else {
    y[0] = svm.post == PostTransform::kKeep ? -scores[0] : 1.0F - scores[0];
    y[1] = scores[0];
  }
  return best;
}

// The largest score wins; but of two classes the second one as soon as any score is above 0 (from a half on where no coefficient is
// below 0).
int64_t FinishLinear(const SvmClassifier& svm, std::span<const float> kernels, std::span<float> y) {
  for (size_t k = 0; k < y.size(); ++k) y[k] = kernels[k] + svm.rho[0];
  const auto largest = std::ranges::max_element(y);
  int64_t best = largest - y.begin();
  const bool second = svm.all_positive ? *largest >= 0.5F : *largest > 0;
  if (svm.classes == 2 && !svm.has_probabilities() && second) best = 1;
  TransformScores(svm.post, y);
  return best;
}

absl::StatusOr<Kernel> MakeSvmClassifier(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(SvmClassifier read, ReadSvmClassifier(context.node.attributes));
  auto svm = std::make_shared<const SvmClassifier>(std::move(read));
  return Kernel(
      [svm](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
        ForEachKernelRow(svm->vectors, inputs[0], [&](int64_t row, std::span<const float> kernels) {
          std::vector<float> scores(svm->scores());
          const int64_t best = svm->linear ? FinishLinear(*svm, kernels, scores)
                                           : FinishPairs(*svm, kernels, scores);
          if (outputs[0].data != nullptr) outputs[0].as<int64_t>()[row] = best;
          if (outputs[1].data != nullptr)
            std::ranges::copy(scores, outputs[1].as<float>() + row * std::ssize(scores));
        });
        return absl::OkStatus();
      });
}

// The class's number by octet:SvmClassifier, and its label by that.
absl::Status ExpandSvmClassifier(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 1));
  OCTET_ASSIGN_OR_RETURN(
      Tensor labels, ReadClassLabels(body.attributes(), "classlabels_strings", "classlabels_ints"));
  const std::vector<FunctionBody::Attribute> attributes(body.attributes().begin(),
                                                        body.attributes().end());
  const std::vector<ValueId> made = body.Ops("octet:SvmClassifier", {body.input(0)}, 2, attributes);
  body.Output(0, LabelsAt(body, std::move(labels), made[0]));
  body.Output(1, made[1]);
  return absl::OkStatus();
}

constexpr OpTraits kSvmTraits = {.strings = true};

}  // namespace

std::span<const OpDef> SvmOps() {
  static constexpr OpDef kOps[] = {
      {kMlDomain, "SVMRegressor", 1, INT_MAX, InferSvmRegressor, MakeSvmRegressor},
      {kOctetDomain, "SvmClassifier", 1, INT_MAX, InferSvmClassifier, MakeSvmClassifier},
      Function(kMlDomain, "SVMClassifier", ExpandSvmClassifier, kSvmTraits),
  };
  return kOps;
}

}  // namespace octet

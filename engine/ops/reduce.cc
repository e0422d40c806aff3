// Reductions over a set of axes, and the positions of extremes along one axis.
#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include "engine/graph/stored_value.h"
#include "engine/ops/binary_math.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/ops/row_math.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

enum class Reduction { kSum, kMean, kMax, kMin, kProd, kL1, kL2, kSumSquare, kLogSum, kLogSumExp };

/// Which axes go: from the attribute, or from input 1 in later opsets.
struct Axes {
  std::vector<bool> reduced;  ///< Per axis of the input.
  bool keepdims = true;
};

bool AxesAreInput(const Node& node) {
  return node.op == "ReduceSum" ? node.version >= 13 : node.version >= 18;
}

absl::StatusOr<Axes> ResolveAxes(const Node& node,
                                 const std::optional<std::vector<int64_t>>& from_input, int rank) {
  OCTET_ASSIGN_OR_RETURN(const int64_t keepdims, node.attributes.Int("keepdims", 1));
  OCTET_ASSIGN_OR_RETURN(const int64_t noop, node.attributes.Int("noop_with_empty_axes", 0));
  std::vector<int64_t> axes;
  if (AxesAreInput(node)) {
    axes = from_input.value_or(std::vector<int64_t>{});
  } else {
    OCTET_ASSIGN_OR_RETURN(axes, node.attributes.Ints("axes", {}));
  }
  Axes result{std::vector<bool>(static_cast<size_t>(rank), axes.empty() && noop == 0),
              keepdims != 0};
  for (const int64_t raw : axes) {
    const auto axis = NormalizeAxis(raw, rank);
    if (!axis)
      return InvalidArgument("{}: axis outside of [-{}, {}): {}", Describe(node), rank, rank, raw);
    result.reduced[static_cast<size_t>(*axis)] = true;
  }
  return result;
}

Shape ReducedShape(const Shape& shape, const Axes& axes) {
  Shape out;
  for (int i = 0; i < shape.rank(); ++i) {
    if (!axes.reduced[static_cast<size_t>(i)]) {
      out.push_back(shape[i]);
    } else if (axes.keepdims) {
      out.push_back(1);
    }
  }
  return out;
}

constexpr DTypeSet kReduced =
    kFloats | DTypeSet{DType::kI32, DType::kI64, DType::kU32, DType::kU64};
constexpr Types<float, double, int32_t, int64_t, uint32_t, uint64_t> kReducedKernels;

/// Extremes know more types than sums.
DTypeSet TypesOf(const Node& node) {
  if (node.op != "ReduceMax" && node.op != "ReduceMin") return kReduced;
  const DTypeSet bytes = kReduced | DTypeSet{DType::kU8, DType::kI8};
  return node.version < 20 ? bytes : bytes | kBools;
}

absl::Status InferReduce(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, AxesAreInput(context.node()) ? 2 : 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, TypesOf(context.node())));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, {DType::kI64}));
  const bool unknown_axes = context.has_input(1) && !context.ConstantInts(1);
  if (!context.shape(0) || unknown_axes)
    return context.SetOutput(0, context.dtype(0), std::nullopt);
  const auto from_input = context.has_input(1) ? context.ConstantInts(1) : std::nullopt;
  OCTET_ASSIGN_OR_RETURN(const Axes axes,
                         ResolveAxes(context.node(), from_input, context.shape(0)->rank()));
  return context.SetOutput(0, context.dtype(0), ReducedShape(*context.shape(0), axes));
}

constexpr bool IsExtreme(Reduction reduction) {
  return reduction == Reduction::kMax || reduction == Reduction::kMin;
}

// Extremes stay in the element type. Sums and products of integers are taken in the type's own modular arithmetic;
// floats, and what is a fraction, in double.
template <Reduction kReduction, typename T>
struct AccumulatorOf {
  static constexpr bool kModular = kReduction == Reduction::kSum ||
                                   kReduction == Reduction::kProd || kReduction == Reduction::kL1 ||
                                   kReduction == Reduction::kSumSquare;
  using Element = std::conditional_t<std::is_same_v<T, bool>, uint8_t, T>;
  using Type = std::conditional_t<IsExtreme(kReduction) || (std::is_integral_v<T> && kModular),
                                  Element, double>;
};

template <Reduction kReduction, typename A>
A Start() {
  using Limits = std::numeric_limits<A>;
  if constexpr (kReduction == Reduction::kMax || kReduction == Reduction::kLogSumExp) {
    return Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
  } else if constexpr (kReduction == Reduction::kMin) {
    return Limits::has_infinity ? Limits::infinity() : Limits::max();
  } else if constexpr (kReduction == Reduction::kProd) {
    return A{1};
  } else {
    return A{0};
  }
}

template <Reduction kReduction, typename A>
A Combine(A so_far, A x) {
  if constexpr (kReduction == Reduction::kMax) {
    return x > so_far || x != x ? x : so_far;
  } else if constexpr (kReduction == Reduction::kMin) {
    return x < so_far || x != x ? x : so_far;
  } else if constexpr (kReduction == Reduction::kProd) {
    return math::Mul{}(so_far, x);
  } else if constexpr (kReduction == Reduction::kL1) {
    return math::Add{}(so_far, x < A{0} ? math::Sub{}(A{0}, x) : x);
  } else if constexpr (kReduction == Reduction::kL2 || kReduction == Reduction::kSumSquare) {
    return math::Add{}(so_far, math::Mul{}(x, x));
  } else if constexpr (kReduction == Reduction::kLogSumExp) {
    // log(exp(a) + exp(b)) without overflow. Comparisons would lose a NaN beside an infinity.
    if (x != x || so_far != so_far) return x + so_far;
    const A high = std::max(so_far, x);
    return std::isinf(high) ? high : high + std::log(std::exp(so_far - high) + std::exp(x - high));
  } else {
    return math::Add{}(so_far, x);
  }
}

/// The result in the element type; what no integer can hold is 0, as ONNX Runtime has a mean of nothing.
template <Reduction kReduction, typename T, typename A>
T Finish(A value, int64_t count) {
  if constexpr (kReduction == Reduction::kMean)
    value /= static_cast<A>(std::max<int64_t>(count, 1));
  if constexpr (kReduction == Reduction::kL2) value = std::sqrt(value);
  if constexpr (kReduction == Reduction::kLogSum) value = std::log(value);
  if constexpr (std::is_floating_point_v<A> && std::is_integral_v<T>) {
    using Limits = std::numeric_limits<T>;
    if (!(value >= static_cast<A>(Limits::min()))) return T{0};
    return value < static_cast<A>(Limits::max()) ? static_cast<T>(value) : Limits::max();
  }
  return static_cast<T>(value);
}

/// An axis, or several that lie side by side, as it is walked.
struct Loop {
  int64_t extent = 1;
  int64_t stride = 1;
};

/// The axes of which `reduced` says `which`, outermost first.
std::vector<Loop> LoopsOver(const Shape& shape, const std::vector<bool>& reduced, bool which) {
  std::vector<Loop> loops;
  const auto strides = shape.strides();
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (reduced[static_cast<size_t>(axis)] != which || shape[axis] == 1) continue;
    if (!loops.empty() && loops.back().stride == shape[axis] * strides[axis]) {
      loops.back() = {loops.back().extent * shape[axis], strides[axis]};
    } else {
      loops.push_back({shape[axis], strides[axis]});
    }
  }
  return loops;
}

/// Calls fn(offset) for each position of the loops, in row-major order, from `base` on.
template <typename Fn>
void ForEachOffset(std::span<const Loop> loops, int64_t base, const Fn& fn) {
  if (loops.empty()) return fn(base);
  const auto [extent, stride] = loops.front();
  if (loops.size() == 1) {
    for (int64_t i = 0; i < extent; ++i) fn(base + i * stride);
    return;
  }
  for (int64_t i = 0; i < extent; ++i) ForEachOffset(loops.subspan(1), base + i * stride, fn);
}

template <Reduction kReduction>
constexpr auto KernelsOf() {
  if constexpr (IsExtreme(kReduction)) {
    return kReducedKernels + Types<uint8_t, int8_t, bool>{};
  } else {
    return kReducedKernels;
  }
}

template <Reduction kReduction>
absl::StatusOr<Kernel> MakeReduce(const KernelContext& context) {
  const Shape& shape = context.inputs[0].shape();
  std::optional<std::vector<int64_t>> from_input;
  if (context.inputs.size() > 1 && context.inputs[1].data != nullptr) {
    const auto axes = context.inputs[1].span<int64_t>();
    from_input.emplace(axes.begin(), axes.end());
  }
  if (context.node.input(1) != kNone && !from_input)
    return Unimplemented("{}: its axes are known only when it runs", Describe(context.node));
  OCTET_ASSIGN_OR_RETURN(const Axes axes, ResolveAxes(context.node, from_input, shape.rank()));
  const auto kept = LoopsOver(shape, axes.reduced, false);
  const auto gone = LoopsOver(shape, axes.reduced, true);
  int64_t count = 1;
  for (const Loop& loop : gone) count *= loop.extent;
  return KernelFor(KernelsOf<kReduction>(), context.inputs[0].dtype(), context.node,
                   [&]<typename T>() -> Kernel {
                     return [kept, gone, count](std::span<const ConstTensorView> inputs,
                                                std::span<const TensorView> outputs) {
                       using A = AccumulatorOf<kReduction, T>::Type;
                       const T* x = inputs[0].as<T>();
                       T* y = outputs[0].as<T>();
                       ForEachOffset(kept, 0, [&](int64_t base) {
                         A value = Start<kReduction, A>();
                         ForEachOffset(gone, base, [&](int64_t at) {
                           value = Combine<kReduction, A>(value, static_cast<A>(x[at]));
                         });
                         *y++ = Finish<kReduction, T>(value, count);
                       });
                       return absl::OkStatus();
                     };
                   });
}

/// A reduction whose reduced axes lie side by side: [outer, extent, inner] -> [outer, inner].
struct Span {
  int64_t outer = 1;
  int64_t extent = 1;
  int64_t inner = 1;
};

std::optional<Span> SpanOf(const Shape& shape, const std::vector<bool>& reduced) {
  Span span;
  enum { kOuter, kExtent, kInner } at = kOuter;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (shape[axis] == 1) continue;
    const bool goes = reduced[static_cast<size_t>(axis)];
    if (goes && at == kInner) return std::nullopt;
    if (goes) at = kExtent;
    if (!goes && at == kExtent) at = kInner;
    (at == kOuter ? span.outer : at == kExtent ? span.extent : span.inner) *= shape[axis];
  }
  return span;
}

/// Rows of so few elements are folded several at once, the first elements of all of them, the second ones, and so on: the parts of complex
/// numbers, corners of boxes.
constexpr int64_t kNarrowRow = 16;
constexpr int64_t kRowsAtOnce = 256;

/// Folds rows (inner = 1) or adds row after row into `inner` results, in float, on values of any RealFormat.
class ReduceStep final : public Step {
 public:
  ReduceStep(const LowerContext& context, const Span& span, Fold fold,
             float (*finish)(float, int64_t))
      : input_(RealFormatOf(context.input(0))),
        output_(RealFormatOf(context.output())),
        span_(span),
        fold_(fold),
        finish_(finish),
        threads_(std::max(context.target.threads, 1)) {
    if (span_.inner == 1 && span_.extent <= kNarrowRow)
      at_once_ = std::min(span_.outer, kRowsAtOnce);
  }

  absl::Status Run(const StepArgs& args) const override {
    const int64_t grain = 1 + 16384 / (span_.extent * span_.inner);
    ParallelParts(span_.outer, grain, threads_, [&](int64_t part, int64_t first, int64_t last) {
      auto* buffer = reinterpret_cast<float*>(args.scratch) + part * ThreadElements();
      for (int64_t o = first; o < last; o += at_once_) {
        if (at_once_ > 1) {
          ReduceRows(args, o, std::min(at_once_, last - o), buffer);
        } else {
          ReduceOne(args, o, buffer);
        }
      }
    });
    return absl::OkStatus();
  }
  size_t scratch_bytes() const override {
    return static_cast<size_t>(threads_ * ThreadElements()) * sizeof(float);
  }

 private:
  int64_t RowElements() const { return span_.inner == 1 ? span_.extent : span_.inner; }
  int64_t ThreadElements() const { return at_once_ * (RowElements() + span_.inner); }

  void ReduceRows(const StepArgs& args, int64_t first, int64_t rows, float* buffer) const {
    float* sums = buffer + at_once_ * span_.extent;
    const float* x = input_.Read(args.inputs[0], first * span_.extent, rows * span_.extent, buffer);
    std::fill_n(sums, rows, FoldStart(fold_));
    for (int64_t i = 0; i < span_.extent; ++i) FoldStrided(fold_, x + i, span_.extent, sums, rows);
    for (int64_t i = 0; i < rows; ++i) sums[i] = finish_(sums[i], span_.extent);
    output_.Write(sums, args.outputs[0], first, rows);
  }

  void ReduceOne(const StepArgs& args, int64_t o, float* row) const {
    float* sums = row + RowElements();
    const int64_t base = o * span_.extent * span_.inner;
    if (span_.inner == 1) {
      *sums = FoldRow(fold_, input_.Read(args.inputs[0], base, span_.extent, row), span_.extent);
    } else {
      std::fill_n(sums, span_.inner, FoldStart(fold_));
      for (int64_t i = 0; i < span_.extent; ++i) {
        FoldInto(fold_, input_.Read(args.inputs[0], base + i * span_.inner, span_.inner, row), sums,
                 span_.inner);
      }
    }
    for (int64_t i = 0; i < span_.inner; ++i) sums[i] = finish_(sums[i], span_.extent);
    output_.Write(sums, args.outputs[0], o * span_.inner, span_.inner);
  }

  RealFormat input_;
  RealFormat output_;
  Span span_;
  Fold fold_;
  float (*finish_)(float, int64_t);
  int threads_;
  int64_t at_once_ = 1;  ///< Rows.
};

constexpr Fold FoldOf(Reduction reduction) {
  switch (reduction) {
    case Reduction::kMax:
      return Fold::kLargest;
    case Reduction::kMin:
      return Fold::kSmallest;
    case Reduction::kL1:
      return Fold::kMagnitudes;
    case Reduction::kL2:
    case Reduction::kSumSquare:
      return Fold::kSquares;
    default:
      return Fold::kSum;
  }
}

template <Reduction kReduction>
absl::StatusOr<std::unique_ptr<Step>> LowerReduce(const LowerContext& context) {
  const Value& x = context.input(0);
  if (!HasRealFormat(x) || !HasRealFormat(context.output()))
    return Unimplemented("values are neither float nor int8 with one scale");
  if (!context.node.post_ops.empty()) return Unimplemented("post-ops");
  std::optional<std::vector<int64_t>> from_input;
  if (context.has_input(1)) {
    if (!context.input(1).is_constant()) return Unimplemented("axes are computed");
    const auto axes = context.input(1).constant.span<int64_t>();
    from_input.emplace(axes.begin(), axes.end());
  }
  OCTET_ASSIGN_OR_RETURN(const Axes axes, ResolveAxes(context.node, from_input, x.shape->rank()));
  const auto span = SpanOf(*x.shape, axes.reduced);
  if (!span || x.shape->elements() == 0) return Unimplemented("axes apart, or an empty input");
  context.layer.runs = x.quant && context.output().quant ? "int8" : "f32";
  context.layer.impl = "octet:reduce";
  context.layer.isa = context.target.isa;
  return std::make_unique<ReduceStep>(context, *span, FoldOf(kReduction),
                                      Finish<kReduction, float, float>);
}

absl::Status InferArg(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kNumbers));
  if (!context.shape(0)) return context.SetOutput(0, DType::kI64, std::nullopt);
  const int rank = context.shape(0)->rank();
  OCTET_ASSIGN_OR_RETURN(const int axis, AxisAttribute(context, "axis", 0, rank));
  OCTET_ASSIGN_OR_RETURN(const int64_t keepdims, context.attributes().Int("keepdims", 1));
  Axes axes{std::vector<bool>(static_cast<size_t>(rank)), keepdims != 0};
  axes.reduced[static_cast<size_t>(axis)] = true;
  return context.SetOutput(0, DType::kI64, ReducedShape(*context.shape(0), axes));
}

/// The first (select_last_index: the last) position of the largest or smallest element along `axis`.
template <bool kLargest>
absl::StatusOr<Kernel> MakeArg(const KernelContext& context) {
  const Shape& shape = context.inputs[0].shape();
  OCTET_ASSIGN_OR_RETURN(const int64_t raw, context.node.attributes.Int("axis", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t last, context.node.attributes.Int("select_last_index", 0));
  const int axis = *NormalizeAxis(raw, shape.rank());
  const int64_t outer = shape.elements(0, axis);
  const int64_t extent = shape[axis];
  const int64_t inner = shape.elements(axis + 1, shape.rank());
  if (extent == 0 && outer * inner > 0) {
    return InvalidArgument("{}: axis {} of {} has no elements, none of which is the {}",
                           Describe(context.node), axis, shape.ToString(),
                           kLargest ? "largest" : "smallest");
  }
  return KernelFor(
      kNumberKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          int64_t* y = outputs[0].as<int64_t>();
          for (int64_t g = 0; g < outer * inner; ++g) {
            const T* x = inputs[0].as<T>() + g / inner * extent * inner + g % inner;
            int64_t best = 0;
            for (int64_t i = 1; i < extent; ++i) {
              const T a = x[i * inner];
              const T b = x[best * inner];
              const bool better = kLargest ? a > b : a < b;
              if (better || (last != 0 && a == b)) best = i;
            }
            y[g] = best;
          }
          return absl::OkStatus();
        };
      });
}

constexpr OpDef Reduce(std::string_view name, MakeKernelFn kernel, LowerFn lower = nullptr) {
  return {kOnnxDomain, name, 1, INT_MAX, InferReduce, kernel, lower};
}

}  // namespace

std::span<const OpDef> ReduceOps() {
  static constexpr OpDef kOps[] = {
      Reduce("ReduceSum", MakeReduce<Reduction::kSum>, LowerReduce<Reduction::kSum>),
      Reduce("ReduceMean", MakeReduce<Reduction::kMean>, LowerReduce<Reduction::kMean>),
      Reduce("ReduceMax", MakeReduce<Reduction::kMax>, LowerReduce<Reduction::kMax>),
      Reduce("ReduceMin", MakeReduce<Reduction::kMin>, LowerReduce<Reduction::kMin>),
      Reduce("ReduceProd", MakeReduce<Reduction::kProd>),
      Reduce("ReduceL1", MakeReduce<Reduction::kL1>, LowerReduce<Reduction::kL1>),
      Reduce("ReduceL2", MakeReduce<Reduction::kL2>, LowerReduce<Reduction::kL2>),
      Reduce("ReduceSumSquare", MakeReduce<Reduction::kSumSquare>,
             LowerReduce<Reduction::kSumSquare>),
      Reduce("ReduceLogSum", MakeReduce<Reduction::kLogSum>),
      Reduce("ReduceLogSumExp", MakeReduce<Reduction::kLogSumExp>),
      {kOnnxDomain, "ArgMax", 1, INT_MAX, InferArg, MakeArg<true>},
      {kOnnxDomain, "ArgMin", 1, INT_MAX, InferArg, MakeArg<false>},
  };
  return kOps;
}

}  // namespace octet

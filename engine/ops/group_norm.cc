// Normalisation of groups of channels by their own mean and variance: InstanceNormalization, whose groups are single
// channels, and GroupNormalization.
//   Source: ONNX InstanceNormalization-6, GroupNormalization-18, -21.
#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/graph/stored_value.h"
#include "engine/ops/conv_loops.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/ops/row_math.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

bool IsChannelsLast(const Node& node) { return node.attributes.IntOr("channels_last", 0) != 0; }

absl::Status InferGroupNorm(InferContext& context) {
  const bool instance = context.node().op == "InstanceNormalization";
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 3, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, instance ? 3 : 2, INT_MAX));
  const auto& x = context.shape(0);
  const int64_t channels = !x ? kUnknownDim : IsChannelsLast(context.node()) ? x->back() : (*x)[1];
  int64_t parameters = channels;
  if (!instance) {
    OCTET_ASSIGN_OR_RETURN(const int64_t groups, context.attributes().Int("num_groups", 0));
    if (groups < 1 || (channels != kUnknownDim && channels % groups != 0)) {
      return context.Error(
          Format("{} channels do not divide into 'num_groups' = {}", channels, groups));
    }
    if (context.node().version < 21) parameters = groups;
  }
  for (const size_t i : {1, 2}) {
    OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, i));
    OCTET_RETURN_IF_ERROR(ExpectVector(context, i, parameters));
  }
  return context.SetOutput(0, context.dtype(0), x);
}

/// [batch, groups, per_group, plane], or [batch, plane, groups, per_group] where channels are last.
struct Groups {
  int64_t batch = 1;
  int64_t groups = 1;
  int64_t per_group = 1;
  int64_t plane = 1;
  bool last = false;
  bool scale_per_group =
      false;  ///< Scale and bias have one element per group (opset 18), else per channel.
  float epsilon = 0;

  int64_t channels() const { return groups * per_group; }
  int64_t parameter(int64_t channel) const {
    return scale_per_group ? channel / per_group : channel;
  }
};

absl::StatusOr<Groups> GroupsOf(const Node& node, const Shape& x) {
  Groups g;
  OCTET_ASSIGN_OR_RETURN(g.epsilon, node.attributes.Float("epsilon", 1e-5f));
  g.last = IsChannelsLast(node);
  const int64_t channels = g.last ? x.back() : x[1];
  g.batch = x[0];
  g.plane = g.last ? x.elements(1, x.rank() - 1) : x.elements(2, x.rank());
  g.groups = channels;
  if (node.op == "GroupNormalization") {
    OCTET_ASSIGN_OR_RETURN(g.groups, node.attributes.Int("num_groups", 1));
    g.scale_per_group = node.version < 21;
  }
  g.per_group = g.groups == 0 ? 0 : channels / g.groups;
  return g;
}

/// y = (x - mean) / sqrt(variance + epsilon) * scale + bias, mean and variance those of a group in one sample.
template <typename T>
void NormaliseGroups(const Groups& g, const T* x, const T* scale, const T* bias, T* y) {
  const int64_t width = g.per_group * g.plane;
  for (int64_t row = 0; row < g.batch * g.groups; ++row, x += width, y += width) {
    // Two passes: the variance of large means would cancel in one.
    double mean = 0;
    for (int64_t i = 0; i < width; ++i) mean += static_cast<double>(x[i]);
    mean /= static_cast<double>(width);
    double squares = 0;
    for (int64_t i = 0; i < width; ++i) {
      const double d = static_cast<double>(x[i]) - mean;
      squares += d * d;
    }
    const double inverse = 1 / std::sqrt(squares / static_cast<double>(width) + g.epsilon);
    for (int64_t i = 0; i < width; ++i) {
      const int64_t at = g.parameter(row % g.groups * g.per_group + i / g.plane);
      y[i] = static_cast<T>((static_cast<double>(x[i]) - mean) * inverse *
                                static_cast<double>(scale[at]) +
                            static_cast<double>(bias[at]));
    }
  }
}

absl::StatusOr<Kernel> MakeGroupNorm(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const Groups g, GroupsOf(context.node, context.inputs[0].shape()));
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          const T* scale = inputs[1].as<T>();
          const T* bias = inputs[2].as<T>();
          if (!g.last) {
            NormaliseGroups(g, inputs[0].as<T>(), scale, bias, outputs[0].as<T>());
            return absl::OkStatus();
          }
          std::vector<T> x(static_cast<size_t>(inputs[0].elements()));
          std::vector<T> y(x.size());
          ToChannelsFirst(inputs[0], x.data());
          NormaliseGroups(g, x.data(), scale, bias, y.data());
          ToChannelsLast(y.data(), outputs[0]);
          return absl::OkStatus();
        };
      });
}

/// Elements that one thread gets at least.
constexpr int64_t kGrain = int64_t{1} << 13;

/// The same in float, on values of any RealFormat. A task is a group of a sample; where channels are last, a block of
/// groups whose channels lie side by side.
class GroupNormStep final : public Step {
 public:
  GroupNormStep(const LowerContext& context, const Groups& groups)
      : g_(groups),
        input_(RealFormatOf(context.input(0))),
        output_(RealFormatOf(context.output())),
        threads_(std::max(context.target.threads, 1)) {
    // Blocks of a cache line at least, as few as there are threads.
    constexpr int64_t kCacheLine = 16;
    const int64_t share = (g_.channels() + threads_ - 1) / threads_;
    block_groups_ =
        g_.last ? (std::max<int64_t>(share, kCacheLine) + g_.per_group - 1) / g_.per_group : 1;
    block_groups_ = std::min(block_groups_, g_.groups);
  }

  size_t scratch_bytes() const override {
    return static_cast<size_t>(threads_ * ThreadFloats()) * sizeof(float);
  }

  absl::Status Run(const StepArgs& args) const override {
    const int64_t blocks = (g_.groups + block_groups_ - 1) / block_groups_;
    const int64_t tasks = g_.batch * blocks;
    const int64_t grain = 1 + kGrain / (block_groups_ * g_.per_group * g_.plane + 1);
    ParallelParts(tasks, grain, threads_, [&](int64_t part, int64_t first, int64_t end) {
      auto* scratch = reinterpret_cast<float*>(args.scratch) + part * ThreadFloats();
      for (int64_t task = first; task < end; ++task) {
        const int64_t group = task % blocks * block_groups_;
        if (g_.last) {
          const int64_t count = std::min(block_groups_, g_.groups - group);
          NormaliseColumns(args, task / blocks, group * g_.per_group, count * g_.per_group,
                           scratch);
        } else {
          NormaliseRow(args, task, scratch);
        }
      }
    });
    return absl::OkStatus();
  }

 private:
  int64_t ThreadFloats() const {
    const int64_t block = block_groups_ * g_.per_group;
    // A row of each, or five vectors of floats and two of doubles.
    const int64_t floats = g_.last ? 7 * block : 2 * g_.per_group * g_.plane;
    return (floats + 15) / 16 * 16;
  }

  void NormaliseRow(const StepArgs& args, int64_t row, float* scratch) const {
    const auto* scale = static_cast<const float*>(args.inputs[1]);
    const auto* bias = static_cast<const float*>(args.inputs[2]);
    const int64_t width = g_.per_group * g_.plane;
    const float* x = input_.Read(args.inputs[0], row * width, width, scratch);
    float* y =
        output_.plain() ? static_cast<float*>(args.outputs[0]) + row * width : scratch + width;
    const RowMoments m = MomentsOfRow(x, width, g_.epsilon);
    for (int64_t c = 0; c < g_.per_group; ++c) {
      const int64_t at = g_.parameter(row % g_.groups * g_.per_group + c);
      NormaliseBy(x + c * g_.plane, m.mean, m.inverse_deviation * scale[at], bias[at], g_.plane,
                  y + c * g_.plane);
    }
    if (!output_.plain()) output_.Write(y, args.outputs[0], row * width, width);
  }

  // Channels [first, first + n) of one sample.
  void NormaliseColumns(const StepArgs& args, int64_t sample, int64_t first, int64_t n,
                        float* scratch) const {
    const auto* scale = static_cast<const float*>(args.inputs[1]);
    const auto* bias = static_cast<const float*>(args.inputs[2]);
    auto* sums = reinterpret_cast<double*>(scratch);
    float* mean = scratch + 2 * n;
    float* factor = mean + n;
    float* addend = factor + n;
    float* buffer = addend + n;
    float* result = buffer + n;
    const auto each_row = [&](const auto& fn) {
      for (int64_t i = 0; i < g_.plane; ++i) {
        const int64_t at = (sample * g_.plane + i) * g_.channels() + first;
        fn(input_.Read(args.inputs[0], at, n, buffer), at);
      }
    };
    const auto count = static_cast<double>(g_.per_group * g_.plane);
    // Over the channels of a group, for each of them.
    const auto pool = [&](const auto& fn) {
      for (int64_t c = 0; c < n; c += g_.per_group) {
        double sum = 0;
        for (int64_t k = c; k < c + g_.per_group; ++k) sum += sums[k];
        for (int64_t k = c; k < c + g_.per_group; ++k) fn(k, sum / count);
      }
    };
    std::fill_n(sums, n, 0.0);
    each_row([&](const float* x, int64_t) { AddColumns(x, n, sums); });
    pool([&](int64_t k, double m) { mean[k] = static_cast<float>(m); });
    std::fill_n(sums, n, 0.0);
    each_row([&](const float* x, int64_t) { AddSquaresOfColumns(x, mean, n, sums); });
    pool([&](int64_t k, double variance) {
      const int64_t at = g_.parameter(first + k);
      factor[k] = static_cast<float>(1 / std::sqrt(variance + g_.epsilon)) * scale[at];
      addend[k] = bias[at];
    });
    each_row([&](const float* x, int64_t at) {
      float* y = output_.plain() ? static_cast<float*>(args.outputs[0]) + at : result;
      NormaliseColumnsBy(x, mean, factor, addend, n, y);
      if (!output_.plain()) output_.Write(y, args.outputs[0], at, n);
    });
  }

  Groups g_;
  RealFormat input_;
  RealFormat output_;
  int threads_;
  int64_t block_groups_ = 1;
};

absl::StatusOr<std::unique_ptr<Step>> LowerGroupNorm(const LowerContext& context) {
  const Value& x = context.input(0);
  if (!context.node.post_ops.empty()) return Unimplemented("post-ops");
  if (!HasRealFormat(x) || !HasRealFormat(context.output()))
    return Unimplemented("values are neither float nor int8 with one scale");
  for (const size_t slot : {1, 2}) {
    if (context.input(slot).quant || context.input(slot).dtype != DType::kF32)
      return Unimplemented("scale or bias is not F32");
  }
  if (x.shape->elements() == 0) return Unimplemented("empty input");
  OCTET_ASSIGN_OR_RETURN(const Groups groups, GroupsOf(context.node, *x.shape));
  context.layer.runs = "f32";
  context.layer.impl = "octet:group_norm";
  context.layer.isa = context.target.isa;
  return std::make_unique<GroupNormStep>(context, groups);
}

}  // namespace

std::span<const OpDef> GroupNormOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "InstanceNormalization", 1, INT_MAX, InferGroupNorm, MakeGroupNorm,
       LowerGroupNorm},
      {kOnnxDomain, "GroupNormalization", 18, INT_MAX, InferGroupNorm, MakeGroupNorm,
       LowerGroupNorm},
  };
  return kOps;
}

}  // namespace octet

#include "engine/ops/elementwise_lowering.h"

#include <array>
#include <functional>
#include <utility>

#include "absl/container/inlined_vector.h"

#include "engine/graph/stored_value.h"
#include "engine/ops/binary_rows.h"
#include "engine/ops/broadcast.h"
#include "engine/ops/channel_affine.h"
#include "engine/ops/channel_scale.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/movement_step.h"
#include "engine/ops/post_ops.h"
#include "engine/ops/reference_step.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Floats of one operand that are in the cache at once.
constexpr int64_t kBlock = 1024;

/// The first input that output 0 may take the place of: element i of it is read before element i is written,
/// and no other slot reads its value.
int OverwritableInput(const LowerContext& context, size_t own_inputs) {
  const Node& node = context.node;
  for (size_t i = 0; i < own_inputs; ++i) {
    if (!context.MayOverwrite(i) || !context.has_input(i)) continue;
    if (context.input(i).shape != context.output().shape) continue;
    if (SizeOf(context.input(i).dtype) != SizeOf(context.output().dtype)) continue;
    if (std::ranges::count(node.inputs, node.inputs[i]) == 1) return static_cast<int>(i);
  }
  return kNone;
}

void Record(const LowerContext& context, std::string_view runs, std::string_view impl) {
  context.layer.runs = runs;
  context.layer.impl = impl;
  context.layer.isa = context.target.isa;
}

/// Operands that repeat, row after row, beside others that run through: [N, H, W, C] by [N, 1, 1, C]. The axes in between
/// are one long row then, of which such an operand is laid out in memory once, for as many of its periods as a block holds.
struct Periods {
  int64_t length = 0;  ///< Of one period, 0 when the shapes are not of this kind.
  Shape output;        ///< Extents as the walk sees them: the last axis is the long row.
  std::vector<Shape> operands;
  std::vector<bool> repeats;  ///< Per operand: its elements of one row are one period.
};

/// Finds the longest row of short periods. `longest`: of a period that is worth it.
Periods FindPeriods(const Shape& output, std::span<const Shape> operands, int64_t longest) {
  const int rank = output.rank();
  if (rank < 2 || output[rank - 1] < 2 || output[rank - 1] > longest) return {};
  enum class Along : uint8_t { kBoth, kFollows, kStays };
  std::vector<Along> along(operands.size(), Along::kBoth);
  const auto extent = [&](size_t k, int axis) {
    const int own = axis - (rank - operands[k].rank());
    return own < 0 ? int64_t{1} : operands[k][own];
  };
  // Axes [first, rank - 1) are the row: over them every operand follows the output, or stays.
  int first = rank - 1;
  for (bool joins = true; joins && first > 0;) {
    const int axis = first - 1;
    for (size_t k = 0; joins && k < operands.size() && output[axis] != 1; ++k) {
      const Along here = extent(k, axis) == output[axis] ? Along::kFollows : Along::kStays;
      joins = along[k] == Along::kBoth || along[k] == here;
    }
    for (size_t k = 0; joins && k < operands.size() && output[axis] != 1; ++k)
      along[k] = extent(k, axis) == output[axis] ? Along::kFollows : Along::kStays;
    if (joins) first = axis;
  }
  Periods found{output[rank - 1], {}, {}, {}};
  const auto outer = [&](const auto& extent_of) {
    Shape shape;
    for (int axis = 0; axis < first; ++axis) shape.push_back(extent_of(axis));
    return shape;
  };
  found.output = outer([&](int axis) { return output[axis]; });
  found.output.push_back(output.elements(first, rank));
  bool any = false;
  for (size_t k = 0; k < operands.size(); ++k) {
    const bool whole = extent(k, rank - 1) == found.length;
    const bool stays = along[k] != Along::kFollows;
    if (!whole && !stays) return {};
    found.repeats.push_back(whole && stays);
    any = any || found.repeats.back();
    Shape shape = outer([&](int axis) { return extent(k, axis); });
    shape.push_back(stays ? 1 : found.output.dims().back());
    found.operands.push_back(std::move(shape));
  }
  return any && output.elements(first, rank - 1) > 1 ? found : Periods();
}

/// One or two operands, a real function, post-ops: block by block through the cache.
class BlockStep final : public Step {
 public:
  using Fn = std::function<void(const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                                float* y, int64_t n)>;

  /// `operands` are the input slots of the function, one or two; `fn` null stands for the identity.
  BlockStep(const LowerContext& context, std::span<const size_t> operands, Fn fn)
      : post_ops_(context.node.post_ops),
        output_(RealFormatOf(context.output())),
        fn_(std::move(fn)) {
    slots_.assign(operands.begin(), operands.end());
    own_count_ = slots_.size();
    for (const PostOp& op : post_ops_) {
      if (HasOperand(op.kind)) slots_.push_back(static_cast<size_t>(op.operand));
    }
    std::vector<Shape> shapes;
    bool plain = output_.plain();
    for (const size_t slot : slots_) {
      formats_.push_back(RealFormatOf(context.input(slot)));
      shapes.push_back(*context.input(slot).shape);
      plain = plain && formats_.back().plain();
    }
    block_ = plain && post_ops_.empty() ? INT64_MAX : kBlock;
    periods_ = FindPeriods(*context.output().shape, shapes, kBlock / 2);
    if (slots_.size() > kMostPeriodic) periods_ = {};
    if (periods_.length > 0) block_ = kBlock / periods_.length * periods_.length;
    plan_ = periods_.length > 0 ? BroadcastPlan(periods_.output, periods_.operands)
                                : BroadcastPlan(*context.output().shape, shapes);
    overwrites_ = OverwritableInput(context, own_count_);
  }

  absl::Status Run(const StepArgs& args) const override {
    if (periods_.length > 0) return RunPeriods(args);
    ParallelFor(plan_.elements(), kElementwiseGrain, [&](int64_t begin, int64_t end) {
      plan_.ForEachRow(begin, end, [&](int64_t out, std::span<const int64_t> in, int64_t n) {
        for (int64_t done = 0; done < n; done += block_) {
          RunBlock(args, out, in, done, std::min(block_, n - done), nullptr);
        }
      });
    });
    return absl::OkStatus();
  }

  int overwrites_input() const override { return overwrites_; }

 private:
  /// A block of whole periods of one operand.
  using Period = std::array<float, kBlock>;
  static constexpr size_t kMostPeriodic = 4;

  // Threads share a row at whole periods.
  absl::Status RunPeriods(const StepArgs& args) const {
    const int64_t length = periods_.length;
    ParallelFor(plan_.elements() / length, 1 + kElementwiseGrain / length,
                [&](int64_t begin, int64_t end) {
                  alignas(kTensorAlignment) std::array<Period, kMostPeriodic> laid_out;
                  plan_.ForEachRow(begin * length, end * length,
                                   [&](int64_t out, std::span<const int64_t> in, int64_t n) {
                                     LayOut(args, in, std::min(block_, n), laid_out);
                                     for (int64_t done = 0; done < n; done += block_) {
                                       RunBlock(args, out, in, done, std::min(block_, n - done),
                                                laid_out.data());
                                     }
                                   });
                });
    return absl::OkStatus();
  }

  void LayOut(const StepArgs& args, std::span<const int64_t> in, int64_t n,
              std::array<Period, kMostPeriodic>& laid_out) const {
    const int64_t length = periods_.length;
    for (size_t k = 0; k < slots_.size(); ++k) {
      if (!periods_.repeats[k]) continue;
      float* to = laid_out[k].data();
      const float* period = formats_[k].Read(args.inputs[slots_[k]], in[k] * length, length, to);
      for (int64_t at = period == to ? length : 0; at < n; at += length)
        std::copy_n(period, length, to + at);
    }
  }

  /// The reals of operand `k` for a block that begins `done` elements into its row.
  const float* ReadOperand(const StepArgs& args, size_t k, std::span<const int64_t> in,
                           int64_t done, int64_t n, const Period* periods, float* buffer) const {
    if (periods != nullptr && periods_.repeats[k]) return periods[k].data();
    const int64_t stride = plan_.stride(k);
    return formats_[k].Read(args.inputs[slots_[k]], in[k] + done * stride, stride == 0 ? 1 : n,
                            buffer);
  }

  /// The stride that the reals of operand `k` are read with.
  int64_t StrideOf(size_t k) const {
    return periods_.length > 0 && periods_.repeats[k] ? 1 : plan_.stride(k);
  }

  /// `periods`: operands that are laid out already, null where there are none.
  void RunBlock(const StepArgs& args, int64_t out, std::span<const int64_t> in, int64_t done,
                int64_t n, const Period* periods) const {
    alignas(kTensorAlignment) std::array<std::array<float, kBlock>, 3> buffers;
    const float* a = ReadOperand(args, 0, in, done, n, periods, buffers[0].data());
    float* y =
        output_.plain() ? static_cast<float*>(args.outputs[0]) + out + done : buffers[2].data();
    if (own_count_ == 2) {
      const float* b = ReadOperand(args, 1, in, done, n, periods, buffers[1].data());
      fn_(a, StrideOf(0), b, StrideOf(1), y, n);
    } else if (fn_) {
      fn_(a, 1, nullptr, 0, y, n);
    } else if (post_ops_.empty() && !output_.plain()) {
      output_.Write(a, args.outputs[0], out + done, n);
      return;
    } else {
      std::copy_n(a, a == y ? 0 : n, y);
    }
    size_t operand = own_count_;
    for (const PostOp& op : post_ops_) {
      if (HasOperand(op.kind)) {
        const float* b = ReadOperand(args, operand, in, done, n, periods, buffers[1].data());
        ApplyBinaryPostOp(op.kind, y, b, StrideOf(operand), n);
        ++operand;
      } else {
        ApplyUnaryPostOp(op, y, n);
      }
    }
    if (!output_.plain()) output_.Write(y, args.outputs[0], out + done, n);
  }

  std::vector<PostOp> post_ops_;
  RealFormat output_;
  Fn fn_;
  absl::InlinedVector<size_t, 4> slots_;  ///< Input slots: the function's, then the post-ops'.
  std::vector<RealFormat> formats_;       ///< Of each slot.
  size_t own_count_ = 1;
  int64_t block_ = kBlock;
  Periods periods_;
  BroadcastPlan plan_;  ///< Of the shapes, or of `periods_`.
  int overwrites_ = kNone;
};

/// OK when every operand and the output of the node can be taken block by block.
absl::Status CheckBlockReals(const LowerContext& context, std::span<const size_t> operands) {
  const auto check = [](const Value& value) -> absl::Status {
    if (HasRealFormat(value)) return absl::OkStatus();
    return Unimplemented("'{}' is neither float nor int8 with one scale", value.name);
  };
  for (const size_t slot : operands) OCTET_RETURN_IF_ERROR(check(context.input(slot)));
  for (const PostOp& op : context.node.post_ops) {
    if (HasOperand(op.kind)) OCTET_RETURN_IF_ERROR(check(context.input(op.operand)));
  }
  return check(context.output());
}

std::string_view RunsOf(const LowerContext& context, std::span<const size_t> operands) {
  bool int8 = IsTypedInt8(context.output());
  for (const size_t slot : operands) int8 = int8 && IsTypedInt8(context.input(slot));
  return int8 ? "int8" : "f32";
}

/// The family's kernel on blocks of floats; its further inputs are constants (the bounds of Clip).
absl::StatusOr<BlockStep::Fn> UnaryBlockFn(const LowerContext& context) {
  const OpDef* def = FindOp(context.node);
  if (def == nullptr) return UnsupportedOperator(context.node);
  std::vector<Tensor> constants(OwnInputCount(context.node));
  std::vector<ConstTensorView> inputs(constants.size());
  for (size_t i = 1; i < constants.size(); ++i) {
    if (!context.has_input(i)) continue;
    const Value& value = context.input(i);
    if (!value.is_constant() || value.quant) return Unimplemented("input {} is not constant", i);
    constants[i] = Tensor(DType::kF32, *value.shape);
    ConvertTensor(value.constant.view(), constants[i].mutable_view());
    inputs[i] = constants[i].view();
  }
  inputs[0].spec = {DType::kF32, *context.input(0).shape};
  const TensorSpec output{DType::kF32, *context.output().shape};
  OCTET_ASSIGN_OR_RETURN(Kernel kernel, def->kernel({context.node, inputs, {&output, 1}}));
  return BlockStep::Fn([kernel = std::move(kernel), constants, inputs](
                           const float* a, int64_t, const float*, int64_t, float* y, int64_t n) {
    absl::InlinedVector<ConstTensorView, 3> in(inputs.begin(), inputs.end());
    in[0] = {a, {DType::kF32, Shape{n}}};
    const TensorView out{y, {DType::kF32, Shape{n}}};
    // Elementwise kernels of floats have nothing that can fail when they run.
    (void)kernel(in, {&out, 1});
  });
}

constexpr std::array<size_t, 1> kFirst = {0};
constexpr std::array<size_t, 2> kFirstTwo = {0, 1};

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerElementwiseUnary(const LowerContext& context) {
  if (!CheckBlockReals(context, kFirst).ok()) return LowerElementwiseKernel(context);
  OCTET_ASSIGN_OR_RETURN(BlockStep::Fn fn, UnaryBlockFn(context));
  Record(context, RunsOf(context, kFirst), "octet:elementwise");
  return std::make_unique<BlockStep>(context, kFirst, std::move(fn));
}

absl::StatusOr<std::unique_ptr<Step>> LowerElementwiseBinary(const LowerContext& context) {
  auto scaled = LowerChannelScale(context);
  if (scaled.ok() || !absl::IsUnimplemented(scaled.status())) return scaled;
  auto affine = LowerChannelAffine(context);
  if (affine.ok() || !absl::IsUnimplemented(affine.status())) return affine;
  const BinaryRow row = FindBinaryRow(context.node.op);
  if (row == nullptr || OwnInputCount(context.node) != 2 ||
      !CheckBlockReals(context, kFirstTwo).ok()) {
    return LowerElementwiseKernel(context);
  }
  Record(context, RunsOf(context, kFirstTwo), "octet:elementwise");
  return std::make_unique<BlockStep>(context, kFirstTwo, row);
}

absl::StatusOr<std::unique_ptr<Step>> LowerElementwiseKernel(const LowerContext& context) {
  const Node& node = context.node;
  const OpDef* def = FindOp(node);
  if (def == nullptr) return UnsupportedOperator(node);
  if (!node.post_ops.empty()) return Unimplemented("post-ops need float values with one scale");
  bool real = false;
  const auto check = [&](ValueId id) -> absl::Status {
    if (id == kNone) return absl::OkStatus();
    const Value& value = context.graph.value(id);
    real = real || IsFloat(value.dtype);
    if (!value.quant && (def->traits.any_types || !IsNarrowReal(value.dtype)))
      return absl::OkStatus();
    return Unimplemented("'{}' is stored in a type that the kernel does not compute in",
                         value.name);
  };
  for (const ValueId id : node.inputs) OCTET_RETURN_IF_ERROR(check(id));
  for (const ValueId id : node.outputs) OCTET_RETURN_IF_ERROR(check(id));
  const auto inputs = KernelInputs(context.graph, node);
  const auto outputs = KernelOutputs(context.graph, node);
  OCTET_ASSIGN_OR_RETURN(Kernel kernel, def->kernel({node, inputs, outputs}));
  Record(context, real && !def->traits.any_types ? "f32" : "none", "octet:elementwise");
  return MakeKernelStep(std::move(kernel), context);
}

absl::StatusOr<std::unique_ptr<Step>> LowerConvert(const LowerContext& context) {
  if (!CheckBlockReals(context, kFirst).ok()) return LowerElementwiseKernel(context);
  Record(context, "none", "octet:convert");
  return std::make_unique<BlockStep>(context, kFirst, nullptr);
}

}  // namespace octet

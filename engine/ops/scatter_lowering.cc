// ScatterElements and ScatterND in place of the data where it is read by nobody else, with one loop for each reduction.
//
// What several updates write to one element is written in their order: threads share what no two of them can meet in, the axes before
// the one that indices point along, or the columns of blocks.
#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "engine/ops/binary_math.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/index_reader.h"
#include "engine/ops/index_rows.h"
#include "engine/ops/scatter.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Updates that one thread gets at least.
constexpr int64_t kScatterGrain = int64_t{1} << 14;
/// Columns of blocks that one thread gets at least: whole cache lines.
constexpr int64_t kScatterColumns = 64;

struct TakeUpdate {
  template <typename T>
  T operator()(T /*target*/, T update) const {
    return update;
  }
};
struct TakeLarger {
  template <typename T>
  T operator()(T target, T update) const {
    return std::max(target, update);
  }
};
struct TakeSmaller {
  template <typename T>
  T operator()(T target, T update) const {
    return std::min(target, update);
  }
};

template <typename T, typename Fn>
void WriteRow(const T* x, int64_t n, const Fn& fn, T* y) {
  if constexpr (std::is_same_v<Fn, TakeUpdate>) {
    std::copy_n(x, n, y);
  } else if constexpr (std::is_same_v<T, float>) {
    rows::BinaryFloat(y, 1, x, 1, y, n, fn);
  } else {
    rows::Binary(y, 1, x, 1, y, n, fn);
  }
}

// The kernels below find the data in their output.

struct WriteElements {
  ElementScatter form;
  std::string name;

  template <typename T, typename Fn>
  Kernel Make(const Fn& fn) const {
    const int64_t outer = form.updates.elements(0, form.axis);
    const int64_t each = form.updates.elements(form.axis, form.updates.rank());
    return [=, extent = form.data[form.axis], who = name,
            rows = IndexRows(form.updates, form.data, form.axis)](
               std::span<const ConstTensorView> inputs,
               std::span<const TensorView> outputs) -> absl::Status {
      const IndexReader indices(inputs[1]);
      OCTET_RETURN_IF_ERROR(indices.CheckAll(extent, who));
      const T* x = inputs[2].as<T>();
      T* y = outputs[0].as<T>();
      ParallelFor(outer, 1 + kScatterGrain / std::max<int64_t>(each, 1),
                  [&](int64_t begin, int64_t end) {
                    rows.ForEach(indices, begin * each, end * each,
                                 [&](int64_t k, int64_t to) { y[to] = fn(y[to], x[k]); });
                  });
      return absl::OkStatus();
    };
  }
};

struct WriteBlocks {
  BlockScatter form;
  std::string name;

  absl::Status Check(const IndexReader& indices) const {
    for (int64_t i = 0; i < indices.size(); ++i) {
      const int64_t extent = form.data[static_cast<int>(i % form.depth)];
      if (!indices.InRange(i, extent)) return indices.OutOfRange(i, extent, name);
    }
    return absl::OkStatus();
  }

  /// The first element of the block that tuple `t` names.
  int64_t PlaceOf(const IndexReader& indices, int64_t t) const {
    int64_t place = 0;
    for (int k = 0; k < form.depth; ++k)
      place = place * form.data[k] + indices.At(t * form.depth + k, form.data[k]);
    return place * form.block;
  }

  template <typename T, typename Fn>
  Kernel Make(const Fn& fn) const {
    return [=, self = *this](std::span<const ConstTensorView> inputs,
                             std::span<const TensorView> outputs) -> absl::Status {
      const IndexReader indices(inputs[1]);
      OCTET_RETURN_IF_ERROR(self.Check(indices));
      const auto& [data, depth, tuples, block] = self.form;
      const T* x = inputs[2].as<T>();
      T* y = outputs[0].as<T>();
      ParallelFor(block, std::max(kScatterColumns, kScatterGrain / std::max<int64_t>(tuples, 1)),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t t = 0; t < tuples; ++t)
                      WriteRow(x + t * block + begin, end - begin, fn,
                               y + self.PlaceOf(indices, t) + begin);
                  });
      return absl::OkStatus();
    };
  }
};

template <typename T, typename Write>
Kernel ReducingKernel(ScatterReduction reduction, const Write& write) {
  switch (reduction) {
    case ScatterReduction::kAdd:
      return write.template Make<T>(math::Add{});
    case ScatterReduction::kMul:
      return write.template Make<T>(math::Mul{});
    case ScatterReduction::kMax:
      return write.template Make<T>(TakeLarger{});
    case ScatterReduction::kMin:
      return write.template Make<T>(TakeSmaller{});
    case ScatterReduction::kOverwrite:
      break;
  }
  return write.template Make<T>(TakeUpdate{});
}

class ScatterStep final : public Step {
 public:
  ScatterStep(const LowerContext& context, Kernel kernel)
      : kernel_(std::move(kernel)), overwrites_(context.MayOverwrite(0) ? 0 : kNone) {
    for (size_t i = 0; i < specs_.size(); ++i)
      specs_[i] = {context.input(i).dtype, *context.input(i).shape};
  }

  absl::Status Run(const StepArgs& args) const override {
    if (args.inputs[0] != args.outputs[0]) CopyData(args);
    std::array<ConstTensorView, 3> inputs;
    for (size_t i = 0; i < inputs.size(); ++i) inputs[i] = {args.inputs[i], specs_[i]};
    const TensorView output{args.outputs[0], specs_[0]};
    return kernel_(inputs, {&output, 1});
  }

  int overwrites_input() const override { return overwrites_; }

 private:
  void CopyData(const StepArgs& args) const {
    constexpr int64_t kBytesOfAThread = int64_t{64} * 1024;
    const auto* from = static_cast<const std::byte*>(args.inputs[0]);
    auto* to = static_cast<std::byte*>(args.outputs[0]);
    ParallelFor(static_cast<int64_t>(specs_[0].bytes()), kBytesOfAThread,
                [&](int64_t begin, int64_t end) {
                  std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
                });
  }

  Kernel kernel_;
  std::array<TensorSpec, 3> specs_;  ///< Data, indices, updates.
  int overwrites_;
};

absl::Status CheckStoredAlike(const LowerContext& context, ScatterReduction reduction) {
  if (!context.node.post_ops.empty()) return Unimplemented("post-ops");
  const Value& data = context.input(0);
  for (const Value* value : {&context.input(2), &context.output()}) {
    if (value->dtype != data.dtype || value->quant != data.quant)
      return Unimplemented("'{}' and '{}' are not stored alike", data.name, value->name);
  }
  if (reduction == ScatterReduction::kOverwrite || !data.quant) return absl::OkStatus();
  return Unimplemented("'{}' stands for reals by a scale", data.name);
}

template <typename Write>
absl::StatusOr<std::unique_ptr<Step>> LowerScatter(const LowerContext& context,
                                                   const Write& write) {
  OCTET_ASSIGN_OR_RETURN(const ScatterReduction reduction, ScatterReductionOf(context.node));
  OCTET_RETURN_IF_ERROR(CheckStoredAlike(context, reduction));
  const DType dtype = context.input(0).dtype;
  const bool moves = reduction == ScatterReduction::kOverwrite;
  OCTET_ASSIGN_OR_RETURN(
      Kernel kernel,
      moves
          ? KernelFor(kStorageKernels, StorageOf(dtype), context.node,
                      [&]<typename T>() -> Kernel { return write.template Make<T>(TakeUpdate{}); })
          : KernelFor(kNumberKernels, dtype, context.node,
                      [&]<typename T>() -> Kernel { return ReducingKernel<T>(reduction, write); }));
  context.layer.runs = moves || !IsFloat(dtype) ? "none" : "f32";
  context.layer.impl = "octet:scatter";
  context.layer.isa = context.target.isa;
  return std::make_unique<ScatterStep>(context, std::move(kernel));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerScatterElements(const LowerContext& context) {
  OCTET_ASSIGN_OR_RETURN(const ElementScatter form,
                         ReadElementScatter(context.node, *context.input(0).shape,
                                            *context.input(1).shape, *context.input(2).shape));
  return LowerScatter(context, WriteElements{form, Describe(context.node)});
}

absl::StatusOr<std::unique_ptr<Step>> LowerScatterND(const LowerContext& context) {
  OCTET_ASSIGN_OR_RETURN(const BlockScatter form,
                         ReadBlockScatter(context.node, *context.input(0).shape,
                                          *context.input(1).shape, *context.input(2).shape));
  return LowerScatter(context, WriteBlocks{form, Describe(context.node)});
}

}  // namespace octet

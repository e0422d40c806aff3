// octet:FourBitMatMul on panels of 4 bits.
//
// A few rows are multiplied straight from the panels (MultiplyFourBits): what a row costs is what it takes to read the weights. With
// more, what it takes to make reals of the weights is little beside their use: some columns at a time are unpacked into
// scratch, in the layout that oneDNN's f32 product wants, and multiplied there.
//
//   panels [N / 32] -> UnpackFourBits -> scratch F32 [K, strip] -> dnnl::matmul(A, .) -> y[:, strip]      for strips that cover N
//
// Either way the reals are those of the file, and sums are FP32.
#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "engine/onednn/isa.h"
#include "engine/onednn/memory_desc.h"
#include "engine/onednn/panels.h"
#include "engine/onednn/runtime.h"
#include "engine/onednn/weight_cache.h"
#include "engine/ops/broadcast.h"
#include "engine/ops/four_bit_product.h"
#include "engine/ops/lowerings.h"
#include "engine/ops/post_ops.h"
#include "engine/ops/primitive_step.h"
#include "engine/ops/reference_step.h"
#include "engine/ops/weight_layout.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using onednn::ExecArg;

/// Rows up to which the weights are read as they are. With 16, one thread: 6.5 ms where strips take 8.1 for K = N = 4096, which no
/// cache holds, and 0.39 and 0.36 for 1024.
constexpr int64_t kFewRows = 16;
/// Multiply-adds that a thread makes at least.
constexpr int64_t kProductGrain = int64_t{1} << 16;
/// Elements of the result that a thread's post-ops take at least.
constexpr int64_t kPostOpGrain = int64_t{1} << 14;
/// Reals of a strip, but for long columns, of which each thread gets some: they stay in a cache that cores share.
constexpr int64_t kStripReals = int64_t{1} << 19;
/// Columns of a strip are a multiple of this, but for the last one: two panels.
constexpr int64_t kStripColumns = 2 * FourBitLayout::kWidth;

/// What both forms of the product need.
struct FourBitProduct {
  FourBitLayout layout;
  std::shared_ptr<const std::byte[]> panels;
  Tensor bias;  ///< [N], or none.
  int64_t rows = 0;
};

/// Post-ops behind the product, each in a pass of its own over the result.
class ResultOps {
 public:
  static absl::StatusOr<ResultOps> Of(const LowerContext& context) {
    ResultOps ops;
    const Shape& y = *context.output().shape;
    ops.elements_ = y.elements();
    for (const PostOp& op : context.node.post_ops) {
      Entry& entry = ops.entries_.emplace_back();
      entry.op = op;
      if (!HasOperand(op.kind)) continue;
      const Value& operand = context.input(static_cast<size_t>(op.operand));
      if (operand.dtype != DType::kF32 || operand.quant)
        return Unimplemented("a post-op's operand of {}", DTypeName(operand.dtype));
      const std::array<Shape, 1> shapes = {*operand.shape};
      const auto joined = Broadcast(y, shapes[0]);
      if (!joined || *joined != y)
        return Unimplemented("a post-op's operand that is larger than the result");
      entry.walk = BroadcastPlan(y, shapes);
    }
    return ops;
  }

  void Apply(const StepArgs& args) const {
    auto* y = static_cast<float*>(args.outputs[0]);
    for (const Entry& entry : entries_) {
      ParallelFor(elements_, kPostOpGrain, [&](int64_t begin, int64_t end) {
        if (!HasOperand(entry.op.kind)) return ApplyUnaryPostOp(entry.op, y + begin, end - begin);
        const auto* operand =
            static_cast<const float*>(args.inputs[static_cast<size_t>(entry.op.operand)]);
        entry.walk.ForEachRow(begin, end,
                              [&](int64_t at, std::span<const int64_t> offsets, int64_t count) {
                                ApplyBinaryPostOp(entry.op.kind, y + at, operand + offsets[0],
                                                  entry.walk.stride(0), count);
                              });
      });
    }
  }

 private:
  struct Entry {
    PostOp op;
    BroadcastPlan walk;
  };
  std::vector<Entry> entries_;
  int64_t elements_ = 0;
};

class FourBitStep : public Step {
 public:
  FourBitStep(FourBitProduct product, ResultOps ops)
      : product_(std::move(product)), ops_(std::move(ops)) {}

  absl::Status Run(const StepArgs& args) const final {
    OCTET_RETURN_IF_ERROR(Multiply(args));
    ops_.Apply(args);
    return absl::OkStatus();
  }
  bool reads_input(int i) const final { return i == kFourBitA || i >= kFourBitInputs; }
  bool is_primitive() const final { return true; }

 protected:
  virtual absl::Status Multiply(const StepArgs& args) const = 0;

  const float* bias() const {
    return product_.bias.empty_handle() ? nullptr : product_.bias.span<float>().data();
  }

  const FourBitProduct product_;

 private:
  const ResultOps ops_;
};

class FewRowsStep final : public FourBitStep {
 public:
  using FourBitStep::FourBitStep;

  size_t scratch_bytes() const override {
    if (!product_.layout.zero_points) return 0;
    return static_cast<size_t>(product_.rows * product_.layout.blocks()) * sizeof(float);
  }

 private:
  absl::Status Multiply(const StepArgs& args) const override {
    const FourBitLayout& layout = product_.layout;
    FourBitRows rows{.x = static_cast<const float*>(args.inputs[kFourBitA]),
                     .bias = bias(),
                     .rows = product_.rows};
    if (layout.zero_points) {
      auto* sums = reinterpret_cast<float*>(args.scratch);
      if (SumBlocks(layout, rows.x, rows.rows, sums)) rows.sums = sums;
    }
    const int64_t grain = 1 + kProductGrain / (layout.k * FourBitLayout::kWidth * rows.rows);
    ParallelFor(layout.panel_count(), grain, [&](int64_t first, int64_t last) {
      MultiplyFourBits(layout, product_.panels.get(), rows, static_cast<float*>(args.outputs[0]),
                       first, last);
    });
    return absl::OkStatus();
  }
};

/// A product with `columns` columns whose reals lie at the start of the scratch.
struct Strip {
  PrimitiveStep product;
  PanelLayout to;
  std::string impl;
};

absl::StatusOr<dnnl::matmul::primitive_desc> DescribeStrip(const FourBitProduct& product,
                                                           int64_t columns,
                                                           const dnnl::memory::desc& weights) {
  const auto x = onednn::DenseDesc(DType::kF32, std::array{product.rows, product.layout.k});
  const dnnl::memory::desc y({product.rows, columns}, dnnl::memory::data_type::f32,
                             {product.layout.n, 1});
  const auto bias = product.bias.empty_handle()
                        ? dnnl::memory::desc()
                        : onednn::DenseDesc(DType::kF32, std::array{int64_t{1}, columns});
  return Fast(onednn::Catch([&] {
    return dnnl::matmul::primitive_desc(onednn::CpuEngine(), x, weights, bias, y,
                                        onednn::UserScratchpad());
  }));
}

absl::StatusOr<std::unique_ptr<Strip>> MakeStrip(const FourBitProduct& product, int64_t columns) {
  const int64_t k = product.layout.k;
  const int64_t padded = (columns + kStripColumns - 1) / kStripColumns * kStripColumns;
  auto strip = std::make_unique<Strip>();
  OCTET_ASSIGN_OR_RETURN(
      auto pd,
      DescribeStrip(product, columns, onednn::AnyDesc(DType::kF32, std::array{k, columns})));
  if (const auto panels = onednn::PanelLayoutOf(pd.weights_desc())) {
    strip->to = *panels;
  } else {  // Row by row, which every kernel takes.
    strip->to = {.k = k, .n = columns, .width = padded, .group = 1, .pitch = k * padded};
    const dnnl::memory::desc plain({k, columns}, dnnl::memory::data_type::f32, {padded, 1});
    OCTET_ASSIGN_OR_RETURN(pd, DescribeStrip(product, columns, plain));
  }
  const auto reals = static_cast<size_t>(strip->to.panel_count() * strip->to.pitch);
  const size_t at = strip->product.ReserveScratch(reals * sizeof(float));
  strip->impl = pd.impl_info_str();
  std::vector<ExecArg> args = {ExecArg::Input(DNNL_ARG_SRC, pd.src_desc(), 0),
                               ExecArg::Scratch(DNNL_ARG_WEIGHTS, pd.weights_desc(), at),
                               ExecArg::Output(DNNL_ARG_DST, pd.dst_desc(), 0)};
  if (!product.bias.empty_handle())
    args.push_back(ExecArg::Input(DNNL_ARG_BIAS, pd.bias_desc(), 1));
  OCTET_RETURN_IF_ERROR(strip->product.Add(pd, std::move(args)));
  return strip;
}

class StripsStep final : public FourBitStep {
 public:
  StripsStep(FourBitProduct product, ResultOps ops, int64_t width, std::unique_ptr<Strip> whole,
             std::unique_ptr<Strip> last)
      : FourBitStep(std::move(product), std::move(ops)),
        width_(width),
        whole_(std::move(whole)),
        last_(std::move(last)) {}

  size_t scratch_bytes() const override {
    size_t bytes = 0;
    for (const Strip* strip : {whole_.get(), last_.get()}) {
      if (strip != nullptr) bytes = std::max(bytes, strip->product.scratch_bytes());
    }
    return bytes;
  }

  absl::StatusOr<std::unique_ptr<StepState>> NewState() const override {
    auto state = std::make_unique<States>();
    if (whole_ != nullptr) {
      OCTET_ASSIGN_OR_RETURN(state->whole, whole_->product.NewState());
    }
    if (last_ != nullptr) {
      OCTET_ASSIGN_OR_RETURN(state->last, last_->product.NewState());
    }
    return state;
  }

 private:
  struct States : StepState {
    std::unique_ptr<StepState> whole;
    std::unique_ptr<StepState> last;
  };

  absl::Status Multiply(const StepArgs& args) const override {
    auto& states = static_cast<States&>(*args.state);
    for (int64_t column = 0; column < product_.layout.n; column += width_) {
      const bool whole = column + width_ <= product_.layout.n;
      OCTET_RETURN_IF_ERROR(MultiplyStrip(
          whole ? *whole_ : *last_, whole ? states.whole.get() : states.last.get(), column, args));
    }
    return absl::OkStatus();
  }

  absl::Status MultiplyStrip(const Strip& strip, StepState* state, int64_t column,
                             const StepArgs& args) const {
    auto* reals = reinterpret_cast<float*>(args.scratch);
    const PanelLayout& to = strip.to;
    const int64_t first = column / FourBitLayout::kWidth;
    const int64_t pairs = (to.panel_count() * to.width + kStripColumns - 1) / kStripColumns;
    ParallelFor(pairs, 1, [&](int64_t begin, int64_t end) {
      UnpackFourBits(product_.layout, product_.panels.get(), first + 2 * begin, first + 2 * end, to,
                     begin * kStripColumns, reals);
    });
    std::array<void*, 2> inputs = {args.inputs[kFourBitA], nullptr};
    // Nobody writes it.
    if (bias() != nullptr) inputs[1] = const_cast<float*>(bias() + column);
    std::array<void*, 1> outputs = {static_cast<float*>(args.outputs[0]) + column};
    return strip.product.Run(
        {.inputs = inputs, .outputs = outputs, .scratch = args.scratch, .state = state});
  }

  const int64_t width_;
  const std::unique_ptr<Strip> whole_;  ///< Null where one strip is all.
  const std::unique_ptr<Strip> last_;   ///< Of the columns behind the whole ones; null without.
};

absl::StatusOr<FourBitProduct> ProductOf(const LowerContext& context) {
  FourBitProduct product;
  const Tensor& scales = context.input(kFourBitScales).constant;
  OCTET_ASSIGN_OR_RETURN(product.layout, FourBitLayoutOf(context.node, scales.shape()));
  product.layout.zero_points = context.has_input(kFourBitZeroPoints);
  product.rows = context.input(kFourBitA).shape->elements() / product.layout.k;
  if (context.has_input(kFourBitBias))
    product.bias = context.weights.Intern(context.input(kFourBitBias).constant);
  const Tensor& integers = context.input(kFourBitIntegers).constant;
  const Tensor zeros =
      product.layout.zero_points ? context.input(kFourBitZeroPoints).constant : Tensor();
  const auto hash_of = [](const Tensor& tensor) {
    if (tensor.empty_handle()) return std::string("none");
    const onednn::ContentHash hash = onednn::HashBytes(tensor.data(), tensor.bytes());
    return Format("{:x}{:016x}", hash.high, hash.low);
  };
  const std::string form = Format("four_bits {} {} {} {}", product.layout.k, product.layout.block,
                                  hash_of(scales), hash_of(zeros));
  OCTET_ASSIGN_OR_RETURN(
      product.panels,
      context.weights.GetOrMake(integers, form, product.layout.bytes(), [&](std::byte* out) {
        PackFourBits(product.layout, integers.span<uint8_t>().data(), scales.span<float>().data(),
                     zeros.empty_handle() ? nullptr : zeros.span<int8_t>().data(), out);
        return absl::OkStatus();
      }));
  return product;
}

absl::StatusOr<std::unique_ptr<Step>> LowerStrips(const LowerContext& context,
                                                  FourBitProduct product, ResultOps ops) {
  const int64_t n = product.layout.n;
  const int64_t fitting = kStripReals / product.layout.k / kStripColumns * kStripColumns;
  const int64_t width = std::max(fitting, kStripColumns * context.target.threads);
  std::unique_ptr<Strip> whole;
  std::unique_ptr<Strip> last;
  if (n >= width) {
    OCTET_ASSIGN_OR_RETURN(whole, MakeStrip(product, width));
  }
  if (n % width != 0) {
    OCTET_ASSIGN_OR_RETURN(last, MakeStrip(product, n % width));
  }
  const std::string& impl = whole != nullptr ? whole->impl : last->impl;
  context.layer.impl = Format("octet:unpack_s4+{}", impl);
  context.layer.isa = onednn::IsaOf(impl);
  return std::make_unique<StripsStep>(std::move(product), std::move(ops), width, std::move(whole),
                                      std::move(last));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerFourBitMatMul(const LowerContext& context) {
  if (context.input(kFourBitA).dtype != DType::kF32 || context.output().dtype != DType::kF32) {
    return Unimplemented("types {} x 4 bits -> {}", DTypeName(context.input(kFourBitA).dtype),
                         DTypeName(context.output().dtype));
  }
  OCTET_ASSIGN_OR_RETURN(ResultOps ops, ResultOps::Of(context));
  OCTET_ASSIGN_OR_RETURN(FourBitProduct product, ProductOf(context));
  context.layer.runs = "f32";
  context.layer.reason = "weights of 4 bits are multiplied by f32";
  context.layer.macs = MultiplyAdds(context.graph, context.node);
  if (product.rows > kFewRows) return LowerStrips(context, std::move(product), std::move(ops));
  context.layer.impl = Format("octet:gemv_s4:{}", FourBitTarget());
  context.layer.isa = context.target.isa;
  return std::make_unique<FewRowsStep>(std::move(product), std::move(ops));
}

}  // namespace octet

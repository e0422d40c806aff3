// octet:MatMul on oneDNN's matmul.
//
// The leading axes of A are rows where B is one matrix: [..., M, K] x [K, N] is [rows, K] x [K, N]. Else the stacks stay
// axes, which broadcast; those that all operands broadcast along alike are one where they are many (JoinedAxes). Constant B is packed
// once. What the node asks of A before the product is done into scratch:
//   dynamic_quant: A's range is taken, A quantized to u8; scale and zero point are arguments of the product.
#include <algorithm>
#include <numeric>
#include <optional>
#include <vector>

#include "engine/onednn/isa.h"
#include "engine/onednn/memory_desc.h"
#include "engine/onednn/panels.h"
#include "engine/onednn/runtime.h"
#include "engine/onednn/weight_cache.h"
#include "engine/ops/dynamic_quant_step.h"
#include "engine/ops/gemv_step.h"
#include "engine/ops/int8_numbers.h"
#include "engine/ops/joined_axes.h"
#include "engine/ops/lowerings.h"
#include "engine/ops/never_negative.h"
#include "engine/ops/post_ops.h"
#include "engine/ops/primitive_attributes.h"
#include "engine/ops/reference_step.h"
#include "engine/ops/saturation.h"
#include "engine/ops/unsigned_source.h"
#include "engine/ops/weight_layout.h"
#include "engine/ops/whole_sums.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using onednn::ExecArg;
using MatMulDesc = dnnl::matmul::primitive_desc;

/// Shapes of a product as oneDNN sees them: of one rank, two axes at least.
struct MatMulShapes {
  Shape a;  ///< [stack..., M, K]
  Shape b;  ///< [stack..., K, N], or [stack..., N, K] when trans_b.
  Shape y;  ///< [stack..., M, N]
  bool trans_b = false;

  int rank() const { return y.rank(); }
};

Shape WithLeadingOnes(const Shape& shape, int rank) {
  Shape longer;
  for (int i = shape.rank(); i < rank; ++i) longer.push_back(1);
  for (const int64_t extent : shape) longer.push_back(extent);
  return longer;
}

/// The operand's extents where the result's leading axes are one axis of rows; nullopt where it varies over some of them.
std::optional<Shape> OverRows(const Shape& operand, const Shape& result) {
  const Shape longer = WithLeadingOnes(operand, result.rank());
  if (longer.rank() > result.rank()) return std::nullopt;
  const int64_t rows = longer.elements(0, longer.rank() - 1);
  if (rows != 1 && rows != result.elements(0, result.rank() - 1)) return std::nullopt;
  return Shape{rows, longer.back()};
}

class MatMulLowering {
 public:
  explicit MatMulLowering(const LowerContext& context) : context_(context) {}

  absl::StatusOr<std::unique_ptr<Step>> Run() {
    OCTET_RETURN_IF_ERROR(CheckTypes());
    OCTET_RETURN_IF_ERROR(MakeShapes());
    MakeStep();
    if (int8_ && !dynamic_) whole_ = WholeSums::Of(context_, problem_.y.back());
    if (context_.has_input(2)) bias_ = whole_ ? whole_->bias() : context_.input(2).constant;
    if (context_.input(1).dtype == DType::kU8) OCTET_RETURN_IF_ERROR(MakeSigned());
    if (context_.input(0).dtype == DType::kI8 && !context_.target.int8_exact) {
      OCTET_ASSIGN_OR_RETURN(unsigned_a_, AddUnsignedSource(context_, *step_));
    }
    OCTET_RETURN_IF_ERROR(AddPasses());
    LayerRecord& layer = context_.layer;
    layer.runs = int8_ ? "int8" : context_.input(0).dtype == DType::kBF16 ? "bf16" : "f32";
    layer.macs = MultiplyAdds(context_.graph, context_.node);
    layer.isa = gemv_ ? context_.target.isa : onednn::IsaOf(layer.impl);
    if (gemv_) return std::move(gemv_);
    return std::move(step_);
  }

 private:
  struct Pass {
    std::optional<Tensor> weights;  ///< Constant B.
    DType dst;
    bool last = true;  ///< Bias, post-ops and requantization belong to the last pass.
    std::optional<size_t> partial = {};  ///< Scratch offset of the reals that an earlier pass left.
    std::string_view note = "";
  };

  absl::Status CheckTypes() {
    const Value& a = context_.input(0);
    const Value& b = context_.input(1);
    const Value& y = context_.output();
    dynamic_ = context_.node.attributes.IntOr("dynamic_quant", 0) != 0;
    int8_ = dynamic_ || a.quant.has_value();
    const bool real_y = !y.quant && (y.dtype == DType::kF32 || y.dtype == DType::kBF16);
    if (!int8_) {
      const bool narrow = a.dtype == DType::kBF16 && b.dtype == DType::kBF16;
      const bool wide = a.dtype == DType::kF32 && b.dtype == DType::kF32 && y.dtype == DType::kF32;
      if (b.quant || !real_y || (!narrow && !wide)) return UnsupportedTypes();
      return absl::OkStatus();
    }
    if (dynamic_ ? a.quant || a.dtype != DType::kF32 : !IsInt8(a.dtype)) return UnsupportedTypes();
    if (!b.quant || !IsInt8(b.dtype) || (y.quant ? !IsInt8(y.dtype) : !real_y))
      return UnsupportedTypes();
    // Weights of several scales have no zero points, nor have those that are split where sums saturate.
    const bool zero_point = b.quant->per_tensor() && context_.target.int8_exact;
    const bool weights = b.dtype == DType::kI8 && (b.quant->symmetric() || zero_point);
    if (b.is_constant() ? !weights : !b.quant->per_tensor())
      return Unimplemented("quantization of the right-hand side");
    if ((a.quant && !a.quant->per_tensor()) || (y.quant && !y.quant->per_tensor()))
      return Unimplemented("activations per channel");
    if (context_.target.int8_exact) return absl::OkStatus();
    if (!b.is_constant()) return Unimplemented("8-bit product of activations without VNNI");
    return absl::OkStatus();
  }

  absl::Status UnsupportedTypes() const {
    return Unimplemented("types {} x {} -> {}", DTypeName(context_.input(0).dtype),
                         DTypeName(context_.input(1).dtype), DTypeName(context_.output().dtype));
  }

  absl::Status MakeShapes() {
    const Shape& a = *context_.input(0).shape;
    const Shape& b = *context_.input(1).shape;
    const Shape& y = *context_.output().shape;
    problem_.trans_b = context_.node.attributes.IntOr("trans_b", 0) != 0;
    if (a.rank() < 2 || b.rank() < 2) return Unimplemented("a vector operand");
    if (a.elements() == 0 || b.elements() == 0) return Unimplemented("an empty operand");
    if (b.rank() == 2 && OperandsVaryByRow()) {
      problem_.a = Shape{a.elements(0, a.rank() - 1), a.back()};
      problem_.b = b;
      problem_.y = Shape{problem_.a[0], y.back()};
      return absl::OkStatus();
    }
    problem_.a = WithLeadingOnes(a, y.rank());
    problem_.b = WithLeadingOnes(b, y.rank());
    problem_.y = y;
    if (y.rank() > kMostKernelAxes) OCTET_RETURN_IF_ERROR(JoinStacks());
    if (problem_.rank() > DNNL_MAX_NDIMS)
      return Unimplemented("a product of {} axes", problem_.rank());
    return absl::OkStatus();
  }

  absl::Status JoinStacks() {
    std::vector<Shape> shapes = {problem_.a, problem_.b};
    for (const PostOp& op : context_.node.post_ops) {
      if (!HasOperand(op.kind)) continue;
      const Shape& operand = *context_.input(static_cast<size_t>(op.operand)).shape;
      OCTET_RETURN_IF_ERROR(CheckOperandRank(operand));
      shapes.push_back(operand);
    }
    joined_.emplace(problem_.y, shapes, problem_.rank() - 2);
    for (Shape* shape : {&problem_.a, &problem_.b, &problem_.y}) *shape = joined_->Of(*shape);
    return absl::OkStatus();
  }

  absl::Status CheckOperandRank(const Shape& operand) const {
    if (operand.rank() <= context_.output().shape->rank()) return absl::OkStatus();
    return Unimplemented("a post-op's operand has more axes than the result");
  }

  bool OperandsVaryByRow() const {
    return std::ranges::all_of(context_.node.post_ops, [&](const PostOp& op) {
      if (!HasOperand(op.kind)) return true;
      const Value& operand = context_.input(static_cast<size_t>(op.operand));
      return OverRows(*operand.shape, *context_.output().shape).has_value();
    });
  }

  void MakeStep() {
    if (!dynamic_) {
      step_ = std::make_unique<PrimitiveStep>();
      return;
    }
    auto step = std::make_unique<DynamicQuantStep>(
        problem_.a.elements(), IsNeverNegative(context_.graph, context_.node.inputs[0]));
    dynamic_step_ = step.get();
    step_ = std::move(step);
  }

  // oneDNN's right-hand sides are signed: B - 128, with a zero point that is 128 less.
  absl::Status MakeSigned() {
    const int64_t count = problem_.b.elements();
    const auto from = onednn::VectorDesc(DType::kU8, count);
    const auto to = onednn::VectorDesc(DType::kI8, count);
    PrimitiveAttributes attributes(context_);
    constexpr int32_t kShift = kUnsignedZero;
    attributes.AddZeroPoint(DNNL_ARG_SRC, {&kShift, 1});
    std::vector<ExecArg> args = attributes.TakeArgs();
    const dnnl::primitive_attr attr = attributes.TakeAttributes();
    OCTET_ASSIGN_OR_RETURN(const auto pd, onednn::Catch([&] {
                             return dnnl::reorder::primitive_desc(onednn::CpuEngine(), from,
                                                                  onednn::CpuEngine(), to, attr);
                           }));
    signed_b_ = step_->ReserveScratch(static_cast<size_t>(count));
    args.push_back(ExecArg::Input(DNNL_ARG_FROM, from, 1));
    args.push_back(ExecArg::Scratch(DNNL_ARG_TO, to, *signed_b_));
    return step_->Add(pd, std::move(args));
  }

  absl::Status AddPasses() {
    const Value& b = context_.input(1);
    const DType y = context_.output().dtype;
    if (!b.is_constant()) return AddPass({std::nullopt, y});
    const int inner_axis = b.constant.shape().rank() - (problem_.trans_b ? 1 : 2);
    if (!int8_ || context_.target.int8_exact || !MaySaturate(b.constant, inner_axis))
      return AddPass({b.constant, y});
    SplitWeights parts = Split(b.constant);
    const size_t partial =
        step_->ReserveScratch(static_cast<size_t>(problem_.y.elements()) * sizeof(float));
    OCTET_RETURN_IF_ERROR(AddPass({std::move(parts.rest), DType::kF32, false, partial}));
    return AddPass({std::move(parts.safe), y, true, partial, " x2 (split weights)"});
  }

  // Of the operands, as far as oneDNN applies them to the sums.
  void AddOperandQuant(PrimitiveAttributes& attributes) const {
    const QuantParams& b = *context_.input(1).quant;
    if (dynamic_) {
      dynamic_step_->Describe(DNNL_ARG_SRC, attributes);
    } else {
      if (!whole_) attributes.AddScales(DNNL_ARG_SRC, 0, context_.input(0).quant->scales);
      const int32_t zero_point =
          context_.input(0).quant->zero_points[0] + (unsigned_a_ ? kUnsignedZero : 0);
      attributes.AddZeroPoint(DNNL_ARG_SRC, {&zero_point, 1});
    }
    if (!whole_) {
      attributes.AddScales(DNNL_ARG_WEIGHTS, b.per_tensor() ? 0 : 1 << (problem_.rank() - 1),
                           b.scales);
    }
    if (!b.per_tensor()) return;
    const int32_t zero_point = b.zero_points[0] - (signed_b_ ? kUnsignedZero : 0);
    attributes.AddZeroPoint(DNNL_ARG_WEIGHTS, {&zero_point, 1});
  }

  absl::StatusOr<dnnl::memory::desc> OperandDesc(DType dtype, const Shape& shape) const {
    const Shape& y = *context_.output().shape;
    OCTET_RETURN_IF_ERROR(CheckOperandRank(shape));
    const Shape seen = joined_                       ? joined_->Of(shape)
                       : problem_.rank() == y.rank() ? WithLeadingOnes(shape, y.rank())
                                                     : *OverRows(shape, y);
    return onednn::DenseDesc(dtype, seen.dims());
  }

  // Scales and zero points; then what happens to the sum of products before it is stored.
  absl::Status AddAttributes(const Pass& pass, PrimitiveAttributes& attributes) const {
    if (int8_) AddOperandQuant(attributes);
    if (!pass.last) return absl::OkStatus();
    if (pass.partial)
      attributes.AddScratchSum(onednn::DenseDesc(DType::kF32, problem_.y.dims()), *pass.partial);
    const OperandDescFn operand_desc = [this](DType dtype, const Shape& shape) {
      return OperandDesc(dtype, shape);
    };
    if (whole_) {
      return whole_->AddResult(attributes, onednn::DenseDesc(DType::kF32, RowShape().dims()),
                               operand_desc);
    }
    if (const auto& y = context_.output().quant) {
      attributes.AddScales(DNNL_ARG_DST, 0, y->scales);
      attributes.AddZeroPoint(DNNL_ARG_DST, y->zero_points);
    }
    return attributes.AddPostOps(operand_desc);
  }

  // B's buffer seen as [stack..., K, N].
  dnnl::memory::desc PlainB(DType dtype) const {
    std::vector<int> order(static_cast<size_t>(problem_.rank()));
    std::iota(order.begin(), order.end(), 0);
    if (problem_.trans_b) std::swap(order[order.size() - 1], order[order.size() - 2]);
    return onednn::PermutedDesc(dtype, problem_.b.dims(), order);
  }

  absl::Status AddPass(const Pass& pass) {
    PrimitiveAttributes attributes(context_);
    OCTET_RETURN_IF_ERROR(AddAttributes(pass, attributes));
    std::vector<ExecArg> args = attributes.TakeArgs();
    const dnnl::primitive_attr attr = attributes.TakeAttributes();
    const auto a = onednn::DenseDesc(dynamic_ || unsigned_a_ ? DType::kU8 : context_.input(0).dtype,
                                     problem_.a.dims());
    const auto b = PlainB(int8_ ? DType::kI8 : context_.input(1).dtype);
    const auto y = onednn::DenseDesc(pass.dst, problem_.y.dims());
    const bool has_bias = pass.last && context_.has_input(2);
    const auto bias =
        has_bias ? onednn::DenseDesc(DType::kF32, RowShape().dims()) : dnnl::memory::desc();
    const auto describe = [&](const dnnl::memory::desc& layout) {
      return onednn::Catch(
          [&] { return MatMulDesc(onednn::CpuEngine(), a, layout, bias, y, attr); });
    };
    OCTET_ASSIGN_OR_RETURN(
        const MatMulDesc pd,
        pass.weights ? DescribeSharing(context_.weights, *pass.weights, b.get_dims(), describe)
                     : Fast(describe(b)));
    if (auto one_row = OneRow(pass, b, pd.weights_desc()); one_row.ok()) {
      gemv_ = std::move(*one_row);
      context_.layer.impl = Format("octet:gemv:{}", GemvTarget());
      return absl::OkStatus();
    } else if (!absl::IsUnimplemented(one_row.status())) {
      return one_row.status();
    }
    args.push_back(dynamic_      ? ExecArg::Scratch(DNNL_ARG_SRC, a, dynamic_step_->source())
                   : unsigned_a_ ? ExecArg::Scratch(DNNL_ARG_SRC, a, *unsigned_a_)
                                 : ExecArg::Input(DNNL_ARG_SRC, a, 0));
    OCTET_ASSIGN_OR_RETURN(ExecArg right, RightArg(pass, b, pd.weights_desc()));
    args.push_back(std::move(right));
    if (has_bias) args.push_back(BiasArg(bias));
    args.push_back(pass.last ? ExecArg::Output(DNNL_ARG_DST, y, 0)
                             : ExecArg::Scratch(DNNL_ARG_DST, y, *pass.partial));
    context_.layer.impl = pd.impl_info_str() + std::string(pass.note);
    absl::Status added = step_->Add(pd, std::move(args));
    // oneDNN said that it has this primitive, and what another kernel would multiply by is gone.
    return context_.MayDiscard(1) ? onednn::BehindDiscard(std::move(added)) : added;
  }

  // One row, on the weights as oneDNN wants them for more rows: plans for other batches share them.
  absl::StatusOr<std::unique_ptr<Step>> OneRow(const Pass& pass, const dnnl::memory::desc& plain,
                                               const dnnl::memory::desc& layout) const {
    if (!pass.weights || pass.partial || problem_.rank() != 2 || problem_.y[0] != 1)
      return Unimplemented("not a row with constant weights");
    // 255 * 128 * this stays below 2^31.
    constexpr int64_t kMostDepth = int64_t{1} << 16;
    if (int8_ && problem_.a.back() >= kMostDepth) return Unimplemented("8-bit sums this long");
    const auto panels = onednn::PanelLayoutOf(layout);
    if (!panels) return Unimplemented("weights in another layout");
    if (int8_ && !context_.input(1).quant->symmetric()) return Unimplemented("a zero point");
    if (!whole_ && OwnInputCount(context_.node) != context_.node.inputs.size())
      return Unimplemented("post-ops with operands");
    const DType y = context_.output().dtype;
    if (int8_ && !whole_ && y != DType::kF32) return Unimplemented("not F32");
    const DType b = context_.input(1).dtype;
    if (!int8_ && (context_.input(0).dtype != b || (y != b && y != DType::kF32)))
      return Unimplemented("operands of several types");
    Int8Numbers numbers;
    if (whole_) {
      OCTET_ASSIGN_OR_RETURN(numbers, NumbersOf(context_));
    }
    // Packing may take the elements away: nothing is read, and nothing refused, behind it.
    const std::vector<int32_t> sums = int8_ ? ColumnSums(*pass.weights) : std::vector<int32_t>();
    OCTET_ASSIGN_OR_RETURN(auto packed, Packed(*pass.weights, plain, layout));
    if (whole_) return MakeGemvInt8Step(*panels, std::move(packed), numbers, *whole_, sums);
    const Tensor bias = context_.has_input(2) ? context_.weights.Intern(bias_) : Tensor();
    if (int8_) return MakeGemvRealsStep(context_, *panels, std::move(packed), bias, sums);
    return MakeGemvStep(context_, *panels, std::move(packed), bias);
  }

  absl::StatusOr<std::shared_ptr<const std::byte[]>> Packed(
      const Tensor& weights, const dnnl::memory::desc& plain,
      const dnnl::memory::desc& layout) const {
    return context_.weights.Reordered(
        weights, plain, layout,
        context_.MayDiscard(1) ? onednn::SourceUse::kDiscard : onednn::SourceUse::kKeep);
  }

  std::vector<int32_t> ColumnSums(const Tensor& b) const {
    const auto k = static_cast<size_t>(problem_.a.back());
    const auto n = static_cast<size_t>(problem_.y.back());
    const std::span<const int8_t> weights = b.span<int8_t>();
    std::vector<int32_t> sums(n);
    if (problem_.trans_b) {
      for (size_t column = 0; column < n; ++column) {
        for (const int8_t weight : weights.subspan(column * k, k)) sums[column] += weight;
      }
      return sums;
    }
    for (size_t row = 0; row < k; ++row) {
      const std::span<const int8_t> of_row = weights.subspan(row * n, n);
      for (size_t column = 0; column < n; ++column) sums[column] += of_row[column];
    }
    return sums;
  }

  absl::StatusOr<ExecArg> RightArg(const Pass& pass, const dnnl::memory::desc& plain,
                                   const dnnl::memory::desc& layout) const {
    if (!pass.weights) {
      return signed_b_ ? ExecArg::Scratch(DNNL_ARG_WEIGHTS, plain, *signed_b_)
                       : ExecArg::Input(DNNL_ARG_WEIGHTS, plain, 1);
    }
    OCTET_ASSIGN_OR_RETURN(auto packed, Packed(*pass.weights, plain, layout));
    return ExecArg::Constant(DNNL_ARG_WEIGHTS, layout, std::move(packed));
  }

  // What lies along the result's last axis alone.
  Shape RowShape() const { return WithLeadingOnes(Shape{problem_.y.back()}, problem_.rank()); }

  ExecArg BiasArg(const dnnl::memory::desc& desc) const {
    auto interned = std::make_shared<Tensor>(context_.weights.Intern(bias_));
    const void* elements = interned->data();
    return ExecArg::Constant(DNNL_ARG_BIAS, desc,
                             std::shared_ptr<const void>(std::move(interned), elements));
  }

  const LowerContext& context_;
  std::unique_ptr<PrimitiveStep> step_;
  std::unique_ptr<Step> gemv_;                ///< Instead of step_, for one row.
  DynamicQuantStep* dynamic_step_ = nullptr;  ///< step_, when A is quantized at run time.
  std::optional<size_t> unsigned_a_;  ///< Scratch offset of A + 128, where that is computed with.
  std::optional<size_t> signed_b_;    ///< Scratch offset of B, when it is made signed.
  std::optional<WholeSums>
      whole_;  ///< When sums stay integers until they become steps of the result.
  Tensor bias_;
  MatMulShapes problem_;
  std::optional<JoinedAxes> joined_;  ///< Of problem_, where some of the stacks' axes are one.
  bool int8_ = false;
  bool dynamic_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerMatMul(const LowerContext& context) {
  return MatMulLowering(context).Run();
}

}  // namespace octet

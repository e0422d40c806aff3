// LSTM, GRU and RNN with constant weights on RecurrentStep. The weights' type decides the arithmetic: F32, BF16, or I8 with
// quant.
#include <algorithm>
#include <numeric>
#include <utility>

#include "engine/onednn/weight_cache.h"
#include "engine/ops/lowerings.h"
#include "engine/ops/recurrent_step.h"
#include "engine/ops/reference_step.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using recurrent::kBias, recurrent::kInitialC, recurrent::kInitialH, recurrent::kPeepholes,
    recurrent::kR, recurrent::kW, recurrent::kX;

/// Units of a part are a multiple of this, but for the last part's.
constexpr int64_t kUnitBlock = 16;
/// Multiply-adds of a time step that are worth another thread, which the others then wait for.
constexpr int64_t kStepGrain = int64_t{256} * 1024;
/// Integer sums of longer rows could overflow.
constexpr int64_t kMostDepth = int64_t{1} << 16;

std::string_view RunsIn(ProductType type) {
  return type == ProductType::kF32 ? "f32" : type == ProductType::kBf16 ? "bf16" : "int8";
}

class RecurrentLowering {
 public:
  RecurrentLowering(const LowerContext& context, CellKind kind) : context_(context), kind_(kind) {}

  absl::StatusOr<std::unique_ptr<Step>> Run() {
    OCTET_RETURN_IF_ERROR(CheckWeights());
    OCTET_RETURN_IF_ERROR(CheckValues());
    OCTET_ASSIGN_OR_RETURN(layer_,
                           ReadRecurrentLayer(context_.node, kind_, *context_.input(kX).shape,
                                              *context_.input(kR).shape));
    if (std::min({layer_.time, layer_.batch, layer_.inputs, layer_.hidden}) == 0)
      return Unimplemented("an empty input");
    if (type_ == ProductType::kInt8 && std::max(layer_.inputs, layer_.hidden) >= kMostDepth)
      return Unimplemented("8-bit sums of {} products", std::max(layer_.inputs, layer_.hidden));
    const Sharing sharing = Share();
    std::vector<RecurrentPart> parts;
    for (int64_t d = 0; d < layer_.directions(); ++d)
      OCTET_RETURN_IF_ERROR(AddParts(d, sharing.parts, parts));
    LayerRecord& record = context_.layer;
    record.runs = RunsIn(type_);
    record.impl = Format("octet:recurrent:{}", PackedProductTarget());
    record.isa = context_.target.isa;
    record.macs = MultiplyAdds(context_.graph, context_.node);
    return std::make_unique<RecurrentStep>(layer_, type_, Formats(), std::move(parts),
                                           sharing.groups, context_.target.threads);
  }

 private:
  bool Has(size_t slot) const { return context_.has_input(slot); }

  absl::Status CheckWeights() {
    const Value& w = context_.input(kW);
    const Value& r = context_.input(kR);
    for (const size_t slot : {kW, kR, kBias}) {
      if (Has(slot) && !context_.input(slot).is_constant())
        return Unimplemented("weights are computed");
    }
    if (w.dtype != r.dtype || w.quant.has_value() != r.quant.has_value())
      return Unimplemented("weights {} and {}", DTypeName(w.dtype), DTypeName(r.dtype));
    if (w.quant) {
      if (w.dtype != DType::kI8) return Unimplemented("weights {}", DTypeName(w.dtype));
      for (const Value* weights : {&w, &r}) {
        const QuantParams& params = *weights->quant;
        if (!params.symmetric() || (!params.per_tensor() && params.axis != 1))
          return Unimplemented("quantization of '{}'", weights->name);
      }
      type_ = ProductType::kInt8;
      return absl::OkStatus();
    }
    if (w.dtype != DType::kF32 && w.dtype != DType::kBF16)
      return Unimplemented("weights {}", DTypeName(w.dtype));
    type_ = w.dtype == DType::kF32 ? ProductType::kF32 : ProductType::kBf16;
    return absl::OkStatus();
  }

  absl::Status CheckValues() const {
    const Value& x = context_.input(kX);
    const bool dynamic = context_.node.attributes.IntOr("dynamic_quant", 0) != 0;
    const bool integers = x.quant || (dynamic && x.dtype == DType::kF32);
    if (!HasRealFormat(x) || integers != (type_ == ProductType::kInt8) || (dynamic && x.quant))
      return Unimplemented("types {} x {}", DTypeName(x.dtype),
                           DTypeName(context_.input(kW).dtype));
    for (const size_t slot : {kBias, kPeepholes}) {
      if (Has(slot) && (context_.input(slot).dtype != DType::kF32 || context_.input(slot).quant))
        return Unimplemented("'{}' is not FLOAT", context_.input(slot).name);
    }
    for (const size_t slot : {kInitialH, kInitialC}) {
      if (Has(slot) && !HasRealFormat(context_.input(slot)))
        return Unimplemented("the type of '{}'", context_.input(slot).name);
    }
    for (const ValueId id : context_.node.outputs) {
      if (id != kNone && !HasRealFormat(context_.graph.value(id)))
        return Unimplemented("the type of '{}'", context_.graph.value(id).name);
    }
    return absl::OkStatus();
  }

  RecurrentFormats Formats() const {
    const auto of_input = [&](size_t slot) {
      return Has(slot) ? RealFormatOf(context_.input(slot)) : RealFormat{};
    };
    RecurrentFormats formats{of_input(kX), of_input(kInitialH), of_input(kInitialC), {}};
    for (size_t i = 0; i < formats.outputs.size(); ++i) {
      const ValueId id = context_.node.output(i);
      if (id != kNone) formats.outputs[i] = RealFormatOf(context_.graph.value(id));
    }
    return formats;
  }

  // How many parts and groups of sequences the threads of one direction share.
  struct Sharing {
    int64_t parts = 1;
    int64_t groups = 1;
  };

  int64_t blocks() const { return (layer_.hidden + kUnitBlock - 1) / kUnitBlock; }

  // Groups need not wait for each other; parts are for what groups leave idle, where a step is long.
  Sharing Share() const {
    const int64_t team = std::max<int64_t>(context_.target.threads / layer_.directions(), 1);
    const int64_t macs = layer_.batch * layer_.gates() * layer_.hidden * layer_.hidden;
    const int64_t groups = std::min(team, layer_.batch);
    const int64_t parts = std::clamp<int64_t>(macs / kStepGrain, 1, std::min(team, blocks()));
    return parts > groups ? Sharing{parts, 1} : Sharing{1, groups};
  }

  absl::Status AddParts(int64_t direction, int64_t count, std::vector<RecurrentPart>& parts) const {
    for (int64_t p = 0; p < count; ++p) {
      RecurrentPart part{.direction = direction, .first = blocks() * p / count * kUnitBlock};
      part.units = std::min(blocks() * (p + 1) / count * kUnitBlock, layer_.hidden) - part.first;
      const bool reset_first = kind_ == CellKind::kGru && !layer_.linear_before_reset;
      const int64_t at_once = reset_first ? 2 : layer_.gates();
      OCTET_ASSIGN_OR_RETURN(part.w, Packed(kW, part, 0, layer_.gates()));
      OCTET_ASSIGN_OR_RETURN(part.r, Packed(kR, part, 0, at_once));
      if (reset_first) {
        OCTET_ASSIGN_OR_RETURN(part.candidate, Packed(kR, part, 2, 3));
      }
      AddBias(part);
      parts.push_back(std::move(part));
    }
    return absl::OkStatus();
  }

  // Gates [first, last) of the part's units, of W or R.
  absl::StatusOr<PackedMatrix> Packed(size_t slot, const RecurrentPart& part, int64_t first,
                                      int64_t last) const {
    const Value& value = context_.input(slot);
    const Tensor& source = value.constant;
    PackedMatrix matrix{
        .type = type_, .columns = (last - first) * part.units, .depth = source.shape()[2]};
    const auto row_bytes = static_cast<size_t>(matrix.depth) * SizeOf(source.dtype());
    std::vector<const void*> columns;
    for (int64_t gate = first; gate < last; ++gate) {
      for (int64_t unit = part.first; unit < part.first + part.units; ++unit) {
        const int64_t row = gate * layer_.hidden + unit;
        const auto at = static_cast<size_t>(part.direction * layer_.gates() * layer_.hidden + row);
        columns.push_back(static_cast<const std::byte*>(source.data()) + at * row_bytes);
        if (type_ != ProductType::kInt8) continue;
        const QuantParams& params = *value.quant;
        matrix.scales.push_back(params.scales[params.per_tensor() ? 0 : static_cast<size_t>(row)]);
        const auto* weights = static_cast<const int8_t*>(columns.back());
        matrix.sums.push_back(std::accumulate(weights, weights + matrix.depth, int32_t{0}));
      }
    }
    if (type_ == ProductType::kInt8) {
      const auto padded = static_cast<size_t>(PaddedColumns(matrix.columns));
      matrix.scales.resize(padded, 0.0F);
      matrix.sums.resize(padded, 0);
    }
    const std::string form =
        Format("recurrent {} direction {} units {}+{} gates {}-{}", PackedProductTarget(),
               part.direction, part.first, part.units, first, last);
    OCTET_ASSIGN_OR_RETURN(
        matrix.panels,
        context_.weights.GetOrMake(source, form, PackedBytes(type_, matrix.columns, matrix.depth),
                                   [&](std::byte* out) {
                                     PackPanels(type_, columns, matrix.depth, out);
                                     return absl::OkStatus();
                                   }));
    return matrix;
  }

  // Both biases of a gate are added to W x, but for the one inside a GRU's reset.
  void AddBias(RecurrentPart& part) const {
    part.bias.assign(static_cast<size_t>(PaddedColumns(part.w.columns)), 0.0F);
    if (!Has(kBias)) return;
    const int64_t rows = layer_.gates() * layer_.hidden;
    const float* from =
        context_.input(kBias).constant.span<float>().data() + part.direction * 2 * rows;
    if (layer_.kind == CellKind::kGru && layer_.linear_before_reset)
      part.state_bias.assign(static_cast<size_t>(PaddedColumns(part.r.columns)), 0.0F);
    for (int64_t gate = 0; gate < layer_.gates(); ++gate) {
      const bool inside = gate == 2 && !part.state_bias.empty();
      for (int64_t unit = 0; unit < part.units; ++unit) {
        const int64_t row = gate * layer_.hidden + part.first + unit;
        const auto column = static_cast<size_t>(gate * part.units + unit);
        part.bias[column] = from[row];
        (inside ? part.state_bias : part.bias)[column] += from[rows + row];
      }
    }
  }

  const LowerContext& context_;
  CellKind kind_;
  ProductType type_ = ProductType::kF32;
  RecurrentLayer layer_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerLstm(const LowerContext& context) {
  return RecurrentLowering(context, CellKind::kLstm).Run();
}
absl::StatusOr<std::unique_ptr<Step>> LowerGru(const LowerContext& context) {
  return RecurrentLowering(context, CellKind::kGru).Run();
}
absl::StatusOr<std::unique_ptr<Step>> LowerRnn(const LowerContext& context) {
  return RecurrentLowering(context, CellKind::kRnn).Run();
}

}  // namespace octet

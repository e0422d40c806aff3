// The ordered list of passes, and the loop that runs it.
#include <algorithm>
#include <array>

#include "engine/ops/op.h"
#include "engine/passes/passes.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// Rounds after which a repeated group stops, whatever it still finds. As many Ifs may depend on each other: what one decides is
// known when it is gone.
constexpr int kMaxRounds = 64;

// What the passes need of each other:
//   widen_reals comes before all that asks for F32, and behind inline_if, whose bodies have types of their own;
//   import_qlinear writes Q/DQ form, so that import_qdq is the only place that decides about int8;
//   everything that fuses runs on reals, before import_qdq and absorb_converts move rounding into the nodes:
//   an activation between a Conv and its QuantizeLinear is part of the Conv by then;
//   pack_four_bits comes when operands are fused and integers typed, before products are narrowed and what is left of
//   their weights becomes reals;
//   channels_last comes when every operand that a Conv will ever have is there, push_transposes at the end.
constexpr std::array kPasses = {
    Pass{"raise_opset", "operators of opsets 1 to 6 -> opset 7", RaiseOldOpsets, true},
    Pass{"expand_functions", "operators that are defined by others -> those", ExpandFunctions,
         true},
    Pass{"fold_constants", "evaluates nodes that read only constants", FoldConstants, true},
    Pass{"inline_if", "If with a constant condition -> the nodes of its branch", InlineIf, true},
    Pass{"remove_no_ops", "takes out nodes that change nothing, and merges pairs of movements",
         RemoveNoOps, true},
    Pass{"widen_reals", "values of FLOAT16 and BFLOAT16 inside the graph -> F32", WidenReals},
    Pass{"import_qlinear", "QLinear* operators -> DequantizeLinear, operator, QuantizeLinear",
         ImportQLinear},
    Pass{"canonical_matmul", "MatMul and Gemm -> octet:MatMul", CanonicalMatMul},
    Pass{"canonical_conv_transpose", "ConvTranspose -> octet:ConvTranspose",
         CanonicalConvTranspose},
    Pass{"import_dynamic_quant",
         "DynamicQuantizeLinear chains -> Conv and octet:MatMul with dynamic_quant",
         ImportDynamicQuant},
    Pass{"sum_to_add", "Sum -> Adds", SumToAdd},
    Pass{"explicit_pads", "auto_pad and defaults of Conv and pools -> explicit attributes",
         ExplicitPads},
    Pass{"spatial_mean", "ReduceMean over all spatial axes -> GlobalAveragePool", SpatialMean},
    Pass{"fold_pad", "zero Pad -> pads of Conv and AveragePool", FoldPad},
    Pass{"fold_batch_norm", "BatchNormalization -> weights, or Mul and Add", FoldBatchNorm},
    Pass{"fuse_layer_norm", "mean, variance, scale and shift -> LayerNormalization", FuseLayerNorm},
    Pass{"fuse_gelu", "erf and tanh forms -> Gelu", FuseGelu},
    Pass{"fuse_hard_swish", "x * clip(x + 3, 0, 6) / 6 -> HardSwish", FuseHardSwish},
    Pass{"fold_affine", "factors and addends behind each other -> one Mul, one Add", FoldAffine},
    Pass{"fuse_bias", "Add of a constant per channel -> bias", FuseBias},
    Pass{"fold_scale", "Mul by a constant per channel -> weights", FoldScale},
    Pass{"fuse_bias", "the same for what fold_scale brought together", FuseBias},
    Pass{"fuse_swish", "x * sigmoid(x) behind Conv and MatMul -> post-op", FuseSwish},
    Pass{"fuse_activation", "activation behind Conv, MatMul or Add -> post-op", FuseActivation},
    Pass{"fuse_residual",
         "Add and Mul of another value behind Conv and MatMul, Add behind Mul -> post-op",
         FuseResidual},
    Pass{"import_qdq", "QuantizeLinear and DequantizeLinear -> typed int8 values", ImportQdq},
    Pass{"pack_four_bits", "products with weights that 4 bits hold -> octet:FourBitMatMul",
         PackFourBits, true},
    Pass{"lower_bf16", "values around Conv and MatMul -> BF16", LowerBf16},
    Pass{"absorb_converts", "octet:Convert -> element types of the nodes around it",
         AbsorbConverts},
    Pass{"split_zero_points", "zero points of weights -> sums of what the weights multiply",
         SplitZeroPoints},
    Pass{"channels_last", "Conv on [N, spatial..., C], with a Transpose on each side",
         ChannelsLast},
    Pass{"push_transposes", "moves Transposes until they cancel", PushTransposes},
    Pass{"absorb_converts", "the same for what push_transposes brought together", AbsorbConverts},
    Pass{"split_zero_points", "the same for what absorb_converts typed", SplitZeroPoints},
    Pass{"fold_stride", "strides of a Conv of few channels over one axis -> channels", FoldStride},
    Pass{"fuse_concat", "normalizations of what a Concat joins -> post-ops of the Concat",
         FuseConcat},
    Pass{"tabulate", "elementwise functions of one int8 value -> octet:Table", Tabulate},
    Pass{"remove_no_ops", "the same for what the other passes left", RemoveNoOps},
};

// Passes that make work for each other, repeated together until none of them finds anything.
struct Repeated {
  std::string_view first;
  std::string_view last;
};
constexpr std::array kRepeated = {
    Repeated{"expand_functions", "remove_no_ops"},
    Repeated{"fuse_bias", "fuse_residual"},
};

class PassRunner {
 public:
  PassRunner(Graph& graph, const PassContext& context) : graph_(graph), context_(context) {
    for (const Pass& pass : context.passes) traces_.push_back({pass.name});
  }

  absl::StatusOr<std::vector<PassTrace>> Run() {
    OCTET_RETURN_IF_ERROR(InferShapes(graph_));
    const std::span<const Pass> passes = context_.passes;
    for (size_t i = 0; i < passes.size();) {
      size_t end = i + 1;
      int rounds = 1;
      for (const Repeated& group : kRepeated) {
        if (passes[i].name != group.first) continue;
        while (end < passes.size() && passes[end - 1].name != group.last) ++end;
        rounds = kMaxRounds;
      }
      OCTET_RETURN_IF_ERROR(RunGroup(i, end, rounds));
      i = end;
    }
    return std::move(traces_);
  }

 private:
  absl::Status RunGroup(size_t begin, size_t end, int rounds) {
    for (int round = 0; round < rounds; ++round) {
      int rewrites = 0;
      for (size_t i = begin; i < end; ++i) {
        OCTET_ASSIGN_OR_RETURN(const int count, RunOne(i));
        rewrites += count;
      }
      if (rewrites == 0) break;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<int> RunOne(size_t i) {
    const Pass& pass = context_.passes[i];
    if (context_.disabled.contains(pass.name)) return 0;
    const auto start = std::chrono::steady_clock::now();
    OCTET_ASSIGN_OR_RETURN(const int rewrites, Checked(pass));
    traces_[i].rewrites += rewrites;
    traces_[i].time += std::chrono::steady_clock::now() - start;
    return rewrites;
  }

  absl::StatusOr<int> Checked(const Pass& pass) {
    OCTET_ASSIGN_OR_RETURN(const int rewrites, pass.run(graph_, context_));
    if (rewrites == 0) return 0;
    graph_.RemoveDead();
    if (absl::Status status = Verify(graph_); !status.ok()) return Blame(pass, status);
    absl::Status status = InferShapes(graph_);
    if (status.ok()) return rewrites;
    // Known constants, and the branch that they choose, may show that the model contradicts itself: its fault, not ours.
    if (pass.run == FoldConstants || pass.run == InlineIf) return status;
    return Blame(pass, status);
  }

  // A pass may not break what it was given: whatever is wrong behind one is our bug.
  static absl::Status Blame(const Pass& pass, const absl::Status& status) {
    return Internal("after pass '{}': {}", pass.name, Message(status));
  }

  Graph& graph_;
  const PassContext& context_;
  std::vector<PassTrace> traces_;
};

}  // namespace

std::span<const Pass> AllPasses() { return kPasses; }

absl::Status CheckPassNames(std::span<const std::string> names) {
  for (const std::string& name : names) {
    const auto same = [&](const Pass& pass) { return pass.name == name; };
    if (std::ranges::any_of(kPasses, same)) continue;
    std::string known;
    for (const Pass& pass : kPasses) {
      if (known.find(pass.name) != std::string::npos) continue;
      known += Format("{}{}", known.empty() ? "" : ", ", pass.name);
    }
    return NotFound("no such pass; the passes are {}: '{}'", known, name);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<PassTrace>> RunPasses(Graph& graph, const PassContext& context) {
  return PassRunner(graph, context).Run();
}

absl::Status RunNamedPasses(Graph& graph, std::span<const std::string_view> names,
                            std::span<const std::string> disabled) {
  PassContext context;
  context.disabled.insert(disabled.begin(), disabled.end());
  for (const Pass& pass : AllPasses()) {
    if (std::ranges::find(names, pass.name) == names.end()) context.disabled.emplace(pass.name);
  }
  return RunPasses(graph, context).status();
}

}  // namespace octet

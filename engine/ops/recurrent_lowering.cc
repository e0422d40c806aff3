// LSTM on oneDNN: one primitive per direction, over all time steps.
//   ONNX's gates lie in the order i, o, f, c, oneDNN's in i, f, c, o; ONNX's two biases are one.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "engine/onednn/isa.h"
#include "engine/onednn/memory_desc.h"
#include "engine/onednn/runtime.h"
#include "engine/onednn/weight_cache.h"
#include "engine/ops/lowerings.h"
#include "engine/ops/primitive_step.h"
#include "engine/ops/recurrent_activation.h"
#include "engine/ops/recurrent_slots.h"
#include "engine/ops/reference_step.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using onednn::ExecArg;

using recurrent::kBias, recurrent::kInitialC, recurrent::kInitialH, recurrent::kLengths,
    recurrent::kPeepholes, recurrent::kR, recurrent::kW, recurrent::kX;
constexpr int64_t kGates = 4;
constexpr std::array<int64_t, kGates> kOnnxGate = {0, 2, 3, 1};  ///< Of oneDNN's gate i.

/// The primitives of every direction, between copies of states and results that they keep in scratch.
class LstmStep final : public PrimitiveStep {
 public:
  /// `count` floats between element `at` of an input or output and `scratch` bytes into scratch. As input, an absent
  /// slot gives zeros; as output, it is skipped.
  struct Copy {
    size_t slot;
    int64_t at;
    size_t scratch;
    int64_t count;
  };
  void CopyBefore(const Copy& copy) { before_.push_back(copy); }
  void CopyAfter(const Copy& copy) { after_.push_back(copy); }

  absl::Status Run(const StepArgs& args) const override {
    for (const Copy& copy : before_) {
      auto* to = reinterpret_cast<float*>(args.scratch + copy.scratch);
      const void* from = copy.slot < args.inputs.size() ? args.inputs[copy.slot] : nullptr;
      if (from == nullptr) {
        std::fill_n(to, copy.count, 0.0F);
      } else {
        std::copy_n(static_cast<const float*>(from) + copy.at, copy.count, to);
      }
    }
    OCTET_RETURN_IF_ERROR(PrimitiveStep::Run(args));
    for (const Copy& copy : after_) {
      const auto* from = reinterpret_cast<const float*>(args.scratch + copy.scratch);
      void* to = copy.slot < args.outputs.size() ? args.outputs[copy.slot] : nullptr;
      if (to != nullptr) std::copy_n(from, copy.count, static_cast<float*>(to) + copy.at);
    }
    return absl::OkStatus();
  }
  bool reads_input(int i) const override {
    const auto reads = [i](const Copy& copy) { return copy.slot == static_cast<size_t>(i); };
    return std::ranges::any_of(before_, reads) || PrimitiveStep::reads_input(i);
  }

 private:
  std::vector<Copy> before_;
  std::vector<Copy> after_;
};

class LstmLowering {
 public:
  explicit LstmLowering(const LowerContext& context) : context_(context) {}

  absl::StatusOr<std::unique_ptr<Step>> Run() {
    OCTET_RETURN_IF_ERROR(Check());
    const Shape& x = *context_.input(kX).shape;
    time_ = x[0];
    batch_ = x[1];
    inputs_ = x[2];
    hidden_ = (*context_.input(kR).shape)[2];
    directions_ = (*context_.input(kR).shape)[0];
    step_ = std::make_unique<LstmStep>();
    for (int64_t d = 0; d < directions_; ++d) OCTET_RETURN_IF_ERROR(AddDirection(d));
    context_.layer.runs = "f32";
    context_.layer.isa = onednn::IsaOf(context_.layer.impl);
    context_.layer.macs = MultiplyAdds(context_.graph, context_.node);
    return std::move(step_);
  }

 private:
  absl::Status Check() {
    const Node& node = context_.node;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if (!context_.has_input(i) || i == kLengths) continue;
      if (context_.input(i).quant || context_.input(i).dtype != DType::kF32)
        return Unimplemented("'{}' is not FLOAT", context_.input(i).name);
    }
    for (const size_t slot : {kW, kR, kBias}) {
      if (context_.has_input(slot) && !context_.input(slot).is_constant())
        return Unimplemented("weights are computed");
    }
    if (context_.has_input(kLengths)) return Unimplemented("sequences of their own lengths");
    if (context_.has_input(kPeepholes)) return Unimplemented("peepholes");
    if (node.attributes.IntOr("layout", 0) != 0) return Unimplemented("layout 1");
    if (node.attributes.IntOr("input_forget", 0) != 0) return Unimplemented("coupled gates");
    OCTET_ASSIGN_OR_RETURN(const float clip, node.attributes.Float("clip", 0));
    if (clip > 0) return Unimplemented("a clip inside the cell");
    if (context_.input(kX).shape->elements() == 0) return Unimplemented("an empty input");
    OCTET_ASSIGN_OR_RETURN(const std::string direction,
                           node.attributes.String("direction", "forward"));
    reverse_ = direction == "reverse";
    return CheckActivations();
  }

  absl::Status CheckActivations() const {
    using enum RecurrentActivation::Kind;
    constexpr std::array kUsual = {kSigmoid, kTanh, kTanh};
    const auto directions = static_cast<size_t>((*context_.input(kR).shape)[0]);
    OCTET_ASSIGN_OR_RETURN(const auto activations,
                           ReadActivations(context_.node, {"Sigmoid", "Tanh", "Tanh"}, directions));
    for (size_t i = 0; i < activations.size(); ++i) {
      if (activations[i].kind != kUsual[i % kUsual.size()])
        return Unimplemented("activations other than Sigmoid, Tanh, Tanh");
    }
    return absl::OkStatus();
  }

  // Direction d of W or R, [4 H, columns], with its gates in oneDNN's order.
  Tensor Gates(size_t slot, int64_t d, int64_t columns) const {
    const auto from = context_.input(slot).constant.span<float>();
    Tensor gates(DType::kF32, Shape{kGates, hidden_, columns});
    float* to = gates.mutable_span<float>().data();
    const int64_t gate = hidden_ * columns;
    for (int64_t g = 0; g < kGates; ++g) {
      std::copy_n(from.data() + (d * kGates + kOnnxGate[g]) * gate, gate, to + g * gate);
    }
    return gates;
  }

  Tensor BiasOf(int64_t d) const {
    Tensor bias(DType::kF32, Shape{kGates, hidden_});
    const auto to = bias.mutable_span<float>();
    std::ranges::fill(to, 0.0F);
    if (!context_.has_input(kBias)) return bias;
    const float* from = context_.input(kBias).constant.span<float>().data() + d * 8 * hidden_;
    for (int64_t g = 0; g < kGates; ++g) {
      for (int64_t k = 0; k < hidden_; ++k) {
        const int64_t at = kOnnxGate[g] * hidden_ + k;
        to[static_cast<size_t>(g * hidden_ + k)] = from[at] + from[kGates * hidden_ + at];
      }
    }
    return bias;
  }

  size_t Reserve(int64_t floats) {
    return step_->ReserveScratch(static_cast<size_t>(floats) * sizeof(float));
  }

  // Direction d of the states: [B, H] of [D, B, H] each.
  void AddStates(int64_t d, const dnnl::memory::desc& desc, std::vector<ExecArg>& args) {
    const int64_t count = batch_ * hidden_;
    constexpr std::array<std::pair<size_t, int>, 2> kBefore = {
        {{kInitialH, DNNL_ARG_SRC_ITER}, {kInitialC, DNNL_ARG_SRC_ITER_C}}};
    for (const auto& [slot, arg] : kBefore) {
      const size_t offset = Reserve(count);
      step_->CopyBefore({slot, d * count, offset, count});
      args.push_back(ExecArg::Scratch(arg, desc, offset));
    }
    constexpr std::array<std::pair<size_t, int>, 2> kAfter = {
        {{1, DNNL_ARG_DST_ITER}, {2, DNNL_ARG_DST_ITER_C}}};
    for (const auto& [slot, arg] : kAfter) {
      const size_t offset = Reserve(count);
      step_->CopyAfter({slot, d * count, offset, count});
      args.push_back(ExecArg::Scratch(arg, desc, offset));
    }
  }

  // The hidden states of direction d: [B, H] at each time of Y's [T, D, B, H].
  void AddHidden(int64_t d, const dnnl::memory::desc& desc, std::vector<ExecArg>& args) {
    if (directions_ == 1 && context_.node.output(0) != kNone) {
      args.push_back(ExecArg::Output(DNNL_ARG_DST_LAYER, desc, 0));
      return;
    }
    const int64_t count = batch_ * hidden_;
    const size_t offset = Reserve(time_ * count);
    args.push_back(ExecArg::Scratch(DNNL_ARG_DST_LAYER, desc, offset));
    for (int64_t t = 0; t < time_; ++t) {
      step_->CopyAfter({0, (t * directions_ + d) * count,
                        offset + static_cast<size_t>(t * count) * sizeof(float), count});
    }
  }

  absl::Status AddDirection(int64_t d) {
    const auto x = onednn::DenseDesc(DType::kF32, Shape{time_, batch_, inputs_}.dims());
    const auto y = onednn::DenseDesc(DType::kF32, Shape{time_, batch_, hidden_}.dims());
    const auto w = onednn::AnyDesc(DType::kF32, Shape{1, 1, inputs_, kGates, hidden_}.dims());
    const auto r = onednn::AnyDesc(DType::kF32, Shape{1, 1, hidden_, kGates, hidden_}.dims());
    const auto bias = onednn::DenseDesc(DType::kF32, Shape{1, 1, kGates, hidden_}.dims());
    const auto state = onednn::DenseDesc(DType::kF32, Shape{1, 1, batch_, hidden_}.dims());
    const bool backwards = reverse_ || d == 1;
    OCTET_ASSIGN_OR_RETURN(const auto pd, onednn::Catch([&] {
                             return dnnl::lstm_forward::primitive_desc(
                                 onednn::CpuEngine(), dnnl::prop_kind::forward_inference,
                                 backwards ? dnnl::rnn_direction::unidirectional_right2left
                                           : dnnl::rnn_direction::unidirectional_left2right,
                                 x, state, state, w, r, bias, y, state, state,
                                 onednn::UserScratchpad());
                           }));
    std::vector<ExecArg> args;
    args.push_back(ExecArg::Input(DNNL_ARG_SRC_LAYER, x, kX));
    OCTET_RETURN_IF_ERROR(AddWeights(d, pd, args));
    AddStates(d, state, args);
    AddHidden(d, y, args);
    context_.layer.impl = pd.impl_info_str();
    return step_->Add(pd, std::move(args));
  }

  absl::Status AddWeights(int64_t d, const dnnl::lstm_forward::primitive_desc& pd,
                          std::vector<ExecArg>& args) const {
    const auto packed = [&](size_t slot, int64_t columns, const dnnl::memory::desc& wanted) {
      // A [gate, output, input] buffer, seen as layer, direction, input, gate, output.
      constexpr std::array kOrder = {0, 1, 4, 2, 3};
      const Shape buffer{1, 1, kGates, hidden_, columns};
      return context_.weights.Reordered(Gates(slot, d, columns),
                                        onednn::PermutedDesc(DType::kF32, buffer.dims(), kOrder),
                                        wanted);
    };
    OCTET_ASSIGN_OR_RETURN(auto w, packed(kW, inputs_, pd.weights_layer_desc()));
    OCTET_ASSIGN_OR_RETURN(auto r, packed(kR, hidden_, pd.weights_iter_desc()));
    args.push_back(
        ExecArg::Constant(DNNL_ARG_WEIGHTS_LAYER, pd.weights_layer_desc(), std::move(w)));
    args.push_back(ExecArg::Constant(DNNL_ARG_WEIGHTS_ITER, pd.weights_iter_desc(), std::move(r)));
    auto bias = std::make_shared<Tensor>(context_.weights.Intern(BiasOf(d)));
    const void* elements = bias->data();
    args.push_back(ExecArg::Constant(DNNL_ARG_BIAS, pd.bias_desc(),
                                     std::shared_ptr<const void>(std::move(bias), elements)));
    return absl::OkStatus();
  }

  const LowerContext& context_;
  std::unique_ptr<LstmStep> step_;
  int64_t time_ = 0, batch_ = 0, inputs_ = 0, hidden_ = 0, directions_ = 1;
  bool reverse_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerLstm(const LowerContext& context) {
  return LstmLowering(context).Run();
}

}  // namespace octet

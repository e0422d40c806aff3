// fold_stride: a strided convolution over one axis of few channels takes the steps of a stride as channels.
//
//   x:[N,T,C] -> Conv {w[OC,C,k], strides=[s], channels_last=1} -> y
//     =>  x -> Reshape:[N,T/s,sC] -> Conv {w[OC,sC,ceil(k'/s)], strides=[1], channels_last=1} -> y
//
// Where channels are last, the steps of a stride lie side by side: nothing moves. It is the first layer of a network on raw audio, or
// its Fourier transform, and kernels multiply 16 channels at once, or 4 of 8 bits, of which it has one. Taps that fill up the first and
// the last stride of a window are zeros: k' is k with those ahead that make whole strides of the padding. They cost as much as others,
// so there may be few.
#include <cstring>
#include <optional>
#include <vector>

#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

using Ints = std::vector<int64_t>;

// From here on a channel wastes little.
constexpr int64_t kFewChannels = 4;

// The convolution's window, in steps.
struct Window {
  int64_t taps = 0;
  int64_t stride = 1;
  int64_t pad_begin = 0;
  int64_t results = 0;
};

// In strides.
struct Folded {
  int64_t ahead = 0;  ///< Zeros before the first tap, in steps.
  int64_t taps = 0;
  int64_t pad_begin = 0;
  int64_t pad_end = 0;
};

std::optional<Window> WindowOf(const Graph& graph, const Node& node) {
  if (RankOf(graph, node.input(0)) != 3 || node.attributes.IntOr("channels_last", 0) == 0)
    return std::nullopt;
  if (node.attributes.IntOr("group", 1) != 1 || node.attributes.has("auto_pad") ||
      ConstantOf(graph, node.input(1)) == nullptr)
    return std::nullopt;
  const auto strides = node.attributes.Ints("strides", {});
  const auto dilations = node.attributes.Ints("dilations", {1});
  const auto pads = node.attributes.Ints("pads", {0, 0});
  if (!strides.ok() || strides->size() != 1 || strides->front() < 2) return std::nullopt;
  if (!dilations.ok() || *dilations != Ints{1} || !pads.ok() || pads->size() != 2)
    return std::nullopt;
  const auto& y = graph.value(node.output(0)).shape;
  if (!y || y->rank() != 3 || (*y)[1] < 1) return std::nullopt;
  return Window{ConstantOf(graph, node.input(1))->shape()[2], strides->front(), pads->front(),
                (*y)[1]};
}

Folded Fold(const Window& window, int64_t steps) {
  const int64_t s = window.stride;
  Folded folded;
  folded.ahead = (s - window.pad_begin % s) % s;
  folded.taps = (window.taps + folded.ahead + s - 1) / s;
  folded.pad_begin = (window.pad_begin + folded.ahead) / s;
  folded.pad_end = window.results - 1 + folded.taps - folded.pad_begin - steps / s;
  return folded;
}

// Beyond this share of zeros kernels take longer than for few channels. One thread, 400 taps, stride 160: 640 taps with those of
// padding by 200 are 0.48 ms in F32, where 400 are 0.33, 0.26 in BF16 for 0.33, and 0.19 of 8 bits for 0.38.
bool IsWorthItsZeros(const Folded& folded, const Window& window, DType dtype) {
  const int64_t taps = folded.taps * window.stride;
  return SizeOf(dtype) > 2 ? 4 * taps <= 5 * window.taps : taps <= 2 * window.taps;
}

// w[oc, c, k] at [oc, j C + c, m], where k + ahead = m s + j.
Tensor FoldedWeights(const Tensor& w, const Folded& folded, int64_t stride) {
  const int64_t channels = w.shape()[1], taps = w.shape()[2];
  Tensor result(w.dtype(), Shape{w.shape()[0], stride * channels, folded.taps});
  if (result.bytes() != 0) std::memset(result.mutable_data(), 0, result.bytes());
  const size_t size = SizeOf(w.dtype());
  const auto* from = static_cast<const std::byte*>(w.data());
  auto* to = static_cast<std::byte*>(result.mutable_data());
  for (int64_t oc = 0; oc < w.shape()[0]; ++oc) {
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t k = 0; k < taps; ++k, from += size) {
        const int64_t step = k + folded.ahead;
        const int64_t channel = step % stride * channels + c;
        const int64_t at = (oc * stride * channels + channel) * folded.taps + step / stride;
        std::memcpy(to + static_cast<size_t>(at) * size, from, size);
      }
    }
  }
  return result;
}

bool FoldStrideAt(Graph& graph, NodeId id) {
  const auto window = WindowOf(graph, graph.node(id));
  if (!window) return false;
  const Node node = graph.node(id);
  const Shape x = *graph.value(node.input(0)).shape;
  const Value weights = graph.value(node.input(1));
  // A zero of weights stands for a zero.
  if (weights.quant && !weights.quant->symmetric()) return false;
  if (x[1] < 1 || x[1] % window->stride != 0 || x[2] < 1 || x[2] >= kFewChannels) return false;
  const Folded folded = Fold(*window, x[1]);
  if (folded.pad_end < 0 || !IsWorthItsZeros(folded, *window, weights.dtype)) return false;
  const Shape wide{x[0], x[1] / window->stride, x[2] * window->stride};
  const Value& source = graph.value(node.input(0));
  const ValueId steps = AddValue(graph, source.name, source.dtype, wide, source.quant);
  const ValueId target = AddInts(graph, node.name + "_strides", Ints{0, wide[1], wide[2]});
  graph.InsertNodeBefore(id, MakeNode("Reshape", node, {node.input(0), target}, {steps}));
  graph.SetInput(id, 0, steps);
  graph.SetInput(
      id, 1,
      graph.AddConstant(weights.name, FoldedWeights(weights.constant, folded, window->stride),
                        weights.quant));
  Attributes& attributes = graph.mutable_node(id).attributes;
  attributes.Set("strides", Ints{1});
  attributes.Set("kernel_shape", Ints{folded.taps});
  attributes.Set("pads", Ints{folded.pad_begin, folded.pad_end});
  return true;
}

}  // namespace

absl::StatusOr<int> FoldStride(Graph& graph, const PassContext& /*context*/) {
  return RewriteEach(graph, {"Conv"}, FoldStrideAt);
}

}  // namespace octet

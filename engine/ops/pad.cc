// Pad: grows (or crops) a tensor at both ends of its axes.
#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/graph/stored_value.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/movement_step.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/quant_params.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

enum class PadMode { kConstant, kReflect, kEdge, kWrap };

absl::StatusOr<PadMode> ModeOf(const Node& node) {
  OCTET_ASSIGN_OR_RETURN(const std::string mode, node.attributes.String("mode", "constant"));
  if (mode == "constant") return PadMode::kConstant;
  if (mode == "reflect") return PadMode::kReflect;
  if (mode == "edge") return PadMode::kEdge;
  if (mode == "wrap" && node.version >= 19) return PadMode::kWrap;
  return InvalidArgument("{}: unknown 'mode': '{}'", Describe(node), mode);
}

/// Elements added before and after one axis; negative ones are cut off.
struct AxisPadding {
  int64_t begin = 0;
  int64_t end = 0;
};

/// Pads of every axis; nullopt while they, or their axes, are not constant.
template <typename... Context>
absl::StatusOr<std::optional<std::vector<AxisPadding>>> ReadPads(const Node& node, int rank,
                                                                 const Context&... context) {
  OCTET_ASSIGN_OR_RETURN(const IntsOperand pads, ReadInts(context..., "pads", 1, 11));
  if (!pads.given) return InvalidArgument("{}: lacks 'pads'", Describe(node));
  IntsOperand axes;
  if (node.version >= 18) {
    OCTET_ASSIGN_OR_RETURN(axes, ReadInts(context..., "axes", 3, 18));
  }
  if (!pads.values || (axes.given && !axes.values)) return std::nullopt;
  std::vector<int> order;
  if (axes.given) {
    OCTET_ASSIGN_OR_RETURN(order, NormalizeNodeAxes(node, *axes.values, rank));
  } else {
    for (int i = 0; i < rank; ++i) order.push_back(i);
  }
  const size_t count = order.size();
  if (pads.values->size() != 2 * count) {
    return InvalidArgument("{}: 'pads' has {} values, expected {}", Describe(node),
                           pads.values->size(), 2 * count);
  }
  std::vector<AxisPadding> result(static_cast<size_t>(rank));
  for (size_t i = 0; i < count; ++i)
    result[order[i]] = {(*pads.values)[i], (*pads.values)[count + i]};
  return result;
}

/// The axis's extent with its padding.
absl::StatusOr<int64_t> Padded(const Node& node, int axis, int64_t extent, AxisPadding pad) {
  const auto [begin, end] = pad;
  if (std::max(begin, end) > kMaxElements || std::min(begin, end) < -kMaxElements) {
    return InvalidArgument("{}: impossible pads of axis {}: {} and {}", Describe(node), axis, begin,
                           end);
  }
  if (extent + std::min<int64_t>(begin, 0) + std::min<int64_t>(end, 0) < 0) {
    return InvalidArgument("{}: axis {} of {} loses more than it has: {} and {}", Describe(node),
                           axis, extent, begin, end);
  }
  return extent + begin + end;
}

/// Without a rank the operands cannot be checked, but they are asked for.
absl::Status InferUnknownPad(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ReadInts(context, "pads", 1, 11).status());
  if (context.node().version >= 18)
    OCTET_RETURN_IF_ERROR(ReadInts(context, "axes", 3, 18).status());
  return context.SetOutput(0, context.dtype(0), std::nullopt);
}

absl::Status InferPad(InferContext& context) {
  const int version = context.node().version;
  OCTET_RETURN_IF_ERROR(version < 11   ? ExpectInputs(context, 1, 1)
                        : version < 18 ? ExpectInputs(context, 2, 3)
                                       : ExpectInputs(context, 2, 4));
  if (version >= 11) OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 2));
  if (version >= 11) OCTET_RETURN_IF_ERROR(ExpectScalar(context, 2));
  OCTET_RETURN_IF_ERROR(ModeOf(context.node()).status());
  if (!context.shape(0)) return InferUnknownPad(context);
  Shape out = *context.shape(0);
  OCTET_ASSIGN_OR_RETURN(const auto pads, ReadPads(context.node(), out.rank(), context));
  if (!pads) return context.SetOutput(0, context.dtype(0), UnknownShape(out.rank()));
  for (int i = 0; i < out.rank(); ++i) {
    if (out[i] == kUnknownDim) continue;
    OCTET_ASSIGN_OR_RETURN(out[i], Padded(context.node(), i, out[i], (*pads)[i]));
  }
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

constexpr int64_t kFill = -1;

/// Source index of every output index of one axis, or kFill.
///   reflect: ... 2 1 [0 1 2 ... n-1] n-2 n-3 ...   edge: 0 0 [0 ...]   wrap: n-1 [0 ... n-1] 0
std::vector<int64_t> AxisMap(int64_t extent, AxisPadding pad, PadMode mode) {
  // Cutting comes first, so that reflections see only what is left.
  const int64_t low = std::max<int64_t>(0, -pad.begin);
  const int64_t n = extent - low - std::max<int64_t>(0, -pad.end);
  const int64_t before = std::max<int64_t>(0, pad.begin);
  std::vector<int64_t> map;
  for (int64_t i = 0; i < extent + pad.begin + pad.end; ++i) {
    int64_t k = i - before;
    if (k < 0 || k >= n) {
      const int64_t period = mode == PadMode::kReflect ? std::max<int64_t>(1, 2 * (n - 1)) : n;
      switch (mode) {
        case PadMode::kConstant:
          k = kFill;
          break;
        case PadMode::kEdge:
          k = n > 0 ? std::clamp<int64_t>(k, 0, n - 1) : kFill;
          break;
        case PadMode::kReflect:
        case PadMode::kWrap:
          k = n > 0 ? ((k % period) + period) % period : kFill;
          if (k >= n) k = period - k;
          break;
      }
    }
    map.push_back(k == kFill ? kFill : k + low);
  }
  return map;
}

/// A padding as rows of blocks: a block is what lies behind the last padded axis.
class PadPlan {
 public:
  PadPlan(const Shape& in, std::span<const AxisPadding> pads, PadMode mode, size_t element_size)
      : element_size_(element_size) {
    int last = in.rank();
    while (last > 0 && pads[last - 1].begin == 0 && pads[last - 1].end == 0) --last;
    block_bytes_ = static_cast<size_t>(in.elements(last, in.rank())) * element_size;
    const auto strides = in.strides();
    for (int i = 0; i < last; ++i) {
      maps_.push_back(AxisMap(in[i], pads[i], mode));
      strides_.push_back(strides[i] * static_cast<int64_t>(element_size));
    }
    if (maps_.empty()) {
      maps_.push_back({0});
      strides_.push_back(0);
    }
    segments_ = SegmentsOf(maps_.back());
    rows_ = 1;
    for (size_t i = 0; i + 1 < maps_.size(); ++i) rows_ *= std::ssize(maps_[i]);
  }

  /// `fill` points at one element.
  void Run(const std::byte* src, std::byte* dst, const std::byte* fill) const {
    const auto row_bytes = static_cast<int64_t>(maps_.back().size() * block_bytes_);
    if (row_bytes == 0 || rows_ == 0) return;
    constexpr int64_t kBytesPerThread = 64 << 10;
    ParallelFor(rows_, std::max<int64_t>(1, kBytesPerThread / row_bytes),
                [&](int64_t begin, int64_t end) {
                  for (int64_t r = begin; r < end; ++r) RunRow(src, dst + r * row_bytes, r, fill);
                });
  }

 private:
  /// Blocks of a row that are filled, or lie one behind the other in the source too.
  struct Segment {
    int64_t blocks;
    int64_t source;  ///< Of the first block, or kFill.
  };
  static std::vector<Segment> SegmentsOf(std::span<const int64_t> map) {
    std::vector<Segment> segments;
    for (const int64_t k : map) {
      const bool fills = k == kFill;
      if (!segments.empty()) {
        auto& [blocks, source] = segments.back();
        if (fills ? source == kFill : source != kFill && k == source + blocks) {
          ++blocks;
          continue;
        }
      }
      segments.push_back({1, k});
    }
    return segments;
  }

  void RunRow(const std::byte* src, std::byte* dst, int64_t row, const std::byte* fill) const {
    bool outside = false;
    for (size_t i = maps_.size() - 1; i-- > 0;) {
      const int64_t index = maps_[i][row % std::ssize(maps_[i])];
      row /= std::ssize(maps_[i]);
      if (index == kFill)
        outside = true;
      else
        src += index * strides_[i];
    }
    if (outside) return Fill(dst, maps_.back().size() * block_bytes_, fill);
    for (const Segment& segment : segments_) {
      const size_t bytes = static_cast<size_t>(segment.blocks) * block_bytes_;
      if (segment.source == kFill)
        Fill(dst, bytes, fill);
      else
        std::memcpy(dst, src + segment.source * strides_.back(), bytes);
      dst += bytes;
    }
  }

  void Fill(std::byte* dst, size_t bytes, const std::byte* fill) const {
    if (element_size_ == 1) {
      std::memset(dst, static_cast<int>(*fill), bytes);
      return;
    }
    for (size_t i = 0; i < bytes; i += element_size_) std::memcpy(dst + i, fill, element_size_);
  }

  size_t element_size_;
  size_t block_bytes_ = 0;
  int64_t rows_ = 1;
  std::vector<std::vector<int64_t>> maps_;  // One per axis up to the last padded one.
  std::vector<Segment> segments_;           // Of the last of them.
  std::vector<int64_t> strides_;            // Of the source, in bytes.
};

/// One element as bytes.
struct Element {
  alignas(8) std::byte bytes[8] = {};
};

/// The attribute of opset 2, as an element of the input's type; 0 by default.
absl::StatusOr<Element> AttributeFill(const Node& node, DType dtype) {
  Element fill;
  if (node.version >= 11) return fill;
  OCTET_ASSIGN_OR_RETURN(const float value, node.attributes.Float("value", 0));
  const double wide = value;
  if (dtype == DType::kF32) std::memcpy(fill.bytes, &value, sizeof value);
  if (dtype == DType::kF64) std::memcpy(fill.bytes, &wide, sizeof wide);
  if (dtype == DType::kF16) {
    const Half h = ToHalf(value);
    std::memcpy(fill.bytes, &h, sizeof h);
  }
  if (dtype == DType::kBF16) {
    const BFloat16 b = ToBFloat16(value);
    std::memcpy(fill.bytes, &b, sizeof b);
  }
  return fill;
}

/// INVALID_ARGUMENT where elements are to be repeated of an axis that has none.
absl::Status CheckRepeats(const Node& node, const Shape& in, std::span<const AxisPadding> pads,
                          PadMode mode) {
  for (int i = 0; i < in.rank() && mode != PadMode::kConstant; ++i) {
    const auto [begin, end] = pads[static_cast<size_t>(i)];
    const int64_t kept = in[i] + std::min<int64_t>(begin, 0) + std::min<int64_t>(end, 0);
    if (kept > 0 || std::max(begin, end) <= 0) continue;
    return InvalidArgument("{}: axis {} of {} cannot be padded by its own elements, it has none",
                           Describe(node), i, in.ToString());
  }
  return absl::OkStatus();
}

/// Makes the kernel; `stored_fill`, when set, replaces the node's constant value.
absl::StatusOr<Kernel> MakePadWith(const KernelContext& context,
                                   std::optional<Element> stored_fill) {
  const TensorSpec& in = context.inputs[0].spec;
  OCTET_ASSIGN_OR_RETURN(const PadMode mode, ModeOf(context.node));
  OCTET_ASSIGN_OR_RETURN(const Element attribute, AttributeFill(context.node, in.dtype));
  const Element fill = stored_fill.value_or(attribute);
  const bool from_input =
      !stored_fill && context.node.version >= 11 && context.node.input(2) != kNone;
  const size_t size = SizeOf(in.dtype);
  const auto run = [fill, from_input](const PadPlan& plan, std::span<const ConstTensorView> inputs,
                                      std::span<const TensorView> outputs) {
    plan.Run(inputs[0].as<std::byte>(), outputs[0].as<std::byte>(),
             from_input ? inputs[2].as<std::byte>() : fill.bytes);
  };
  OCTET_ASSIGN_OR_RETURN(const auto pads,
                         ReadPads(context.node, in.shape.rank(), context.node, context.inputs));
  if (pads) {
    OCTET_RETURN_IF_ERROR(CheckRepeats(context.node, in.shape, *pads, mode));
    return [run, plan = PadPlan(in.shape, *pads, mode, size)](
               std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
      run(plan, inputs, outputs);
      return absl::OkStatus();
    };
  }
  // Pads that arrive with the data: the output's declared shape must be what they give.
  return
      [run, mode, size, node = context.node](std::span<const ConstTensorView> inputs,
                                             std::span<const TensorView> outputs) -> absl::Status {
        const Shape& shape = inputs[0].shape();
        OCTET_ASSIGN_OR_RETURN(const auto late, ReadPads(node, shape.rank(), node, inputs));
        if (!late) return Internal("{}: runs without its pads", Describe(node));
        for (int i = 0; i < shape.rank(); ++i) {
          OCTET_ASSIGN_OR_RETURN(const int64_t extent, Padded(node, i, shape[i], (*late)[i]));
          if (extent != outputs[0].shape()[i]) {
            return InvalidArgument("{}: pads do not lead from {} to {}", Describe(node),
                                   shape.ToString(), outputs[0].shape().ToString());
          }
        }
        OCTET_RETURN_IF_ERROR(CheckRepeats(node, shape, *late, mode));
        run(PadPlan(shape, *late, mode, size), inputs, outputs);
        return absl::OkStatus();
      };
}

absl::StatusOr<Kernel> MakePad(const KernelContext& context) {
  return MakePadWith(context, std::nullopt);
}

/// The real that a constant Pad fills with; nullopt when it is not constant.
absl::StatusOr<std::optional<float>> RealFill(const LowerContext& context) {
  if (context.node.version < 11) {
    OCTET_ASSIGN_OR_RETURN(const float value, context.node.attributes.Float("value", 0));
    return value;
  }
  if (!context.has_input(2)) return 0.0f;
  const Value& value = context.input(2);
  const bool real = value.dtype == DType::kF32 || IsNarrowReal(value.dtype);
  if (!value.is_constant() || !real || value.quant) return std::nullopt;
  float fill = 0;
  ConvertTensor(value.constant.view(), {&fill, {DType::kF32, value.constant.shape()}});
  return fill;
}

/// octet:copy on the stored elements. Integers that stand for reals are padded with the integer that
/// stands for the fill value: the zero point for 0.
absl::StatusOr<std::unique_ptr<Step>> LowerPad(const LowerContext& context) {
  if (!context.node.post_ops.empty()) return Unimplemented("data movement takes no post-ops");
  const Value& in = context.input(0);
  const Value& out = context.output();
  if (in.dtype != out.dtype || in.quant != out.quant) return Unimplemented("pad cannot requantize");
  std::optional<Element> fill;
  OCTET_ASSIGN_OR_RETURN(const PadMode mode, ModeOf(context.node));
  // A model may mix F32, F16 and BF16; a pass may have narrowed the data and left the fill value as it was.
  const bool other_type =
      context.has_input(2) && (context.input(2).dtype != in.dtype || context.input(2).quant);
  if (mode == PadMode::kConstant && (in.quant || other_type)) {
    if (in.quant && !(in.quant->per_tensor() && IsInt8(in.dtype)))
      return Unimplemented("pad of per-axis integers");
    OCTET_ASSIGN_OR_RETURN(const auto real, RealFill(context));
    if (!real) return Unimplemented("pad with a fill value that is not constant");
    fill.emplace();
    if (in.quant) {
      const int32_t q =
          QuantizeOne(*real, in.quant->scales[0], in.quant->zero_points[0], RangeOf(in.dtype));
      fill->bytes[0] = static_cast<std::byte>(q);
    } else {
      ConvertTensor({&*real, {DType::kF32, Shape{}}}, {fill->bytes, {in.dtype, Shape{}}});
    }
  }
  const auto inputs = KernelInputs(context.graph, context.node);
  const auto outputs = KernelOutputs(context.graph, context.node);
  OCTET_ASSIGN_OR_RETURN(Kernel kernel, MakePadWith({context.node, inputs, outputs}, fill));
  context.layer.runs = "none";
  context.layer.impl = "octet:copy";
  context.layer.isa = context.target.isa;
  return MakeKernelStep(std::move(kernel), context);
}

}  // namespace

std::span<const OpDef> PadOps() {
  // The fill value is a real: LowerPad and the reference wrapper turn it into the integer that stands for it.
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "Pad", 2, INT_MAX, InferPad, MakePad, LowerPad, {.data_movement = true}},
  };
  return kOps;
}

}  // namespace octet

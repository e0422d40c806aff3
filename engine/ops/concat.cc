// Joining and cutting along one axis: Concat, Split. The production Concat also requantizes its inputs.
#include <array>
#include <vector>

#include "engine/ops/channel_affine.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/movement_step.h"
#include "engine/ops/op_list.h"
#include "engine/ops/strided_copy.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/quant_params.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// How one part lies in the whole along an axis: `rows` runs of `part` elements, `whole` elements apart,
/// from `offset` on.
struct Strip {
  int64_t rows;
  int64_t part;
  int64_t whole;
  int64_t offset;
};

/// The strip of a part that starts at index `start` of `axis`.
Strip StripOf(const Shape& whole, const Shape& part, int axis, int64_t start) {
  const int64_t inner = whole.elements(axis + 1, whole.rank());
  return {whole.elements(0, axis), part[axis] * inner, whole[axis] * inner, start * inner};
}

absl::Status InferConcat(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, SIZE_MAX));
  if (!context.attributes().has("axis")) return context.Error("lacks its attribute 'axis'");
  std::optional<Shape> out;
  bool ranks_known = true;
  for (size_t i = 0; i < context.input_count(); ++i) {
    if (!context.has_input(i)) return context.Error(Format("input {} is missing", i));
    OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, i));
    ranks_known = ranks_known && context.shape(i).has_value();
    if (!out && context.shape(i)) out = context.shape(i);
  }
  if (!out) return context.SetOutput(0, context.dtype(0), std::nullopt);
  OCTET_ASSIGN_OR_RETURN(const int axis, AxisAttribute(context, "axis", 0, out->rank()));
  (*out)[axis] = ranks_known ? 0 : kUnknownDim;
  for (size_t i = 0; i < context.input_count(); ++i) {
    if (!context.shape(i)) continue;
    const Shape& in = *context.shape(i);
    bool agrees = in.rank() == out->rank();
    for (int d = 0; agrees && d < in.rank(); ++d) {
      int64_t& extent = (*out)[d];
      if (d == axis) {
        extent = in[d] == kUnknownDim || extent == kUnknownDim ? kUnknownDim : extent + in[d];
        if (extent > kMaxElements) return context.Error("joins to more than any memory holds");
      } else if (extent == kUnknownDim) {
        extent = in[d];
      } else {
        agrees = in[d] == kUnknownDim || in[d] == extent;
      }
    }
    if (!agrees) {
      return context.Error(Format("input {} '{}' of shape {} does not join with {} along axis {}",
                                  i, context.input(i).name, in.ToString(), out->ToString(), axis));
    }
  }
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

absl::StatusOr<Kernel> MakeConcat(const KernelContext& context) {
  const TensorSpec& out = context.outputs[0];
  OCTET_ASSIGN_OR_RETURN(const int64_t attribute, context.node.attributes.Int("axis", 0));
  OCTET_ASSIGN_OR_RETURN(const int axis,
                         NormalizeNodeAxis(context.node, attribute, out.shape.rank()));
  const size_t size = SizeOf(out.dtype);
  std::vector<StridedCopy> copies;
  std::vector<size_t> offsets;
  int64_t start = 0;
  for (const ConstTensorView& input : context.inputs) {
    const Strip strip = StripOf(out.shape, input.shape(), axis, start);
    const CopyLoop loops[] = {{strip.rows, strip.part, strip.whole}, {strip.part, 1, 1}};
    copies.emplace_back(loops, size);
    offsets.push_back(static_cast<size_t>(strip.offset) * size);
    start += input.shape()[axis];
  }
  return [copies = std::move(copies), offsets = std::move(offsets)](
             std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    for (size_t i = 0; i < copies.size(); ++i)
      copies[i].Run(inputs[i].data, outputs[0].as<std::byte>() + offsets[i]);
    return absl::OkStatus();
  };
}

// ---- Concat of 8-bit values with quantizations of their own

/// Maps every stored byte of (dtype, from) to the byte of (dtype, to) that stands for the nearest real.
using ByteTable = std::array<uint8_t, 256>;

ByteTable RequantizeTable(DType from_type, const QuantParams& from, DType to_type,
                          const QuantParams& to) {
  ByteTable table;
  for (int byte = 0; byte < 256; ++byte) {
    const int32_t q = from_type == DType::kU8 ? byte : static_cast<int8_t>(byte);
    const float real = from.scales[0] * static_cast<float>(q - from.zero_points[0]);
    table[byte] =
        static_cast<uint8_t>(QuantizeOne(real, to.scales[0], to.zero_points[0], RangeOf(to_type)));
  }
  return table;
}

/// Copies strips, through a table where the quantizations differ.
class ConcatStep final : public Step {
 public:
  struct Part {
    size_t slot;  ///< Of the node's inputs.
    Strip strip;
    StridedCopy copy;
    std::optional<ByteTable> table;
    size_t offset_bytes;
  };
  explicit ConcatStep(std::vector<Part> parts) : parts_(std::move(parts)) {}

  absl::Status Run(const StepArgs& args) const override {
    for (const Part& part : parts_) {
      const void* src = args.inputs[part.slot];
      std::byte* dst = static_cast<std::byte*>(args.outputs[0]) + part.offset_bytes;
      if (part.table)
        Requantize(part, static_cast<const uint8_t*>(src), reinterpret_cast<uint8_t*>(dst));
      else
        part.copy.Run(src, dst);
    }
    return absl::OkStatus();
  }

 private:
  static void Requantize(const Part& part, const uint8_t* src, uint8_t* dst) {
    constexpr int64_t kGrain = int64_t{32} * 1024;
    const ByteTable& table = *part.table;
    const Strip& strip = part.strip;
    ParallelFor(strip.rows * strip.part, kGrain, [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t row = begin / strip.part;
        const int64_t row_end = std::min(end, (row + 1) * strip.part);
        uint8_t* out = dst + row * (strip.whole - strip.part);
        for (int64_t k = begin; k < row_end; ++k) out[k] = table[src[k]];
        begin = row_end;
      }
    });
  }

  std::vector<Part> parts_;
};

/// octet:concat. Inputs of the output's stored type and quantization are moved; 8-bit ones with another
/// per-tensor quantization are requantized by table. Those without elements are left out. With post-ops: LowerChannelAffine.
absl::StatusOr<std::unique_ptr<Step>> LowerConcat(const LowerContext& context) {
  if (!context.node.post_ops.empty()) return LowerChannelAffine(context);
  const Value& out = context.output();
  OCTET_ASSIGN_OR_RETURN(const int64_t attribute, context.node.attributes.Int("axis", 0));
  OCTET_ASSIGN_OR_RETURN(const int axis,
                         NormalizeNodeAxis(context.node, attribute, out.shape->rank()));
  const size_t size = SizeOf(out.dtype);
  std::vector<ConcatStep::Part> parts;
  bool requantizes = false;
  int64_t start = 0;
  for (size_t i = 0; i < context.node.inputs.size(); ++i) {
    const Value& in = context.input(i);
    if (in.shape->elements() == 0) continue;
    ConcatStep::Part part{.slot = i, .strip = StripOf(*out.shape, *in.shape, axis, start)};
    const CopyLoop loops[] = {{part.strip.rows, part.strip.part, part.strip.whole},
                              {part.strip.part, 1, 1}};
    part.copy = StridedCopy(loops, size);
    part.offset_bytes = static_cast<size_t>(part.strip.offset) * size;
    if (in.dtype != out.dtype || in.quant != out.quant) {
      const bool tables = IsInt8(in.dtype) && IsInt8(out.dtype) && in.quant && out.quant &&
                          in.quant->per_tensor() && out.quant->per_tensor();
      if (!tables) return Unimplemented("concat converts between 8-bit values alone");
      part.table = RequantizeTable(in.dtype, *in.quant, out.dtype, *out.quant);
      requantizes = true;
    }
    parts.push_back(std::move(part));
    start += (*in.shape)[axis];
  }
  context.layer.runs = requantizes ? "int8" : "none";
  context.layer.impl = "octet:concat";
  context.layer.isa = context.target.isa;
  return std::make_unique<ConcatStep>(std::move(parts));
}

// ---- Split

/// Extents of the parts along the axis, as far as they are known.
absl::StatusOr<std::vector<int64_t>> SplitExtents(InferContext& context, int64_t extent) {
  const int version = context.node().version;
  const size_t parts = context.output_count();
  OCTET_ASSIGN_OR_RETURN(const IntsOperand split, ReadInts(context, "split", 1, 13));
  if (split.given && !split.values) return std::vector<int64_t>(parts, kUnknownDim);
  if (split.values) {
    if (split.values->size() != parts) {
      return context.Error(
          Format("'split' has {} parts for {} outputs", split.values->size(), parts));
    }
    int64_t sum = 0;
    for (const int64_t part : *split.values) {
      if (part < 0 || part > kMaxElements || sum > kMaxElements)
        return context.Error(Format("'split' has an impossible part: {}", part));
      sum += part;
    }
    if (extent != kUnknownDim && sum != extent) {
      return context.Error(Format("'split' adds up to {}, the axis has {}", sum, extent));
    }
    return *split.values;
  }
  if (version >= 18) {
    OCTET_ASSIGN_OR_RETURN(const int64_t count,
                           context.attributes().Int("num_outputs", static_cast<int64_t>(parts)));
    if (count != static_cast<int64_t>(parts)) {
      return context.Error(Format("'num_outputs' is {} for {} outputs", count, parts));
    }
  }
  if (extent == kUnknownDim) return std::vector<int64_t>(parts, kUnknownDim);
  const int64_t count = static_cast<int64_t>(parts);
  const int64_t chunk = (extent + count - 1) / count;
  // Before opset 18 the parts must be equal; since then the last one may be smaller.
  if ((version < 18 && extent % count != 0) || chunk * (count - 1) > extent) {
    return context.Error(Format("cannot split {} into {} parts", extent, count));
  }
  std::vector<int64_t> extents(parts, chunk);
  extents.back() = extent - chunk * (count - 1);
  return extents;
}

absl::Status InferSplit(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, context.node().version < 13 ? 1 : 2));
  std::optional<Shape> out = context.shape(0);
  int axis = 0;
  if (out) {
    OCTET_ASSIGN_OR_RETURN(axis, AxisAttribute(context, "axis", 0, out->rank()));
  }
  OCTET_ASSIGN_OR_RETURN(const auto extents,
                         SplitExtents(context, out ? (*out)[axis] : kUnknownDim));
  for (size_t i = 0; i < extents.size(); ++i) {
    if (out) (*out)[axis] = extents[i];
    OCTET_RETURN_IF_ERROR(context.SetOutput(i, context.dtype(0), out));
  }
  return absl::OkStatus();
}

absl::StatusOr<Kernel> MakeSplit(const KernelContext& context) {
  const TensorSpec& in = context.inputs[0].spec;
  OCTET_ASSIGN_OR_RETURN(const int64_t attribute, context.node.attributes.Int("axis", 0));
  OCTET_ASSIGN_OR_RETURN(const int axis,
                         NormalizeNodeAxis(context.node, attribute, in.shape.rank()));
  const size_t size = SizeOf(in.dtype);
  std::vector<StridedCopy> copies;
  std::vector<size_t> offsets;
  int64_t start = 0;
  for (const TensorSpec& output : context.outputs) {
    if (output.dtype == DType::kUndefined) {
      return Unimplemented("{}: an output of Split must not be absent", Describe(context.node));
    }
    const Strip strip = StripOf(in.shape, output.shape, axis, start);
    const CopyLoop loops[] = {{strip.rows, strip.whole, strip.part}, {strip.part, 1, 1}};
    copies.emplace_back(loops, size);
    offsets.push_back(static_cast<size_t>(strip.offset) * size);
    start += output.shape[axis];
  }
  if (start != in.shape[axis]) {
    return InvalidArgument("{}: parts add up to {}, the axis has {}", Describe(context.node), start,
                           in.shape[axis]);
  }
  return [copies = std::move(copies), offsets = std::move(offsets)](
             std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    for (size_t i = 0; i < copies.size(); ++i)
      copies[i].Run(inputs[0].as<std::byte>() + offsets[i], outputs[i].data);
    return absl::OkStatus();
  };
}

}  // namespace

std::span<const OpDef> ConcatOps() {
  static constexpr OpTraits kJoins = {.data_movement = true, .strings = true, .lowers_empty = true};
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "Concat", 4, INT_MAX, InferConcat, MakeConcat, LowerConcat, kJoins},
      {kOnnxDomain, "Split", 2, INT_MAX, InferSplit, MakeSplit, LowerMovement, kMovement},
  };
  return kOps;
}

}  // namespace octet

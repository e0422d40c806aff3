#include "engine/quantize/content_mark.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "engine/tensor/status.h"

namespace octet {
namespace {

// 64 bits that stand for bytes, eight at a time. Source: MurmurHash3's fmix64 (A. Appleby).
class Mark {
 public:
  void Bytes(const void* data, size_t size) {
    Begin(size);
    More(data, size);
    End();
  }
  // As Bytes, of pieces that are `size` bytes together.
  void Begin(size_t size) { Word(size); }
  void More(const void* data, size_t size) {
    const auto* bytes = static_cast<const std::byte*>(data);
    while (size > 0) {
      const size_t taken = std::min(size, sizeof(begun_) - begun_bytes_);
      std::memcpy(reinterpret_cast<std::byte*>(&begun_) + begun_bytes_, bytes, taken);
      bytes += taken;
      size -= taken;
      begun_bytes_ += taken;
      if (begun_bytes_ == sizeof(begun_)) End();
    }
  }
  void End() {
    Word(std::exchange(begun_, 0));
    begun_bytes_ = 0;
  }
  void Text(std::string_view text) { Bytes(text.data(), text.size()); }
  void Elements(const Tensor& tensor) {
    Type(tensor.dtype(), tensor.shape());
    if (tensor.dtype() != DType::kString) return Bytes(tensor.data(), tensor.bytes());
    for (const std::string_view text : tensor.span<std::string_view>()) Text(text);
  }
  void Type(DType dtype, const Shape& shape) {
    Word(static_cast<uint64_t>(dtype));
    const auto dims = shape.dims();
    Bytes(dims.data(), dims.size() * sizeof(dims[0]));
  }
  void Word(uint64_t word) {
    value_ ^= word;
    value_ *= 0xff51afd7ed558ccdULL;
    value_ ^= value_ >> 33;
    value_ *= 0xc4ceb9fe1a85ec53ULL;
    value_ ^= value_ >> 33;
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0x9e3779b97f4a7c15ULL;
  uint64_t begun_ = 0;  ///< A word whose first bytes are there.
  size_t begun_bytes_ = 0;
};

void MarkGraph(const Graph& graph, Mark& mark);

void MarkAttribute(const AttributeValue& value, Mark& mark) {
  mark.Word(value.index());
  std::visit(
      [&](const auto& held) {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_arithmetic_v<T>) {
          mark.Bytes(&held, sizeof(held));
        } else if constexpr (std::is_same_v<T, std::string>) {
          mark.Text(held);
        } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          mark.Word(held.size());
          for (const std::string& text : held) mark.Text(text);
        } else if constexpr (std::is_same_v<T, Tensor>) {
          mark.Elements(held);
        } else if constexpr (std::is_same_v<T, Subgraph>) {
          MarkGraph(*held, mark);
        } else if constexpr (std::is_same_v<T, ValueType>) {
          mark.Word(static_cast<uint64_t>(held.kind));
          mark.Word(static_cast<uint64_t>(held.dtype));
        } else {
          mark.Bytes(held.data(), held.size() * sizeof(held[0]));
        }
      },
      value);
}

void MarkGraph(const Graph& graph, Mark& mark) {
  const auto values = [&](std::span<const ValueId> ids) {
    mark.Word(ids.size());
    for (const ValueId id : ids) {
      mark.Text(id == kNone ? "" : graph.value(id).name);
      if (id != kNone && graph.value(id).is_constant()) mark.Elements(graph.value(id).constant);
    }
  };
  values(graph.inputs);
  for (const ValueId id : graph.inputs) {
    const Value& input = graph.value(id);
    mark.Word(static_cast<uint64_t>(input.kind));
    mark.Word(input.shape.has_value());
    mark.Type(input.dtype, input.shape.value_or(Shape()));
  }
  values(graph.outputs);
  mark.Word(graph.order().size());
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    mark.Text(node.op);
    mark.Text(node.domain);
    mark.Word(static_cast<uint64_t>(node.version));
    mark.Word(node.attributes.size());
    for (const auto& [name, attribute] : node.attributes) {
      mark.Text(name);
      MarkAttribute(attribute, mark);
    }
    values(node.inputs);
    values(node.outputs);
  }
}

}  // namespace

uint64_t MarkOf(const Graph& graph) {
  Mark mark;
  MarkGraph(graph, mark);
  return mark.value();
}

namespace {

// Samples [first, first + rows) of an input, alike, as if they were one array.
absl::Status MarkSamples(const CalibrationData& set, const std::string& input, int64_t first,
                         int64_t rows, Mark& mark) {
  TensorSpec spec = *set.SpecOf(input, first);
  spec.shape[0] = rows;
  mark.Type(spec.dtype, spec.shape);
  if (spec.dtype == DType::kString) {
    return set.Pass(input, first, rows, [&](int64_t, ConstTensorView samples) {
      for (const std::string_view text : samples.span<std::string_view>()) mark.Text(text);
      return absl::OkStatus();
    });
  }
  mark.Begin(spec.bytes());
  OCTET_RETURN_IF_ERROR(set.Pass(input, first, rows, [&](int64_t, ConstTensorView samples) {
    mark.More(samples.data, samples.bytes());
    return absl::OkStatus();
  }));
  mark.End();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<uint64_t> MarkOf(const CalibrationData& set) {
  OCTET_RETURN_IF_ERROR(set.CheckCounts());
  Mark mark;
  const CalibrationData grouped = set.Grouped();
  for (int64_t first = 0; first < grouped.count();) {
    const int64_t rows = grouped.Alike(first, grouped.count());
    for (const auto& [name, unused] : grouped.SourcesOf(first)) {
      mark.Text(name);
      OCTET_RETURN_IF_ERROR(MarkSamples(grouped, name, first, rows, mark));
    }
    first += rows;
  }
  return mark.value();
}

}  // namespace octet

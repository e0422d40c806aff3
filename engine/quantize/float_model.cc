#include "engine/quantize/float_model.h"

#include <algorithm>
#include <array>
#include <memory>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/graph/stored_value.h"
#include "engine/ops/onnx_dtype.h"
#include "engine/ops/op.h"
#include "engine/quantize/opset.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr std::array<std::string_view, 8> kLayers = {"Conv",   "ConvTranspose", "Gemm", "MatMul",
                                                     "Einsum", "LSTM",          "GRU",  "RNN"};

bool IsOther(DType dtype) { return IsNarrowReal(dtype) || dtype == DType::kF64; }

// Before anything is inferred: what no Cast makes is declared, or follows from what is.
bool MayHoldOthers(const Graph& graph) {
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    if (IsOther(graph.value(id).dtype)) return true;
  }
  for (const NodeId id : graph.order()) {
    for (const auto& [name, attribute] : graph.node(id).attributes) {
      const auto* number = std::get_if<int64_t>(&attribute);
      const auto* tensor = std::get_if<Tensor>(&attribute);
      const auto* body = std::get_if<Subgraph>(&attribute);
      const bool is_type = name == "to" || name == "dtype" || name == "output_datatype";
      if (number != nullptr && is_type && IsOther(DTypeOfOnnx(*number).value_or(DType::kUndefined)))
        return true;
      if (tensor != nullptr && IsOther(tensor->dtype())) return true;
      if (body != nullptr && MayHoldOthers(**body)) return true;
    }
  }
  return false;
}

bool LayersAreDouble(const Graph& graph) {
  return std::ranges::any_of(graph.order(), [&](NodeId id) {
    const Node& node = graph.node(id);
    return node.domain == kOnnxDomain && std::ranges::contains(kLayers, node.op) &&
           node.output(0) != kNone && graph.value(node.output(0)).dtype == DType::kF64;
  });
}

// TensorProto.DataType.
int64_t OnnxTypeOf(DType dtype) {
  int64_t number = kOnnxFloat;
  while (DTypeOfOnnx(number) != dtype) ++number;
  return number;
}

// Another source's reals.
class FloatSource : public SampleSource {
 public:
  explicit FloatSource(std::shared_ptr<const SampleSource> reals)
      : reals_(std::move(reals)), spec_{DType::kF32, reals_->spec().shape} {}
  const TensorSpec& spec() const override { return spec_; }
  absl::Status Read(int64_t first, int64_t rows, void* to) const override {
    Shape shape = spec_.shape;
    shape[0] = rows;
    Tensor read(reals_->spec().dtype, shape);
    OCTET_RETURN_IF_ERROR(reals_->Read(first, rows, read.mutable_data()));
    ConvertTensor(read.view(), {to, {DType::kF32, shape}});
    return absl::OkStatus();
  }

 private:
  std::shared_ptr<const SampleSource> reals_;
  TensorSpec spec_;
};

bool IsCastOfReals(const Graph& graph, NodeId id) {
  return id != kNone && graph.node(id).is("Cast") &&
         IsFloat(graph.value(graph.node(id).inputs[0]).dtype) &&
         IsFloat(graph.value(graph.node(id).outputs[0]).dtype);
}

// As RestoreTypes leaves it.
bool OnlyTheBorderIsDouble(const Graph& graph) {
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    const bool in_use = graph.producer(id) != kNone || !graph.consumers(id).empty();
    if (!in_use || graph.value(id).dtype != DType::kF64) continue;
    const bool read = std::ranges::all_of(
        graph.consumers(id), [&](NodeId reader) { return IsCastOfReals(graph, reader); });
    const bool border = graph.is_graph_input(id) ||
                        (graph.is_graph_output(id) && IsCastOfReals(graph, graph.producer(id)));
    if (!read || !border) return false;
  }
  return true;
}

absl::Status CheckTensors(const Graph& graph, const std::vector<ValueId>& values,
                          std::string_view what, bool (*taken)(DType)) {
  for (const ValueId id : values) {
    const Value& value = graph.value(id);
    if (value.is_tensor() || !taken(value.dtype)) continue;
    return Unimplemented("{} '{}' is a {} of {}, which no Cast makes of FP32", what, value.name,
                         ValueKindName(value.kind), DTypeName(value.dtype));
  }
  return absl::OkStatus();
}

}  // namespace

CalibrationData InFloat(const CalibrationData& set) {
  const auto is_float = [](const auto& source) { return !IsOther(source.second->spec().dtype); };
  const auto all_float = [&](const auto* part) { return std::ranges::all_of(*part, is_float); };
  if (std::ranges::all_of(set.sources(), all_float)) return set;
  CalibrationData all = set.whole_inputs() ? CalibrationData::OfWholeInputs() : CalibrationData();
  for (const CalibrationData::Sources* part : set.sources()) {
    CalibrationData::Sources sources = *part;
    for (auto& [name, source] : sources) {
      if (IsOther(source->spec().dtype)) source = std::make_shared<FloatSource>(source);
    }
    all.Add(std::move(sources));
  }
  std::vector<int64_t> places;
  for (int64_t sample = 0; sample < set.count(); ++sample) places.push_back(set.PlaceOf(sample));
  return all.Drawn(places);
}

void FloatModel::RestoreTypes(Graph& made) const {
  const int version = OnnxOpset(made);
  RestoreInterface(made, declared, [&](DType to) {
    Node cast{.name = {}, .op = "Cast", .version = version};
    cast.attributes.Set("to", OnnxTypeOf(to));
    return cast;
  });
}

absl::StatusOr<FloatModel> InFloat(const Graph& graph) {
  FloatModel model{graph, {}};
  if (!MayHoldOthers(graph)) return model;
  Graph inferred = graph;
  OCTET_RETURN_IF_ERROR(InferShapes(inferred));
  const bool doubles = LayersAreDouble(inferred) || OnlyTheBorderIsDouble(inferred);
  const auto taken = doubles ? IsOther : IsNarrowReal;
  OCTET_RETURN_IF_ERROR(CheckTensors(inferred, inferred.inputs, "input", taken));
  OCTET_RETURN_IF_ERROR(CheckTensors(inferred, inferred.outputs, "output", taken));
  const InterfaceTypes declared = InterfaceTypesOf(inferred);
  if (StoreRealsAsF32(inferred, taken) == 0) return model;
  model.declared = declared;
  inferred.RemoveDead();
  model.graph = std::move(inferred);
  return model;
}

}  // namespace octet

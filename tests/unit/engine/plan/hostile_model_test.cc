// Models that are well-formed files and nonsense all the same: ONNX's own operator cases with attributes, shapes, types,
// edges and constants changed at random. Whatever comes out of that, loading and running it ends with answers or with an
// error that tells what is wrong; never with a crash, never with memory beyond the limit.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include <onnx/onnx_pb.h>

#include "engine/onednn/runtime.h"
#include "engine/ops/op.h"
#include "engine/plan/compiler.h"
#include "engine/plan/cut.h"
#include "engine/plan/program_plan.h"
#include "engine/tensor/limits.h"
#include "engine/tensor/status.h"

namespace octet {
namespace hostile_model_test {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kPlanBytes = uint64_t{1} << 24;
constexpr std::chrono::seconds kBudget{8};

uint32_t Seed() {
  const char* set = std::getenv("OCTET_TEST_SEED");
  return set != nullptr ? static_cast<uint32_t>(std::strtoul(set, nullptr, 10)) : 2026U;
}

// Debian's libonnx-testdata.
fs::path CasesFolder() {
  const char* set = std::getenv("OCTET_ONNX_TESTDATA");
  return fs::path(set != nullptr ? set : "/usr/share/libonnx-testdata/data") / "node";
}

class Mutator {
 public:
  explicit Mutator(uint32_t seed) : random_(seed) {}

  size_t Below(size_t n) { return n == 0 ? 0 : random_() % n; }
  template <typename T, size_t kCount>
  T Pick(const std::array<T, kCount>& values) {
    return values[Below(kCount)];
  }

  int64_t Integer() {
    constexpr int64_t kLow = std::numeric_limits<int64_t>::min();
    constexpr int64_t kHigh = std::numeric_limits<int64_t>::max();
    return Pick(std::array<int64_t, 20>{-2,
                                        -1,
                                        0,
                                        1,
                                        2,
                                        3,
                                        4,
                                        7,
                                        8,
                                        16,
                                        255,
                                        256,
                                        int64_t{1} << 16,
                                        int64_t{1} << 31,
                                        int64_t{1} << 32,
                                        int64_t{1} << 40,
                                        int64_t{1} << 62,
                                        kLow,
                                        kHigh,
                                        -(int64_t{1} << 33)});
  }

  void Mutate(onnx::ModelProto& model) {
    for (size_t i = Below(3) + 1; i > 0; --i) MutateOnce(model);
  }

  const char* Text() {
    return Pick(std::array<const char*, 8>{"", "1", "-7.5", "a b,c", "\xff\xc3", "NaN", "monday",
                                           "a text that is too long to be kept in place"});
  }

  // Elements for a request: bits of any kind, or small numbers.
  void Fill(void* data, size_t bytes) {
    auto* out = static_cast<uint8_t*>(data);
    const bool any = Below(2) == 0;
    for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<uint8_t>(any ? random_() : i % 8 == 0);
  }

 private:
  // The model's graph, or a sub-graph of one of its nodes.
  onnx::GraphProto& PickGraph(onnx::GraphProto& graph) {
    if (graph.node_size() == 0 || Below(2) == 0) return graph;
    onnx::NodeProto& node = *graph.mutable_node(static_cast<int>(Below(graph.node_size())));
    for (onnx::AttributeProto& attribute : *node.mutable_attribute()) {
      if (attribute.has_g()) return PickGraph(*attribute.mutable_g());
    }
    return graph;
  }

  void MutateOnce(onnx::ModelProto& model) {
    onnx::GraphProto& graph = PickGraph(*model.mutable_graph());
    if (graph.node_size() == 0) return;
    onnx::NodeProto& node = *graph.mutable_node(static_cast<int>(Below(graph.node_size())));
    switch (Below(12)) {
      case 0:
      case 1:
      case 2:
        if (node.attribute_size() > 0)
          MutateAttribute(*node.mutable_attribute(static_cast<int>(Below(node.attribute_size()))));
        else
          AddAttribute(node);
        return;
      case 3:
        return AddAttribute(node);
      case 4:
        if (node.attribute_size() > 0)
          node.mutable_attribute()->DeleteSubrange(static_cast<int>(Below(node.attribute_size())),
                                                   1);
        return;
      case 5:
      case 6:
        return MutateType(graph);
      case 7:
        return MutateEdges(node);
      case 8:
        return model.mutable_opset_import(0)->set_version(7 + static_cast<int64_t>(Below(16)));
      case 9:
      case 10:
        return MakeConstant(graph);
      case 11:
        return ForgetShapes(graph);
    }
  }

  void MutateAttribute(onnx::AttributeProto& attribute) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const std::array<float, 7> floats = {0, -1, 1, 1e30F, kInfinity, -kInfinity, std::nanf("")};
    switch (attribute.type()) {
      case onnx::AttributeProto::INT:
        return attribute.set_i(Integer());
      case onnx::AttributeProto::FLOAT:
        return attribute.set_f(Pick(floats));
      case onnx::AttributeProto::STRING:
        return attribute.set_s(
            Pick(std::array<const char*, 8>{"", "SAME_UPPER", "SAME_LOWER", "VALID", "reflect",
                                            "bidirectional", "tanh", "nonsense"}));
      case onnx::AttributeProto::INTS:
        if (attribute.ints_size() == 0 || Below(4) == 0) return attribute.add_ints(Integer());
        if (Below(8) == 0) return attribute.mutable_ints()->RemoveLast();
        return attribute.set_ints(static_cast<int>(Below(attribute.ints_size())), Integer());
      case onnx::AttributeProto::FLOATS:
        return attribute.add_floats(Pick(floats));
      case onnx::AttributeProto::STRINGS:
        return attribute.add_strings("Relu");
      default:
        return;
    }
  }

  void AddAttribute(onnx::NodeProto& node) {
    constexpr std::array kNames = {"axis",       "axes",      "pads",         "strides",
                                   "dilations",  "group",     "kernel_shape", "ceil_mode",
                                   "keepdims",   "perm",      "to",           "alpha",
                                   "block_size", "blocksize", "split",        "num_outputs",
                                   "layout",     "direction", "hidden_size",  "auto_pad"};
    onnx::AttributeProto& attribute = *node.add_attribute();
    attribute.set_name(Pick(kNames));
    switch (Below(4)) {
      case 0:
        attribute.set_type(onnx::AttributeProto::INT);
        break;
      case 1:
        attribute.set_type(onnx::AttributeProto::FLOAT);
        break;
      case 2:
        attribute.set_type(onnx::AttributeProto::STRING);
        break;
      case 3:
        attribute.set_type(onnx::AttributeProto::INTS);
        for (size_t i = Below(6); i > 0; --i) attribute.add_ints(Integer());
        break;
    }
    MutateAttribute(attribute);
  }

  int ElementType() {
    return 1 + static_cast<int>(Below(16));  // Numbers of TensorProto.DataType.
  }

  void MutateType(onnx::GraphProto& graph) {
    if (graph.input_size() == 0) return;
    auto& tensor = *graph.mutable_input(static_cast<int>(Below(graph.input_size())))
                        ->mutable_type()
                        ->mutable_tensor_type();
    if (Below(3) == 0) return tensor.set_elem_type(ElementType());
    auto& shape = *tensor.mutable_shape();
    if (shape.dim_size() == 0 || Below(6) == 0) return shape.add_dim()->set_dim_value(Integer());
    if (Below(6) == 0) return shape.mutable_dim()->RemoveLast();
    auto& dim = *shape.mutable_dim(static_cast<int>(Below(shape.dim_size())));
    if (Below(6) == 0) return dim.set_dim_param("open");
    dim.set_dim_value(Below(2) == 0 ? Integer() : static_cast<int64_t>(Below(6)));
  }

  void MutateEdges(onnx::NodeProto& node) {
    const int inputs = node.input_size();
    switch (Below(6)) {
      case 0:
        if (inputs > 0) node.mutable_input()->RemoveLast();
        return;
      case 1:
        if (inputs > 0) node.set_input(static_cast<int>(Below(inputs)), "");
        return;
      case 2:
        if (inputs > 1) node.mutable_input()->SwapElements(0, static_cast<int>(Below(inputs)));
        return;
      case 3:
        if (inputs > 0) node.add_input(node.input(static_cast<int>(Below(inputs))));
        return;
      case 4:
        return node.add_output("more" + std::to_string(node.output_size()) + node.output(0));
      case 5:
        if (node.output_size() > 1) node.set_output(0, "");
        return;
    }
  }

  // An input becomes an initializer: operators that look at their constants meet nonsense.
  void MakeConstant(onnx::GraphProto& graph) {
    if (graph.input_size() == 0) return;
    const int i = static_cast<int>(Below(graph.input_size()));
    const auto& type = graph.input(i).type().tensor_type();
    onnx::TensorProto tensor;
    tensor.set_name(graph.input(i).name());
    tensor.set_data_type(type.elem_type());
    int64_t elements = 1;
    for (const auto& dim : type.shape().dim()) {
      const int64_t extent = dim.dim_value() < 0 || dim.dim_value() > 64 ? 2 : dim.dim_value();
      tensor.add_dims(extent);
      elements *= extent;
    }
    if (elements > 1 << 16) return;
    if (type.elem_type() == onnx::TensorProto::INT64) {
      for (int64_t k = 0; k < elements; ++k)
        tensor.add_int64_data(Below(2) == 0 ? Integer() : static_cast<int64_t>(Below(4)));
    } else if (type.elem_type() == onnx::TensorProto::FLOAT) {
      for (int64_t k = 0; k < elements; ++k)
        tensor.add_float_data(std::array{0.0F, 1.0F, -3.0F, std::nanf("")}[Below(4)]);
    } else if (type.elem_type() == onnx::TensorProto::STRING) {
      for (int64_t k = 0; k < elements; ++k) tensor.add_string_data(Text());
    } else {
      for (int64_t k = 0; k < elements; ++k) tensor.add_int32_data(static_cast<int>(Below(2)));
    }
    *graph.add_initializer() = std::move(tensor);
  }

  static void ForgetShapes(onnx::GraphProto& graph) {
    for (auto& output : *graph.mutable_output())
      output.mutable_type()->mutable_tensor_type()->clear_shape();
    graph.clear_value_info();
  }

  std::mt19937 random_;
};

Tensor Filled(DType dtype, const Shape& shape, Mutator& mutator) {
  if (dtype == DType::kString) {
    std::vector<std::string_view> texts;
    for (int64_t i = 0; i < shape.elements(); ++i) texts.emplace_back(mutator.Text());
    return Tensor::Strings(shape, texts);
  }
  Tensor tensor(dtype, shape);
  mutator.Fill(tensor.mutable_data(), tensor.bytes());
  if (dtype == DType::kBool) std::memset(tensor.mutable_data(), 1, tensor.bytes());
  return tensor;
}

// Runs a graph that has no static plan.
absl::Status ServeProgram(Graph graph, Mutator& mutator) {
  auto context = std::make_shared<ProgramContext>();
  context->target = DetectTarget(1);
  context->weights = std::make_shared<onednn::WeightCache>();
  context->max_bytes = kPlanBytes;
  context->max_loop_iterations = 100;
  std::vector<Datum> inputs;
  for (const ValueId id : graph.inputs) {
    const Value& value = graph.value(id);
    const Datum tensor = Datum::Of(Filled(value.dtype, value.shape.value_or(Shape{2}), mutator));
    const std::array data = {tensor, Datum::Sequence({tensor.tensor, tensor.tensor}), Datum()};
    inputs.push_back(value.is_tensor() ? tensor : data[mutator.Below(data.size())]);
  }
  OCTET_ASSIGN_OR_RETURN(const auto plan, ProgramPlan::Make(std::move(graph), context, {}));
  Workspace workspace;
  return plan->RunDynamic(workspace, inputs, {}).status();
}

absl::Status ServePlan(Graph graph, const PassContext& context, Mutator& mutator) {
  OCTET_RETURN_IF_ERROR(RunPasses(graph, context).status());
  const onednn::TeamSizeScope team(1);
  onednn::WeightCache weights;
  OCTET_ASSIGN_OR_RETURN(
      const auto plan,
      CompilePlan(std::move(graph), {Precision::kFp32, context.target, weights, kPlanBytes}));
  std::vector<Tensor> tensors;
  std::vector<const void*> inputs;
  std::vector<void*> outputs;
  for (const TensorSpec& spec : plan->inputs())
    inputs.push_back(tensors.emplace_back(Filled(spec.dtype, spec.shape, mutator)).data());
  for (const TensorSpec& spec : plan->outputs()) {
    outputs.push_back(tensors.emplace_back(spec.dtype, spec.shape).mutable_data());
  }
  Workspace workspace;
  return plan->Run(workspace, inputs, outputs);
}

// Loads and runs; what is wrong with the model is in the status.
absl::Status Serve(const std::string& bytes, Mutator& mutator) {
  OCTET_ASSIGN_OR_RETURN(Graph graph, ReadOnnxBytes(std::as_bytes(std::span(bytes)), "model",
                                                    {.max_tensor_bytes = kPlanBytes}));
  OCTET_RETURN_IF_ERROR(InferShapes(graph));
  OCTET_ASSIGN_OR_RETURN(const bool program, NeedsStages(graph));
  PassContext context;
  context.target = DetectTarget(1);
  if (!program) OCTET_RETURN_IF_ERROR(RunPasses(graph, context).status());
  for (const ValueId id : graph.inputs) {
    Value& value = graph.mutable_value(id);
    if (!value.is_tensor()) continue;
    if (!value.shape) value.shape = Shape{2};
    for (int i = 0; i < value.shape->rank(); ++i) {
      if ((*value.shape)[i] == kUnknownDim) (*value.shape)[i] = 2;
    }
    if (!FitsInto(*value.shape, SizeOf(value.dtype), kPlanBytes))
      return InvalidArgument("the input is too large to be made");
  }
  return program ? ServeProgram(std::move(graph), mutator)
                 : ServePlan(std::move(graph), context, mutator);
}

TEST(HostileModelTest, ChangedOperatorCasesAreAnsweredOrRefused) {
  if (!fs::exists(CasesFolder())) GTEST_SKIP() << "skipped: libonnx-testdata is not installed";
  SCOPED_TRACE("OCTET_TEST_SEED=" + std::to_string(Seed()));
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(CasesFolder())) names.push_back(entry.path());
  std::ranges::sort(names);
  std::mt19937 order(Seed());
  std::ranges::shuffle(names, order);
  const auto end = Clock::now() + kBudget;
  int served = 0;
  int refused = 0;
  uint32_t round = 0;
  for (; Clock::now() < end; ++round) {
    const std::string& name = names[round % names.size()];
    std::ifstream file(fs::path(name) / "model.onnx", std::ios::binary);
    onnx::ModelProto model;
    ASSERT_TRUE(model.ParseFromString({std::istreambuf_iterator<char>(file), {}})) << name;
    Mutator mutator(Seed() + round);
    mutator.Mutate(model);
    SCOPED_TRACE(name + ", round " + std::to_string(round));
    const absl::Status status = Serve(model.SerializeAsString(), mutator);
    (status.ok() ? served : refused) += 1;
    const bool fair = status.ok() || absl::IsInvalidArgument(status) ||
                      absl::IsUnimplemented(status) || absl::IsResourceExhausted(status);
    EXPECT_TRUE(fair) << name << ", round " << round << ": " << status << "\n"
                      << model.ShortDebugString();
  }
  EXPECT_GT(served, 20);
  EXPECT_GT(refused, 20);
}

}  // namespace hostile_model_test
}  // namespace octet

// INT4 and UINT4 of a file: bytes that stay within 4 bits, wherever they are made.
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/ops/op.h"
#include "engine/ops/reference_step.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"
#include "tests/unit/engine/onnx/model_builder.h"

namespace octet::test {
namespace four_bits_test {

using onnx::TensorProto;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

onnx::TensorProto Packed(const std::string& name, TensorProto::DataType type,
                         std::vector<int64_t> dims, const std::string& bytes) {
  onnx::TensorProto tensor;
  tensor.set_name(name);
  tensor.set_data_type(type);
  for (const int64_t d : dims) tensor.add_dims(d);
  tensor.set_raw_data(bytes);
  return tensor;
}

void SetInt(onnx::NodeProto& node, const std::string& name, int64_t value) {
  onnx::AttributeProto& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_type(onnx::AttributeProto::INT);
  attribute.set_i(value);
}

/// A model of opset 21 that reads x F32 [6] and writes y [6] of `type`.
onnx::ModelProto FromReals(int type) {
  onnx::ModelProto model = EmptyModel(21);
  *model.mutable_graph()->add_input() = TensorInfo("x", {6});
  *model.mutable_graph()->add_output() = TensorInfo("y", {6}, type);
  return model;
}

absl::StatusOr<std::vector<Tensor>> Answers(const onnx::ModelProto& model,
                                            const std::vector<Tensor>& inputs) {
  OCTET_ASSIGN_OR_RETURN(Graph graph, Read(model));
  OCTET_RETURN_IF_ERROR(InferShapes(graph));
  return Evaluate(graph, inputs);
}

/// The first output, which is of `held_as`, as integers.
std::vector<int> Integers(const onnx::ModelProto& model, const Tensor& x, DType held_as) {
  const auto answers = Answers(model, {x});
  if (!answers.ok()) {
    ADD_FAILURE() << answers.status();
    return {};
  }
  const Tensor& y = answers->front();
  EXPECT_EQ(y.dtype(), held_as);
  Tensor wide(DType::kI32, y.shape());
  ConvertTensor(y.view(), wide.mutable_view());
  const auto integers = wide.span<int32_t>();
  return {integers.begin(), integers.end()};
}

Tensor Reals() { return Tensor::From<float>({6}, {-300, -8.5F, -0.5F, 1.5F, 9, 300}); }

TEST(FourBitsTest, QuantizeLinearSaturatesAtThem) {
  onnx::ModelProto model = FromReals(TensorProto::INT4);
  AddFloats(model, "s", {}, {1});
  *model.mutable_graph()->add_initializer() = Packed("z", TensorProto::INT4, {}, "\x0f");
  AddNode(model, "QuantizeLinear", {"x", "s", "z"}, {"y"});
  EXPECT_THAT(Integers(model, Reals(), DType::kI8), ElementsAre(-8, -8, -1, 1, 7, 7));
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok());
  EXPECT_THAT(*graph, HasOps({"QuantizeLinear", "Clip"}));
  EXPECT_EQ(graph->outputs.front(), graph->FindValue("y"));
}

TEST(FourBitsTest, QuantizeLinearTakesThemFromItsAttribute) {
  onnx::ModelProto model = FromReals(TensorProto::UINT4);
  AddFloats(model, "s", {}, {1});
  SetInt(AddNode(model, "QuantizeLinear", {"x", "s"}, {"y"}), "output_dtype", TensorProto::UINT4);
  EXPECT_THAT(Integers(model, Reals(), DType::kU8), ElementsAre(0, 0, 0, 2, 9, 15));
}

TEST(FourBitsTest, AZeroPointMayHaveMovedBefore) {
  // Out of order, and declared nowhere.
  onnx::ModelProto model = FromReals(TensorProto::FLOAT);
  AddFloats(model, "s", {1}, {1});
  AddNode(model, "Cast", {"q"}, {"y"});
  SetInt(*model.mutable_graph()->mutable_node(0), "to", TensorProto::FLOAT);
  AddNode(model, "QuantizeLinear", {"x", "s", "z"}, {"q"});
  AddNode(model, "Flatten", {"row"}, {"flat"});
  AddNode(model, "Squeeze", {"flat"}, {"z"});
  onnx::AttributeProto& value = *AddNode(model, "Constant", {}, {"row"}).add_attribute();
  value.set_name("value");
  value.set_type(onnx::AttributeProto::TENSOR);
  *value.mutable_t() = Packed("", TensorProto::UINT4, {1, 1}, "\x01");
  const auto answers = Answers(model, {Reals()});
  ASSERT_TRUE(answers.ok()) << answers.status();
  EXPECT_THAT(answers->front().span<float>(), ElementsAre(0, 0, 1, 3, 10, 15));
}

TEST(FourBitsTest, CastRoundsHalfToEvenAndSaturates) {
  for (const bool like : {false, true}) {
    onnx::ModelProto model = FromReals(TensorProto::INT4);
    if (like) {
      *model.mutable_graph()->add_initializer() =
          Packed("like", TensorProto::INT4, {3}, std::string("\0\0", 2));
      AddNode(model, "CastLike", {"x", "like"}, {"y"});
    } else {
      SetInt(AddNode(model, "Cast", {"x"}, {"y"}), "to", TensorProto::INT4);
    }
    EXPECT_THAT(Integers(model, Reals(), DType::kI8), ElementsAre(-8, -8, 0, 2, 7, 7));
  }
  // Integers saturate as reals do.
  onnx::ModelProto model = EmptyModel(21);
  *model.mutable_graph()->add_input() = TensorInfo("x", {4}, TensorProto::INT32);
  *model.mutable_graph()->add_output() = TensorInfo("y", {4}, TensorProto::UINT4);
  SetInt(AddNode(model, "Cast", {"x"}, {"y"}), "to", TensorProto::UINT4);
  EXPECT_THAT(Integers(model, Tensor::From<int32_t>({4}, {-1, 3, 16, 512}), DType::kU8),
              ElementsAre(0, 3, 15, 15));
}

TEST(FourBitsTest, ACastHasTheInputsThatItHas) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> wrong = {
      {"Cast", {}}, {"Cast", {"x", "x"}}, {"CastLike", {"x"}}, {"CastLike", {"x", "like", "x"}}};
  for (const auto& [op, inputs] : wrong) {
    onnx::ModelProto model = FromReals(TensorProto::INT4);
    *model.mutable_graph()->add_initializer() =
        Packed("like", TensorProto::INT4, {1}, std::string(1, '\0'));
    onnx::NodeProto& node = AddNode(model, op, inputs, {"y"});
    if (op == "Cast") SetInt(node, "to", TensorProto::INT4);
    const auto answers = Answers(model, {Reals()});
    EXPECT_EQ(answers.status().code(), absl::StatusCode::kInvalidArgument) << answers.status();
    EXPECT_THAT(std::string(Message(answers.status())), HasSubstr("input"));
  }
}

TEST(FourBitsTest, AnInputHoldsNoOthers) {
  onnx::ModelProto model = EmptyModel(21);
  onnx::GraphProto& graph = *model.mutable_graph();
  *graph.add_input() = TensorInfo("x", {4}, TensorProto::INT4);
  *graph.add_output() = TensorInfo("y", {4}, TensorProto::FLOAT);
  AddFloats(model, "s", {}, {2});
  AddNode(model, "DequantizeLinear", {"x", "s"}, {"y"});
  const auto answers = Answers(model, {Tensor::From<int8_t>({4}, {-100, -8, 7, 100})});
  ASSERT_TRUE(answers.ok()) << answers.status();
  EXPECT_THAT(answers->front().span<float>(), ElementsAre(-16, -16, 14, 14));
}

TEST(FourBitsTest, OtherOperatorsAreRefusedByName) {
  onnx::ModelProto model = EmptyModel(21);
  *model.mutable_graph()->add_output() = TensorInfo("y", {2}, TensorProto::INT4);
  *model.mutable_graph()->add_initializer() = Packed("w", TensorProto::INT4, {2}, "\x21");
  AddNode(model, "Transpose", {"w"}, {"t"});
  AddNode(model, "Add", {"t", "t"}, {"y"});
  const auto graph = Read(model);
  EXPECT_EQ(graph.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(Message(graph.status())),
              HasSubstr("Add 'y_node' (opset 21): value 't': unsupported element type: INT4"));
}

TEST(FourBitsTest, SequencesOfThemAreRefused) {
  onnx::ModelProto model = FromReals(TensorProto::FLOAT);
  onnx::ValueInfoProto& info = *model.mutable_graph()->add_input();
  info.set_name("sequence");
  info.mutable_type()
      ->mutable_sequence_type()
      ->mutable_elem_type()
      ->mutable_tensor_type()
      ->set_elem_type(TensorProto::UINT4);
  AddNode(model, "Relu", {"x"}, {"y"});
  const auto graph = Read(model);
  EXPECT_EQ(graph.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(Message(graph.status())), HasSubstr("unsupported element type: UINT4"));
}

TEST(FourBitsTest, ABodyKnowsThoseThatItCaptures) {
  onnx::ModelProto model = FromReals(TensorProto::FLOAT);
  onnx::GraphProto& graph = *model.mutable_graph();
  *graph.add_input() = TensorInfo("flag", {}, TensorProto::BOOL);
  AddFloats(model, "s", {}, {1});
  *graph.add_initializer() = Packed("z", TensorProto::INT4, {}, std::string(1, '\0'));
  onnx::NodeProto& branches = AddNode(model, "If", {"flag"}, {"y"});
  for (const char* name : {"then_branch", "else_branch"}) {
    onnx::AttributeProto& branch = *branches.add_attribute();
    branch.set_name(name);
    branch.set_type(onnx::AttributeProto::GRAPH);
    onnx::GraphProto& body = *branch.mutable_g();
    body.set_name(name);
    onnx::ModelProto nodes;
    AddNode(nodes, "QuantizeLinear", {"x", "s", "z"}, {"q"});
    AddNode(nodes, "DequantizeLinear", {"q", "s", "z"}, {"d"});
    *body.mutable_node() = nodes.graph().node();
    *body.add_output() = TensorInfo("d", {6});
  }
  const auto read = Read(model);
  ASSERT_TRUE(read.ok()) << read.status();
  const Node& node = read->node(read->FindNode("y_node"));
  for (const char* name : {"then_branch", "else_branch"})
    EXPECT_THAT(**node.attributes.GraphOrNull(name),
                HasOps({"QuantizeLinear", "Clip", "DequantizeLinear"}));
}

TEST(FourBitsTest, ATableThatIsPackedInBytesIsRefused) {
  onnx::ModelProto model = EmptyModel(21);
  onnx::OperatorSetIdProto& import = *model.add_opset_import();
  import.set_domain("com.microsoft");
  import.set_version(1);
  *model.mutable_graph()->add_input() = TensorInfo("i", {1}, TensorProto::INT64);
  *model.mutable_graph()->add_output() = TensorInfo("y", {1, 32});
  AddFloats(model, "s", {2, 1}, {1, 2});
  AddNode(model, "GatherBlockQuantized", {"w", "i", "s"}, {"y"}).set_domain("com.microsoft");
  onnx::TensorProto& table = *model.mutable_graph()->add_initializer();
  table = Packed("w", TensorProto::UINT4, {2, 32}, std::string(32, '\x21'));
  SetInt(*model.mutable_graph()->mutable_node(0), "block_size", 32);
  const auto answers = Answers(model, {Tensor::From<int64_t>({1}, {1})});
  ASSERT_TRUE(answers.ok()) << answers.status();
  EXPECT_EQ(answers->front().shape(), (Shape{1, 32}));
  EXPECT_EQ(answers->front().span<float>()[0], 2);
  EXPECT_EQ(answers->front().span<float>()[1], 4);
  table = Packed("w", TensorProto::UINT8, {2, 32}, std::string(64, '\x21'));
  const auto graph = Read(model);
  EXPECT_EQ(graph.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(
      std::string(Message(graph.status())),
      HasSubstr("com.microsoft:GatherBlockQuantized 'y_node' (opset 1): unsupported element "
                "type of 'w': expected INT4 or UINT4"));
}

}  // namespace four_bits_test
}  // namespace octet::test

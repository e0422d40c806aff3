// Sub-graphs: what they capture becomes an input of the node and of its bodies, and goes back into a file as it came.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/unit/engine/onnx/model_builder.h"

namespace octet::test {
namespace subgraph_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

onnx::NodeProto& AddNodeTo(onnx::GraphProto& graph, const std::string& op,
                           std::vector<std::string> inputs, const std::string& output) {
  onnx::NodeProto& node = *graph.add_node();
  node.set_name(output + "_node");
  node.set_op_type(op);
  for (const std::string& name : inputs) node.add_input(name);
  node.add_output(output);
  return node;
}

onnx::GraphProto& AddBody(onnx::NodeProto& node, const std::string& attribute) {
  onnx::AttributeProto& branch = *node.add_attribute();
  branch.set_name(attribute);
  branch.set_type(onnx::AttributeProto::GRAPH);
  branch.mutable_g()->set_name(attribute);
  return *branch.mutable_g();
}

/// flag ? relu(h) + w : h, with w an initializer and h computed behind the If in the file.
onnx::ModelProto Branching() {
  onnx::ModelProto model = EmptyModel();
  onnx::GraphProto& graph = *model.mutable_graph();
  *graph.add_input() = TensorInfo("x", {2, 2});
  *graph.add_input() = TensorInfo("flag", {}, onnx::TensorProto::BOOL);
  AddFloats(model, "w", {2, 2}, {1, 2, 3, 4});
  onnx::NodeProto& node = AddNode(model, "If", {"flag"}, {"y"});
  onnx::GraphProto& yes = AddBody(node, "then_branch");
  AddNodeTo(yes, "Relu", {"h"}, "r");
  AddNodeTo(yes, "Add", {"r", "w"}, "sum");
  *yes.add_output() = TensorInfo("sum", {7});
  onnx::GraphProto& no = AddBody(node, "else_branch");
  AddNodeTo(no, "Identity", {"h"}, "same");
  *no.add_output() = TensorInfo("same", {2, 2});
  AddNode(model, "Neg", {"x"}, {"h"});
  *graph.add_output() = TensorInfo("y", {2, 2});
  return model;
}

const Graph& BodyOf(const Graph& graph, std::string_view node, std::string_view attribute) {
  return **graph.node(graph.FindNode(node)).attributes.GraphOrNull(attribute);
}

TEST(SubgraphTest, ACaptureIsAnEdge) {
  const auto graph = Read(Branching());
  ASSERT_TRUE(graph.ok()) << graph.status();
  const Node& node = graph->node(graph->FindNode("y_node"));
  EXPECT_THAT(node.inputs, ElementsAre(graph->FindValue("flag"), graph->FindValue("h")));
  EXPECT_EQ(node.attributes.IntOr(kCaptures, 0), 1);
  const Graph& yes = BodyOf(*graph, "y_node", "then_branch");
  EXPECT_THAT(yes.inputs, ElementsAre(yes.FindValue("h")));
  // A constant is the body's own, over the same elements.
  EXPECT_EQ(yes.value(yes.FindValue("w")).constant.data(),
            graph->value(graph->FindValue("w")).constant.data());
  // What a file says of shapes in a body is not believed.
  EXPECT_FALSE(yes.value(yes.FindValue("sum")).shape.has_value());
  const Graph& no = BodyOf(*graph, "y_node", "else_branch");
  EXPECT_THAT(no.inputs, ElementsAre(no.FindValue("h")));
}

TEST(SubgraphTest, ACaptureThatOneBranchDoesNotReadIsItsInputAllTheSame) {
  onnx::ModelProto model = Branching();
  model.mutable_graph()
      ->mutable_node(0)
      ->mutable_attribute(1)
      ->mutable_g()
      ->mutable_node(0)
      ->set_input(0, "x");
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_THAT(graph->node(graph->FindNode("y_node")).inputs,
              ElementsAre(graph->FindValue("flag"), graph->FindValue("h"), graph->FindValue("x")));
  for (const char* branch : {"then_branch", "else_branch"})
    EXPECT_EQ(BodyOf(*graph, "y_node", branch).inputs.size(), 2) << branch;
}

TEST(SubgraphTest, ANestedCapturePassesEveryGraphBetween) {
  onnx::ModelProto model = Branching();
  onnx::GraphProto& outer =
      *model.mutable_graph()->mutable_node(0)->mutable_attribute(1)->mutable_g();
  outer.clear_node();
  onnx::NodeProto& inner = AddNodeTo(outer, "If", {"flag"}, "same");
  for (const char* branch : {"then_branch", "else_branch"}) {
    onnx::GraphProto& body = AddBody(inner, branch);
    const std::string name = std::string(branch) + "_out";
    AddNodeTo(body, "Abs", {"x"}, name);
    *body.add_output() = TensorInfo(name, {2, 2});
  }
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok()) << graph.status();
  const Graph& no = BodyOf(*graph, "y_node", "else_branch");
  EXPECT_NE(no.FindValue("x"), kNone);
  EXPECT_THAT(no.node(no.FindNode("same_node")).inputs,
              ElementsAre(no.FindValue("flag"), no.FindValue("x")));
}

TEST(SubgraphTest, AValueThatABodyAnswersTwiceIsCopied) {
  onnx::ModelProto model = Branching();
  for (int branch : {0, 1}) {
    onnx::GraphProto& body =
        *model.mutable_graph()->mutable_node(0)->mutable_attribute(branch)->mutable_g();
    *body.add_output() = onnx::ValueInfoProto(body.output(0));
  }
  model.mutable_graph()->mutable_node(0)->add_output("z");
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok()) << graph.status();
  const Graph& yes = BodyOf(*graph, "y_node", "then_branch");
  ASSERT_EQ(yes.outputs.size(), 2);
  EXPECT_NE(yes.outputs[0], yes.outputs[1]);
}

// A body of an operator of another domain, in a model without ONNX's own.
TEST(SubgraphTest, ACopyNeedsNoImportOfOnnxsDomain) {
  onnx::ModelProto model = EmptyModel();
  model.mutable_opset_import(0)->set_domain("com.microsoft");
  model.mutable_opset_import(0)->set_version(1);
  *model.mutable_graph()->add_input() = TensorInfo("x", {2, 2});
  *model.mutable_graph()->add_output() = TensorInfo("y", {2, 2});
  onnx::NodeProto& node = AddNode(model, "Search", {"x"}, {"y"});
  node.set_domain("com.microsoft");
  onnx::GraphProto& body = AddBody(node, "body");
  AddNodeTo(body, "Step", {"x"}, "z").set_domain("com.microsoft");
  for (int i = 0; i < 2; ++i) *body.add_output() = TensorInfo("z", {2, 2});
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok()) << graph.status();
  const Graph& read = BodyOf(*graph, "y_node", "body");
  ASSERT_EQ(read.outputs.size(), 2);
  EXPECT_EQ(read.node(read.producer(read.outputs[1])).version, kMaxOpset);
}

TEST(SubgraphTest, AFileComesBackAsItWas) {
  const auto graph = Read(Branching());
  ASSERT_TRUE(graph.ok()) << graph.status();
  const auto bytes = WriteOnnxBytes(*graph);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  onnx::ModelProto written;
  ASSERT_TRUE(written.ParseFromString(*bytes));
  for (const onnx::NodeProto& node : written.graph().node()) {
    if (node.op_type() != "If") continue;
    EXPECT_EQ(node.input_size(), 1);
    ASSERT_EQ(node.attribute_size(), 2);
    for (const onnx::AttributeProto& attribute : node.attribute()) {
      EXPECT_EQ(attribute.g().input_size(), 0);
      EXPECT_EQ(attribute.g().node(0).input(0), "h");
    }
  }
  const auto again = ReadOnnxBytes(Bytes(*bytes), "again");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->node(again->FindNode("y_node")).attributes.IntOr(kCaptures, 0), 1);
}

TEST(SubgraphTest, ErrorsNameNodeAndAttribute) {
  onnx::ModelProto model = Branching();
  model.mutable_graph()
      ->mutable_node(0)
      ->mutable_attribute(0)
      ->mutable_g()
      ->mutable_node(0)
      ->set_input(0, "nowhere");
  auto graph = Read(model);
  EXPECT_EQ(graph.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(graph.status())),
              HasSubstr("If 'y_node' (opset 13): attribute 'then_branch': Relu 'r_node'"));
  model = Branching();
  onnx::AttributeProto& count = *model.mutable_graph()->mutable_node(0)->add_attribute();
  count.set_name(std::string(kCaptures));
  count.set_type(onnx::AttributeProto::INT);
  count.set_i(1);
  graph = Read(model);
  EXPECT_THAT(std::string(Message(graph.status())), HasSubstr("attribute is not ONNX's"));
  // A body that captures what its own node makes.
  model = Branching();
  model.mutable_graph()
      ->mutable_node(0)
      ->mutable_attribute(0)
      ->mutable_g()
      ->mutable_node(0)
      ->set_input(0, "y");
  graph = Read(model);
  EXPECT_THAT(std::string(Message(graph.status())), HasSubstr("cyclic"));
}

TEST(SubgraphTest, SequencesAndOptionalsAreTypes) {
  onnx::ModelProto model = EmptyModel(16);
  onnx::ValueInfoProto& input = *model.mutable_graph()->add_input();
  input.set_name("s");
  input.mutable_type()
      ->mutable_optional_type()
      ->mutable_elem_type()
      ->mutable_sequence_type()
      ->mutable_elem_type()
      ->mutable_tensor_type()
      ->set_elem_type(onnx::TensorProto::FLOAT);
  AddNode(model, "OptionalHasElement", {"s"}, {"has"});
  *model.mutable_graph()->add_output() = TensorInfo("has", {}, onnx::TensorProto::BOOL);
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_EQ(graph->value(graph->inputs[0]).kind, ValueKind::kOptionalSequence);
  const auto bytes = WriteOnnxBytes(*graph);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  const auto again = ReadOnnxBytes(Bytes(*bytes), "again");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->value(again->inputs[0]).kind, ValueKind::kOptionalSequence);
}

}  // namespace subgraph_test
}  // namespace octet::test

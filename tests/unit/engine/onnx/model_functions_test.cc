// Functions that a model brings: a call becomes the function's nodes, under names that tell whose call it was.
#include <chrono>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/ops/op.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"
#include "tests/unit/engine/onnx/model_builder.h"

namespace octet::test {
namespace model_functions_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Names = std::vector<std::string>;

onnx::NodeProto MakeNode(const std::string& op, const Names& inputs, const Names& outputs,
                         const std::string& domain = "") {
  onnx::NodeProto node;
  node.set_op_type(op);
  node.set_domain(domain);
  for (const std::string& name : inputs) node.add_input(name);
  for (const std::string& name : outputs) node.add_output(name);
  return node;
}

onnx::FunctionProto& AddFunction(onnx::ModelProto& model, const std::string& name,
                                 const Names& inputs, const Names& outputs, int opset = 17) {
  onnx::FunctionProto& function = *model.add_functions();
  function.set_domain("local");
  function.set_name(name);
  for (const std::string& input : inputs) function.add_input(input);
  for (const std::string& output : outputs) function.add_output(output);
  function.add_opset_import()->set_version(opset);
  return function;
}

void AddInt(onnx::NodeProto& node, const std::string& name, int64_t value) {
  onnx::AttributeProto& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_type(onnx::AttributeProto::INT);
  attribute.set_i(value);
}

void AddReference(onnx::NodeProto& node, const std::string& name, const std::string& to,
                  onnx::AttributeProto::AttributeType type = onnx::AttributeProto::INT) {
  onnx::AttributeProto& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_type(type);
  attribute.set_ref_attr_name(to);
}

/// x [2, 2] -> local:F 'call' -> y.
onnx::ModelProto Calling(const Names& inputs = {"x"}, const Names& outputs = {"y"}) {
  onnx::ModelProto model = EmptyModel(17);
  *model.mutable_graph()->add_input() = TensorInfo("x", {2, 2});
  *model.mutable_graph()->add_output() = TensorInfo("y", {2, 2});
  onnx::NodeProto& call = *model.mutable_graph()->add_node();
  call = MakeNode("F", inputs, outputs, "local");
  call.set_name("call");
  return model;
}

std::string ErrorOf(const onnx::ModelProto& model,
                    absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
  const auto graph = Read(model);
  EXPECT_EQ(graph.status().code(), code) << graph.status();
  return std::string(Message(graph.status()));
}

Names NodeNames(const Graph& graph) {
  Names names;
  for (const NodeId id : graph.order()) names.push_back(graph.node(id).name);
  return names;
}

TEST(ModelFunctionsTest, ACallBecomesTheFunctionsNodes) {
  onnx::ModelProto model = Calling();
  onnx::FunctionProto& function = AddFunction(model, "F", {"a"}, {"b"});
  // Not in order, as in a graph.
  *function.add_node() = MakeNode("Neg", {"x"}, {"b"});
  *function.add_node() = MakeNode("Relu", {"a"}, {"x"});
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_THAT(*graph, HasOps({"Relu", "Neg"}));
  EXPECT_THAT(NodeNames(*graph), ElementsAre("call/x", "call/b"));
  EXPECT_EQ(graph->node(graph->order()[0]).version, 17);
  // The function's x is not the graph's.
  EXPECT_NE(graph->FindValue("call/x"), kNone);
  EXPECT_EQ(graph->value(graph->outputs[0]).name, "y");
}

TEST(ModelFunctionsTest, EveryCallHasValuesOfItsOwn) {
  onnx::ModelProto model = Calling({"x"}, {"h"});
  *model.mutable_graph()->add_node() = MakeNode("F", {"h"}, {"call/x"}, "local");
  *model.mutable_graph()->add_node() = MakeNode("F", {"call/x"}, {"y"}, "local");
  onnx::FunctionProto& function = AddFunction(model, "F", {"a"}, {"b"});
  *function.add_node() = MakeNode("Relu", {"a"}, {"x"});
  *function.add_node() = MakeNode("Neg", {"x"}, {"b"});
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_THAT(*graph, HasOps({"Relu", "Neg", "Relu", "Neg", "Relu", "Neg"}));
  // A call without a name goes by its first output; a name that the graph has is made another.
  EXPECT_THAT(NodeNames(*graph),
              ElementsAre("call/x", "call/b", "call/x/x", "call/x/b", "y/x", "y/b"));
  Names names;
  for (ValueId id = 0; id < graph->value_count(); ++id) names.push_back(graph->value(id).name);
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), names.size());
  EXPECT_TRUE(WriteOnnxBytes(*graph).ok());
}

TEST(ModelFunctionsTest, AttributesComeFromTheCallOrTheFunctionsDefaults) {
  for (const bool given : {false, true}) {
    onnx::ModelProto model = Calling();
    if (given) AddInt(*model.mutable_graph()->mutable_node(0), "which", 0);
    onnx::FunctionProto& function = AddFunction(model, "F", {"a"}, {"b"});
    onnx::AttributeProto& fallback = *function.add_attribute_proto();
    fallback.set_name("which");
    fallback.set_type(onnx::AttributeProto::INT);
    fallback.set_i(1);
    function.add_attribute("absent");
    onnx::NodeProto& softmax = *function.add_node();
    softmax = MakeNode("Softmax", {"a"}, {"s"});
    AddReference(softmax, "axis", "which");
    onnx::NodeProto& plain = *function.add_node();
    plain = MakeNode("Softmax", {"s"}, {"b"});
    AddReference(plain, "axis", "absent");
    const auto graph = Read(model);
    ASSERT_TRUE(graph.ok()) << graph.status();
    EXPECT_EQ(graph->node(graph->order()[0]).attributes.IntOr("axis", -9), given ? 0 : 1);
    EXPECT_FALSE(graph->node(graph->order()[1]).attributes.has("axis"));
  }
}

TEST(ModelFunctionsTest, ANestedCallHandsAttributesOn) {
  onnx::ModelProto model = Calling();
  AddInt(*model.mutable_graph()->mutable_node(0), "outer", 0);
  onnx::FunctionProto& outer = AddFunction(model, "F", {"a"}, {"b"});
  outer.add_attribute("outer");
  onnx::NodeProto& call = *outer.add_node();
  call = MakeNode("G", {"a"}, {"b"}, "local");
  AddReference(call, "inner", "outer");
  onnx::FunctionProto& inner = AddFunction(model, "G", {"p"}, {"q"});
  inner.add_attribute("inner");
  onnx::NodeProto& softmax = *inner.add_node();
  softmax = MakeNode("Softmax", {"p"}, {"q"});
  AddReference(softmax, "axis", "inner");
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_THAT(NodeNames(*graph), ElementsAre("call/b/q"));
  EXPECT_EQ(graph->node(graph->order()[0]).attributes.IntOr("axis", -9), 0);
}

TEST(ModelFunctionsTest, WhatACallLeavesOutIsLeftOutInside) {
  onnx::ModelProto model = Calling({"x", "", "x"}, {"", "y"});
  onnx::FunctionProto& function = AddFunction(model, "F", {"a", "low", "high", "more"}, {"b", "c"});
  *function.add_node() = MakeNode("Clip", {"a", "low", "more"}, {"c"});
  *function.add_node() = MakeNode("Neg", {"high"}, {"b"});
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_THAT(*graph, HasOps({"Clip", "Neg"}));
  EXPECT_EQ(graph->node(graph->order()[0]).inputs.size(), 1);
}

TEST(ModelFunctionsTest, AnInputThatIsAnOutputIsCopied) {
  onnx::ModelProto model = Calling({"x"}, {"h", "y", "z"});
  onnx::FunctionProto& function = AddFunction(model, "F", {"a"}, {"b", "a", "b"});
  *function.add_node() = MakeNode("Neg", {"a"}, {"b"});
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_THAT(*graph, HasOps({"Neg", "Identity", "Identity"}));
  const Node& y = graph->node(graph->producer(graph->outputs[0]));
  EXPECT_EQ(y.inputs[0], graph->inputs[0]);
}

TEST(ModelFunctionsTest, ACopyNeedsNoImportOfOnnxsDomain) {
  onnx::ModelProto model = Calling();
  model.mutable_opset_import(0)->set_domain("local");
  AddFunction(model, "F", {"a"}, {"a"}).mutable_opset_import(0)->set_domain("local");
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_EQ(TheOnly(*graph, "Identity").version, kMaxOpset);
}

// Bytes that the model's file does not hold are not among those that calls may add.
TEST(ModelFunctionsTest, CallsShareWhatLiesBesideTheFile) {
  onnx::ModelProto model = Calling({"x"}, {"h0"});
  for (int i = 0; i < 9; ++i) {
    const std::string next = i == 8 ? "y" : "h" + std::to_string(i + 1);
    *model.mutable_graph()->add_node() = MakeNode("F", {"h" + std::to_string(i)}, {next}, "local");
  }
  onnx::FunctionProto& function = AddFunction(model, "F", {"a"}, {"b"});
  onnx::NodeProto& constant = *function.add_node();
  constant = MakeNode("Constant", {}, {"c"});
  onnx::AttributeProto& value = *constant.add_attribute();
  value.set_name("value");
  value.set_type(onnx::AttributeProto::TENSOR);
  onnx::TensorProto& tensor = *value.mutable_t();
  tensor.set_data_type(onnx::TensorProto::FLOAT);
  tensor.add_dims(2);
  tensor.set_data_location(onnx::TensorProto::EXTERNAL);
  using Entry = std::pair<std::string, std::string>;
  for (const auto& [key, text] : {Entry("location", "c.bin"), Entry("offset", "4")}) {
    onnx::StringStringEntryProto& entry = *tensor.add_external_data();
    entry.set_key(key);
    entry.set_value(text);
  }
  *function.add_node() = MakeNode("Add", {"a", "c"}, {"b"});

  const TemporaryFolder folder;
  const std::vector<float> elements = {1, 2, 3};
  WriteText(folder / "c.bin", {reinterpret_cast<const char*>(elements.data()), 12});
  WriteText(folder / "model.onnx", model.SerializeAsString());
  const auto graph = ReadOnnxFile(folder / "model.onnx", {.max_tensor_bytes = 8});
  ASSERT_TRUE(graph.ok()) << graph.status();
  std::set<const void*> places;
  for (const NodeId id : graph->order()) {
    const Node& node = graph->node(id);
    if (node.op != "Constant") continue;
    const auto read = node.attributes.TensorOrNull("value");
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_THAT((*read)->span<float>(), ElementsAre(2, 3));
    places.insert((*read)->data());
  }
  EXPECT_EQ(places.size(), 1);
  const auto small = ReadOnnxFile(folder / "model.onnx", {.max_tensor_bytes = 7});
  EXPECT_EQ(small.status().code(), absl::StatusCode::kResourceExhausted) << small.status();
}

TEST(ModelFunctionsTest, NodesAreOfTheOpsetThatTheirFunctionImports) {
  onnx::ModelProto model = Calling();
  onnx::FunctionProto& function = AddFunction(model, "F", {"a"}, {"b"}, 11);
  // Squeeze has its axes as an attribute until opset 13.
  onnx::NodeProto& node = *function.add_node();
  node = MakeNode("Unsqueeze", {"a"}, {"b"});
  onnx::AttributeProto& axes = *node.add_attribute();
  axes.set_name("axes");
  axes.set_type(onnx::AttributeProto::INTS);
  axes.add_ints(0);
  *model.mutable_graph()->mutable_output(0) = TensorInfo("y", {1, 2, 2});
  auto graph = Read(model);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_EQ(graph->node(graph->order()[0]).version, 11);
  EXPECT_TRUE(InferShapes(*graph).ok());

  function.clear_opset_import();
  EXPECT_THAT(ErrorOf(model), HasSubstr("no opset import for domain '' of Unsqueeze 'call/b'"));
  function.add_opset_import()->set_version(kMaxOpset + 1);
  EXPECT_THAT(ErrorOf(model, absl::StatusCode::kUnimplemented),
              HasSubstr("F 'call' (opset 1): unsupported opset: expected 1 to "));
}

TEST(ModelFunctionsTest, TheOverloadChooses) {
  onnx::ModelProto model = Calling();
  model.mutable_graph()->mutable_node(0)->set_overload("two");
  for (const char* overload : {"one", "two"}) {
    onnx::FunctionProto& function = AddFunction(model, "F", {"a"}, {"b"});
    function.set_overload(overload);
    *function.add_node() = MakeNode(std::string(overload) == "one" ? "Neg" : "Relu", {"a"}, {"b"});
  }
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_THAT(*graph, HasOps({"Relu"}));
  model.mutable_functions(0)->set_overload("two");
  EXPECT_THAT(ErrorOf(model), HasSubstr("function is defined twice: 'F' of domain 'local'"));
}

// F(a, a, flag) { b = flag ? p : Neg(q) }: in a body the call's names are captures, and two of them are one value.
TEST(ModelFunctionsTest, ASubgraphOfAFunctionCapturesWhatTheCallGives) {
  onnx::ModelProto model = Calling({"x", "x", "flag"});
  *model.mutable_graph()->add_input() = TensorInfo("flag", {}, onnx::TensorProto::BOOL);
  onnx::FunctionProto& function = AddFunction(model, "F", {"p", "q", "flag"}, {"b"});
  function.add_attribute("axis");
  AddInt(*model.mutable_graph()->mutable_node(0), "axis", 0);
  onnx::NodeProto& node = *function.add_node();
  node = MakeNode("If", {"flag"}, {"b"});
  for (const char* branch : {"then_branch", "else_branch"}) {
    onnx::AttributeProto& attribute = *node.add_attribute();
    attribute.set_name(branch);
    attribute.set_type(onnx::AttributeProto::GRAPH);
    onnx::GraphProto& body = *attribute.mutable_g();
    *body.add_output() = TensorInfo("out", {2, 2});
    // A call in the body, and a reference to the function's attribute.
    *body.add_node() = MakeNode("G", {branch[0] == 't' ? "p" : "q", "p"}, {"sum"}, "local");
    onnx::NodeProto& softmax = *body.add_node();
    softmax = MakeNode("Softmax", {"sum"}, {"out"});
    AddReference(softmax, "axis", "axis");
  }
  *AddFunction(model, "G", {"a", "b"}, {"c"}).add_node() = MakeNode("Add", {"a", "b"}, {"c"});
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok()) << graph.status();
  const Node& taken = TheOnly(*graph, "If");
  EXPECT_EQ(taken.name, "call/b");
  EXPECT_THAT(taken.inputs, ElementsAre(graph->FindValue("flag"), graph->FindValue("x")));
  for (const char* branch : {"then_branch", "else_branch"}) {
    const Graph& body = **taken.attributes.GraphOrNull(branch);
    EXPECT_EQ(body.inputs.size(), 1);
    EXPECT_THAT(body, HasOps({"Add", "Softmax"}));
    EXPECT_THAT(NodeNames(body), ElementsAre("call/sum/c", "call/out"));
    EXPECT_EQ(TheOnly(body, "Softmax").attributes.IntOr("axis", -9), 0);
  }
  EXPECT_TRUE(WriteOnnxBytes(*graph).ok());
}

TEST(ModelFunctionsTest, RefusesACallThatDoesNotFit) {
  const auto made = [](const Names& inputs, const Names& outputs) {
    onnx::ModelProto model = Calling(inputs, outputs);
    *AddFunction(model, "F", {"a"}, {"b"}).add_node() = MakeNode("Neg", {"a"}, {"b"});
    return model;
  };
  EXPECT_THAT(ErrorOf(made({"x", "x"}, {"y"})),
              HasSubstr("F 'call' (opset 1): the function has 1 inputs, the call 2"));
  EXPECT_THAT(ErrorOf(made({"x"}, {"y", "z"})),
              HasSubstr("the function has 1 outputs, the call 2"));
  onnx::ModelProto model = made({"x"}, {"y"});
  AddInt(*model.mutable_graph()->mutable_node(0), "axis", 0);
  EXPECT_THAT(ErrorOf(model), HasSubstr("the function has no attribute 'axis'"));
  model = made({"x"}, {"y"});
  model.mutable_functions(0)->set_output(0, "c");
  EXPECT_THAT(ErrorOf(model), HasSubstr("output of the function is defined nowhere: 'c'"));
  model = made({"x"}, {"y"});
  // The graph's values are not the function's.
  model.mutable_functions(0)->mutable_node(0)->set_input(0, "x");
  EXPECT_THAT(ErrorOf(model), HasSubstr("Neg 'call/b' (opset 17): input is defined nowhere: 'x'"));
  model = made({""}, {"y"});
  model.mutable_functions(0)->set_output(0, "a");
  model.mutable_functions(0)->mutable_node(0)->set_output(0, "c");
  EXPECT_THAT(ErrorOf(model), HasSubstr("output 0 is an input that the call leaves out"));
  model = made({"x"}, {"y"});
  model.mutable_functions(0)->mutable_node(0)->set_output(0, "a");
  EXPECT_THAT(ErrorOf(model), HasSubstr("value is defined twice: 'call/a'"));
}

TEST(ModelFunctionsTest, RefusesAnAttributeOfAnotherType) {
  onnx::ModelProto model = Calling();
  AddInt(*model.mutable_graph()->mutable_node(0), "alpha", 1);
  onnx::FunctionProto& function = AddFunction(model, "F", {"a"}, {"b"});
  function.add_attribute("alpha");
  onnx::NodeProto& node = *function.add_node();
  node = MakeNode("LeakyRelu", {"a"}, {"b"});
  AddReference(node, "alpha", "alpha", onnx::AttributeProto::FLOAT);
  EXPECT_THAT(ErrorOf(model),
              HasSubstr("LeakyRelu 'call/b' (opset 17): attribute 'alpha' is declared as "
                        "FLOAT, but the function is called with INT"));
  onnx::AttributeProto& graph = *model.mutable_graph()->mutable_node(0)->mutable_attribute(0);
  graph.set_type(onnx::AttributeProto::GRAPH);
  graph.clear_i();
  EXPECT_THAT(ErrorOf(model, absl::StatusCode::kUnimplemented),
              HasSubstr("unsupported attribute 'alpha', a sub-graph"));
}

TEST(ModelFunctionsTest, RefusesRecursion) {
  onnx::ModelProto model = Calling();
  *AddFunction(model, "F", {"a"}, {"b"}).add_node() = MakeNode("G", {"a"}, {"b"}, "local");
  *AddFunction(model, "G", {"a"}, {"b"}).add_node() = MakeNode("F", {"a"}, {"b"}, "local");
  EXPECT_THAT(ErrorOf(model), HasSubstr("F 'call/b/b' (opset 1): the function calls itself"));
}

TEST(ModelFunctionsTest, RefusesCallsThatNestTooDeep) {
  onnx::ModelProto model = Calling();
  model.mutable_graph()->mutable_node(0)->set_op_type("F0");
  for (int i = 0; i < 1000; ++i) {
    *AddFunction(model, "F" + std::to_string(i), {"a"}, {"b"}).add_node() = MakeNode(
        i == 999 ? "Neg" : "F" + std::to_string(i + 1), {"a"}, {"b"}, i == 999 ? "" : "local");
  }
  EXPECT_THAT(ErrorOf(model), HasSubstr("functions and sub-graphs nest too deep: at most 32"));
}

/// Functions that each call the next one twice: 2^levels nodes.
onnx::ModelProto Doubling(int levels) {
  onnx::ModelProto model = Calling();
  model.mutable_graph()->mutable_node(0)->set_op_type("F0");
  for (int i = 0; i < levels; ++i) {
    onnx::FunctionProto& function = AddFunction(model, "F" + std::to_string(i), {"a"}, {"b"});
    const bool last = i + 1 == levels;
    const std::string next = last ? "Neg" : "F" + std::to_string(i + 1);
    *function.add_node() = MakeNode(next, {"a"}, {"h"}, last ? "" : "local");
    *function.add_node() = MakeNode(next, {"h"}, {"b"}, last ? "" : "local");
  }
  return model;
}

TEST(ModelFunctionsTest, RefusesDoublingWithoutEnd) {
  const auto graph = Read(Doubling(6));
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_EQ(graph->order().size(), 64);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THAT(ErrorOf(Doubling(30), absl::StatusCode::kResourceExhausted),
              HasSubstr("calls of the model's functions add too much: at most 131072 nodes"));
  // Functions of nothing but calls are nodes, too.
  onnx::ModelProto model = Doubling(30);
  model.mutable_functions(29)->clear_node();
  model.mutable_functions(29)->set_output(0, "a");
  ErrorOf(model, absl::StatusCode::kResourceExhausted);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(ModelFunctionsTest, RefusesLongAttributesWithoutEnd) {
  onnx::ModelProto model = Calling();
  onnx::AttributeProto& list = *model.mutable_graph()->mutable_node(0)->add_attribute();
  list.set_name("list");
  list.set_type(onnx::AttributeProto::INTS);
  for (int i = 0; i < 1 << 18; ++i) list.add_ints(int64_t{1} << 62);
  onnx::FunctionProto& function = AddFunction(model, "F", {"a"}, {"b"});
  function.add_attribute("list");
  for (int i = 0; i < 1000; ++i) {
    onnx::NodeProto& node = *function.add_node();
    node = MakeNode("Neg", {"a"}, {i == 0 ? "b" : "n" + std::to_string(i)});
    AddReference(node, "list", "list", onnx::AttributeProto::INTS);
  }
  EXPECT_THAT(ErrorOf(model, absl::StatusCode::kResourceExhausted),
              HasSubstr("calls of the model's functions add too much"));
}

}  // namespace model_functions_test
}  // namespace octet::test

#include "engine/graph/graph.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"

namespace octet {
namespace graph_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

ValueId AddF32(Graph& graph, std::string name, Shape shape = {1}) {
  return graph.AddValue({.name = std::move(name), .dtype = DType::kF32, .shape = std::move(shape)});
}

NodeId AddOp(Graph& graph, std::string op, std::vector<ValueId> inputs,
             std::vector<ValueId> outputs) {
  Node node{.name = graph.value(outputs[0]).name + "_node", .op = std::move(op), .version = 13};
  node.inputs = std::move(inputs);
  node.outputs = std::move(outputs);
  return graph.AddNode(std::move(node));
}

// x -> Relu -> a -> Neg -> y, and a, c -> Add -> z.
class GraphTest : public testing::Test {
 protected:
  GraphTest() {
    x = AddF32(graph, "x");
    a = AddF32(graph, "a");
    c = graph.AddConstant("c", Tensor::From<float>({1}, {2}));
    y = AddF32(graph, "y");
    z = AddF32(graph, "z");
    graph.inputs = {x};
    graph.outputs = {y, z};
    relu = AddOp(graph, "Relu", {x}, {a});
    neg = AddOp(graph, "Neg", {a}, {y});
    add = AddOp(graph, "Add", {a, c}, {z});
  }
  ~GraphTest() override {
    const absl::Status status = Verify(graph);
    EXPECT_TRUE(status.ok()) << status.ToString();
  }

  Graph graph;
  ValueId x, a, c, y, z;
  NodeId relu, neg, add;
};

TEST_F(GraphTest, KnowsProducersAndReaders) {
  EXPECT_EQ(graph.producer(x), kNone);
  EXPECT_EQ(graph.producer(a), relu);
  EXPECT_THAT(graph.consumers(a), UnorderedElementsAre(neg, add));
  EXPECT_TRUE(graph.is_graph_input(x));
  EXPECT_TRUE(graph.is_graph_output(z));
  EXPECT_EQ(graph.FindValue("z"), z);
  EXPECT_EQ(graph.FindValue("none"), kNone);
  EXPECT_EQ(graph.FindNode("y_node"), neg);
}

TEST_F(GraphTest, ListsAReaderOncePerSlot) {
  const ValueId square = AddF32(graph, "square");
  const NodeId mul = AddOp(graph, "Mul", {y, y}, {square});
  EXPECT_THAT(graph.consumers(y), ElementsAre(mul, mul));
  EXPECT_EQ(graph.SoleConsumer(y), kNone);
  graph.SetInput(mul, 1, z);
  EXPECT_THAT(graph.consumers(y), ElementsAre(mul));
}

TEST_F(GraphTest, HasASoleConsumerOnlyWhereNobodyElseSeesTheValue) {
  EXPECT_EQ(graph.SoleConsumer(x), relu);
  EXPECT_EQ(graph.SoleConsumer(a), kNone) << "two readers";
  graph.SetInput(add, 0, x);
  EXPECT_EQ(graph.SoleConsumer(a), neg);
  graph.outputs.push_back(a);
  EXPECT_EQ(graph.SoleConsumer(a), kNone) << "the caller sees it, too";
}

TEST_F(GraphTest, AppendsInputsAndLeavesGapsAbsent) {
  EXPECT_EQ(graph.AppendInput(neg, c), 1u);
  graph.SetInput(neg, 4, c);
  EXPECT_THAT(graph.node(neg).inputs, ElementsAre(a, c, kNone, kNone, c));
  EXPECT_THAT(graph.consumers(c), UnorderedElementsAre(add, neg, neg));
  graph.SetInput(neg, 1, kNone);
  EXPECT_THAT(graph.consumers(c), UnorderedElementsAre(add, neg));
}

TEST_F(GraphTest, InsertsBesideAPosition) {
  const ValueId b = AddF32(graph, "b");
  const NodeId after =
      graph.InsertNodeAfter(relu, {.name = "after", .op = "Abs", .inputs = {a}, .outputs = {b}});
  const ValueId d = AddF32(graph, "d");
  const NodeId before =
      graph.InsertNodeBefore(relu, {.name = "before", .op = "Abs", .inputs = {x}, .outputs = {d}});
  EXPECT_THAT(graph.order(), ElementsAre(before, relu, after, neg, add));
}

TEST_F(GraphTest, ReplacesUsesAndMovesTheNameOfAGraphOutput) {
  graph.ReplaceUses(y, a);
  EXPECT_THAT(graph.outputs, ElementsAre(a, z));
  EXPECT_EQ(graph.value(a).name, "y");
  EXPECT_NE(graph.value(y).name, "y");
  EXPECT_EQ(graph.RemoveDead(), 1);
  EXPECT_FALSE(graph.alive(neg));
}

TEST_F(GraphTest, ReplacesEverySlot) {
  const ValueId square = AddF32(graph, "square");
  const NodeId mul = AddOp(graph, "Mul", {a, a}, {square});
  graph.ReplaceUses(a, x);
  EXPECT_THAT(graph.node(mul).inputs, ElementsAre(x, x));
  EXPECT_TRUE(graph.consumers(a).empty());
  EXPECT_EQ(graph.consumers(x).size(), 5u);
}

TEST_F(GraphTest, KeepsAnOutputApartFromAnInputThatTakesItsPlace) {
  graph.ReplaceUses(y, x);
  ASSERT_EQ(graph.outputs.size(), 2u);
  const ValueId output = graph.outputs[0];
  EXPECT_NE(output, x);
  EXPECT_EQ(graph.value(x).name, "x");
  EXPECT_EQ(graph.value(output).name, "y");
  EXPECT_EQ(graph.node(graph.producer(output)).op, "Identity");
  EXPECT_EQ(graph.node(graph.producer(output)).version, 13);
}

TEST_F(GraphTest, KeepsTwoOutputsApart) {
  graph.ReplaceUses(y, z);
  EXPECT_EQ(graph.value(graph.outputs[0]).name, "y");
  EXPECT_EQ(graph.value(graph.outputs[1]).name, "z");
  EXPECT_NE(graph.UniqueName("y"), "y");
  EXPECT_NE(graph.UniqueName("z"), "z");
}

TEST_F(GraphTest, RemovesDeadChainsAndTheirConstants) {
  const ValueId p = AddF32(graph, "p");
  const ValueId q = AddF32(graph, "q");
  const ValueId k = graph.AddConstant("k", Tensor::From<float>({1}, {1}));
  AddOp(graph, "Add", {a, k}, {p});
  AddOp(graph, "Neg", {p}, {q});
  EXPECT_EQ(graph.RemoveDead(), 2);
  EXPECT_THAT(graph.order(), ElementsAre(relu, neg, add));
  EXPECT_FALSE(graph.value(k).is_constant()) << "its bytes are released";
  EXPECT_TRUE(graph.value(c).is_constant());
  EXPECT_EQ(graph.RemoveDead(), 0);
}

TEST_F(GraphTest, ANewProducerTakesOverFromTheOneThatIsRemoved) {
  const NodeId other =
      graph.InsertNodeBefore(neg, {.name = "other", .op = "Abs", .inputs = {a}, .outputs = {y}});
  graph.RemoveNode(neg);
  EXPECT_EQ(graph.producer(y), other);
}

TEST_F(GraphTest, SetOutputMovesTheProducer) {
  const ValueId b = AddF32(graph, "b");
  graph.SetOutput(neg, 0, b);
  EXPECT_EQ(graph.producer(y), kNone);
  EXPECT_EQ(graph.producer(b), neg);
  graph.SetOutput(neg, 0, y);
}

TEST_F(GraphTest, SortKeepsAnOrderThatIsAlreadyRight) {
  ASSERT_TRUE(graph.Sort().ok());
  EXPECT_THAT(graph.order(), ElementsAre(relu, neg, add));
}

TEST_F(GraphTest, SortPutsProducersFirst) {
  const ValueId pre = AddF32(graph, "pre");
  const NodeId abs = AddOp(graph, "Abs", {x}, {pre});  // At the end, ...
  graph.SetInput(relu, 0, pre);                        // ... and read by the first.
  EXPECT_FALSE(Verify(graph).ok());
  ASSERT_TRUE(graph.Sort().ok());
  EXPECT_THAT(graph.order(), ElementsAre(abs, relu, neg, add));
}

TEST_F(GraphTest, SortNamesANodeOnTheCycle) {
  const ValueId tail = AddF32(graph, "tail");
  AddOp(graph, "Abs", {y}, {tail});  // Behind the cycle, not on it.
  graph.SetInput(relu, 0, y);        // relu -> neg -> relu.
  const absl::Status status = graph.Sort();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(status)),
              testing::AnyOf(HasSubstr("Relu 'a_node'"), HasSubstr("Neg 'y_node'")));
  graph.SetInput(relu, 0, x);
}

TEST_F(GraphTest, MakesNamesThatNobodyHas) {
  EXPECT_EQ(graph.UniqueName("fresh"), "fresh");
  const std::string first = graph.UniqueName("x");
  EXPECT_NE(first, "x");
  AddF32(graph, first);
  EXPECT_NE(graph.UniqueName("x"), first);
  const ValueId again = graph.AddConstant("c", Tensor::Scalar(1.0f));
  EXPECT_NE(graph.value(again).name, "c");
}

TEST_F(GraphTest, CopiesShareConstantsAndNothingElse) {
  Graph copy = graph;
  EXPECT_EQ(copy.value(c).constant.data(), graph.value(c).constant.data());
  copy.RemoveNode(neg);
  copy.mutable_value(x).name = "renamed";
  EXPECT_TRUE(graph.alive(neg));
  EXPECT_EQ(graph.value(x).name, "x");
}

TEST_F(GraphTest, DumpsOneLinePerNode) {
  graph.name = "net";
  graph.mutable_node(neg).post_ops = {{.kind = PostOp::Kind::kRelu},
                                      {.kind = PostOp::Kind::kClip, .alpha = 0, .beta = 6},
                                      {.kind = PostOp::Kind::kAdd, .operand = 2}};
  graph.SetInput(neg, 2, c);
  graph.mutable_node(neg).domain = kOctetDomain;
  graph.mutable_node(add).attributes.Set("axes", std::vector<int64_t>{1, 2});
  graph.mutable_node(add).attributes.Set("mode", std::string("up"));
  graph.mutable_node(add).attributes.Set("t", Tensor::From<int64_t>({2}, {3, 4}));
  graph.mutable_value(y).dtype = DType::kU8;
  graph.mutable_value(y).quant = QuantParams::PerTensor(0.5f, 3);
  graph.mutable_value(z).shape = Shape{kUnknownDim, 2};
  EXPECT_EQ(Dump(graph),
            "graph 'net'\n"
            "input %x:f32[1]\n"
            "constant %c:f32[1] (2)\n"
            "  %a:f32[1] = Relu(%x)\n"
            "  %y:u8[1]{scale=0.5, zero_point=3} = octet:Neg(%a, _, %c) + relu + clip(0, 6) + "
            "add(%c)\n"
            "  %z:f32[?,2] = Add(%a, %c) {axes=[1,2], mode='up', t=i64[2](3, 4)}\n"
            "output %y:u8[1]{scale=0.5, zero_point=3}\n"
            "output %z:f32[?,2]\n");
}

TEST_F(GraphTest, DescribesANodeWithOperatorAndOpset) {
  EXPECT_EQ(Describe(graph.node(relu)), "Relu 'a_node' (opset 13)");
  const Node node{.name = "q", .op = "QLinearAdd", .domain = "com.microsoft", .version = 1};
  EXPECT_EQ(Describe(node), "com.microsoft:QLinearAdd 'q' (opset 1)");
}

TEST(UniqueNames, AreTakenByRenamingToo) {
  Graph graph;
  const ValueId x = AddF32(graph, "x");
  EXPECT_NE(graph.UniqueName("x"), "x");
  graph.mutable_value(x).name = "y";
  EXPECT_NE(graph.UniqueName("y"), "y");
  EXPECT_EQ(graph.UniqueName("x"), "x") << "nobody has it any more";
  EXPECT_EQ(graph.UniqueName("z"), "z");
  EXPECT_NE(graph.UniqueName("z"), "z");
}

// To look through all values for each name would take minutes.
TEST(UniqueNames, AreFoundWithoutLookingAtEveryValue) {
  Graph graph;
  const Tensor one = Tensor::From<float>({1}, {2});
  for (int i = 0; i < 200'000; ++i) graph.AddConstant("c", one);
  EXPECT_EQ(graph.value(graph.value_count() - 1).name, "c_199998");
}

TEST(PrecisionTest, NamesRoundTrip) {
  for (const Precision precision : kAllPrecisions) {
    EXPECT_EQ(ParsePrecision(PrecisionName(precision)), precision);
  }
  EXPECT_EQ(PrecisionName(Precision::kInt8Dynamic), "int8-dynamic");
  EXPECT_EQ(ParsePrecision("int4"), std::nullopt);
}

}  // namespace graph_test
}  // namespace octet

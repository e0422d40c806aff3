// GroupQueryAttention's fast form against its body, which ONNX Runtime's answers are compared with in tests/e2e.
#include "engine/ops/group_query.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/tensor/quantize.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace group_query_test {

using testing::Elements;
using ::testing::HasSubstr;
using testing::LowerAndRun;
using testing::OneNode;
using testing::RandomReals;

constexpr int64_t kHeads = 6;
constexpr int64_t kKvHeads = 2;

/// What a call is given, and what of it is optional.
struct Case {
  const char* name;
  int64_t batch;
  int64_t rows;
  int64_t room;                  ///< Positions that the past has room for; -1: there is no past.
  std::vector<int32_t> lengths;  ///< Of each sequence with the new positions, less one.
  int32_t total;
  int64_t head_size = 16;
  int64_t pairs = 0;  ///< That are turned; 0: none.
  bool interleaved = false;
  bool packed = false;
  bool positions = false;
  bool bias = false;
  bool sink = false;
  int64_t window = -1;
  float softcap = 0;
  bool smooth = false;
  int outputs = 3;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

const Case kCases[] = {
    {.name = "Prompt", .batch = 2, .rows = 5, .room = -1, .lengths = {4, 4}, .total = 5},
    {.name = "LongPrompt",
     .batch = 1,
     .rows = 37,
     .room = 0,
     .lengths = {36},
     .total = 37,
     .pairs = 8},
    {.name = "PromptIntoABuffer",
     .batch = 1,
     .rows = 5,
     .room = 9,
     .lengths = {4},
     .total = 5,
     .pairs = 8},
    {.name = "GoesOn", .batch = 1, .rows = 1, .room = 6, .lengths = {6}, .total = 7, .pairs = 8},
    {.name = "GoesOnInABuffer",
     .batch = 1,
     .rows = 1,
     .room = 11,
     .lengths = {6},
     .total = 7,
     .pairs = 8},
    {.name = "GoesOnWithSeveral",
     .batch = 1,
     .rows = 4,
     .room = 6,
     .lengths = {9},
     .total = 10,
     .pairs = 8},
    {.name = "SeveralIntoABuffer",
     .batch = 1,
     .rows = 4,
     .room = 12,
     .lengths = {8},
     .total = 10,
     .pairs = 4,
     .interleaved = true},
    {.name = "SeveralLengths",
     .batch = 3,
     .rows = 1,
     .room = 8,
     .lengths = {4, 8, -1},
     .total = 9,
     .pairs = 8},
    {.name = "BoundOfABuffer",
     .batch = 2,
     .rows = 1,
     .room = 9,
     .lengths = {2, 5},
     .total = 9,
     .pairs = 8},
    {.name = "Packed",
     .batch = 2,
     .rows = 3,
     .room = 4,
     .lengths = {2, 2},
     .total = 3,
     .pairs = 5,
     .packed = true},
    {.name = "PackedGoesOn",
     .batch = 2,
     .rows = 1,
     .room = 4,
     .lengths = {4, 3},
     .total = 5,
     .pairs = 8,
     .interleaved = true,
     .packed = true},
    {.name = "Positions",
     .batch = 2,
     .rows = 3,
     .room = -1,
     .lengths = {2, 2},
     .total = 3,
     .pairs = 8,
     .positions = true},
    {.name = "Bias", .batch = 2, .rows = 1, .room = 8, .lengths = {4, 6}, .total = 7, .bias = true},
    {.name = "Sink",
     .batch = 1,
     .rows = 7,
     .room = -1,
     .lengths = {6},
     .total = 7,
     .bias = true,
     .sink = true,
     .window = 3},
    {.name = "Window",
     .batch = 1,
     .rows = 20,
     .room = -1,
     .lengths = {19},
     .total = 20,
     .window = 2,
     .softcap = 0.5F,
     .smooth = true},
    {.name = "WideHeads",
     .batch = 1,
     .rows = 2,
     .room = 3,
     .lengths = {4},
     .total = 5,
     .head_size = 100,
     .pairs = 50},
    {.name = "NoOutputsButTheFirst",
     .batch = 2,
     .rows = 1,
     .room = 5,
     .lengths = {5, 2},
     .total = 6,
     .pairs = 8,
     .outputs = 1},
    {.name = "NoNewPositions", .batch = 2, .rows = 0, .room = 5, .lengths = {2, 2}, .total = 3},
};

OneNode Node(const Case& c) {
  const int64_t keys = kKvHeads * c.head_size;
  const int64_t queries = kHeads * c.head_size;
  OneNode node("GroupQueryAttention", 1, kMicrosoftDomain);
  node.Input(RandomReals({c.batch, c.rows, queries + (c.packed ? 2 * keys : 0)}, 1, -2, 2));
  for (const uint32_t seed : {2, 3}) {
    if (c.packed) {
      node.Absent();
    } else {
      node.Input(RandomReals({c.batch, c.rows, keys}, seed, -2, 2));
    }
  }
  for (const uint32_t seed : {4, 5}) {
    if (c.room < 0) {
      node.Absent();
    } else {
      node.Input(RandomReals({c.batch, kKvHeads, c.room, c.head_size}, seed, -2, 2));
    }
  }
  node.Input(Tensor::From<int32_t>(Shape{c.batch}, c.lengths));
  node.Constant(Tensor::Scalar<int32_t>(c.total));
  for (const uint32_t seed : {6, 7}) {
    if (c.pairs == 0) {
      node.Absent();
    } else {
      node.Constant(RandomReals({64, c.pairs}, seed));
    }
  }
  if (c.positions) {
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < c.batch * c.rows; ++i) ids.push_back(i * 7 % 64);
    node.Input(Tensor::From<int64_t>(Shape{c.batch, c.rows}, ids));
  } else {
    node.Absent();
  }
  if (c.bias) {
    node.Input(RandomReals({1, kHeads, c.rows, c.total}, 8));
  } else {
    node.Absent();
  }
  if (c.sink) node.Constant(RandomReals({kHeads}, 9));
  node.Set("num_heads", kHeads)
      .Set("kv_num_heads", kKvHeads)
      .Set("do_rotary", int64_t{c.pairs > 0});
  node.Set("rotary_interleaved", int64_t{c.interleaved}).Set("local_window_size", c.window);
  node.Set("softcap", c.softcap).Set("smooth_softmax", int64_t{c.smooth});
  return node.Outputs(c.outputs);
}

class GroupQueryTest : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Calls, GroupQueryTest, ::testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(GroupQueryTest, AnswersAsItsBody) {
  const OneNode node = Node(GetParam());
  const auto expected = node.Run();
  ASSERT_TRUE(expected.ok()) << expected.status();
  for (const int threads : {1, 3}) {
    const auto lowered = testing::Lower(node, {.isa = "test", .threads = threads});
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    EXPECT_EQ(lowered->layer.impl, "octet:group_query");
    ASSERT_EQ(lowered->outputs.size(), expected->size());
    for (size_t i = 0; i < expected->size(); ++i) {
      const std::vector<float> want = Elements<float>((*expected)[i]);
      const std::vector<float> got = Elements<float>(lowered->outputs[i]);
      ASSERT_EQ(got.size(), want.size());
      for (size_t j = 0; j < want.size(); ++j)
        ASSERT_NEAR(got[j], want[j], 1e-4F) << "output " << i << " element " << j;
    }
  }
}

TEST(GroupQueryStepTest, ReadsAndWritesBf16) {
  const auto as_bf16 = [](const Tensor& reals) {
    Tensor narrow(DType::kBF16, reals.shape());
    ConvertTensor(reals.view(), narrow.mutable_view());
    return narrow;
  };
  OneNode node("GroupQueryAttention", 1, kMicrosoftDomain);
  node.Input(as_bf16(RandomReals({1, 5, 96}, 1)));
  for (const uint32_t seed : {2, 3}) node.Input(as_bf16(RandomReals({1, 5, 32}, seed)));
  node.Absent().Absent().Input(Tensor::From<int32_t>(Shape{1}, {4}));
  node.Constant(Tensor::Scalar<int32_t>(5)).Declare(DType::kBF16, {});
  node.Set("num_heads", kHeads).Set("kv_num_heads", kKvHeads);
  const auto expected = node.Run();
  ASSERT_TRUE(expected.ok()) << expected.status();
  const auto lowered = testing::Lower(node);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  const auto widened = [](const Tensor& narrow) {
    Tensor reals(DType::kF32, narrow.shape());
    ConvertTensor(narrow.view(), reals.mutable_view());
    return Elements<float>(reals);
  };
  const std::vector<float> want = widened((*expected)[0]);
  const std::vector<float> got = widened(lowered->outputs[0]);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 0x1p-7F) << i;
}

TEST(GroupQueryStepTest, PlansHaveItBehindAPastOfNoPositionsToo) {
  for (const int64_t room : {0, 6}) {
    const auto total = static_cast<int32_t>(room + 1);
    const Case c = {.name = "",
                    .batch = 1,
                    .rows = 1,
                    .room = room,
                    .lengths = {total - 1},
                    .total = total,
                    .pairs = 8};
    auto graph = Node(c).Infer();
    ASSERT_TRUE(graph.ok()) << graph.status();
    std::vector<Shape> shapes;
    for (const ValueId id : graph->inputs) shapes.push_back(*graph->value(id).shape);
    const auto model = Model::FromGraph(*std::move(graph), {});
    ASSERT_TRUE(model.ok()) << model.status();
    const auto plan = (*model)->PlanFor(shapes);
    ASSERT_TRUE(plan.ok()) << plan.status();
    const std::vector<LayerRecord>& layers = (*plan)->certificate().layers;
    ASSERT_EQ(layers.size(), 1U) << "it stays whole";
    EXPECT_EQ(layers[0].impl, "octet:group_query");
    EXPECT_GT(layers[0].macs, 0);
  }
}

// The same node, with a total that only the request tells: shapes and step are made for the run. The body would name an index of a
// Gather.
TEST(GroupQueryStepTest, RunsWhereTheRequestBringsTheTotal) {
  const Case c = {
      .name = "", .batch = 1, .rows = 1, .room = 6, .lengths = {6}, .total = 7, .pairs = 8};
  const OneNode node = Node(c);
  const auto expected = node.Run();
  ASSERT_TRUE(expected.ok()) << expected.status();
  auto graph = node.Infer();
  ASSERT_TRUE(graph.ok()) << graph.status();
  const ValueId total = graph->node(graph->order()[0]).inputs[GroupQuery::kTotal];
  graph->mutable_value(total).constant = Tensor();
  graph->inputs.push_back(total);
  for (const ValueId id : graph->outputs) graph->mutable_value(id).shape.reset();
  std::vector<Shape> shapes;
  for (const ValueId id : graph->inputs) shapes.push_back(*graph->value(id).shape);
  const auto model = Model::FromGraph(*std::move(graph), {});
  ASSERT_TRUE(model.ok()) << model.status();
  const auto plan = (*model)->PlanFor(shapes);
  ASSERT_TRUE(plan.ok()) << plan.status();
  std::vector<Datum> inputs;
  for (const Tensor& tensor : node.tensors()) inputs.push_back(Datum::Of(tensor));
  inputs.push_back(Datum::Of(Tensor::Scalar<int32_t>(7)));
  Workspace workspace;
  const auto got = (*plan)->RunDynamic(workspace, inputs, {});
  ASSERT_TRUE(got.ok()) << got.status();
  ASSERT_EQ(got->size(), expected->size());
  for (size_t i = 0; i < expected->size(); ++i) {
    const std::vector<float> want = Elements<float>((*expected)[i]);
    const std::vector<float> here = Elements<float>((*got)[i].tensor);
    ASSERT_EQ(here.size(), want.size());
    for (size_t j = 0; j < want.size(); ++j) ASSERT_NEAR(here[j], want[j], 1e-4F) << i << " " << j;
  }
  for (Datum& datum : inputs) {
    if (datum.tensor.dtype() == DType::kI32 && datum.tensor.shape().rank() == 1)
      datum = Datum::Of(Tensor::From<int32_t>({1}, {7}));
  }
  const auto refused = (*plan)->RunDynamic(workspace, inputs, {});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("'seqlens_k' of sequence 0: expected 0 to 6, got 7"));
}

std::string ErrorOf(const Case& c) {
  const auto lowered = testing::Lower(Node(c));
  return lowered.ok() ? "no error" : std::string(Message(lowered.status()));
}

TEST(GroupQueryStepTest, RefusesLengthsAndPositionsOutside) {
  Case c = {
      .name = "", .batch = 2, .rows = 1, .room = 8, .lengths = {4, 7}, .total = 7, .pairs = 8};
  EXPECT_THAT(ErrorOf(c), HasSubstr("'seqlens_k' of sequence 1: expected 0 to 6, got 7"));
  c.lengths = {-2, 3};
  EXPECT_THAT(ErrorOf(c), HasSubstr("'seqlens_k' of sequence 0: expected 0 to 6, got -2"));
  Case several = {.name = "", .batch = 1, .rows = 3, .room = 8, .lengths = {1}, .total = 7};
  EXPECT_THAT(ErrorOf(several), HasSubstr("'seqlens_k' of sequence 0: expected 2 to 6, got 1"));
  Case far = {
      .name = "", .batch = 1, .rows = 1, .room = 70, .lengths = {64}, .total = 65, .pairs = 8};
  EXPECT_THAT(ErrorOf(far),
              HasSubstr("position 0 of sequence 0: expected 0 to 63, as 'cos_cache' has, got 64"));
}

TEST(GroupQueryStepTest, ShapesThatDoNotFitAreNamed) {
  const auto error = [](const auto& change) {
    OneNode node("GroupQueryAttention", 1, kMicrosoftDomain);
    Shape shapes[] = {{1, 1, 96}, {1, 1, 32}, {1, 1, 32}, {1, 2, 4, 16}, {1, 2, 4, 16}};
    Shape bias = {1, 1, 1, 5};
    Shape sink = {6};
    change(shapes, bias, sink);
    for (const Shape& shape : shapes) node.Spec(DType::kF32, shape);
    node.Spec(DType::kI32, Shape{1}).Constant(Tensor::Scalar<int32_t>(5));
    node.Absent().Absent().Absent().Spec(DType::kF32, bias).Spec(DType::kF32, sink);
    node.Set("num_heads", kHeads).Set("kv_num_heads", kKvHeads);
    const auto graph = node.Outputs(3).Infer();
    return graph.ok() ? "no error" : std::string(Message(graph.status()));
  };
  EXPECT_EQ(error([](Shape*, Shape&, Shape&) {}), "no error");
  EXPECT_THAT(error([](Shape* shapes, Shape&, Shape&) { shapes[1] = {1, 1, 48}; }),
              HasSubstr("'key': expected shape [1,1,32], got [1,1,48]"));
  EXPECT_THAT(error([](Shape* shapes, Shape&, Shape&) { shapes[4] = {1, 2, 3, 16}; }),
              HasSubstr("'past_value': expected shape [1,2,4,16], got [1,2,3,16]"));
  EXPECT_THAT(error([](Shape*, Shape& bias, Shape&) { bias = {1, 2, 1, 5}; }),
              HasSubstr("'attention_bias': expected shape [1,6,1,5], got [1,2,1,5]"));
  EXPECT_THAT(error([](Shape*, Shape&, Shape& sink) { sink = {2}; }),
              HasSubstr("'head_sink': expected shape [6], got [2]"));
}

}  // namespace group_query_test
}  // namespace octet

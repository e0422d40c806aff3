// What inference says of the states of nested loops, and what it costs.
#include <functional>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/graph_builder.h"

namespace octet {
namespace control_test {

// A Loop over `states`, whose body makes of them what follows.
std::vector<ValueId> Loop(
    GraphBuilder& b, const std::vector<ValueId>& states, const std::vector<Shape>& shapes,
    const std::function<std::vector<ValueId>(GraphBuilder&, const std::vector<ValueId>&)>& next) {
  GraphBuilder in;
  in.Input("i", {}, DType::kI64);
  const ValueId go_on = in.Input("cond", {}, DType::kBool);
  std::vector<ValueId> inner;
  for (size_t i = 0; i < states.size(); ++i)
    inner.push_back(in.Input("state" + std::to_string(i), shapes[i]));
  const std::vector<ValueId> results = next(in, inner);
  in.Output(in.Op("Identity", {go_on}));
  for (const ValueId id : results) in.Output(id);
  std::vector<ValueId> inputs = {b.Scalar<int64_t>(3), kNone};
  inputs.insert(inputs.end(), states.begin(), states.end());
  return b.Ops("Loop", inputs, states.size(),
               {{"body", std::make_shared<const Graph>(in.Build())}});
}

// Each round of inference makes one more state unknown, and infers the loop inside anew.
std::vector<ValueId> Falling(GraphBuilder& b, const std::vector<ValueId>& states, int depth) {
  if (depth == 0) return states;
  const std::vector<Shape> shapes(states.size(), Shape{2});
  return Loop(b, states, shapes, [&](GraphBuilder& in, const std::vector<ValueId>& inner) {
    std::vector<ValueId> fresh;
    for (size_t i = 0; i < inner.size(); ++i) fresh.push_back(in.Random({2}));
    std::vector<ValueId> next = Falling(in, fresh, depth - 1);
    for (size_t i = 1; i < inner.size(); ++i) next[i] = in.Op("Identity", {inner[i - 1]});
    next[0] = in.Op("Concat", {inner[0], inner[0]}, {{"axis", int64_t{0}}});
    return next;
  });
}

TEST(ControlTest, NestedLoopsAreInferredInTimeThatTheirTextBounds) {
  GraphBuilder b;
  std::vector<ValueId> states;
  for (int i = 0; i < 20; ++i) states.push_back(b.Input("x" + std::to_string(i), {2}));
  const std::vector<ValueId> results = Falling(b, states, 6);
  for (const ValueId id : results) b.Output(id);
  const Graph graph = b.Build();
  for (const ValueId id : graph.outputs) {
    const auto& shape = graph.value(id).shape;
    EXPECT_TRUE(!shape || shape->ToString() == "[?]") << shape->ToString();
  }
}

TEST(ControlTest, OneLoopFindsWhatEachStateKeeps) {
  GraphBuilder b;
  std::vector<ValueId> states;
  for (int i = 0; i < 20; ++i) states.push_back(b.Input("x" + std::to_string(i), {2}));
  for (const ValueId id : Falling(b, states, 1)) b.Output(id);
  const Graph graph = b.Build();
  for (const ValueId id : graph.outputs) EXPECT_EQ(graph.value(id).shape, Shape{kUnknownDim});
}

// Two, three and six loops in each other, of two states: one keeps its shape, the other one grows along an axis.
TEST(ControlTest, NestedLoopsKeepTheShapesOfTheirStates) {
  const std::vector<Shape> shapes = {{2, 3}, {1, 4}};
  for (const int levels : {2, 3, 6}) {
    SCOPED_TRACE(levels);
    std::function<std::vector<ValueId>(GraphBuilder&, const std::vector<ValueId>&, int)> nest =
        [&](GraphBuilder& b, const std::vector<ValueId>& states, int left) {
          if (left == 0) {
            return std::vector<ValueId>{
                b.Op("Relu", {states[0]}),
                b.Op("Concat", {states[1], states[1]}, {{"axis", int64_t{0}}})};
          }
          return Loop(b, states, shapes, [&](GraphBuilder& in, const std::vector<ValueId>& inner) {
            return nest(in, inner, left - 1);
          });
        };
    GraphBuilder b;
    for (const ValueId id : nest(b, {b.Input("x", shapes[0]), b.Input("y", shapes[1])}, levels))
      b.Output(id);
    const Graph graph = b.Build();
    EXPECT_EQ(graph.value(graph.outputs[0]).shape, shapes[0]);
    EXPECT_EQ(graph.value(graph.outputs[1]).shape, (Shape{kUnknownDim, 4}));
  }
}

}  // namespace control_test
}  // namespace octet

// Valid models that oneDNN does not take as they could be described: they load, and answer as the reference kernels do.
#include <limits>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/ops/op.h"
#include "engine/ops/reference_step.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace refused_by_onednn_test {

using ::testing::NanSensitiveFloatNear;
using ::testing::Pointwise;

// The model's answer for random inputs of these shapes is that of the reference kernels.
void ExpectReference(const Graph& graph, const std::vector<Shape>& shapes) {
  const auto model = Model::FromGraph(graph, {});
  ASSERT_TRUE(model.ok()) << model.status();
  const auto plan = (*model)->PlanFor(shapes);
  ASSERT_TRUE(plan.ok()) << plan.status();
  Graph bound = graph;
  for (size_t i = 0; i < shapes.size(); ++i) bound.mutable_value(bound.inputs[i]).shape = shapes[i];
  ASSERT_EQ(InferShapes(bound), absl::OkStatus());
  const std::vector<Tensor> inputs = RandomInputs(bound);
  const auto expected = Evaluate(bound, inputs);
  ASSERT_TRUE(expected.ok()) << expected.status();
  std::vector<const void*> in;
  for (const Tensor& input : inputs) in.push_back(input.data());
  Tensor got((*plan)->outputs()[0].dtype, (*plan)->outputs()[0].shape);
  void* out = got.mutable_data();
  Workspace workspace;
  ASSERT_EQ((*plan)->Run(workspace, in, {&out, 1}), absl::OkStatus());
  EXPECT_THAT(got.span<float>(),
              Pointwise(NanSensitiveFloatNear(1e-4F), expected->front().span<float>()));
}

TEST(RefusedByOneDnn, AClipWithABoundThatIsNoNumber) {
  GraphBuilder b;
  const ValueId c = b.Op("Conv", {b.Input("x", {1, 3, 4, 4}), b.Random({2, 3, 1, 1})});
  b.Output(b.Op("Clip", {c, b.Scalar(std::numeric_limits<float>::quiet_NaN()), b.Scalar(6.0F)}));
  ExpectReference(b.Build(), {{1, 3, 4, 4}});
}

TEST(RefusedByOneDnn, MoreActivationsThanItTakes) {
  GraphBuilder b;
  ValueId y = b.Op("Conv", {b.Input("x", {1, 3, 4, 4}), b.Random({2, 3, 1, 1})});
  for (int i = 0; i < 33; ++i) y = b.Op("LeakyRelu", {y}, {{"alpha", 0.9F}});
  b.Output(y);
  ExpectReference(b.Build(), {{1, 3, 4, 4}});
}

// [1, ..., 1, rows, columns] of 13 axes.
Shape ThirteenAxes(int64_t rows, int64_t columns) {
  Shape shape;
  for (int i = 0; i < 11; ++i) shape.push_back(1);
  shape.push_back(rows);
  shape.push_back(columns);
  return shape;
}

TEST(RefusedByOneDnn, AProductOfThirteenAxes) {
  GraphBuilder b;
  const ValueId x = b.Input("x", ThirteenAxes(2, 3));
  b.Output(b.Op("MatMul", {x, b.Input("z", ThirteenAxes(3, 2))}));
  ExpectReference(b.Build(), {ThirteenAxes(2, 3), ThirteenAxes(3, 2)});
}

TEST(RefusedByOneDnn, ARequestOfThirteenAxes) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3});
  const ValueId z = b.Input("z", {3, 2});
  const ValueId y = b.Op("MatMul", {x, z});
  b.Output(y);
  Graph graph = b.Build();
  for (const ValueId id : {x, z, y}) graph.mutable_value(id).shape.reset();
  ExpectReference(graph, {ThirteenAxes(2, 3), ThirteenAxes(3, 2)});
  ExpectReference(graph, {{2, 3}, {3, 2}});
}

}  // namespace refused_by_onednn_test
}  // namespace octet

// Samples as a model takes them.
#include "engine/train/model_samples.h"

#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace model_samples_test {

using ::testing::ElementsAre;

Tensor Numbers(const Shape& shape, float first = 0) {
  Tensor tensor(DType::kF32, shape);
  std::iota(tensor.mutable_span<float>().begin(), tensor.mutable_span<float>().end(), first);
  return tensor;
}

Graph Sum(const Shape& a, const Shape& b) {
  GraphBuilder builder;
  const ValueId first = builder.Input("b", a);
  builder.Output(builder.Op("Add", {first, builder.Input("a", b)}));
  return builder.Build();
}

TEST(PickSamples, CopiesRowsAndBeginsAgain) {
  const CalibrationData set = {{"a", Numbers(Shape{4, 1}, 20)}, {"b", Numbers(Shape{4, 2})}};
  const Graph graph = Sum({kUnknownDim, 2}, {kUnknownDim, 1});
  const train::ModelSamples samples(set, graph);
  EXPECT_EQ(samples.count(), 4);
  EXPECT_EQ(samples.Spec(0, 7), (TensorSpec{DType::kF32, Shape{7, 2}}))
      << "the order is the model's";
  std::vector<Tensor> batch = {Tensor(DType::kF32, Shape{3, 2}), Tensor(DType::kF32, Shape{3, 1})};
  const int64_t picked[] = {3, 1};
  ASSERT_TRUE(train::PickSamples(samples, picked, batch).ok());
  EXPECT_THAT(batch[0].span<float>(), ElementsAre(6, 7, 2, 3, 6, 7));
  EXPECT_THAT(batch[1].span<float>(), ElementsAre(23, 21, 23));
}

TEST(PickSamples, TakesThemOutOfSeveralArrays) {
  CalibrationData set = {{"x", Numbers(Shape{2, 2})}};
  const CalibrationData later = {{"x", Numbers(Shape{3, 2}, 4)}};
  set.Add(*later.sources()[0]);
  GraphBuilder b;
  b.Output(b.Op("Relu", {b.Input("x", {kUnknownDim, 2})}));
  const Graph graph = b.Build();
  std::vector<Tensor> batch = {Tensor(DType::kF32, Shape{3, 2})};
  const int64_t picked[] = {4, 0, 2};
  ASSERT_TRUE(train::PickSamples(train::ModelSamples(set, graph), picked, batch).ok());
  EXPECT_THAT(batch[0].span<float>(), ElementsAre(8, 9, 0, 1, 4, 5));
}

}  // namespace model_samples_test
}  // namespace octet

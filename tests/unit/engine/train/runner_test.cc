// Batches of samples, and a model run on them.
#include "engine/train/runner.h"

#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"
#include "tests/support/random_tensor.h"

namespace octet {
namespace runner_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Tensor Numbers(const Shape& shape) {
  Tensor tensor(DType::kF32, shape);
  for (size_t i = 0; i < tensor.span<float>().size(); ++i)
    tensor.mutable_span<float>()[i] = static_cast<float>(i);
  return tensor;
}

TEST(PickSamples, CopiesRowsAndBeginsAgain) {
  const Tensor samples = Numbers(Shape{4, 2});
  std::vector<Tensor> batch = {Tensor(DType::kF32, Shape{3, 2})};
  const int64_t picked[] = {3, 1};
  train::PickSamples({&samples, 1}, picked, batch);
  EXPECT_THAT(batch[0].span<float>(), ElementsAre(6, 7, 2, 3, 6, 7));
}

TEST(Runner, AnswersForSamplesInOrder) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 2});
  b.Output(b.Op("Add", {x, b.Scalar(0.5F)}));
  const Tensor samples = Numbers(Shape{5, 2});
  auto runner = train::Runner::Make(b.Build(), Precision::kFp32, {}, {&samples, 1}, 2);
  ASSERT_TRUE(runner.ok()) << runner.status();
  const int64_t picked[] = {4, 0, 2};
  const auto answers = runner->RunAll({&samples, 1}, picked);
  ASSERT_TRUE(answers.ok()) << answers.status();
  EXPECT_THAT(*answers, ElementsAre(8.5F, 9.5F, 0.5F, 1.5F, 4.5F, 5.5F));
}

TEST(Runner, NeedsOneRowPerSample) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 2});
  b.Output(b.Op("Transpose", {x}));
  const Tensor samples = Numbers(Shape{5, 2});
  const auto runner = train::Runner::Make(b.Build(), Precision::kFp32, {}, {&samples, 1}, 4);
  EXPECT_EQ(runner.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(Message(runner.status())), HasSubstr("one row per sample"));
}

}  // namespace runner_test
}  // namespace octet

// Batches of samples, and a model run on them.
#include "engine/train/runner.h"

#include <span>
#include <vector>

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

TEST(Runner, AnswersForRowsInOrder) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 2});
  b.Output(b.Op("Add", {x, b.Scalar(0.5F)}));
  const Graph graph = b.Build();
  const CalibrationData set = {{"x", Numbers(Shape{5, 2})}};
  const train::ModelSamples samples(set, graph);
  auto runner = train::Runner::Make(graph, Precision::kFp32, {}, samples, 2);
  ASSERT_TRUE(runner.ok()) << runner.status();
  const std::vector<int64_t> picked = {4, 0, 2};
  const auto fill = [&](int64_t first, int64_t count, std::vector<Tensor>& batch) {
    const auto own = std::span(picked).subspan(static_cast<size_t>(first));
    return train::PickSamples(samples, own.first(static_cast<size_t>(count)), batch);
  };
  const auto answers = runner->RunAll(3, fill);
  ASSERT_TRUE(answers.ok()) << answers.status();
  EXPECT_THAT(*answers, ElementsAre(8.5F, 9.5F, 0.5F, 1.5F, 4.5F, 5.5F));
  const auto broken = [](int64_t, int64_t, std::vector<Tensor>&) {
    return InvalidArgument("the disk is gone");
  };
  EXPECT_EQ(Message(runner->RunAll(3, broken).status()), "the disk is gone");
}

TEST(Runner, NeedsOneRowPerSample) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 2});
  b.Output(b.Op("Transpose", {x}));
  const Graph graph = b.Build();
  const CalibrationData set = {{"x", Numbers(Shape{5, 2})}};
  const auto runner = train::Runner::Make(graph, Precision::kFp32, {}, {set, graph}, 4);
  EXPECT_EQ(runner.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(Message(runner.status())), HasSubstr("one row per sample"));
}

}  // namespace runner_test
}  // namespace octet

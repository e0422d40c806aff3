// What a model leaves open, a request decides. What an operator refuses is refused behind passes, too, which have rewritten it before any
// extent was known.
#include <cmath>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace open_extents_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kOpen = kUnknownDim;
using Floats = std::vector<float>;

class OpenExtentsTest : public ::testing::Test {
 protected:
  void Load(const Graph& graph) {
    auto loaded = Model::FromGraph(graph, {});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    model_ = *loaded;
  }

  absl::StatusOr<Floats> Answer(const Tensor& x) {
    const Shape shapes[] = {x.shape()};
    OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> plan, model_->PlanFor(shapes));
    Workspace workspace;
    const Datum data[] = {Datum::Of(x)};
    OCTET_ASSIGN_OR_RETURN(const auto answers, plan->RunDynamic(workspace, data, {}));
    const auto elements = answers[0].tensor.span<float>();
    return Floats(elements.begin(), elements.end());
  }

  void ExpectRefused(const Tensor& x, std::string_view operator_name) {
    const absl::Status status = Answer(x).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(Message(status)), HasSubstr(operator_name));
  }

  std::shared_ptr<const Model> model_;
};

// One would be repeated for each of three factors.
TEST_F(OpenExtentsTest, ABatchNormalizationHasItsOwnNumberOfChannels) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kOpen, kOpen, 2});
  const auto of_each = [&](Floats values) { return b.Constant<float>({3}, std::move(values)); };
  b.Output(b.Op("BatchNormalization",
                {x, of_each({1, 2, 3}), of_each({0, 1, 0}), of_each({0, 0, 1}), of_each({1, 1, 1})},
                {{"epsilon", 0.0F}}));
  Load(b.Build());
  const auto answer = Answer(Tensor::From<float>(Shape{1, 3, 2}, {1, 2, 1, 2, 1, 2}));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(*answer, ElementsAre(1, 2, 3, 5, 0, 3));
  ExpectRefused(Tensor::From<float>(Shape{2, 1, 2}, {1, 2, 3, 4}), "BatchNormalization");
}

TEST_F(OpenExtentsTest, AScalerHasItsOwnNumberOfFeatures) {
  GraphBuilder b;
  b.Output(b.Op("ai.onnx.ml:Scaler", {b.Input("x", {kOpen, kOpen})},
                {{"offset", Floats{1, 2, 3}}, {"scale", Floats{10}}}));
  Load(b.Build());
  EXPECT_TRUE(model_->signature().batches);
  EXPECT_EQ(model_->signature().outputs[0].shape, (Shape{kOpen, 3}));
  const auto answer = Answer(Tensor::From<float>(Shape{2, 3}, {1, 2, 3, 2, 2, 2}));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(*answer, ElementsAre(0, 0, 0, 10, 0, -10));
  ExpectRefused(Tensor::From<float>(Shape{2, 1}, {1, 2}), "Scaler");
  ExpectRefused(Tensor::From<float>(Shape{3, 2}, {1, 2, 3, 4, 5, 6}), "Scaler");
}

TEST_F(OpenExtentsTest, AnImputerHasItsOwnNumberOfFeatures) {
  GraphBuilder b;
  b.Output(b.Op("ai.onnx.ml:Imputer", {b.Input("x", {kOpen, kOpen})},
                {{"imputed_value_floats", Floats{7, 8}}, {"replaced_value_float", NAN}}));
  Load(b.Build());
  const auto answer = Answer(Tensor::From<float>(Shape{2, 2}, {NAN, 0, 5, NAN}));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(*answer, ElementsAre(7, 0, 5, 8));
  ExpectRefused(Tensor::From<float>(Shape{2, 1}, {NAN, 1}), "Imputer");
}

}  // namespace open_extents_test
}  // namespace octet

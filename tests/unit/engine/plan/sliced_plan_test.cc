// Plans of many rows that run in slices: their answers, errors, memory and times, and when models have them.
#include "engine/plan/sliced_plan.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"
#include "tests/support/small_network.h"

namespace octet {
namespace sliced_plan_test {

constexpr int64_t kRows = 12;

std::shared_ptr<const Plan> PlanOf(Graph graph, std::span<const Shape> shapes,
                                   LoadOptions options = {}) {
  const auto model = Model::FromGraph(std::move(graph), options);
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return nullptr;
  auto plan = (*model)->PlanFor(shapes);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return plan.ok() ? *std::move(plan) : nullptr;
}

std::shared_ptr<const Plan> SmallPlan(int64_t rows, LoadOptions options = {}) {
  const Shape shape{rows, 3, 8, 8};
  return PlanOf(testing::SmallNetwork(), {&shape, 1}, options);
}

Tensor Answer(const Plan& plan, const Tensor& input, int threads = 1) {
  ConfigureWorkerThread(threads);
  Tensor output(plan.outputs()[0].dtype, plan.outputs()[0].shape);
  const void* in = input.data();
  void* out = output.mutable_data();
  Workspace workspace;
  EXPECT_EQ(plan.Run(workspace, {&in, 1}, {&out, 1}), absl::OkStatus());
  ConfigureWorkerThread(1);
  return output;
}

TEST(SlicedPlan, AnswersEveryRowAsItsSliceDoes) {
  const Tensor input = testing::RandomReals({kRows, 3, 8, 8}, TestSeed());
  for (const int64_t rows : {1, 2, 4}) {
    const auto slice = SmallPlan(rows);
    Tensor expected(DType::kF32, {kRows, 5});
    Workspace workspace;
    for (int64_t row = 0; row < kRows; row += rows) {
      const void* in = input.span<float>().subspan(row * 3 * 8 * 8).data();
      void* out = expected.mutable_span<float>().subspan(row * 5).data();
      ASSERT_EQ(slice->Run(workspace, {&in, 1}, {&out, 1}), absl::OkStatus());
    }
    for (const int threads : {1, 2, 3}) {
      const SlicedPlan plan(slice, kRows / rows, threads);
      ASSERT_EQ(plan.inputs()[0], input.spec());
      const Tensor got = Answer(plan, input, threads);
      ASSERT_EQ(got.spec(), expected.spec());
      EXPECT_THAT(got.span<float>(), ::testing::ElementsAreArray(expected.span<float>()))
          << rows << " rows at a time on " << threads << " threads";
    }
  }
}

TEST(SlicedPlan, AgreesWithTheWhole) {
  const Tensor input = testing::RandomReals({kRows, 3, 8, 8}, TestSeed());
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const LoadOptions options{.precision = precision};
    const Tensor whole = Answer(*SmallPlan(kRows, options), input);
    const Tensor got = Answer(SlicedPlan(SmallPlan(3, options), kRows / 3, 2), input, 2);
    EXPECT_THAT(got.span<float>(),
                ::testing::Pointwise(::testing::FloatNear(1e-5F), whole.span<float>()));
  }
}

TEST(SlicedPlan, SaysWhatAllSlicesTake) {
  const auto whole = SmallPlan(kRows);
  const auto slice = SmallPlan(3);
  const SlicedPlan plan(slice, kRows / 3, 2);
  EXPECT_EQ(plan.certificate().total_macs(), whole->certificate().total_macs());
  EXPECT_EQ(plan.memory().arena_bytes, 2 * slice->memory().arena_bytes);
  EXPECT_EQ(plan.memory().live_peak_bytes, 2 * slice->memory().live_peak_bytes);
  ConfigureWorkerThread(2);
  Workspace workspace;
  const auto times = plan.LayerTimes(workspace, 1);
  ASSERT_TRUE(times.ok()) << times.status();
  EXPECT_EQ(workspace.bytes(), plan.memory().arena_bytes) << "one arena a thread";
  ASSERT_EQ(times->size(), plan.certificate().layers.size());
  for (const LayerTime& time : *times) {
    EXPECT_GT(time.in_order.count(), 0);
    EXPECT_EQ(time.in_order.count() % 2, 0) << "a thread runs two slices";
  }
  EXPECT_FALSE(plan.LayerTimes(workspace, 0).ok());
  ConfigureWorkerThread(1);
}

/// One row of one number; the row that is 7 fails, that is 8 finds no memory, and that is 9 throws something else.
class TouchyPlan final : public Plan {
 public:
  std::span<const TensorSpec> inputs() const override { return {&spec_, 1}; }
  std::span<const TensorSpec> outputs() const override { return {&spec_, 1}; }
  const Certificate& certificate() const override { return certificate_; }
  PlanMemory memory() const override { return {}; }
  std::chrono::nanoseconds compile_time() const override { return {}; }
  const std::vector<PassTrace>& pass_trace() const override { return trace_; }
  absl::Status Run(Workspace&, std::span<const void* const> inputs,
                   std::span<void* const> outputs) const override {
    const float x = *static_cast<const float*>(inputs[0]);
    if (x == 7) return InvalidArgument("seven");
    if (x == 8) throw std::bad_alloc();
    if (x == 9) throw std::length_error("nine");
    *static_cast<float*>(outputs[0]) = -x;
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<LayerTime>> LayerTimes(Workspace&, int) const override {
    return InvalidArgument("no layers");
  }

 private:
  const TensorSpec spec_{DType::kF32, {1}};
  const Certificate certificate_;
  const std::vector<PassTrace> trace_;
};

TEST(SlicedPlan, ReportsWhatASliceReports) {
  for (const int threads : {2, 3}) {
    ConfigureWorkerThread(threads);
    const SlicedPlan plan(std::make_shared<const TouchyPlan>(), 6, threads);
    Workspace workspace;
    const auto run = [&](std::vector<float> x) {
      std::vector<float> y(x.size());
      const void* in = x.data();
      void* out = y.data();
      return plan.Run(workspace, {&in, 1}, {&out, 1});
    };
    EXPECT_EQ(run({1, 2, 3, 4, 5, 6}), absl::OkStatus());
    EXPECT_EQ(run({1, 2, 3, 4, 5, 7}).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(run({1, 2, 8, 4, 5, 6}).code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(run({1, 2, 9, 4, 5, 6}), Internal("a slice of a batch: nine"));
    EXPECT_EQ(run({1, 2, 3, 4, 5, 6}), absl::OkStatus()) << "the next run is not touched";
    EXPECT_EQ(plan.LayerTimes(workspace, 1).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(plan.Run(workspace, {}, {}).code(), absl::StatusCode::kInternal);
  }
  ConfigureWorkerThread(1);
}

// 0.5 MB per row and layer: no cache of a core holds 32 of them, any server's holds one.
ValueId WideTrunk(GraphBuilder& b, int64_t height = 64, int64_t rows = kUnknownDim) {
  ValueId x = b.Input("x", {rows, 8, height, 128});
  for (int i = 0; i < 2; ++i) {
    x = b.Op("Conv", {x, b.Random({8, 8, 1, 3})}, {{"pads", Ints{0, 1, 0, 1}}});
  }
  return x;
}

Graph WideNetwork(int64_t height = 64, int64_t rows = kUnknownDim) {
  GraphBuilder b;
  b.Output(b.Op("Relu", {WideTrunk(b, height, rows)}));
  return b.Build();
}

float Distance(const Tensor& a, const Tensor& b) {
  float distance = 0;
  for (size_t i = 0; i < a.span<float>().size(); ++i)
    distance = std::max(distance, std::abs(a.span<float>()[i] - b.span<float>()[i]));
  return distance;
}

TEST(SlicedPlan, IsWhatModelsHaveWhoseRowsFallOutOfTheCaches) {
  const Shape shape{32, 8, 64, 128};
  const Shape row{1, 8, 64, 128};
  const Tensor input = testing::RandomReals(shape, TestSeed());
  const auto one = PlanOf(WideNetwork(64, 1), {&row, 1});
  const Tensor expected = Answer(SlicedPlan(one, 32, 1), input);
  for (const int threads : {1, 2}) {
    for (const int64_t height : {int64_t{64}, kUnknownDim}) {
      for (const int64_t rows : {kUnknownDim, int64_t{32}}) {
        const auto plan = PlanOf(WideNetwork(height, rows), {&shape, 1}, {.threads = threads});
        ASSERT_NE(dynamic_cast<const SlicedPlan*>(plan.get()), nullptr) << rows;
        EXPECT_LT(plan->memory().arena_bytes, 16 * one->memory().arena_bytes);
        EXPECT_EQ(plan->certificate().total_macs(), 32 * one->certificate().total_macs());
        EXPECT_LT(Distance(Answer(*plan, input, threads), expected), 1e-4F);
      }
    }
  }
}

// What a model computes with the number of its rows is a constant where its file fixes them.
TEST(SlicedPlan, IsWhatModelsHaveWhoseFilesFixTheRows) {
  const auto build = [](int64_t rows, bool counts) {
    GraphBuilder b;
    const ValueId x = WideTrunk(b, 64, rows);
    const ValueId count = b.Op("Gather", {b.Op("Shape", {x}), b.Constant<int64_t>({}, {0})});
    const ValueId real = b.Op("Cast", {count}, {{"to", int64_t{1}}});
    const ValueId share = b.Op("Div", {x, counts ? real : b.Constant<float>({}, {32})});
    const ValueId flat = b.Op("Reshape", {share, b.IntList({rows, 8, -1})});
    const ValueId shares = b.Op("Softmax", {flat}, {{"axis", int64_t{2}}});
    b.Output(b.Op("Reshape", {shares, b.IntList({rows, 8, 64, 128})}));
    return b.Build();
  };
  const Shape shape{32, 8, 64, 128};
  const Shape row{1, 8, 64, 128};
  const Tensor input = testing::RandomReals(shape, TestSeed());
  const auto plan = PlanOf(build(32, true), {&shape, 1});
  ASSERT_NE(dynamic_cast<const SlicedPlan*>(plan.get()), nullptr);
  const SlicedPlan expected(PlanOf(build(1, false), {&row, 1}), 32, 1);
  EXPECT_LT(Distance(Answer(*plan, input), Answer(expected, input)), 1e-6F);
}

TEST(SlicedPlan, IsNotForRowsThatMeet) {
  GraphBuilder b;
  b.Output(b.Op("Softmax", {WideTrunk(b)}, {{"axis", int64_t{0}}}));
  const Shape shape{32, 8, 64, 128};
  const auto plan = PlanOf(b.Build(), {&shape, 1});
  EXPECT_EQ(dynamic_cast<const SlicedPlan*>(plan.get()), nullptr);
}

TEST(SlicedPlan, IsNotForModelsThatTakeNoFewerRows) {
  GraphBuilder b;
  const ValueId fixed = b.Op("Reshape", {WideTrunk(b), b.IntList({32, 8, -1})});
  const ValueId shares = b.Op("Softmax", {fixed}, {{"axis", int64_t{2}}});
  b.Output(b.Op("Reshape", {shares, b.IntList({-1, 8, 64, 128})}));
  const Shape shape{32, 8, 64, 128};
  const auto plan = PlanOf(b.Build(), {&shape, 1});
  EXPECT_EQ(dynamic_cast<const SlicedPlan*>(plan.get()), nullptr) << "32 rows by chance";
}

TEST(SlicedPlan, IsNotForModelsThatComputeWithTheNumberOfRows) {
  GraphBuilder b;
  const ValueId x = WideTrunk(b);
  const ValueId rows = b.Op("Gather", {b.Op("Shape", {x}), b.Constant<int64_t>({}, {0})});
  b.Output(b.Op("Div", {x, b.Op("Cast", {rows}, {{"to", int64_t{1}}})}));
  const Shape shape{32, 8, 64, 128};
  const auto plan = PlanOf(b.Build(), {&shape, 1});
  EXPECT_EQ(dynamic_cast<const SlicedPlan*>(plan.get()), nullptr);
}

TEST(SlicedPlan, IsNotForModelsThatShapeRowsByTheirNumber) {
  GraphBuilder b;
  const ValueId x = WideTrunk(b);
  const ValueId rows = b.Op("Slice", {b.Op("Shape", {x}), b.IntList({0}), b.IntList({1})});
  const ValueId shape =
      b.Op("Concat", {b.IntList({0, 8, 64}), rows, b.IntList({-1})}, {{"axis", int64_t{0}}});
  const ValueId split = b.Op("Reshape", {x, shape});
  b.Output(b.Op("Softmax", {split}, {{"axis", int64_t{4}}}));
  const Shape known{32, 8, 64, 128};
  const auto plan = PlanOf(b.Build(), {&known, 1});
  ASSERT_NE(plan, nullptr);
  EXPECT_EQ(dynamic_cast<const SlicedPlan*>(plan.get()), nullptr);
  EXPECT_EQ(plan->outputs()[0].shape, (Shape{32, 8, 64, 32, 4}));
}

// Its condition is decided, and its graph an ordinary one, once the shapes are known.
TEST(SlicedPlan, IsNotForModelsThatNeededStages) {
  const auto branch = [](std::string_view op) -> Subgraph {
    GraphBuilder body;
    body.Output(body.Op(op, {body.Input("captured", {kUnknownDim, 8, kUnknownDim, 128})}));
    return std::make_shared<const Graph>(body.Build());
  };
  GraphBuilder b;
  const ValueId x = WideTrunk(b, kUnknownDim);
  const ValueId height = b.Op("Gather", {b.Op("Shape", {x}), b.Constant<int64_t>({}, {2})});
  const ValueId tall = b.Op("Greater", {height, b.Constant<int64_t>({}, {10})});
  b.Output(b.Op("If", {tall, x},
                {{"then_branch", branch("Relu")},
                 {"else_branch", branch("Neg")},
                 {std::string(kCaptures), int64_t{1}}}));
  const Shape shape{32, 8, 64, 128};
  const auto plan = PlanOf(b.Build(), {&shape, 1});
  ASSERT_NE(plan, nullptr);
  EXPECT_EQ(dynamic_cast<const SlicedPlan*>(plan.get()), nullptr);
  const Tensor input = testing::RandomReals(shape, TestSeed());
  const auto decided = PlanOf(WideNetwork(), {&shape, 1});
  EXPECT_LT(Distance(Answer(*plan, input), Answer(*decided, input)), 1e-4F);
}

TEST(SlicedPlan, IsNotForSmallOnes) {
  const Shape shape{4, 8, 1, 128};
  const auto plan = PlanOf(WideNetwork(1), {&shape, 1});
  EXPECT_EQ(dynamic_cast<const SlicedPlan*>(plan.get()), nullptr);
}

}  // namespace sliced_plan_test
}  // namespace octet

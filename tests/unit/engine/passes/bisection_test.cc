// Bisection finds the one pass that changes an answer, wherever it stands in the list.
#include "engine/passes/bisection.h"

#include <bit>

#include "gtest/gtest.h"

#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace bisection_test {

Graph SmallNetwork() {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 8, 8});
  const ValueId c = b.Op("Relu", {b.Op("Conv", {x, b.Random({4, 3, 3, 3}), b.Random({4})})});
  b.Output(b.Op("Gemm", {b.Op("Flatten", {b.Op("GlobalAveragePool", {c})}), b.Random({4, 5})}));
  return b.Build();
}

// A pass with a bug: it doubles the weights that it meets first.
absl::StatusOr<int> DoubleWeights(Graph& graph, const PassContext&) {
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    Value& value = graph.mutable_value(id);
    if (!value.is_constant() || value.dtype != DType::kF32 || value.constant.shape().rank() < 2) {
      continue;
    }
    Tensor doubled = Tensor::From<float>(value.constant.shape(), value.constant.span<float>());
    for (float& x : doubled.mutable_span<float>()) x *= 2;
    value.constant = doubled;
    return 1;
  }
  return Internal("no weights");
}

TEST(Bisection, FindsAWrongPassWhereverItIs) {
  const Graph graph = SmallNetwork();
  for (size_t at = 0; at <= AllPasses().size(); ++at) {
    SCOPED_TRACE(at);
    std::vector<Pass> passes(AllPasses().begin(), AllPasses().end());
    passes.insert(passes.begin() + static_cast<std::ptrdiff_t>(at),
                  Pass{"double_weights", "a mistake", DoubleWeights});
    int asked = 0;
    const auto wrong =
        FirstWrongPass(passes, [&](std::span<const Pass> first) -> absl::StatusOr<bool> {
          ++asked;
          PassContext context;
          context.passes = first;
          return static_cast<bool>(SameAnswers(graph, Optimised(graph, context)));
        });
    ASSERT_TRUE(wrong.ok()) << wrong.status();
    EXPECT_EQ(passes[*wrong].name, "double_weights");
    EXPECT_LE(asked, std::bit_width(passes.size())) << "it bisects";
  }
}

TEST(Bisection, NamesThePassesWhoseTrialFailed) {
  const auto wrong = FirstWrongPass(AllPasses(), [](std::span<const Pass>) -> absl::StatusOr<bool> {
    return InvalidArgument("no such file");
  });
  EXPECT_EQ(wrong.status().code(), absl::StatusCode::kInvalidArgument);
  const size_t middle = AllPasses().size() / 2;
  EXPECT_THAT(
      std::string(wrong.status().message()),
      ::testing::HasSubstr(Format("with the first {} of {} passes, up to {}: no such file", middle,
                                  AllPasses().size(), AllPasses()[middle - 1].name)));
}

TEST(PassList, RunsAsManyPassesAsItIsGiven) {
  for (size_t count = 0; count <= AllPasses().size(); ++count) {
    Graph graph = SmallNetwork();
    PassContext context;
    context.passes = AllPasses().first(count);
    const auto trace = RunPasses(graph, context);
    ASSERT_TRUE(trace.ok()) << trace.status();
    EXPECT_EQ(trace->size(), count);
    EXPECT_TRUE(SameAnswers(SmallNetwork(), graph)) << count;
  }
}

}  // namespace bisection_test
}  // namespace octet

// Operators that networks are made of have a kernel of their own: no plan of them computes by reference kernels, and
// plans of all threads, precisions and slices answer alike.
#include <cmath>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/onednn/isa.h"
#include "engine/ops/reference_step.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"
#include "tests/support/random_tensor.h"

namespace octet {
namespace fast_operators_test {

using Attrs = GraphBuilder::Attrs;

struct Case {
  const char* name;
  std::vector<Shape> inputs;  ///< Extent 0 is the batch.
  std::function<ValueId(GraphBuilder&, std::span<const ValueId>)> write;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

ValueId Trunk(GraphBuilder& b, ValueId x, int64_t channels, int64_t out) {
  return b.Op("Relu",
              {b.Op("Conv", {x, b.Random({out, channels, 3, 3})}, {{"pads", Ints{1, 1, 1, 1}}})});
}

const Case kCases[] = {
    {"ConvTranspose",
     {{2, 16, 9, 8}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       return b.Op("ConvTranspose", {x[0], b.Random({16, 8, 2, 2}), b.Random({8})},
                   {{"strides", Ints{2, 2}}});
     }},
    {"EinsumOfHeads",
     {{2, 12, 16, 8}, {2, 12, 16, 8}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       return b.Op("Einsum", {x[0], x[1]}, {{"equation", std::string("bhqd,bhkd->bhqk")}});
     }},
    {"EinsumOfWeights",
     {{2, 16, 32}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       return b.Op("Einsum", {x[0], b.Random({32, 8})}, {{"equation", std::string("bsd,de->bse")}});
     }},
    {"ResizeNearest",
     {{2, 16, 8, 8}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       return b.Op("Resize", {x[0], kNone, b.Constant<float>({4}, {1, 1, 2, 2})});
     }},
    {"ResizeLinear",
     {{2, 16, 8, 8}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       return b.Op("Resize", {x[0], kNone, b.Constant<float>({4}, {1, 1, 2, 2})},
                   {{"mode", std::string("linear")}});
     }},
    {"InstanceNormalization",
     {{2, 16, 8, 8}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       return b.Op("InstanceNormalization", {x[0], b.Random({16}), b.Random({16})});
     }},
    {"GroupNormalization",
     {{2, 16, 8, 8}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       return b.Op("GroupNormalization", {x[0], b.Random({16}), b.Random({16})},
                   {{"num_groups", int64_t{4}}});
     }},
    {"GridSample",
     {{2, 16, 8, 8}, {2, 6, 5, 2}},
     [](GraphBuilder& b, std::span<const ValueId> x) { return b.Op("GridSample", {x[0], x[1]}); }},
    {"PlacesOfMaxima",
     {{2, 3, 16, 16}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       const auto pooled = b.Ops("MaxPool", {Trunk(b, x[0], 3, 16)}, 2,
                                 {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
       const ValueId places = b.Op("Cast", {pooled[1]}, {{"to", int64_t{1}}});
       return b.Op("Add", {pooled[0], b.Op("Mul", {places, b.Constant<float>({1}, {0})})});
     }},
    {"PoolsOfPlanes",
     {{2, 16, 8, 8}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       const Attrs window = {{"kernel_shape", Ints{2, 3}}, {"strides", Ints{2, 1}}};
       const ValueId average = b.Op("AveragePool", {b.Op("MaxPool", {x[0]}, window)}, window);
       return b.Op("Add", {b.Op("GlobalMaxPool", {average}), b.Op("LpPool", {x[0]}, window)});
     }},
    {"ConvOfComputedWeights",
     {{1, 16, 8, 8}, {8, 16, 3, 3}},
     [](GraphBuilder& b, std::span<const ValueId> x) { return b.Op("Conv", {x[0], x[1]}); }},
    {"ProductOfMaskedRows",
     {{2, 5, 16}, {2, 5, 1}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       return b.Op("Mul", {b.Op("MatMul", {x[0], b.Random({16, 8})}), x[1]});
     }},
    {"ProductsOfVectors",
     {{2, 5, 16}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       const ValueId rows = b.Op("MatMul", {x[0], b.Random({16})});
       return b.Op("Concat", {rows, b.Op("MatMul", {b.Random({5}), x[0]})}, {{"axis", int64_t{1}}});
     }},
    {"CandidatesInOrder",
     {{2, 5, 40}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       const auto best = b.Ops("TopK", {b.Op("Relu", {x[0]}), b.IntList({7})}, 2);
       const ValueId places = b.Op("Cast", {best[1]}, {{"to", int64_t{1}}});
       return b.Op("Add", {best[0], b.Op("Mul", {places, b.Constant<float>({1}, {0.01F})})});
     }},
    {"ScatteredElements",
     {{2, 5, 16}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       b.Opset(18);
       const auto best = b.Ops("TopK", {x[0], b.IntList({3})}, 2);
       const ValueId sums = b.Op("ScatterElements", {b.Op("Neg", {x[0]}), best[1], best[0]},
                                 {{"axis", int64_t{2}}, {"reduction", std::string("add")}});
       return b.Op("ScatterND",
                   {sums, b.Constant<int64_t>({2, 2}, {1, 3, 0, -1}), b.Random({2, 16})});
     }},
    {"CausalScores",
     {{2, 4, 5, 8}, {2, 4, 8, 5}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       return b.Op("Add", {b.Op("MatMul", {x[0], x[1]}), b.Random({1, 1, 5, 5})});
     }},
    // Attention in windows [B, windows, heads, rows, columns], with a bias for all of them or one for each window.
    {"ScoresOfWindows",
     {{2, 3, 4, 5, 8}, {2, 3, 4, 8, 5}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       const ValueId scores =
           b.Op("Add", {b.Op("MatMul", {x[0], x[1]}), b.Random({1, 1, 4, 5, 5})});
       return b.Op("Mul", {b.Op("Sigmoid", {scores}), b.Random({3, 1, 5, 5})});
     }},
    {"ScoresOfWindowsOfOneImage",
     {{1, 3, 4, 5, 8}, {1, 3, 4, 8, 5}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       const ValueId scores =
           b.Op("Add", {b.Op("MatMul", {x[0], x[1]}), b.Random({1, 1, 4, 5, 5})});
       return b.Op("Mul", {scores, b.Op("Sigmoid", {b.Op("MatMul", {x[0], x[1]})})});
     }},
    {"ScoresOfPartsOfWindows",
     {{2, 3, 2, 2, 5, 8}, {2, 3, 1, 2, 8, 5}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       return b.Op("Mul", {b.Op("MatMul", {x[0], x[1]}), b.Random({1, 3, 1, 1, 5, 5})});
     }},
    {"MaskedPixels",
     {{2, 16, 8, 8}, {2, 1, 6, 6}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       return b.Op("Mul", {x[1], b.Op("Conv", {x[0], b.Random({8, 16, 3, 3})})});
     }},
    {"PlacesOfPixels",
     {{2, 16, 8, 8}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       const ValueId y = b.Op("Relu", {b.Op("Conv", {x[0], b.Random({8, 16, 3, 3})})});
       return b.Op("Add", {b.Op("Mul", {y, b.Random({8, 6, 1})}), b.Random({1, 8, 6, 6})});
     }},
    {"Softplus",
     {{2, 16, 8, 8}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       const ValueId y = b.Op("Softplus", {b.Op("Conv", {x[0], b.Random({8, 16, 3, 3})})});
       return b.Op("Softplus", {b.Op("MatMul", {b.Op("Flatten", {y}), b.Random({288, 4})})});
     }},
    {"UpAndDown",
     {{2, 3, 16, 16}},
     [](GraphBuilder& b, std::span<const ValueId> x) {
       const ValueId wide = Trunk(b, x[0], 3, 16);
       const ValueId low =
           b.Op("MaxPool", {wide}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
       const ValueId up = b.Op("ConvTranspose", {Trunk(b, low, 16, 16), b.Random({16, 16, 2, 2})},
                               {{"strides", Ints{2, 2}}});
       const ValueId resized = b.Op("Resize", {low, kNone, b.Constant<float>({4}, {1, 1, 2, 2})});
       const ValueId all = b.Op("Concat", {wide, up, resized}, {{"axis", int64_t{1}}});
       return b.Op("InstanceNormalization", {Trunk(b, all, 48, 8), b.Random({8}), b.Random({8})});
     }},
};

class FastOperatorsTest : public ::testing::TestWithParam<Case> {
 protected:
  // With `open`, extent 0 of every input of two rows is.
  static Graph GraphOf(bool open) {
    GraphBuilder b(21);
    std::vector<ValueId> inputs;
    for (size_t i = 0; i < GetParam().inputs.size(); ++i) {
      Shape shape = GetParam().inputs[i];
      if (open && shape[0] == 2) shape[0] = kUnknownDim;
      inputs.push_back(b.Input("x" + std::to_string(i), shape));
    }
    b.Output(GetParam().write(b, inputs));
    return b.Build();
  }

  static std::vector<Shape> Shapes(int64_t batch) {
    std::vector<Shape> shapes = GetParam().inputs;
    for (Shape& shape : shapes) {
      if (shape[0] == 2) shape[0] = batch;
    }
    return shapes;
  }
};
INSTANTIATE_TEST_SUITE_P(Operators, FastOperatorsTest, ::testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.name); });

std::vector<Tensor> Answers(const Plan& plan, std::span<const Tensor> inputs, int threads) {
  ConfigureWorkerThread(threads);
  std::vector<const void*> in;
  for (const Tensor& input : inputs) in.push_back(input.data());
  std::vector<Tensor> outputs;
  std::vector<void*> out;
  for (const TensorSpec& spec : plan.outputs()) {
    outputs.emplace_back(spec.dtype, spec.shape);
    out.push_back(outputs.back().mutable_data());
  }
  Workspace workspace;
  EXPECT_EQ(plan.Run(workspace, in, out), absl::OkStatus());
  ConfigureWorkerThread(1);
  return outputs;
}

TEST_P(FastOperatorsTest, HaveKernelsInEveryPlan) {
  for (const bool open : {false, true}) {
    const Graph graph = GraphOf(open);
    for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
      if (precision == Precision::kBf16 && !onednn::DetectTarget(1).bf16) continue;
      for (const int64_t batch : {2, 8}) {
        if (!open && batch != 2) continue;
        for (const int threads : {1, 2}) {
          SCOPED_TRACE(Format("open {} batch {} threads {} {}", open, batch, threads,
                              PrecisionName(precision)));
          LoadOptions options{.precision = precision};
          options.threads = threads;
          const auto model = Model::FromGraph(graph, options);
          ASSERT_TRUE(model.ok()) << model.status();
          const std::vector<Shape> shapes = Shapes(batch);
          const auto plan = (*model)->PlanFor(shapes);
          ASSERT_TRUE(plan.ok()) << plan.status();
          for (const LayerRecord& layer : (*plan)->certificate().layers) {
            EXPECT_THAT(layer.impl, ::testing::Not(::testing::HasSubstr("ref")))
                << layer.op << " " << layer.name << ": " << layer.reason;
          }
          std::vector<Tensor> inputs;
          for (size_t i = 0; i < shapes.size(); ++i)
            inputs.push_back(testing::RandomReals(shapes[i], static_cast<uint32_t>(i + 1)));
          const Graph bound = open ? WithUnknownExtents(graph, batch) : graph;
          const auto expected = Evaluate(bound, inputs);
          ASSERT_TRUE(expected.ok()) << expected.status();
          const Tensor got = Answers(**plan, inputs, threads)[0];
          const float tolerance = precision == Precision::kBf16 ? 0.15F : 1e-4F;
          for (int64_t i = 0; i < got.elements(); ++i) {
            const float want = (*expected)[0].span<float>()[i];
            ASSERT_NEAR(got.span<float>()[i], want, tolerance * (1 + std::abs(want))) << i;
          }
        }
      }
    }
  }
}

}  // namespace fast_operators_test
}  // namespace octet

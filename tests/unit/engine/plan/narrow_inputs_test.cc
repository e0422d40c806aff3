// Models whose plans read their inputs as what the graph makes of them first.
#include "engine/plan/narrow_inputs.h"

#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"
#include "tests/support/small_network.h"

namespace octet {
namespace narrow_inputs_test {

std::shared_ptr<const Model> Load(const Graph& graph, bool narrow,
                                  std::optional<Precision> precision = std::nullopt) {
  LoadOptions options;
  options.precision = precision;
  options.narrow_inputs = narrow;
  auto model = Model::FromGraph(graph, options);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

// What the model answers to F32 inputs, rounded first where its plans read them so.
std::vector<float> Answer(const Model& model, const std::vector<Tensor>& inputs) {
  ConfigureWorkerThread(1);
  std::vector<Shape> shapes;
  for (const Tensor& input : inputs) shapes.push_back(input.shape());
  const auto plan = model.PlanFor(shapes);
  EXPECT_TRUE(plan.ok()) << plan.status();
  std::vector<Tensor> narrowed;
  std::vector<const void*> from;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const RealFormat format = model.signature().inputs[i].narrow.value_or(RealFormat{});
    EXPECT_EQ((*plan)->inputs()[i], (TensorSpec{format.stored, shapes[i]}));
    Tensor& tensor = narrowed.emplace_back(format.stored, shapes[i]);
    format.Write(inputs[i].span<float>().data(), tensor.mutable_data(), 0,
                 inputs[i].shape().elements());
    from.push_back(tensor.data());
  }
  Tensor output((*plan)->outputs()[0].dtype, (*plan)->outputs()[0].shape);
  void* to = output.mutable_data();
  Workspace workspace;
  EXPECT_EQ((*plan)->Run(workspace, from, {&to, 1}), absl::OkStatus());
  return {output.span<float>().begin(), output.span<float>().end()};
}

void ExpectSameBits(const Graph& graph, std::optional<Precision> precision, DType stored) {
  const auto wide = Load(graph, false, precision);
  const auto narrow = Load(graph, true, precision);
  EXPECT_FALSE(wide->signature().inputs[0].narrow);
  ASSERT_TRUE(narrow->signature().inputs[0].narrow) << narrow->DumpGraph();
  EXPECT_EQ(narrow->signature().inputs[0].narrow->stored, stored);
  EXPECT_EQ(narrow->signature().inputs[0].dtype, DType::kF32) << "what clients send";
  for (const int64_t rows : {1, 5}) {
    const std::vector<Tensor> inputs = {testing::RandomReals({rows, 3, 8, 8}, TestSeed())};
    EXPECT_THAT(Answer(*narrow, inputs), ::testing::ElementsAreArray(Answer(*wide, inputs)));
  }
}

TEST(NarrowInputs, AnInt8ModelReadsTheIntegersOfItsFirstQuantizeLinear) {
  ExpectSameBits(testing::Quantized(testing::SmallNetwork(), {}, testing::SmallSamples(20)),
                 Precision::kInt8, DType::kU8);
}

TEST(NarrowInputs, ABf16VariantReadsBf16) {
  if (!DetectTarget(1).bf16) GTEST_SKIP() << "bf16 variants compute in F32 here";
  ExpectSameBits(testing::SmallNetwork(), Precision::kBf16, DType::kBF16);
}

TEST(NarrowInputs, AnFp32ModelReadsWhatClientsSend) {
  EXPECT_FALSE(Load(testing::SmallNetwork(), true)->signature().inputs[0].narrow);
}

TEST(NarrowInputs, AnInputWhoseRealsSomebodyReadsStaysAsItIs) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {4, 8});
  const ValueId y = b.Input("y", {4, 8});
  const ValueId z = b.Input("z", {4, 8});
  const QuantParams quant = QuantParams::PerTensor(0.1F, 7);
  const auto back = [&](ValueId from, QuantParams to) {
    return b.Convert(b.Convert(from, DType::kU8, std::move(to)), DType::kF32);
  };
  b.Output(b.Op("Add", {back(x, quant), b.Op("Relu", {x})}));
  b.Output(b.Op("Add", {back(y, quant), back(y, QuantParams::PerTensor(0.2F, 7))}));
  b.Output(b.Op("Add", {back(z, quant), back(z, quant)}));
  b.Output(b.Input("w", {4}), "w");
  Graph graph = b.Build();
  const auto formats = NarrowInputs(graph);
  ASSERT_EQ(formats.size(), 4U);
  EXPECT_FALSE(formats[0]) << "the Relu reads reals";
  EXPECT_FALSE(formats[1]) << "two quantizations";
  EXPECT_EQ(formats[2], (RealFormat{DType::kU8, quant}));
  EXPECT_FALSE(formats[3]) << "it is an output";
  EXPECT_EQ(graph.value(x).dtype, DType::kF32);
  EXPECT_EQ(graph.value(y).dtype, DType::kF32);
  EXPECT_EQ(graph.value(z).dtype, DType::kU8);
}

}  // namespace narrow_inputs_test
}  // namespace octet

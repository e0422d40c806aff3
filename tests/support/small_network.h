// A network of every kind of layer that training knows, quantized, with data that its weights have not seen.
#pragma once

#include "engine/quantize/quantizer.h"
#include "tests/support/graph_builder.h"
#include "tests/support/random_tensor.h"

namespace octet::testing {

/// x [batch, 3, 8, 8] -> convolutions (plain, depthwise, 1x1), residual sums, pools, Concat, Gemm, Softmax -> y [batch, 5].
inline Graph SmallNetwork(int64_t batch = kUnknownDim, std::string_view last = "Softmax") {
  GraphBuilder b;
  const ValueId x = b.Input("x", {batch, 3, 8, 8});
  const auto conv = [&](ValueId from, Shape w, GraphBuilder::Attrs attributes) {
    const ValueId bias = b.Random({w[0]}, -0.3F, 0.3F);
    return b.Op("Conv", {from, b.Random(w, -0.4F, 0.4F), bias}, std::move(attributes));
  };
  const ValueId stem = b.Op("Relu", {conv(x, {8, 3, 3, 3}, {{"pads", Ints{1, 1, 1, 1}}})});
  const ValueId depthwise =
      b.Op("Clip", {conv(stem, {8, 1, 3, 3}, {{"pads", Ints{1, 1, 1, 1}}, {"group", int64_t{8}}}),
                    b.Scalar(0.0F), b.Scalar(6.0F)});
  const ValueId point = conv(depthwise, {8, 8, 1, 1}, {});
  const ValueId sum = b.Op("Relu", {b.Op("Add", {point, stem})});
  const ValueId pooled =
      b.Op("MaxPool", {sum}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
  const ValueId left = b.Op("Relu", {conv(pooled, {4, 8, 1, 1}, {})});
  const ValueId right = b.Op("Relu", {conv(pooled, {4, 8, 3, 3}, {{"pads", Ints{1, 1, 1, 1}}})});
  const ValueId joined = b.Op("Concat", {left, right}, {{"axis", int64_t{1}}});
  const ValueId flat =
      b.Op("Flatten", {b.Op("GlobalAveragePool", {joined})}, {{"axis", int64_t{1}}});
  const ValueId z =
      b.Op("Gemm", {flat, b.Random({5, 8}, -2.0F, 2.0F), b.Random({5})}, {{"transB", int64_t{1}}});
  b.Output(last.empty() ? z : b.Op(last, {z}), "y");
  return b.Build();
}

inline CalibrationSet SmallSamples(int64_t count, uint32_t seed = TestSeed()) {
  return {{"x", RandomReals(Shape{count, 3, 8, 8}, seed)}};
}

/// Without steps that leave training less to win.
inline QuantizeRecipe PlainRecipe() {
  QuantizeRecipe recipe;
  recipe.per_channel = false;
  recipe.equalize = recipe.compensate = recipe.correct_bias = false;
  return recipe;
}

inline Graph Quantized(const Graph& fp32, const QuantizeRecipe& recipe,
                       const CalibrationData& set) {
  auto result = Quantize(fp32, recipe, set, {});
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? result->graph : Graph{};
}

}  // namespace octet::testing

// A model with state that is a real one: the smallest whose answers tell everything that came before.
#pragma once

#include <memory>

#include <gtest/gtest.h>

#include "config/model_config.h"
#include "engine/engine.h"
#include "tests/support/graph_builder.h"

namespace octet {

/// total = before + x, y = total * factor; all FP32 [?, 2]. `before` is a state that comes from `total`.
inline Graph AccumulatingGraph(float factor, const Shape& shape = {kUnknownDim, 2}) {
  GraphBuilder b;
  const ValueId total = b.Op("Add", {b.Input("x", shape), b.Input("before", shape)});
  b.Output(b.Op("Mul", {total, b.Constant<float>({2}, {factor, factor})}), "y");
  b.Output(total, "total");
  return b.Build();
}

inline std::shared_ptr<const Model> AccumulatingModel(float factor, int max_batch = 8) {
  LoadOptions options;
  options.max_batch = max_batch;
  auto model = Model::FromGraph(AccumulatingGraph(factor), options);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

/// What model.yaml says of it.
inline ModelConfig AccumulatingConfig() {
  ModelConfig config;
  config.state["before"].output = "total";
  return config;
}

}  // namespace octet

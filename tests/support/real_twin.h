// The same graph with other reals than FLOAT.
#pragma once

#include <utility>

#include <gtest/gtest.h>

#include "engine/graph/graph.h"
#include "engine/ops/op.h"
#include "engine/tensor/quantize.h"

namespace octet::testing {

/// Declares every FLOAT of the graph, constants, inputs and outputs among them, as `dtype`. Requires: no attribute holds or names one.
inline Graph TwinOf(Graph graph, DType dtype) {
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    if (graph.value(id).dtype != DType::kF32) continue;
    Value& value = graph.mutable_value(id);
    value.dtype = dtype;
    if (!value.is_constant()) continue;
    Tensor constant(dtype, value.constant.shape());
    ConvertTensor(value.constant.view(), constant.mutable_view());
    value.constant = std::move(constant);
  }
  const absl::Status inferred = InferShapes(graph);
  EXPECT_TRUE(inferred.ok()) << inferred;
  return graph;
}

}  // namespace octet::testing

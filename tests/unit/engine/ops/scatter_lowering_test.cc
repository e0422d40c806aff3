// The fast forms of ScatterElements and ScatterND against their reference kernels: every reduction, elements that are written several
// times, in place and beside the data.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "tests/support/graph_builder.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace scatter_lowering_test {

using testing::Elements;
using ::testing::HasSubstr;
using testing::OneNode;
using testing::RandomBytes;
using testing::RandomReals;

constexpr const char* kReductions[] = {"none", "add", "mul", "max", "min"};

// Of every number below `extents[i]` along column i, some counted from the end.
template <typename T>
Tensor Indices(Shape shape, const std::vector<int64_t>& extents) {
  std::mt19937 random(5);
  Tensor indices(DTypeOf<T>, std::move(shape));
  size_t i = 0;
  for (T& index : indices.mutable_span<T>()) {
    const auto extent = extents[i++ % extents.size()];
    index =
        static_cast<T>(static_cast<int64_t>(random() % static_cast<uint32_t>(2 * extent)) - extent);
  }
  return indices;
}

void ExpectAsReference(const OneNode& node) {
  const auto expected = node.Run();
  ASSERT_TRUE(expected.ok()) << expected.status();
  const auto lowered = testing::Lower(node);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_EQ(lowered->layer.impl, "octet:scatter");
  ASSERT_EQ(lowered->outputs[0].spec(), (*expected)[0].spec());
  EXPECT_EQ(std::memcmp(lowered->outputs[0].data(), (*expected)[0].data(), (*expected)[0].bytes()),
            0);
}

TEST(ScatterLoweringTest, WritesElementsAlongEveryAxis) {
  const Shape data = {6, 7, 40};
  const Shape index = {5, 6, 33};
  for (const char* reduction : kReductions) {
    for (int axis = 0; axis < 3; ++axis) {
      SCOPED_TRACE(Format("{} along {}", reduction, axis));
      OneNode node("ScatterElements", 18);
      node.Input(RandomReals(data, 1)).Input(Indices<int64_t>(index, {data[axis]}));
      node.Input(RandomReals(index, 2)).Set("axis", int64_t{axis});
      ExpectAsReference(node.Set("reduction", std::string(reduction)));
    }
  }
}

TEST(ScatterLoweringTest, WritesBlocksOfEverySize) {
  const Shape data = {4, 5, 300};
  for (const char* reduction : kReductions) {
    for (int depth = 1; depth <= 3; ++depth) {
      SCOPED_TRACE(Format("{} by {}", reduction, depth));
      const std::vector<int64_t> extents(data.begin(), data.begin() + depth);
      Shape updates = {3, 4};
      for (int i = depth; i < 3; ++i) updates.push_back(data[i]);
      OneNode node("ScatterND", 18);
      node.Input(RandomReals(data, 1)).Input(Indices<int64_t>({3, 4, depth}, extents));
      ExpectAsReference(
          node.Input(RandomReals(updates, 2)).Set("reduction", std::string(reduction)));
    }
  }
}

template <typename T>
Tensor Whole(const Shape& shape) {
  std::mt19937 random(9);
  Tensor tensor(DTypeOf<T>, shape);
  for (T& x : tensor.mutable_span<T>()) x = static_cast<T>(random() % 100);
  return tensor;
}

template <typename T>
void ExpectEveryReductionOf() {
  SCOPED_TRACE(DTypeName(DTypeOf<T>));
  for (const char* reduction : kReductions) {
    OneNode elements("ScatterElements", 18);
    elements.Input(Whole<T>({9, 3})).Input(Indices<int32_t>({20, 3}, {9}));
    ExpectAsReference(elements.Input(Whole<T>({20, 3})).Set("reduction", std::string(reduction)));
    OneNode blocks("ScatterND", 18);
    blocks.Input(Whole<T>({9, 3})).Input(Indices<int64_t>({20, 1}, {9}));
    ExpectAsReference(blocks.Input(Whole<T>({20, 3})).Set("reduction", std::string(reduction)));
  }
}

TEST(ScatterLoweringTest, ReducesEveryTypeOfNumbers) {
  ExpectEveryReductionOf<double>();
  ExpectEveryReductionOf<int8_t>();
  ExpectEveryReductionOf<int32_t>();
  ExpectEveryReductionOf<int64_t>();
  ExpectEveryReductionOf<uint16_t>();
}

TEST(ScatterLoweringTest, MovesBytesOfOneScale) {
  const QuantParams quant = QuantParams::PerTensor(0.5F, 128);
  const auto node = [&](const char* reduction) {
    OneNode scatter("ScatterND", 18);
    scatter.Input(RandomBytes(DType::kU8, {5, 4}, 1), quant).Input(Indices<int64_t>({2, 1}, {5}));
    scatter.Input(RandomBytes(DType::kU8, {2, 4}, 2), quant).Declare(DType::kU8, {}, quant);
    return scatter.Set("reduction", std::string(reduction));
  };
  ExpectAsReference(node("none"));
  EXPECT_EQ(testing::Lower(node("add")).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(ScatterLoweringTest, NamesAnIndexThatLiesOutside) {
  OneNode elements("ScatterElements", 18);
  elements.Input(RandomReals({4}, 1)).Input(Tensor::From<int64_t>({2}, {3, -5}));
  const auto along = testing::Lower(elements.Input(RandomReals({2}, 2)));
  EXPECT_EQ(along.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(along.status().message()), HasSubstr("index 1 is outside [-4, 4): -5"));
  OneNode blocks("ScatterND", 18);
  blocks.Input(RandomReals({4, 3}, 1)).Input(Tensor::From<int64_t>({1, 2}, {3, 3}));
  const auto tuple = testing::Lower(blocks.Input(RandomReals({1}, 2)));
  EXPECT_EQ(tuple.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(tuple.status().message()), HasSubstr("index 1 is outside [-3, 3): 3"));
}

// Data that a later node reads stays as it was; data that none does is written in place. Updates of nothing leave it.
TEST(ScatterLoweringTest, PlansWriteInPlaceWhereTheyMay) {
  GraphBuilder b(18);
  const ValueId x = b.Input("x", {300, 64});
  const ValueId rows = b.Input("rows", {kUnknownDim, 64});
  const ValueId places = b.Input("places", {kUnknownDim, 1}, DType::kI64);
  const ValueId kept = b.Op("Relu", {x});
  const ValueId once = b.Op("ScatterND", {kept, places, rows});
  const ValueId twice =
      b.Op("ScatterND", {once, places, rows}, {{"reduction", std::string("add")}});
  b.Output(b.Op("Add", {b.Op("Abs", {twice}), kept}));
  const auto model = Model::FromGraph(b.Build(), {});
  ASSERT_TRUE(model.ok()) << model.status();
  for (const int64_t count : {0, 3}) {
    const Tensor data = RandomReals({300, 64}, 1);
    const Tensor updates = RandomReals({count, 64}, 2);
    const Tensor indices = Tensor::From<int64_t>({3, 1}, {7, 299, 7});
    const auto plan = (*model)->PlanFor(std::vector<Shape>{{300, 64}, {count, 64}, {count, 1}});
    ASSERT_TRUE(plan.ok()) << plan.status();
    for (const LayerRecord& layer : (*plan)->certificate().layers)
      EXPECT_NE(layer.impl, "reference") << layer.op << ": " << layer.reason;
    Workspace workspace;
    const std::vector<const void*> in = {data.data(), updates.data(), indices.data()};
    Tensor got(DType::kF32, {300, 64});
    const std::vector<void*> out = {got.mutable_data()};
    ASSERT_EQ((*plan)->Run(workspace, in, out), absl::OkStatus());
    for (size_t i = 0; i < data.span<float>().size(); ++i) {
      const size_t row = i / 64;
      const float relu = std::max(data.span<float>()[i], 0.0F);
      float want = relu;
      if (count > 0 && row == 299) want = 2 * updates.span<float>()[64 + i % 64];
      if (count > 0 && row == 7) {
        const float last = updates.span<float>()[128 + i % 64];
        want = (last + updates.span<float>()[i % 64]) + last;
      }
      ASSERT_EQ(got.span<float>()[i], std::abs(want) + relu) << i;
    }
  }
}

}  // namespace scatter_lowering_test
}  // namespace octet

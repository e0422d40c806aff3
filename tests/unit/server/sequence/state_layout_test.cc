#include "server/sequence/state_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"

namespace octet {
namespace state_layout_test {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Rules = std::map<std::string, ModelConfig::State>;

/// Two states around one input and one output of the clients'.
Signature Model() {
  Signature signature;
  signature.batches = true;
  signature.inputs = {{"h", DType::kF32, {kUnknownDim, 3}},
                      {"x", DType::kF32, {kUnknownDim, 4}},
                      {"n", DType::kI64, {kUnknownDim, 1}}};
  signature.outputs = {{"n2", DType::kI64, {kUnknownDim, 1}},
                       {"y", DType::kF32, {kUnknownDim, 2}},
                       {"h2", DType::kF32, {kUnknownDim, kUnknownDim}}};
  return signature;
}

std::string ErrorOf(const Rules& rules) {
  const auto layout = StateLayout::Make(Model(), rules);
  return layout.ok() ? "no error" : std::string(Message(layout.status()));
}

TEST(StateLayoutTest, ClientsSeeTheModelWithoutItsStates) {
  const auto layout = StateLayout::Make(Model(), {{"h", {"h2", 0.5}}, {"n", {"n2", -3}}});
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_TRUE(layout->clients.batches);
  ASSERT_EQ(layout->clients.inputs.size(), 1U);
  EXPECT_EQ(layout->clients.inputs[0].name, "x");
  ASSERT_EQ(layout->clients.outputs.size(), 1U);
  EXPECT_EQ(layout->clients.outputs[0].name, "y");
  EXPECT_THAT(layout->input_places, ElementsAre(1));
  ASSERT_EQ(layout->outputs.size(), 3U);
  EXPECT_TRUE(layout->outputs[0].is_state);
  EXPECT_EQ(layout->outputs[0].index, 1U);
  EXPECT_FALSE(layout->outputs[1].is_state);
  EXPECT_EQ(layout->outputs[1].index, 0U);
  EXPECT_TRUE(layout->outputs[2].is_state);
  EXPECT_EQ(layout->outputs[2].index, 0U);
}

TEST(StateLayoutTest, AStateIsOneRowThatBeginsAtItsInitialValue) {
  const auto layout = StateLayout::Make(Model(), {{"h", {"h2", 0.5}}, {"n", {"n2", -3}}});
  ASSERT_TRUE(layout.ok()) << layout.status();
  const StateTensor& h = layout->states[0];
  EXPECT_EQ(h.spec, (TensorSpec{DType::kF32, {1, 3}}));
  EXPECT_THAT(h.initial.span<float>(), ElementsAre(0.5F, 0.5F, 0.5F));
  EXPECT_FALSE(h.starts_at_zero);
  const StateTensor& n = layout->states[1];
  EXPECT_EQ(n.spec, (TensorSpec{DType::kI64, {1, 1}}));
  EXPECT_THAT(n.initial.span<int64_t>(), ElementsAre(-3));
  EXPECT_GE(n.offset, h.offset + h.spec.bytes());
  EXPECT_GE(layout->bytes, n.offset + n.spec.bytes());
  EXPECT_EQ(n.offset % kTensorAlignment, 0U);
  const auto zeros = StateLayout::Make(Model(), {{"h", {"h2"}}});
  EXPECT_THAT(zeros->states[0].initial.span<float>(), Each(0));
  EXPECT_TRUE(zeros->states[0].starts_at_zero);
}

TEST(StateLayoutTest, AModelThatDoesNotBatchKeepsItsStateWhole) {
  Signature signature;
  signature.inputs = {{"x", DType::kF32, {1, 4}}, {"h", DType::kF32, {2, 1, 3}}};
  signature.outputs = {{"y", DType::kF32, {1}}, {"h2", DType::kF32, {2, 1, 3}}};
  const auto layout = StateLayout::Make(signature, {{"h", {"h2"}}});
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_EQ(layout->states[0].spec.shape, (Shape{2, 1, 3}));
}

TEST(StateLayoutTest, WhatDoesNotFitTheModelIsNamed) {
  EXPECT_THAT(ErrorOf({{"z", {"h2"}}}), HasSubstr("state.z: the model has no input 'z', it has h"));
  EXPECT_THAT(ErrorOf({{"h", {"z"}}}), HasSubstr("state.h: the model has no output 'z'"));
  EXPECT_THAT(ErrorOf({{"h", {"n2"}}}), HasSubstr("state.h: output 'n2': expected FP32"));
  EXPECT_THAT(ErrorOf({{"h", {"y"}}}), HasSubstr("state.h: output 'y': expected FP32 [?,3]"));
  EXPECT_THAT(ErrorOf({{"n", {"n2", 0.5}}}),
              HasSubstr("state.n: initial: expected a whole number for INT64, got 0.5"));
  Signature huge = Model();
  huge.inputs[0].shape = huge.outputs[2].shape = {kUnknownDim, int64_t{1} << 61};
  EXPECT_THAT(std::string(Message(StateLayout::Make(huge, {{"h", {"h2"}}}).status())),
              HasSubstr("expected a state of at most 268435456 bytes"));
  Signature any = Model();
  any.inputs[0].shape = any.outputs[2].shape = {};
  any.inputs[0].rank_known = false;
  any.batches = false;
  const auto layout = StateLayout::Make(any, {{"h", {"h2"}}});
  EXPECT_THAT(std::string(Message(layout.status())), HasSubstr("expected numbers of a known rank"));
}

/// A past [N, 2, positions, 4], which grows.
Signature Decoder(bool batches) {
  Signature signature;
  signature.batches = batches;
  signature.inputs = {{"ids", DType::kI64, {kUnknownDim, kUnknownDim}},
                      {"past", DType::kF32, {kUnknownDim, 2, kUnknownDim, 4}}};
  signature.outputs = {{"scores", DType::kF32, {kUnknownDim, kUnknownDim, 9}},
                       {"present", DType::kF32, {kUnknownDim, 2, kUnknownDim, 4}}};
  return signature;
}

TEST(StateLayoutTest, OpenExtentsBeginAtNothingOrAsTheRuleSays) {
  const auto layout = StateLayout::Make(Decoder(true), {{"past", {"present"}}});
  ASSERT_TRUE(layout.ok()) << layout.status();
  const StateTensor& past = layout->states[0];
  EXPECT_TRUE(past.grows());
  EXPECT_EQ(past.spec.shape, (Shape{1, 2, kUnknownDim, 4}));
  EXPECT_EQ(past.initial.shape(), (Shape{1, 2, 0, 4}));
  EXPECT_EQ(layout->bytes, 0U) << "it has memory of its own";
  EXPECT_TRUE(past.Takes({DType::kF32, {1, 2, 7, 4}}));
  EXPECT_FALSE(past.Takes({DType::kF32, {1, 3, 7, 4}}));
  EXPECT_FALSE(past.Takes({DType::kF32, {2, 2, 7, 4}})) << "of one sequence";
  EXPECT_FALSE(past.Takes({DType::kF64, {1, 2, 7, 4}}));

  const auto alone = StateLayout::Make(Decoder(false), {{"past", {"present"}}});
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_EQ(alone->states[0].initial.shape(), (Shape{1, 2, 0, 4}));
  EXPECT_TRUE(alone->states[0].Takes({DType::kF32, {2, 2, 7, 4}}));

  const auto buffer = StateLayout::Make(Decoder(true), {{"past", {"present", 0.25, {1, 2, 3, 4}}}});
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  EXPECT_EQ(buffer->states[0].initial.shape(), (Shape{1, 2, 3, 4}));
  EXPECT_THAT(buffer->states[0].initial.span<float>(), Each(0.25F));
}

TEST(StateLayoutTest, AnInitialShapeFitsTheModel) {
  const auto error = [](const std::vector<int64_t>& shape) {
    const auto layout = StateLayout::Make(Decoder(true), {{"past", {"present", 0, shape}}});
    return layout.ok() ? "no error" : std::string(Message(layout.status()));
  };
  EXPECT_EQ(error({1, 2, 100, 4}), "no error");
  EXPECT_THAT(error({1, 3, 0, 4}),
              HasSubstr("state.past: shape: expected [1,2,?,4], got [1,3,0,4]"));
  EXPECT_THAT(error({2, 2, 0, 4}), HasSubstr("shape: expected [1,2,?,4], got [2,2,0,4]"));
  EXPECT_THAT(error({1, 2, 0}), HasSubstr("shape: expected [1,2,?,4], got [1,2,0]"));
  EXPECT_THAT(error({1, 2, int64_t{1} << 40, 4}),
              HasSubstr("expected a state of at most 268435456 bytes"));
}

}  // namespace state_layout_test
}  // namespace octet

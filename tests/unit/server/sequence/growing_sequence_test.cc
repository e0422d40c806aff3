// Sequences whose states grow with what they are given.
#include <cstring>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/sequence_store_test.h"

namespace octet {
namespace growing_sequence_test {

using ::testing::HasSubstr;

/// Sequences of a model x [1], past [1, ?] -> y [1], present [1, ?]: what it was given before, and x behind it.
class GrowingSequenceTest : public SequenceStoreTest {
 protected:
  static SequenceHome Growing(const SequenceHome& like) {
    Signature signature;
    signature.inputs = {{"x", DType::kF32, {1}}, {"past", DType::kF32, {1, kUnknownDim}}};
    signature.outputs = {{"y", DType::kF32, {1}}, {"present", DType::kF32, {1, kUnknownDim}}};
    auto layout = StateLayout::Make(signature, {{"past", {"present"}}});
    EXPECT_TRUE(layout.ok()) << layout.status();
    SequenceHome home = like;
    home.layout = std::make_shared<const StateLayout>(*std::move(layout));
    return home;
  }
  std::unique_ptr<Asked> AskGrowing(uint64_t id, bool start, bool end = false) {
    auto asked = std::make_unique<Asked>();
    auto step =
        store_->Enter({id, start, end}, start ? std::optional(Growing(Home())) : std::nullopt);
    EXPECT_TRUE(step.ok()) << step.status();
    asked->step = *std::move(step);
    Await(*asked);
    EXPECT_TRUE(asked->runs());
    return asked;
  }
  /// What the worker does with `count` of x; returns what was there before.
  static std::vector<float> RunGrowing(Asked& asked, float x, int64_t count = 1) {
    const auto inputs = asked.step->Inputs({{&x, {DType::kF32, {1}}}}, asked.answer);
    const WireTensor& past = inputs[1];
    const auto* elements = static_cast<const float*>(past.data);
    std::vector<float> before(elements, elements + past.elements());
    std::vector<float> after = before;
    after.insert(after.end(), static_cast<size_t>(count), x);
    *static_cast<float*>(asked.step->Reserve(0, {DType::kF32, {1}})) = x;
    const TensorSpec spec = {DType::kF32, {1, std::ssize(after)}};
    if (void* to = asked.step->Reserve(1, spec)) std::memcpy(to, after.data(), spec.bytes());
    return before;
  }
};

TEST_F(GrowingSequenceTest, AStateWithOpenExtentsFollowsWhatTheModelGives) {
  std::vector<float> expected;
  for (int i = 0; i < 40; ++i) {
    const auto asked = AskGrowing(1, i == 0);
    const auto x = static_cast<float>(i);
    EXPECT_EQ(RunGrowing(*asked, x, 1 + i % 3), expected);
    ASSERT_TRUE(asked->step->Commit().ok());
    expected.insert(expected.end(), static_cast<size_t>(1 + i % 3), x);
    EXPECT_GE(home_.metrics->state_bytes.value(),
              static_cast<double>(expected.size() * sizeof(float)));
  }
  EXPECT_LE(home_.metrics->state_bytes.value(),
            static_cast<double>(3 * expected.size() * sizeof(float)));
  {
    const auto other = AskGrowing(2, true);
    EXPECT_TRUE(RunGrowing(*other, 1).empty()) << "it begins with no position";
    ASSERT_TRUE(other->step->Commit().ok());
  }
  const auto failed = AskGrowing(1, false);
  EXPECT_EQ(RunGrowing(*failed, -1), expected);
  failed->step.reset();
  const auto last = AskGrowing(1, false, true);
  EXPECT_EQ(RunGrowing(*last, -2), expected) << "what failed left nothing";
  ASSERT_TRUE(last->step->Commit().ok());
  last->step.reset();
  EXPECT_EQ(AskGrowing(2, false, true)->step->Commit().code(), absl::StatusCode::kInternal);
}

TEST_F(GrowingSequenceTest, ALayoutOfSuchStatesAloneKeepsBothCopiesApart) {
  for (int i = 0; i < 3; ++i) {
    const auto asked = AskGrowing(1, i == 0);
    EXPECT_EQ(RunGrowing(*asked, static_cast<float>(i)).size(), static_cast<size_t>(i));
    ASSERT_TRUE(asked->step->Commit().ok());
  }
}

TEST_F(GrowingSequenceTest, TheirMemoryIsBounded) {
  store_->SetLimits({.max_state_bytes = 1000});
  for (int i = 0; i < 2; ++i) {
    const auto asked = AskGrowing(1, i == 0);
    RunGrowing(*asked, 1, 50);
    ASSERT_TRUE(asked->step->Commit().ok());
  }
  for (int i = 0; i < 2; ++i) {
    const auto asked = AskGrowing(1, false);
    EXPECT_EQ(RunGrowing(*asked, 1, 200).size(), 100U) << "as it was";
    const absl::Status refused = asked->step->Commit();
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(Message(refused)),
                HasSubstr("the states of all sequences need too much memory, at most 1000 bytes: "
                          "output 'present' of shape [1,300], model 'net'"));
  }
  EXPECT_EQ(home_.metrics->state_bytes.value(), 100.0 * sizeof(float))
      << "the other copy gave its memory back";
  RunGrowing(*AskGrowing(1, false), 1, 10);  // which fails
  EXPECT_EQ(home_.metrics->state_bytes.value(), (100.0 + 110.0) * sizeof(float))
      << "and has some again";
  {
    const auto other = AskGrowing(2, true);
    RunGrowing(*other, 1, 200);
    EXPECT_EQ(other->step->Commit().code(), absl::StatusCode::kResourceExhausted);
  }
  {
    const auto last = AskGrowing(1, false, true);
    EXPECT_EQ(RunGrowing(*last, 1).size(), 100U);
    ASSERT_TRUE(last->step->Commit().ok());
  }
  EXPECT_EQ(home_.metrics->state_bytes.value(), 0);
  const auto fits = AskGrowing(3, true);
  RunGrowing(*fits, 1, 200);
  EXPECT_TRUE(fits->step->Commit().ok()) << "what is over has given its memory back";
}

}  // namespace growing_sequence_test
}  // namespace octet

#include "engine/graph/attributes.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"

namespace octet {
namespace attributes_test {

using ::testing::ElementsAre;

TEST(AttributesTest, ReturnsWhatWasSet) {
  Attributes attributes;
  attributes.Set("i", int64_t{3});
  attributes.Set("f", 0.5f);
  attributes.Set("s", std::string("SAME_UPPER"));
  attributes.Set("is", std::vector<int64_t>{1, 2});
  attributes.Set("fs", std::vector<float>{0.25f});
  attributes.Set("t", Tensor::Scalar(7.0f));
  EXPECT_EQ(attributes.Int("i", 0).value(), 3);
  EXPECT_EQ(attributes.IntOr("i", 0), 3);
  EXPECT_EQ(attributes.Float("f", 0).value(), 0.5f);
  EXPECT_EQ(attributes.String("s", "").value(), "SAME_UPPER");
  EXPECT_THAT(attributes.Ints("is", {}).value(), ElementsAre(1, 2));
  EXPECT_THAT(attributes.Floats("fs", {}).value(), ElementsAre(0.25f));
  ASSERT_NE(attributes.TensorOrNull("t").value(), nullptr);
  EXPECT_EQ(attributes.TensorOrNull("t").value()->span<float>()[0], 7);
  attributes.Set("i", int64_t{4});
  EXPECT_EQ(attributes.IntOr("i", 0), 4);
  attributes.Erase("i");
  attributes.Erase("never set");
  EXPECT_FALSE(attributes.has("i"));
  EXPECT_EQ(attributes.size(), 5u);
}

TEST(AttributesTest, FallsBackWhenAbsent) {
  const Attributes none;
  EXPECT_EQ(none.Int("i", 9).value(), 9);
  EXPECT_EQ(none.Float("f", 1.5f).value(), 1.5f);
  EXPECT_EQ(none.String("s", "NOTSET").value(), "NOTSET");
  EXPECT_THAT(none.Ints("is", {4}).value(), ElementsAre(4));
  EXPECT_EQ(none.TensorOrNull("t").value(), nullptr);
}

TEST(AttributesTest, AWrongTypeNamesAttributeExpectedAndActual) {
  Attributes attributes;
  attributes.Set("axis", 1.0f);
  const absl::Status status = attributes.Int("axis", 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Message(status), "wrong type of attribute 'axis': expected int, got float");
  EXPECT_EQ(Message(attributes.Ints("axis", {}).status()),
            "wrong type of attribute 'axis': expected ints, got float");
  EXPECT_FALSE(attributes.TensorOrNull("axis").ok());
  EXPECT_EQ(attributes.IntOr("axis", 5), 5);
}

}  // namespace attributes_test
}  // namespace octet

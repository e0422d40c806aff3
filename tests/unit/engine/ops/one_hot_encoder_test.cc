// ai.onnx.ml OneHotEncoder.
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/strings.h"

namespace octet::testing {
namespace one_hot_encoder_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Ints = std::vector<int64_t>;
using Words = std::vector<std::string>;

OneNode Encoder(Tensor x) {
  OneNode node("OneHotEncoder", 1, "ai.onnx.ml");
  node.Input(std::move(x));
  return node;
}

TEST(OneHotEncoder, NumbersByTheirWholePart) {
  const OneNode node =
      Encoder(Tensor::From<float>(Shape{4, 1},
                                  {7.9F, 3, 1e30F, std::numeric_limits<float>::quiet_NaN()}))
          .Set("cats_int64s", Ints{3, 7});
  EXPECT_EQ(node.InferredShape(), "[4,1,2]");
  const auto outputs = node.Run();
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(Elements<float>(outputs->front()), ElementsAre(0, 1, 1, 0, 0, 0, 0, 0));
}

TEST(OneHotEncoder, Strings) {
  const auto outputs =
      RunAsModel(Encoder(Strings({3}, {"b", "a", "?"})).Set("cats_strings", Words{"a", "b"}));
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(Elements<float>(outputs->front()), ElementsAre(0, 1, 1, 0, 0, 0));
}

TEST(OneHotEncoder, RefusesStrangersWhereZerosAreNoAnswer) {
  const OneNode node = Encoder(Tensor::From<int64_t>(Shape{2}, {3, 4}))
                           .Set("cats_int64s", Ints{3, 7})
                           .Set("zeros", int64_t{0});
  EXPECT_THAT(node.Run().status().ToString(),
              HasSubstr("an element is of no category, and 'zeros' is 0: '4'"));
  EXPECT_THAT(Encoder(Tensor::From<int64_t>(Shape{1}, {3})).InferredShape(),
              HasSubstr("expected labels in one of 'cats_strings' and 'cats_int64s'"));
  EXPECT_THAT(
      Encoder(Tensor::From<int64_t>(Shape{1}, {3})).Set("cats_strings", Words{"3"}).InferredShape(),
      HasSubstr("INT64"));
}

}  // namespace one_hot_encoder_test
}  // namespace octet::testing

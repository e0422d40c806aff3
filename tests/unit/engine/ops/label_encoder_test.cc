// ai.onnx.ml LabelEncoder and CategoryMapper.
#include <bit>
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/strings.h"

namespace octet::testing {
namespace label_encoder_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Words = std::vector<std::string>;
using Floats = std::vector<float>;
using Integers = std::vector<int64_t>;

OneNode Encoder(int version, Tensor x, std::string op = "LabelEncoder") {
  OneNode node(std::move(op), version, "ai.onnx.ml");
  node.Input(std::move(x));
  return node;
}

Tensor AnswerTo(const OneNode& node) {
  const auto outputs = RunAsModel(node);
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? outputs->front() : Tensor(DType::kString, Shape{0});
}

TEST(LabelEncoder, Version1GoesBothWays) {
  const Words classes = {"cat", "dog"};
  EXPECT_THAT(Elements<int64_t>(AnswerTo(
                  Encoder(1, Strings({3}, {"dog", "cow", "cat"})).Set("classes_strings", classes))),
              ElementsAre(1, -1, 0));
  EXPECT_THAT(Texts(AnswerTo(Encoder(1, Tensor::From<int64_t>(Shape{2}, {1, 2}))
                                 .Set("classes_strings", classes)
                                 .Set("default_string", std::string("?")))),
              ElementsAre("dog", "?"));
}

TEST(LabelEncoder, EveryKindOfKeyToEveryKindOfValue) {
  const Tensor words = Strings({1, 2}, {"b", "x"});
  const Tensor whole = Tensor::From<int64_t>(Shape{2}, {2, 9});
  const Tensor reals = Tensor::From<float>(Shape{2}, {2.5F, 9});
  for (const auto& [x, key, keys] :
       {std::tuple<Tensor, std::string, AttributeValue>{words, "keys_strings", Words{"a", "b"}},
        {whole, "keys_int64s", Integers{1, 2}},
        {reals, "keys_floats", Floats{1, 2.5F}}}) {
    const OneNode node = Encoder(2, x).Set(key, keys);
    EXPECT_THAT(Texts(AnswerTo(OneNode(node).Set("values_strings", Words{"A", "B"}))),
                ElementsAre("B", "_Unused"));
    EXPECT_THAT(
        Elements<int64_t>(AnswerTo(
            OneNode(node).Set("values_int64s", Integers{7, 8}).Set("default_int64", int64_t{-5}))),
        ElementsAre(8, -5));
    EXPECT_THAT(Elements<float>(AnswerTo(OneNode(node).Set("values_floats", Floats{0.5F, 1.5F}))),
                ElementsAre(1.5F, 0));
  }
}

TEST(LabelEncoder, Version4TakesTensors) {
  const OneNode node = Encoder(4, Tensor::From<int16_t>(Shape{3}, {5, 6, 7}))
                           .Set("keys_tensor", Tensor::From<int16_t>(Shape{2}, {5, 7}))
                           .Set("values_tensor", Strings({2}, {"five", "seven"}))
                           .Set("default_tensor", Strings({1}, {"none"}));
  EXPECT_THAT(Texts(AnswerTo(node)), ElementsAre("five", "none", "seven"));
  const OneNode wide = Encoder(4, Strings({2}, {"a", "z"}))
                           .Set("keys_tensor", Strings({1}, {"a"}))
                           .Set("values_tensor", Tensor::From<double>(Shape{1}, {0.25}));
  EXPECT_THAT(Elements<double>(AnswerTo(wide)), ElementsAre(0.25, 0));
}

TEST(LabelEncoder, NanIsAKeyByItsBitsAndSinceVersion4ByBeingNone) {
  const float other_nan = std::bit_cast<float>(0x7fc00001);
  const auto node = [&](int version) {
    return Encoder(version, Tensor::From<float>(Shape{3}, {NAN, other_nan, -0.0F}))
        .Set("keys_floats", Floats{NAN, 0.0F})
        .Set("values_int64s", Integers{1, 2});
  };
  EXPECT_THAT(Elements<int64_t>(AnswerTo(node(2))), ElementsAre(1, -1, -1));
  EXPECT_THAT(Elements<int64_t>(AnswerTo(node(4))), ElementsAre(1, 1, 2));
}

TEST(LabelEncoder, TheLastOfEqualKeysCounts) {
  EXPECT_THAT(Elements<int64_t>(AnswerTo(Encoder(4, Strings({1}, {"a"}))
                                             .Set("keys_strings", Words{"a", "a"})
                                             .Set("values_int64s", Integers{1, 2}))),
              ElementsAre(2));
}

TEST(LabelEncoder, RefusesTablesThatDoNotFit) {
  const OneNode node = Encoder(2, Strings({1}, {"a"}));
  EXPECT_THAT(node.InferredShape(), HasSubstr("expected one of the attributes 'keys_*', got 0"));
  EXPECT_THAT(
      OneNode(node).Set("keys_strings", Words{"a"}).Set("keys_int64s", Integers{1}).InferredShape(),
      HasSubstr("got 2"));
  EXPECT_THAT(OneNode(node)
                  .Set("keys_strings", Words{"a", "b"})
                  .Set("values_int64s", Integers{1})
                  .InferredShape(),
              HasSubstr("there are 2 keys for 1 values"));
  EXPECT_THAT(OneNode(node)
                  .Set("keys_int64s", Integers{1})
                  .Set("values_int64s", Integers{1})
                  .InferredShape(),
              HasSubstr("the keys are INT64, the input is BYTES"));
}

TEST(CategoryMapper, GoesBothWays) {
  const auto node = [](Tensor x) {
    return Encoder(1, std::move(x), "CategoryMapper")
        .Set("cats_strings", Words{"cat", "dog"})
        .Set("cats_int64s", Integers{30, 40});
  };
  EXPECT_THAT(Elements<int64_t>(AnswerTo(node(Strings({2}, {"dog", "cow"})))), ElementsAre(40, -1));
  EXPECT_THAT(Texts(AnswerTo(node(Tensor::From<int64_t>(Shape{2}, {30, 31})))),
              ElementsAre("cat", "_Unused"));
}

}  // namespace label_encoder_test
}  // namespace octet::testing

// DeformConv, MelWeightMatrix, TfIdfVectorizer and the optimizers: what ONNX's own data leave open.
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/one_node.h"

namespace octet::testing {
namespace deform_conv_test {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

using Ints = std::vector<int64_t>;

std::vector<float> Answer(const OneNode& node) {
  const auto outputs = node.Run();
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? Elements<float>(outputs->front()) : std::vector<float>{};
}

Tensor Filled(Shape shape, float value) {
  Tensor tensor(DType::kF32, std::move(shape));
  for (float& x : tensor.mutable_span<float>()) x = value;
  return tensor;
}

OneNode Convolution(const char* op, int version) {
  OneNode node(op, version);
  node.Input(Iota<float>({2, 4, 5, 6})).Input(Iota<float>({6, 2, 3, 2}));
  node.Set("group", int64_t{2}).Set("strides", Ints{2, 1}).Set("dilations", Ints{1, 2});
  return node.Set("pads", Ints{1, 0, 1, 1});
}

TEST(DeformConv, WithoutOffsetsItIsAConvolution) {
  const auto plain = Answer(Convolution("Conv", 13));
  const auto moved = Answer(Convolution("DeformConv", 19)
                                .Input(Filled({2, 2 * 2 * 6, 3, 5}, 0))
                                .Set("offset_group", int64_t{2}));
  EXPECT_THAT(moved, Pointwise(FloatNear(1e-2F), plain));
}

TEST(DeformConv, OffsetsMoveTapsBetweenElements) {
  const auto at = [](float h, float w) {
    OneNode node("DeformConv", 19);
    node.Input(Tensor::From<float>(Shape{1, 1, 2, 2}, {1, 2, 3, 4}));
    node.Input(Filled({1, 1, 1, 1}, 1));
    Tensor offset = Filled({1, 2, 2, 2}, 0);
    offset.mutable_span<float>()[0] = h;
    offset.mutable_span<float>()[4] = w;
    return Answer(node.Input(offset)).front();
  };
  EXPECT_FLOAT_EQ(at(0.5F, 0.5F), 2.5F);
  EXPECT_FLOAT_EQ(at(1, 0), 3);
  EXPECT_FLOAT_EQ(at(-0.5F, 0), 0.5F) << "half of it is padding";
  EXPECT_FLOAT_EQ(at(-1, 0), 0);
  EXPECT_FLOAT_EQ(at(1e30F, std::nanf("")), 0);
}

TEST(DeformConv, RefusesWhatDoesNotFit) {
  const auto conv = [] { return Convolution("DeformConv", 19); };
  EXPECT_THAT(conv().Input(Filled({2, 12, 3, 4}, 0)).InferredShape(),
              HasSubstr("input 2 has shape [2,12,3,4], expected [2,12,3,5]"));
  EXPECT_THAT(conv().Input(Filled({2, 12, 3, 5}, 0)).Set("group", int64_t{3}).InferredShape(),
              HasSubstr("do not fit 4 channels"));
  EXPECT_THAT(
      conv().Input(Filled({2, 12, 3, 5}, 0)).Set("offset_group", int64_t{0}).InferredShape(),
      HasSubstr("must be at least 1"));
  EXPECT_THAT(conv().Input(Filled({2, 12, 3, 5}, 0)).Set("strides", Ints{0, 1}).InferredShape(),
              HasSubstr("'strides'"));
  EXPECT_THAT(
      conv().Input(Filled({2, 12, 3, 5}, 0)).Set("dilations", Ints{1 << 20, 1}).InferredShape(),
      HasSubstr("larger than the padded input"));
}

TEST(MelWeights, RefusesWhatIsNoCount) {
  OneNode node("MelWeightMatrix", 17);
  node.Constant(Tensor::Scalar<int64_t>(-1));
  for (const int64_t count : {16, 8000}) node.Constant(Tensor::Scalar<int64_t>(count));
  for (const float edge : {0.0F, 4000.0F}) node.Constant(Tensor::Scalar<float>(edge));
  EXPECT_THAT(node.InferredShape(), HasSubstr("input 0 is no count"));
}

TEST(MelWeights, EdgesBeyondTheSpectrumWeighNothing) {
  OneNode node("MelWeightMatrix", 17);
  for (const int64_t count : {2, 4, 0}) node.Constant(Tensor::Scalar<int64_t>(count));
  for (const float edge : {0.0F, 4000.0F}) node.Constant(Tensor::Scalar<float>(edge));
  EXPECT_EQ(Answer(node).size(), 6);
}

OneNode Grams() {
  OneNode node("TfIdfVectorizer", 9);
  node.Input(Tensor::From<int64_t>(Shape{4}, {1, 2, 1, 2}));
  node.Set("min_gram_length", int64_t{1}).Set("max_gram_length", int64_t{2});
  node.Set("max_skip_count", int64_t{1}).Set("mode", std::string("TFIDF"));
  node.Set("ngram_counts", Ints{0, 1}).Set("ngram_indexes", Ints{0, 1, 3});
  node.Set("pool_int64s", Ints{2, 1, 2, 1, 1}).Set("weights", std::vector<float>{1, 10, 100});
  return node;
}

TEST(TfIdf, CountsAndWeighs) {
  EXPECT_THAT(Answer(Grams()), ElementsAre(2, 20, 0, 100));
  EXPECT_THAT(Answer(Grams().Set("mode", std::string("TF"))), ElementsAre(2, 2, 0, 1));
  EXPECT_THAT(Answer(Grams().Set("mode", std::string("IDF"))), ElementsAre(1, 10, 0, 100));
}

TEST(TfIdf, RefusesWhatIsNoPool) {
  EXPECT_THAT(Grams().Set("ngram_counts", Ints{0, 2}).InferredShape(), HasSubstr("'ngram_counts'"));
  EXPECT_THAT(Grams().Set("ngram_indexes", Ints{0, 1}).InferredShape(), HasSubstr("'weights'"));
  EXPECT_THAT(Grams().Set("ngram_indexes", Ints{0, 1, -3}).InferredShape(), HasSubstr("holds -3"));
  EXPECT_THAT(Grams().Set("mode", std::string("BM25")).InferredShape(), HasSubstr("'BM25'"));
  EXPECT_THAT(Grams().Set("min_gram_length", int64_t{3}).InferredShape(),
              HasSubstr("gram lengths"));
}

TEST(Optimizers, RefuseListsThatDoNotMatch) {
  OneNode node("Adam", 1, "ai.onnx.preview.training");
  node.Input(Tensor::Scalar<float>(0.1F)).Input(Tensor::Scalar<int64_t>(0));
  for (int i = 0; i < 3; ++i) node.Input(Iota<float>({2}));
  EXPECT_THAT(node.Outputs(3).InferredShape(),
              HasSubstr("takes 2 inputs and 4 for each tensor, got 5"));
  node.Input(Iota<float>({3}));
  EXPECT_THAT(node.InferredShape(), HasSubstr("inputs 2 and 5 differ in shape"));
}

TEST(Optimizers, AdamCorrectsItsBias) {
  OneNode node("Adam", 1, "ai.onnx.preview.training");
  node.Input(Tensor::Scalar<float>(0.1F)).Input(Tensor::Scalar<int64_t>(1));
  for (const float value : {1.0F, 2.0F, 0.0F, 0.0F}) node.Input(Filled({1}, value));
  // After one step the corrected means are g and g * g: x - rate * g / |g|.
  EXPECT_THAT(Answer(node.Outputs(3).Set("epsilon", 0.0F)), Pointwise(FloatNear(1e-6F), {0.9F}));
}

}  // namespace deform_conv_test
}  // namespace octet::testing

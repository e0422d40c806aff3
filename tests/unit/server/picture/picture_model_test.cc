#include "server/picture/picture_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/picture/resample.h"
#include "tests/support/picture_files.h"

namespace octet {
namespace picture_model_test {

using ::testing::Each;
using ::testing::FloatNear;
using ::testing::HasSubstr;

using Preprocess = ModelConfig::Pipeline::Preprocess;

int Colour(int, int, int channel) { return 50 * (channel + 1); }

/// What the model makes of the files.
template <typename T>
absl::StatusOr<std::vector<T>> Answer(const Preprocess& rule, const TensorInfo& input,
                                      const std::vector<std::string_view>& files,
                                      const RunLimits& limits = {}) {
  OCTET_ASSIGN_OR_RETURN(PictureRecipe recipe, PictureRecipe::Make(rule, input));
  const auto model = MakePictureModel(std::move(recipe), input);
  const std::vector<Shape> shapes = {{static_cast<int64_t>(files.size()), 1}};
  OCTET_ASSIGN_OR_RETURN(const auto plan, model->PlanFor(shapes));
  Workspace workspace;
  const std::vector<Datum> inputs = {
      Datum::Of(Tensor(DType::kString, shapes[0], nullptr, files.data()))};
  OCTET_ASSIGN_OR_RETURN(const auto answers, plan->RunDynamic(workspace, inputs, limits));
  EXPECT_EQ(answers[0].tensor.spec(), plan->outputs()[0]);
  const auto elements = answers[0].tensor.span<T>();
  return std::vector<T>(elements.begin(), elements.end());
}

TEST(PictureModelTest, NormalisesIntoTheLayoutOfTheInput) {
  const std::string file = MakePng(12, 8, Colour);
  const Preprocess rule = {.scale = 0.01, .mean = {0.1F, 0.2F, 0.3F}, .std = {1, 2, 4}};
  const auto planes = Answer<float>(rule, {"x", DType::kF32, {kUnknownDim, 3, 2, 4}}, {file, file});
  ASSERT_TRUE(planes.ok()) << planes.status();
  ASSERT_EQ(planes->size(), 2U * 24);
  const auto pixels = Answer<float>(rule, {"x", DType::kF32, {1, 2, 4, 3}}, {file});
  ASSERT_TRUE(pixels.ok()) << pixels.status();
  const std::vector<float> expected = {0.4F, 0.4F, 0.3F};
  for (size_t i = 0; i < 24; ++i) {
    EXPECT_NEAR((*planes)[24 + i], expected[i / 8], 1e-6) << i;
    EXPECT_NEAR((*pixels)[i], expected[i % 3], 1e-6) << i;
  }
}

TEST(PictureModelTest, WritesRealsOfTheInputsType) {
  const std::string file = MakePng(12, 8, Colour);
  const Preprocess rule = {.scale = 0.01, .mean = {0.1F, 0.2F, 0.3F}, .std = {1, 2, 4}};
  const auto input = [](DType dtype) { return TensorInfo{"x", dtype, {1, 3, 2, 4}}; };
  const auto reals = Answer<float>(rule, input(DType::kF32), {file});
  const auto doubles = Answer<double>(rule, input(DType::kF64), {file});
  const auto halves = Answer<Half>(rule, input(DType::kF16), {file});
  const auto bfloats = Answer<BFloat16>(rule, input(DType::kBF16), {file});
  ASSERT_TRUE(reals.ok() && doubles.ok() && halves.ok() && bfloats.ok()) << halves.status();
  for (size_t i = 0; i < 24; ++i) {
    EXPECT_EQ((*doubles)[i], (*reals)[i]) << i;
    EXPECT_EQ((*halves)[i].bits, ToHalf((*reals)[i]).bits) << i;
    EXPECT_EQ((*bfloats)[i].bits, ToBFloat16((*reals)[i]).bits) << i;
  }
}

TEST(PictureModelTest, TurnsTheChannelsRound) {
  const auto bytes = Answer<uint8_t>({.scale = 1, .bgr = true}, {"x", DType::kU8, {1, 2, 1, 3}},
                                     {MakePng(4, 4, Colour)});
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_THAT(*bytes, testing::ElementsAre(150, 100, 50, 150, 100, 50));
}

TEST(PictureModelTest, GreyForAModelOfOneChannel) {
  const auto grey =
      Answer<float>({.scale = 1}, {"x", DType::kF32, {1, 1, 3, 3}}, {MakePng(4, 4, Colour)});
  ASSERT_TRUE(grey.ok()) << grey.status();
  EXPECT_THAT(*grey, Each(FloatNear(91, 0.01F)));  // 0.299 * 50 + 0.587 * 100 + 0.114 * 150
}

TEST(PictureModelTest, AJpegDecodedSmallerIsTheSamePicture) {
  const auto pixel = [](int x, int y, int c) {
    return 128 + static_cast<int>(100 * std::sin(x * 0.05 + c) * std::cos(y * 0.04));
  };
  const std::string file = MakeJpeg(801, 603, pixel);
  const TensorInfo input = {"x", DType::kF32, {1, 3, 96, 96}};
  const auto small =
      Answer<float>({.resize = 100, .scale = 1}, input, {file});  // decoded at a half
  ASSERT_TRUE(small.ok()) << small.status();
  const Picture whole = *DecodePicture(file, {});
  const std::vector<uint8_t> exact = Resample(whole, Centred(whole, 100, 96, 96));
  int changed = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const float got = (*small)[i % 3 * 96 * 96 + i / 3];
    EXPECT_NEAR(got, exact[i], 2) << i;
    changed += got != exact[i];
  }
  EXPECT_GT(changed, 0);  // else it was not decoded smaller
}

TEST(PictureModelTest, NamesThePictureThatCannotBeRead) {
  const std::string file = MakePng(4, 4, Colour);
  const auto answer =
      Answer<float>({}, {"x", DType::kF32, {kUnknownDim, 3, 2, 2}}, {file, file, "no picture"});
  EXPECT_EQ(Message(answer.status()), "picture 2: neither a JPEG nor a PNG: 10 bytes");
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kInvalidArgument);
}

/// So small that nobody looks at the limits while they are decoded.
TEST(PictureModelTest, BeginsNoPictureThatNobodyWaitsFor) {
  const std::string file = MakePng(4, 4, Colour);
  const TensorInfo input = {"x", DType::kF32, {kUnknownDim, 3, 2, 2}};
  const std::atomic<bool> cancelled{true};
  const auto left = Answer<float>({}, input, {file, "no picture"}, {.cancelled = &cancelled});
  EXPECT_EQ(left.status().code(), absl::StatusCode::kCancelled) << left.status();
  const auto late =
      Answer<float>({}, input, {file, file}, {.deadline = std::chrono::steady_clock::now()});
  EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded) << late.status();
}

TEST(PictureModelTest, ARequestHasOnlySoMuchWork) {
  const std::string file = MakePng(20, 10, Colour);
  const Preprocess rule = {.max_pixels = 200};
  const TensorInfo input = {"x", DType::kF32, {kUnknownDim, 3, 2, 2}};
  std::vector<std::string_view> files(16, file);
  EXPECT_TRUE(Answer<float>(rule, input, files).ok());
  files.push_back(file);
  EXPECT_THAT(std::string(Message(Answer<float>(rule, input, files).status())),
              HasSubstr("PNG: size, 20 x 10: too many pixels in one request"));
}

TEST(PictureModelTest, RefusesInputsThatAreNoPictures) {
  const auto error = [](const Preprocess& rule, DType dtype, const Shape& shape) {
    return std::string(Message(PictureRecipe::Make(rule, {"x", dtype, shape}).status()));
  };
  EXPECT_THAT(error({}, DType::kF32, {1, 10}), HasSubstr("input \"x\": expected a picture"));
  EXPECT_THAT(error({}, DType::kF32, {1, 2, 8, 8}), HasSubstr("C = 1 or 3, got [1,2,8,8]"));
  EXPECT_THAT(error({}, DType::kF32, {1, 3, kUnknownDim, 8}), HasSubstr("that are known"));
  EXPECT_THAT(error({}, DType::kI64, {1, 3, 8, 8}),
              HasSubstr("expected FP32, FP16, BF16 or FP64, or UINT8"));
  EXPECT_THAT(error({}, DType::kU8, {1, 3, 8, 8}), HasSubstr("preprocess.scale 1 and no mean"));
  EXPECT_THAT(error({.resize = 7}, DType::kF32, {1, 3, 8, 8}), HasSubstr("at least the input's"));
  EXPECT_THAT(error({.mean = {1, 2}}, DType::kF32, {1, 3, 8, 8}), HasSubstr("mean: expected 3"));
  EXPECT_THAT(error({.std = {1, 2, 3}}, DType::kF32, {1, 1, 8, 8}), HasSubstr("std: expected 1"));
}

}  // namespace picture_model_test
}  // namespace octet

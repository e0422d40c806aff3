#include "server/repository/golden.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/npz_writer.h"
#include "engine/tensor/status.h"
#include "server/repository/model_repository.h"
#include "tests/support/model_folder.h"

namespace octet {
namespace golden_test {

using ::testing::HasSubstr;

class GoldenTest : public ::testing::Test {
 protected:
  GoldenTest() {
    folder_.Write("net/1/fp32.onnx", ScalingModel(2));
    model_ = *Model::Load(folder_.path("net/1/fp32.onnx"), LoadOptions());
  }
  /// Two samples of x, and y = factor * x.
  void Write(float factor, const Shape& shape = {2, 4}) {
    const std::vector<float> x = {1, 2, 3, 4, 4, 3, 2, 1};
    std::vector<float> y;
    for (const float value : x) y.push_back(value * factor);
    const std::vector<NpzArray> arrays = {{"x", {{x.data(), {DType::kF32, shape}}}},
                                          {"y", {{y.data(), {DType::kF32, shape}}}}};
    ASSERT_TRUE(WriteNpz(File(), arrays).ok());
  }
  std::string File() const { return folder_.path("net/1/golden.npz"); }
  absl::Status Check(const ModelConfig::Golden& floor = {}) {
    return CheckGolden(File(), *model_, floor);
  }

  ModelFolder folder_;
  std::shared_ptr<const Model> model_;
};

TEST_F(GoldenTest, AModelThatAnswersTheSamePasses) {
  Write(2);
  EXPECT_TRUE(Check().ok()) << Check();
}

TEST_F(GoldenTest, NoiseIsHeldAgainstTheFloor) {
  Write(2.2F);  // 10 % apart: 20.8 dB
  EXPECT_TRUE(Check().ok()) << Check();
  const absl::Status refused = Check({.sqnr_db = 25});
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Message(refused)), HasSubstr("SQNR 20.8 dB, expected at least 25"));
}

TEST_F(GoldenTest, OtherBestClassesAreNotServed) {
  Write(-2);
  const absl::Status refused = Check({.sqnr_db = -150});
  EXPECT_THAT(std::string(Message(refused)), HasSubstr("agreement 0.00 %, expected at least 95"));
}

TEST_F(GoldenTest, AnArchiveThatDoesNotFitSaysWhere) {
  Write(2, {4, 2});
  EXPECT_THAT(std::string(Message(Check())),
              HasSubstr("golden.npz: array 'x': expected FP32 [?,4], got FP32 [4,2]"));
  const std::vector<float> x(4);
  ASSERT_TRUE(
      WriteNpz(File(), std::vector<NpzArray>{{"x", {{x.data(), {DType::kF32, {1, 4}}}}}}).ok());
  EXPECT_THAT(std::string(Message(Check())), HasSubstr("array 'y' is missing"));
}

TEST_F(GoldenTest, AVariantThatAnswersOtherwiseIsNotServedAndTheIndexSaysWhy) {
  folder_.Write("net/1/bf16.onnx", ScalingModel(-2));
  Write(2);
  ServerConfig config;
  config.repository.path = folder_.path();
  MetricsRegistry metrics({});
  const auto repository = *ModelRepository::Open(config, 1, metrics);
  const auto version = *repository->Find("net", "");
  EXPECT_TRUE(version->Find(Precision::kFp32)->ready());
  EXPECT_FALSE(version->Find(Precision::kBf16)->ready());
  EXPECT_THAT(repository->Index(false)[0].reason, HasSubstr("bf16: "));
  EXPECT_THAT(repository->Index(false)[0].reason, HasSubstr("agreement 0.00 %"));
  folder_.Write("net/model.yaml", "golden: {sqnr_db: -150, agreement_percent: 0}");
  ASSERT_TRUE(repository->Load("net").ok());
  EXPECT_TRUE((*repository->Find("net", ""))->Find(Precision::kBf16)->ready());
}

}  // namespace golden_test
}  // namespace octet

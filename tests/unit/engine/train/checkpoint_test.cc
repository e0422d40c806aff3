// Training that was stopped goes on to the same bits; what is of another training, or damaged, is refused.
#include "engine/train/checkpoint.h"

#include <filesystem>
#include <fstream>
#include <limits>

#include "gmock/gmock.h"

#include "engine/onnx/onnx_file.h"
#include "engine/tensor/npz.h"
#include "engine/tensor/npz_writer.h"
#include "engine/tensor/status.h"
#include "tests/support/model_folder.h"
#include "tests/support/small_network.h"

namespace octet {
namespace checkpoint_test {

using ::testing::HasSubstr;
using testing::PlainRecipe;
using testing::SmallNetwork;
using testing::SmallSamples;

constexpr int64_t kSamples = 64;  // 51 are trained on: three batches of 16.

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() {
    recipe_.method = RangeMethod::kMinMax;  // Quick.
    options_.epochs = 3;
    watch_.checkpoint = folder_.path("state.npz");
  }

  absl::StatusOr<TrainResult> Train() {
    return TrainInt8(model_, recipe_, set_, options_, run_, watch_);
  }
  // Stops before batch `most`, counted from where it begins.
  absl::StatusOr<TrainResult> TrainUpTo(int most) {
    watch_.keep_going = [most, batches = 0]() mutable { return batches++ < most; };
    auto result = Train();
    watch_.keep_going = {};
    return result;
  }
  std::string Refusal() {
    const auto result = Train();
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << result.status();
    return std::string(Message(result.status()));
  }
  NpzArrays Arrays() { return *ReadNpz(watch_.checkpoint); }
  void Write(const NpzArrays& arrays) {
    std::vector<NpzArray> all;
    for (const auto& [name, tensor] : arrays) all.push_back({name, {tensor.view()}});
    ASSERT_TRUE(WriteNpz(watch_.checkpoint, all).ok());
  }

  Graph model_ = SmallNetwork();
  QuantizeRecipe recipe_ = PlainRecipe();
  TrainSet set_{SmallSamples(kSamples), {}};
  TrainOptions options_;
  CalibrationRun run_;
  TrainWatch watch_;
  ModelFolder folder_;
};

TEST_F(CheckpointTest, WhatIsStoppedAnywhereEndsWithTheSameBytes) {
  // Until an epoch is surely better than calibration.
  set_.inputs = SmallSamples(2 * kSamples);
  options_.epochs = 10;
  for (const TrainMethod method : {TrainMethod::kAdam, TrainMethod::kSgd}) {
    std::filesystem::remove(watch_.checkpoint);
    options_.method = method;
    options_.loss = method == TrainMethod::kAdam ? TrainLoss::kDivergence : TrainLoss::kNoise;
    TrainWatch none;
    const auto whole = TrainInt8(model_, recipe_, set_, options_, run_, none);
    ASSERT_TRUE(whole.ok()) << whole.status();
    ASSERT_GT(whole->best_epoch, 0) << TrainMethodName(method);
    int stops = 0;
    auto result = TrainUpTo(7);
    for (; absl::IsCancelled(result.status()); result = TrainUpTo(7)) {
      ASSERT_THAT(std::string(Message(result.status())), HasSubstr("of 6 batches of epoch"));
      ASSERT_LT(++stops, 20);
    }
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(
        stops,
        8);  // 60 batches, seven at a time: behind each batch of an epoch once, and behind two of them twice.
    EXPECT_EQ(*WriteOnnxBytes(result->graph), *WriteOnnxBytes(whole->graph));
    ASSERT_EQ(result->epochs.size(), whole->epochs.size());
    for (size_t i = 0; i < whole->epochs.size(); ++i) {
      EXPECT_EQ(result->epochs[i].train_loss, whole->epochs[i].train_loss);
      EXPECT_EQ(result->epochs[i].held_back_loss, whole->epochs[i].held_back_loss);
      EXPECT_EQ(result->epochs[i].best, whole->epochs[i].best);
    }
  }
}

TEST_F(CheckpointTest, WhatIsDoneIsNotDoneAgain) {
  const auto first = Train();
  ASSERT_TRUE(first.ok()) << first.status();
  int rows = 0;
  watch_.on_epoch = [&](const TrainEpoch& row) { rows += row.restored; };
  const auto again = TrainUpTo(0);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(rows, 4);
  EXPECT_EQ(*WriteOnnxBytes(again->graph), *WriteOnnxBytes(first->graph));
}

TEST_F(CheckpointTest, AnotherTrainingIsRefusedSayingWhatDiffers) {
  ASSERT_TRUE(absl::IsCancelled(TrainUpTo(1).status()));
  options_.epochs = 4;
  EXPECT_THAT(Refusal(), HasSubstr("it has --epochs '3', asked for is '4'"));
  options_.epochs = 3;
  options_.learning_rate = 0.02;
  EXPECT_THAT(Refusal(), HasSubstr("it has --learning-rate 'default', asked for is '0.02'"));
  options_.learning_rate = {};
  recipe_.per_channel = true;
  EXPECT_THAT(Refusal(), HasSubstr("it has --per-tensor 'true', asked for is 'false'"));
  recipe_.per_channel = false;
  run_.threads = 2;
  EXPECT_THAT(Refusal(), HasSubstr("it has --threads '1', asked for is '2'"));
  run_.threads = 1;
  set_.inputs = SmallSamples(kSamples - 1);
  EXPECT_THAT(Refusal(), HasSubstr("of other data: it has 64 samples, there are 63"));
  set_.inputs = SmallSamples(kSamples, TestSeed() + 1);
  EXPECT_THAT(Refusal(), HasSubstr("of other data: as many samples, with other elements"));
  set_.inputs = SmallSamples(kSamples);
  model_ = SmallNetwork(kUnknownDim, "");
  EXPECT_THAT(Refusal(), HasSubstr("checkpoint of another model"));
  model_ = SmallNetwork();
  EXPECT_TRUE(absl::IsCancelled(TrainUpTo(1).status())) << "nothing of this has changed it";
}

TEST_F(CheckpointTest, OtherLabelsAreOtherData) {
  options_.loss = TrainLoss::kLabels;
  set_.labels.assign(kSamples, 1);
  ASSERT_TRUE(absl::IsCancelled(TrainUpTo(1).status()));
  set_.labels[5] = 2;
  EXPECT_THAT(Refusal(), HasSubstr("of other data"));
}

TEST_F(CheckpointTest, DamagedBytesAreRefused) {
  ASSERT_TRUE(absl::IsCancelled(TrainUpTo(4).status()));
  std::ifstream in(watch_.checkpoint, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  const auto replace = [&](const std::string& by) {
    std::ofstream(watch_.checkpoint, std::ios::binary) << by;
  };
  for (const size_t length : {size_t{0}, size_t{1}, bytes.size() / 2, bytes.size() - 1}) {
    replace(bytes.substr(0, length));
    EXPECT_THAT(Refusal(), HasSubstr(watch_.checkpoint)) << length;
  }
  std::string flipped = bytes;  // In the elements of some array: its checksum tells.
  flipped[flipped.size() / 2] = static_cast<char>(flipped[flipped.size() / 2] ^ 4);
  replace(flipped);
  EXPECT_THAT(Refusal(), HasSubstr(watch_.checkpoint));
}

TEST_F(CheckpointTest, ArraysThatMakeNoSenseAreRefusedByName) {
  ASSERT_TRUE(absl::IsCancelled(TrainUpTo(4).status()));
  const NpzArrays good = Arrays();
  for (const auto& [name, tensor] : good) {
    NpzArrays bad = good;
    bad.erase(name);
    Write(bad);
    EXPECT_THAT(Refusal(), HasSubstr(name)) << "missing";
    bad[name] = Tensor::From<int16_t>(Shape{2}, {1, 2});
    Write(bad);
    EXPECT_THAT(Refusal(), HasSubstr(Format("array '{}': expected", name)));
  }
  const auto expect_refused = [&](const std::string& name, Tensor tensor) {
    NpzArrays bad = good;
    bad[name] = std::move(tensor);
    Write(bad);
    EXPECT_THAT(Refusal(), HasSubstr(name));
  };
  expect_refused("version", Tensor::From<int64_t>(Shape{1}, {1}));
  const auto at = good.at("progress").span<int64_t>();
  ASSERT_EQ(at[0], 2);
  ASSERT_EQ(at[2], 1);
  ASSERT_EQ(at[3], 4);
  const int64_t far = std::numeric_limits<int64_t>::max();
  for (const std::vector<int64_t>& wrong : std::vector<std::vector<int64_t>>{{0, 0, 1, 1},
                                                                             {5, 0, 0, 12},
                                                                             {far, 0, 0, 0},
                                                                             {2, 2, 1, 4},
                                                                             {2, -1, 1, 4},
                                                                             {2, 0, 4, 7},
                                                                             {2, 0, -1, 2},
                                                                             {2, 0, far, 4},
                                                                             {2, 0, 1, 5},
                                                                             {2, 1 - at[1], 1, 4}})
    expect_refused("progress", Tensor::From<int64_t>(Shape{4}, wrong));
  for (const char* name : {"curve", "loss_sum"}) {
    const auto right = good.at(name).span<double>();
    std::vector<double> wrong(right.begin(), right.end());
    wrong.back() = std::numeric_limits<double>::infinity();
    expect_refused(name, Tensor::From<double>(Shape{std::ssize(wrong)}, wrong));
  }
  for (const char* name : {"parameters/values", "parameters/best", "parameters/first"}) {
    const auto right = good.at(name).span<float>();
    std::vector<float> wrong(right.begin(), right.end());
    wrong[7] = std::numeric_limits<float>::quiet_NaN();
    expect_refused(name, Tensor::From<float>(Shape{std::ssize(wrong)}, wrong));
  }
  std::vector<float> squares(good.at("parameters/second").span<float>().size(), -1);
  expect_refused("parameters/second", Tensor::From<float>(Shape{std::ssize(squares)}, squares));
  Write(good);
  EXPECT_TRUE(Train().ok());
}

// A disk that is full by then: what is trained is worth more than its last checkpoint.
TEST_F(CheckpointTest, TheResultOutlivesTheLastCheckpoint) {
  const auto whole = Train();
  ASSERT_TRUE(whole.ok() && whole->checkpoint.ok()) << whole.status();
  for (const int lost_behind : {2, 1}) {
    const std::filesystem::path place = folder_.path("states");
    std::filesystem::create_directory(place);
    watch_.checkpoint = place / "state.npz";
    watch_.on_epoch = [&](const TrainEpoch& row) {
      if (row.epoch == lost_behind) std::filesystem::remove_all(place);
    };
    const auto result = Train();
    if (lost_behind == 1) {
      EXPECT_FALSE(result.ok()) << "an epoch is still to be trained";
      continue;
    }
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_THAT(std::string(Message(result->checkpoint)), HasSubstr("states/state.npz"));
    EXPECT_EQ(*WriteOnnxBytes(result->graph), *WriteOnnxBytes(whole->graph));
  }
}

TEST_F(CheckpointTest, APlaceThatTakesNoFileIsSaidBeforeTraining) {
  watch_.checkpoint = folder_.path("nowhere/state.npz");
  int batches = 0;
  watch_.keep_going = [&] { return ++batches > 0; };
  EXPECT_FALSE(Train().ok());
  EXPECT_EQ(batches, 0);
}

}  // namespace checkpoint_test
}  // namespace octet

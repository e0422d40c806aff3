// Statistics that outlive the process: kept, merged, gone on with, and refused where they are another model's.
#include "engine/quantize/calibration_file.h"

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/quantize/quantizer.h"
#include "engine/tensor/npz.h"
#include "engine/tensor/npz_writer.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"
#include "tests/support/model_folder.h"

namespace octet {
namespace calibration_file_test {

using ::testing::AllOf;
using ::testing::HasSubstr;

CalibrationSet Samples(int64_t count, float phase) {
  Tensor tensor(DType::kF32, Shape{count, 3, 6, 6});
  for (float& f : tensor.mutable_span<float>()) f = 3 * std::sin(phase += 0.37F);
  return {{"x", std::move(tensor)}};
}

// Two convolutions with channels that can be scaled between them.
Graph Network(float weight = 0.5F) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 3, 6, 6});
  std::vector<float> first;
  for (int i = 0; i < 12; ++i)
    first.push_back(weight * std::pow(0.3F, static_cast<float>(i / 3)) *
                    (i % 2 == 0 ? 1.0F : -0.7F));
  const ValueId hidden = b.Op("Relu", {b.Op("Conv", {x, b.Constant<float>({4, 3, 1, 1}, first),
                                                     b.Constant<float>({4}, {1, 0, 0, 1})})});
  std::vector<float> second;
  for (int i = 0; i < 72; ++i) second.push_back(std::cos(static_cast<float>(i)));
  b.Output(b.Op("Conv", {hidden, b.Constant<float>({2, 4, 3, 3}, second)}), "y");
  return b.Build();
}

class CalibrationFileTest : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const { return folder_.path(name); }

  absl::StatusOr<Statistics> Through(const std::string& file, const CalibrationSet& set,
                                     const Progress& progress = {}) {
    return FileStatistics(graph_, set, {.progress = progress, .statistics_to = Path(file)});
  }
  absl::StatusOr<Statistics> From(std::vector<std::string> files) {
    for (std::string& file : files) file = Path(file);
    return FileStatistics(graph_, {}, {.statistics_from = std::move(files)});
  }
  std::string Refusal(const std::vector<std::string>& files) {
    const auto read = From(files);
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << read.status();
    return std::string(Message(read.status()));
  }

  Graph graph_ = Network();
  ModelFolder folder_;
};

void ExpectSame(const Statistics& a, const Statistics& b) {
  const auto same = [](const Histogram& left, const Histogram& right) {
    EXPECT_EQ(left.limit(), right.limit());
    EXPECT_EQ(left.extremes(), right.extremes());
    EXPECT_TRUE(std::ranges::equal(left.bins(), right.bins()));
  };
  ASSERT_EQ(a.histograms.size(), b.histograms.size());
  for (const auto& [id, histogram] : a.histograms) same(histogram, b.histograms.at(id));
  ASSERT_FALSE(a.channel_histograms.empty());
  for (const auto& [id, histogram] : a.channel_histograms) {
    const auto& others = b.channel_histograms.at(id).channels();
    ASSERT_EQ(histogram.channels().size(), others.size());
    for (size_t c = 0; c < others.size(); ++c) same(histogram.channels()[c], others[c]);
  }
  for (const auto& [id, moments] : a.channels) {
    EXPECT_EQ(moments.sums(), b.channels.at(id).sums());
    EXPECT_EQ(moments.squares(), b.channels.at(id).squares());
    EXPECT_EQ(moments.extremes(), b.channels.at(id).extremes());
  }
  ASSERT_EQ(a.moments.size(), 2U);
  for (const auto& [id, moments] : a.moments) {
    EXPECT_EQ(moments.sums(), b.moments.at(id).sums());
    EXPECT_EQ(moments.count(), b.moments.at(id).count());
  }
  ASSERT_EQ(a.patches.size(), 2U);
  for (const auto& [id, patches] : a.patches) {
    EXPECT_EQ(patches.count(), b.patches.at(id).count());
    EXPECT_TRUE(std::ranges::equal(patches.sums(), b.patches.at(id).sums()));
    EXPECT_TRUE(std::ranges::equal(patches.products(), b.patches.at(id).products()));
  }
}

TEST_F(CalibrationFileTest, HoldsWhatAPassGathers) {
  const auto gathered = GatherStatistics(graph_, Samples(20, 0), {});
  const auto kept = Through("a.npz", Samples(20, 0));
  const auto read = From({"a.npz"});
  ASSERT_TRUE(gathered.ok() && kept.ok() && read.ok()) << kept.status() << read.status();
  ExpectSame(*gathered, *kept);
  ExpectSame(*gathered, *read);
}

TEST_F(CalibrationFileTest, MergesRunsOverOtherSamples) {
  ASSERT_TRUE(Through("a.npz", Samples(20, 0)).ok());
  ASSERT_TRUE(Through("b.npz", Samples(12, 5)).ok());
  const auto merged = From({"a.npz", "b.npz"});
  ASSERT_TRUE(merged.ok()) << merged.status();
  const auto alone = From({"a.npz"});
  for (const auto& [id, histogram] : merged->histograms) {
    EXPECT_EQ(histogram.count(), alone->histograms.at(id).count() / 20 * 32);
    EXPECT_LE(alone->histograms.at(id).extremes().max, histogram.extremes().max);
  }
  for (const auto& [id, moments] : merged->moments)
    EXPECT_EQ(moments.count(), alone->moments.at(id).count() / 20 * 32);
  EXPECT_THAT(Refusal({"a.npz", "a.npz"}), HasSubstr("the same samples"));
}

TEST_F(CalibrationFileTest, KeepsWhatFilesHoldTogether) {
  ASSERT_TRUE(Through("a.npz", Samples(20, 0)).ok());
  ASSERT_TRUE(Through("b.npz", Samples(12, 5)).ok());
  const auto merged = FileStatistics(
      graph_, {},
      {.statistics_from = {Path("a.npz"), Path("b.npz")}, .statistics_to = Path("c.npz")});
  const auto read = From({"c.npz"});
  ASSERT_TRUE(merged.ok() && read.ok()) << merged.status() << read.status();
  ExpectSame(*merged, *read);
}

TEST_F(CalibrationFileTest, GoesOnWhereItWasStopped) {
  const auto whole = GatherStatistics(graph_, Samples(40, 0), {});
  std::vector<int64_t> steps;
  const auto stopped = Through("a.npz", Samples(40, 0), [&](int64_t done, int64_t) {
    steps.push_back(done);
    return done < 16;
  });
  EXPECT_TRUE(absl::IsCancelled(stopped.status()));
  EXPECT_THAT(std::string(Message(stopped.status())), HasSubstr("16 of 40 samples"));
  EXPECT_THAT(Refusal({"a.npz"}), HasSubstr("stopped after 16 of 40"));
  const auto other = Through("a.npz", Samples(40, 1));
  EXPECT_THAT(std::string(Message(other.status())), HasSubstr("other samples"));
  steps.clear();
  const auto resumed = Through("a.npz", Samples(40, 0), [&](int64_t done, int64_t) {
    steps.push_back(done);
    return true;
  });
  ASSERT_TRUE(whole.ok() && resumed.ok()) << resumed.status();
  EXPECT_EQ(steps.front(), 24);
  ExpectSame(*whole, *resumed);
  steps.clear();
  ASSERT_TRUE(Through("a.npz", Samples(40, 0), [&](int64_t, int64_t) { return false; }).ok());
}

TEST_F(CalibrationFileTest, RefusesAnotherModelsFile) {
  ASSERT_TRUE(Through("a.npz", Samples(20, 0)).ok());
  graph_ = Network(0.25F);
  EXPECT_THAT(Refusal({"a.npz"}), AllOf(HasSubstr("a.npz"), HasSubstr("another model")));
}

TEST_F(CalibrationFileTest, RefusesWhatIsNone) {
  const Tensor ones = Tensor::From<int64_t>(Shape{2}, {1, 1});
  ASSERT_TRUE(WriteNpz(Path("a.npz"), {{{"inputs", {ones.view()}}}}).ok());
  EXPECT_THAT(Refusal({"a.npz"}), HasSubstr("not a calibration file"));
}

// Writes the file anew with one array changed.
void Change(const std::string& path, const std::string& name, const Tensor& to) {
  auto arrays = ReadNpz(path);
  ASSERT_TRUE(arrays.ok() && arrays->contains(name)) << name;
  arrays->insert_or_assign(name, to);
  std::vector<NpzArray> changed;
  for (const auto& [key, tensor] : *arrays) changed.push_back({key, {tensor.view()}});
  ASSERT_TRUE(WriteNpz(path, changed).ok());
}

TEST_F(CalibrationFileTest, NamesTheArrayThatIsMalformed) {
  const std::pair<std::string, Tensor> changes[] = {
      {"version", Tensor::From<int64_t>(Shape{1}, {2})},
      {"samples", Tensor::From<int64_t>(Shape{2}, {5, 4})},
      {"histograms/limits", Tensor::From<double>(Shape{1}, {1})},
      {"histograms/counts", Tensor::From<float>(Shape{1}, {1})},
      {"moments/channels", Tensor::From<int64_t>(Shape{2}, {-1, 7})},
      {"moments/elements", Tensor::From<int64_t>(Shape{2}, {-1, 7})},
      {"patches/counts", Tensor::From<int64_t>(Shape{2}, {-1, 7})},
      {"patches/products", Tensor::From<float>(Shape{1}, {1})},
  };
  for (const auto& [name, tensor] : changes) {
    std::filesystem::remove(Path("a.npz"));
    ASSERT_TRUE(Through("a.npz", Samples(20, 0)).ok());
    Change(Path("a.npz"), name, tensor);
    EXPECT_THAT(Refusal({"a.npz"}),
                AllOf(HasSubstr("a.npz"), HasSubstr(name.substr(0, name.find('/')))));
  }
}

// With a file alone every recipe that compares no answers is open, and gives what the samples give.
TEST_F(CalibrationFileTest, TakesThePlaceOfTheSamples) {
  QuantizeRecipe recipe{.to = Precision::kInt8, .method = RangeMethod::kMinMax};
  const std::vector<std::string> file = {Path("a.npz")};
  const auto saved = Quantize(graph_, recipe, Samples(20, 0), {.statistics_to = file[0]});
  ASSERT_TRUE(saved.ok()) << saved.status();
  for (const bool equalize : {true, false}) {
    recipe.equalize = equalize;
    const auto expected = Quantize(graph_, recipe, Samples(20, 0), {});
    const auto got = Quantize(graph_, recipe, {}, {.statistics_from = file});
    ASSERT_TRUE(expected.ok() && got.ok()) << got.status();
    ASSERT_EQ(expected->records.size(), got->records.size());
    for (size_t i = 0; i < got->records.size(); ++i)
      EXPECT_EQ(got->records[i].detail, expected->records[i].detail);
  }
  recipe.method = RangeMethod::kAuto;
  const auto choice = Quantize(graph_, recipe, {}, {.statistics_from = file});
  EXPECT_THAT(std::string(Message(choice.status())), HasSubstr("takes samples"));
  EXPECT_TRUE(Quantize(graph_, recipe, Samples(8, 3), {.statistics_from = file}).ok());
  recipe.floor = {AccuracyFloor::Kind::kMinSqnr, 10};
  const auto floored = Quantize(graph_, recipe, {}, {.statistics_from = file});
  EXPECT_THAT(std::string(Message(floored.status())), HasSubstr("takes samples"));
  const auto held = Quantize(graph_, recipe, Samples(8, 3), {.statistics_from = file});
  ASSERT_TRUE(held.ok()) << held.status();
  EXPECT_EQ(held->mixed->held_back, 8);
}

}  // namespace calibration_file_test
}  // namespace octet

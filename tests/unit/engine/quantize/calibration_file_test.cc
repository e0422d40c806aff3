// Statistics that outlive the process: kept, merged, gone on with, and refused where they are another model's.
#include "engine/quantize/calibration_file.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <numeric>
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
  for (int i = 0; i < 12; ++i) {
    const int channel = i / 3;
    first.push_back(weight * std::pow(0.3F, static_cast<float>(channel)) *
                    (i % 2 == 0 ? 1.0F : -0.7F));
  }
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
    EXPECT_EQ(left.moving().samples(), right.moving().samples());
    EXPECT_EQ(left.moving().average(), right.moving().average());
  };
  ASSERT_EQ(a.histograms.size(), b.histograms.size());
  for (const auto& [id, histogram] : a.histograms) same(histogram, b.histograms.at(id));
  ASSERT_FALSE(a.channel_histograms.empty());
  for (const auto& [id, histogram] : a.channel_histograms) {
    const auto& others = b.channel_histograms.at(id).channels();
    ASSERT_EQ(histogram.channels().size(), others.size());
    for (size_t c = 0; c < others.size(); ++c) same(histogram.channels()[c], others[c]);
  }
  ASSERT_FALSE(a.channels.empty());
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

TEST_F(CalibrationFileTest, KnowsLayersWhoseRowsAreNoSamples) {
  GraphBuilder b;
  const ValueId row = b.Op("Squeeze", {b.Input("x", {1, 8}), b.IntList({0})});
  const ValueId sums = b.Op("MatMul", {row, b.Random({8, 4})});
  b.Output(b.Op("Unsqueeze", {sums, b.IntList({0})}));
  graph_ = b.Build();
  const CalibrationSet set = {{"x", Samples(2, 0).at("x").Reshaped(Shape{27, 8})}};
  const auto kept = Through("a.npz", set);
  ASSERT_TRUE(kept.ok()) << kept.status();
  ASSERT_EQ(kept->patches.size(), 1U);
  EXPECT_EQ(kept->patches.begin()->second.count(), 0);
  const auto read = From({"a.npz"});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->patches.begin()->second.count(), 0);
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
      {"version", Tensor::From<int64_t>(Shape{1}, {1})},
      {"samples", Tensor::From<int64_t>(Shape{2}, {5, 4})},
      {"data", Tensor::From<uint64_t>(Shape{0}, {})},
      {"histograms/limits", Tensor::From<double>(Shape{1}, {1})},
      {"histograms/counts", Tensor::From<float>(Shape{1}, {1})},
      {"moving/samples", Tensor::From<int64_t>(Shape{3}, {20, 20, 0})},
      {"moving/sums", Tensor::From<double>(Shape{1}, {1})},
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

// All but the last channel of an array that has so many.
Tensor WithoutLast(const Tensor& array, int64_t channels) {
  Tensor cut(array.dtype(), Shape{array.elements() / channels * (channels - 1)});
  std::memcpy(cut.mutable_data(), array.data(), cut.bytes());
  return cut;
}

// Counts that go with the arrays' extents, but not with the model's: nothing behind them looks again.
TEST_F(CalibrationFileTest, RefusesOtherChannelsThanTheModels) {
  const std::string path = Path("a.npz");
  for (const std::string group : {"histograms", "channel_histograms", "moments", "channels"}) {
    std::filesystem::remove(path);
    ASSERT_TRUE(Through("a.npz", Samples(20, 0)).ok());
    const auto arrays = ReadNpz(path);
    ASSERT_TRUE(arrays.ok());
    const auto held = arrays->at(group + "/channels").span<int64_t>();
    std::vector<int64_t> channels(held.begin(), held.end());
    const int64_t total = std::accumulate(channels.begin(), channels.end(), int64_t{0});
    --channels.back();
    Change(path, group + "/channels", Tensor::From<int64_t>(Shape{std::ssize(channels)}, channels));
    for (const std::string array : {"limits", "extremes", "counts", "sums", "squares"}) {
      const auto found = arrays->find(group + "/" + array);
      if (found != arrays->end()) Change(path, found->first, WithoutLast(found->second, total));
    }
    EXPECT_THAT(Refusal({"a.npz"}), AllOf(HasSubstr("a.npz"), HasSubstr("'" + group + "' of"),
                                          HasSubstr("channels, got")));
  }
}

TEST_F(CalibrationFileTest, RefusesNamesThatAreThereTwice) {
  for (const std::string group : {"histograms", "moments"}) {
    std::filesystem::remove(Path("a.npz"));
    ASSERT_TRUE(Through("a.npz", Samples(20, 0)).ok());
    const auto arrays = ReadNpz(Path("a.npz"));
    ASSERT_TRUE(arrays.ok());
    const Tensor& names = arrays->at(group + "/names");
    const std::vector<std::string_view> same(static_cast<size_t>(names.elements()),
                                             names.span<std::string_view>()[0]);
    Change(Path("a.npz"), group + "/names", Tensor::Strings(names.shape(), same));
    EXPECT_THAT(Refusal({"a.npz"}), AllOf(HasSubstr("'" + group + "' of"), HasSubstr("twice")));
  }
}

TEST_F(CalibrationFileTest, RefusesHistogramsOfNothing) {
  ASSERT_TRUE(Through("a.npz", Samples(20, 0)).ok());
  const auto arrays = ReadNpz(Path("a.npz"));
  ASSERT_TRUE(arrays.ok());
  Change(
      Path("a.npz"), "histograms/counts",
      Tensor::From<uint64_t>(
          arrays->at("histograms/counts").shape(),
          std::vector<uint64_t>(static_cast<size_t>(arrays->at("histograms/counts").elements()))));
  EXPECT_THAT(Refusal({"a.npz"}), HasSubstr("no elements counted"));
}

TEST_F(CalibrationFileTest, CountsNoSetTwiceThroughAMergedFile) {
  ASSERT_TRUE(Through("a.npz", Samples(20, 0)).ok());
  ASSERT_TRUE(Through("b.npz", Samples(12, 5)).ok());
  const CalibrationRun merge{.statistics_from = {Path("a.npz"), Path("b.npz")},
                             .statistics_to = Path("c.npz")};
  ASSERT_TRUE(FileStatistics(graph_, {}, merge).ok());
  EXPECT_THAT(Refusal({"c.npz", "a.npz"}), HasSubstr("the same samples"));
  ASSERT_TRUE(FileStatistics(graph_, {}, merge).ok());  // It is there already, with the same.
}

TEST_F(CalibrationFileTest, MergesOverNoOtherFile) {
  ASSERT_TRUE(Through("a.npz", Samples(20, 0)).ok());
  ASSERT_TRUE(Through("b.npz", Samples(12, 5)).ok());
  ASSERT_TRUE(WriteNpz(Path("data.npz"), {{{"x", {Samples(4, 0).at("x").view()}}}}).ok());
  for (const auto& [there, why] :
       {std::pair{"a.npz", "other samples"}, {"data.npz", "not a calibration file"}}) {
    const auto size = std::filesystem::file_size(Path(there));
    const auto merged = FileStatistics(
        graph_, {},
        {.statistics_from = {Path("a.npz"), Path("b.npz")}, .statistics_to = Path(there)});
    EXPECT_THAT(std::string(Message(merged.status())), HasSubstr(why));
    EXPECT_EQ(std::filesystem::file_size(Path(there)), size);
  }
}

// What decides what a node computes, or what the model takes and gives.
TEST_F(CalibrationFileTest, TellsModelsApart) {
  const auto statistics = Through("a.npz", Samples(20, 0));
  ASSERT_TRUE(statistics.ok()) << statistics.status();
  const NodeId conv = graph_.order()[0];
  const auto refused = [&](const std::string& file, auto change) {
    graph_ = Network();
    change();
    EXPECT_THAT(Refusal({file}), HasSubstr("another model"));
  };
  refused("a.npz", [&] { graph_.mutable_node(conv).version = 1; });
  refused("a.npz", [&] { (*graph_.mutable_value(graph_.inputs[0]).shape)[0] = 4; });
  refused("a.npz", [&] { graph_.outputs.push_back(graph_.node(conv).outputs[0]); });
  const auto body = [](float weight) { return std::make_shared<const Graph>(Network(weight)); };
  const std::pair<AttributeValue, AttributeValue> pairs[] = {
      {std::vector<std::string>{"a"}, std::vector<std::string>{"b"}},
      {Tensor::From<float>(Shape{2}, {1, 2}), Tensor::From<float>(Shape{2, 1}, {1, 2})},
      {body(1), body(2)},
      {ValueType{.dtype = DType::kF32}, ValueType{.dtype = DType::kI64}}};
  for (const auto& [one, other] : pairs) {
    graph_ = Network();
    graph_.mutable_node(conv).attributes.Set("more", one);
    ASSERT_TRUE(WriteCalibrationFile(graph_, *statistics, {20, 20, {1}}, Path("b.npz")).ok());
    ASSERT_TRUE(From({"b.npz"}).ok());
    refused("b.npz", [&] { graph_.mutable_node(conv).attributes.Set("more", other); });
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
  const auto seen = [&](const QuantizeResult& result) {
    return std::ranges::contains(result.records, "seen", &QuantizeRecord::what);
  };
  EXPECT_FALSE(seen(*held));
  for (const AccuracyFloor floor :
       {AccuracyFloor{AccuracyFloor::Kind::kMinSqnr, 10}, AccuracyFloor{}}) {
    recipe.floor = floor;
    const auto flattered = Quantize(graph_, recipe, Samples(20, 0), {.statistics_from = file});
    ASSERT_TRUE(flattered.ok()) << flattered.status();
    EXPECT_TRUE(seen(*flattered));
  }
}

// Rounding is shared out; without samples nothing else says among how many.
TEST_F(CalibrationFileTest, HasTheThreadsThatItIsGiven) {
  const QuantizeRecipe recipe{.to = Precision::kInt8, .method = RangeMethod::kMinMax};
  const std::string file = Path("a.npz");
  ASSERT_TRUE(Quantize(graph_, recipe, Samples(20, 0), {.statistics_to = file}).ok());
  omp_set_num_threads(2);
  ASSERT_TRUE(Quantize(graph_, recipe, {}, {.threads = 1, .statistics_from = {file}}).ok());
  EXPECT_EQ(omp_get_max_threads(), 1);
}

// To keep what is learned changes nothing about the file that is made.
TEST_F(CalibrationFileTest, KeepingStatisticsLeavesTheChoiceAlone) {
  const QuantizeRecipe recipe{.to = Precision::kInt8};
  const auto alone = Quantize(graph_, recipe, Samples(40, 0), {});
  const auto kept = Quantize(graph_, recipe, Samples(40, 0), {.statistics_to = Path("a.npz")});
  ASSERT_TRUE(alone.ok() && kept.ok()) << kept.status();
  EXPECT_TRUE(std::filesystem::exists(Path("a.npz")));
  ASSERT_EQ(alone->records.size(), kept->records.size());
  for (size_t i = 0; i < kept->records.size(); ++i)
    EXPECT_EQ(kept->records[i].detail, alone->records[i].detail);
}

}  // namespace calibration_file_test
}  // namespace octet

// Samples of files, as a model's inputs.
#include "cli/samples.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cli/sample_arrays.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/npz_writer.h"
#include "engine/tensor/status.h"

namespace octet::cli {
namespace samples_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <typename T>
Tensor Counting(Shape shape, T first) {
  std::vector<T> values(static_cast<size_t>(shape.elements()));
  std::iota(values.begin(), values.end(), first);
  return Tensor::From<T>(std::move(shape), std::span<const T>(values));
}

class SamplesTest : public ::testing::Test {
 protected:
  SamplesTest() {
    std::string pattern = ::testing::TempDir() + "octet-samples-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    signature_.inputs = {{"x", DType::kF32, Shape{kUnknownDim, 2}}};
  }
  ~SamplesTest() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name,
                    const std::vector<std::pair<std::string, Tensor>>& arrays) const {
    std::vector<NpzArray> all;
    for (const auto& [array, tensor] : arrays) all.push_back({array, {tensor.view()}});
    const std::string path = folder_ + "/" + name;
    EXPECT_TRUE(WriteNpz(path, all).ok());
    return path;
  }
  std::string WriteMap() const {
    const std::string path = folder_ + "/model.yaml";
    std::ofstream(path)
        << "inputs: {x: {wire: {datatype: UINT8, scale: [0.5], zero_point: [1]}}}\n";
    return path;
  }
  absl::StatusOr<Samples> Open(const SampleSet& set) const {
    return Samples::Open(signature_, set);
  }
  std::string Refusal(const SampleSet& set) const {
    return std::string(Message(Open(set).status()));
  }
  template <typename T>
  static std::vector<T> Rows(const Samples& samples, size_t i, int64_t first, int64_t rows) {
    Tensor read(DTypeOf<T>, samples.BatchShapes(first, rows)[i]);
    const absl::Status status = samples.Read(i, first, rows, read.mutable_view());
    EXPECT_TRUE(status.ok()) << status;
    return {read.span<T>().begin(), read.span<T>().end()};
  }

  std::string folder_;
  Signature signature_;
};

TEST_F(SamplesTest, RowsAreConvertedWhereverTheyLie) {
  const std::string map = WriteMap();
  Write("a.npz", {{"inputs", Counting<uint8_t>({3, 2}, 0)}});
  Write("b.npz", {{"inputs", Counting<uint8_t>({2, 2}, 6)}});
  const std::string alone = Write("whole", {{"x", Counting<uint8_t>({5, 2}, 0)}});
  for (const std::string& path : {folder_, alone}) {
    const auto samples = Open({{path}, map});
    ASSERT_TRUE(samples.ok()) << samples.status();
    ASSERT_EQ(samples->count(), 5);
    EXPECT_TRUE(samples->inputs()[0].mapped);
    EXPECT_THAT(Rows<float>(*samples, 0, 1, 3), ElementsAre(0.5F, 1, 1.5F, 2, 2.5F, 3)) << path;
    EXPECT_THAT(Rows<float>(*samples, 0, 4, 1), ElementsAre(3.5F, 4));
    EXPECT_THAT(Rows<float>(*samples, 0, 0, 1), ElementsAre(-0.5F, 0));
    std::vector<float> same(6);
    ASSERT_TRUE(samples->data().Read("x", 1, 3, same.data()).ok());
    EXPECT_THAT(same, ElementsAre(0.5F, 1, 1.5F, 2, 2.5F, 3)) << path;
  }
}

TEST_F(SamplesTest, AnotherModelMayReadThemInItsOwnType) {
  const std::string path = Write("a.npz", {{"x", Counting<float>({4, 2}, 0.25F)}});
  const auto samples = Open({{path}, ""});
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_THAT(Rows<double>(*samples, 0, 1, 2), ElementsAre(2.25, 3.25, 4.25, 5.25));
}

TEST_F(SamplesTest, RealsOfAnyTypeAreAModelsOfAnother) {
  const std::string path = Write("a.npz", {{"x", Counting<float>({4, 2}, 0.25F)}});
  for (const DType dtype : {DType::kF16, DType::kBF16, DType::kF64}) {
    signature_.inputs[0].dtype = dtype;
    const auto samples = Open({{path}, ""});
    ASSERT_TRUE(samples.ok()) << samples.status();
    EXPECT_EQ(samples->data().SpecOf("x", 0)->dtype, dtype);
    EXPECT_THAT(Rows<double>(*samples, 0, 1, 1), ElementsAre(2.25, 3.25));
  }
  signature_.inputs[0].dtype = DType::kF32;
  const std::string wide = Write("b.npz", {{"x", Counting<double>({4, 2}, 0.25)}});
  const auto samples = Open({{wide}, ""});
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_THAT(Rows<float>(*samples, 0, 1, 1), ElementsAre(2.25F, 3.25F));
}

// What a model of 16 bits would lose of them, its reference need not.
TEST_F(SamplesTest, MappedOnesAreRoundedToTheTypeThatReadsThemAlone) {
  signature_.inputs[0].dtype = DType::kF16;
  std::ofstream(folder_ + "/model.yaml")
      << "inputs: {x: {wire: {datatype: UINT8, scale: [0.1]}}}\n";
  const std::string path = Write("a.npz", {{"x", Counting<uint8_t>({2, 2}, 3)}});
  const auto samples = Open({{path}, folder_ + "/model.yaml"});
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->data().SpecOf("x", 0)->dtype, DType::kF16);
  EXPECT_THAT(Rows<float>(*samples, 0, 0, 2), ElementsAre(0.1F * 3, 0.1F * 4, 0.1F * 5, 0.1F * 6));
}

TEST_F(SamplesTest, AMappingToTheInputsOwnTypeIsRefused) {
  signature_.inputs[0].dtype = DType::kF16;
  std::ofstream(folder_ + "/model.yaml") << "inputs: {x: {wire: {datatype: FP16, scale: [0.1]}}}\n";
  const std::string path = Write("a.npz", {{"x", Tensor(DType::kF16, Shape{2, 2})}});
  EXPECT_THAT(
      Refusal({{path}, folder_ + "/model.yaml"}),
      HasSubstr("input 'x': expected a wire datatype other than the input's own, got FP16"));
}

TEST_F(SamplesTest, AreHandedOnAsTheyAreStored) {
  const std::string path = Write("a.npz", {{"x", Counting<uint8_t>({4, 2}, 7)}});
  const auto samples = Open({.paths = {path}, .map = "", .as_stored = true});
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->inputs()[0].info.dtype, DType::kU8);
  EXPECT_THAT(Rows<uint8_t>(*samples, 0, 2, 1), ElementsAre(11, 12));
  EXPECT_THAT(Refusal({{path}, ""}), HasSubstr("a.npz: array 'x': expected FP32, got UINT8"));
}

TEST_F(SamplesTest, HaveOneShapeUnlessSeveralWillDo) {
  signature_.inputs[0].shape = Shape{kUnknownDim, kUnknownDim};
  Write("a.npz", {{"x", Counting<float>({2, 3}, 0)}});
  Write("b.npz", {{"x", Counting<float>({2, 4}, 0)}});
  EXPECT_THAT(Refusal({{folder_}, ""}), HasSubstr("b.npz: [2,4] of FP32 does not go with [2,3] of "
                                                  "FP32 in " +
                                                  folder_ + "/a.npz"));
  const auto several = Open({.paths = {folder_}, .map = "", .one_shape = false});
  ASSERT_TRUE(several.ok()) << several.status();
  EXPECT_EQ(several->count(), 4);
  EXPECT_EQ(several->data().Alike(0, 4), 2);
}

TEST_F(SamplesTest, TheNameOfAnOnlyInputMayDifferFromFileToFile) {
  Write("a.npz", {{"x", Counting<float>({2, 2}, 0)}});
  Write("b.npz", {{"inputs", Counting<float>({1, 2}, 4)}});
  const auto samples = Open({{folder_}, ""});
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_THAT(Rows<float>(*samples, 0, 1, 2), ElementsAre(2, 3, 4, 5));
  Write("b.npz", {{"inputs", Counting<int32_t>({1, 2}, 4)}});
  EXPECT_THAT(Refusal({{folder_}, ""}), HasSubstr("b.npz: [1,2] of INT32 does not go with"));
}

// A waveform of any length, and a state that fits it or does not stack along axis 0.
TEST_F(SamplesTest, AreWholeInputsWhereNoAxisIsTheSamples) {
  const auto has = [](std::vector<Shape> inputs, std::vector<Shape> outputs, bool batches) {
    Signature signature;
    signature.batches = batches;
    for (Shape& shape : inputs) signature.inputs.push_back({"x", DType::kF32, std::move(shape)});
    for (Shape& shape : outputs) signature.outputs.push_back({"y", DType::kF32, std::move(shape)});
    return HasSampleAxis(signature);
  };
  EXPECT_TRUE(has({{kUnknownDim, 2}}, {{kUnknownDim, 3}}, true));
  EXPECT_TRUE(has({{kUnknownDim, 2}}, {{kUnknownDim, 3}}, false)) << "shapes follow from data";
  EXPECT_TRUE(has({{1, 2}, {1, 5}}, {{1, 3}}, false));
  EXPECT_TRUE(has({{4, 2}, {4, 5}}, {{4, 3}}, false));
  EXPECT_TRUE(has({{1, 2}, {kUnknownDim, 5}}, {{1, 3}}, false));
  EXPECT_TRUE(has({{kUnknownDim}, {kUnknownDim}}, {{kUnknownDim}}, true)) << "numbers of users";
  EXPECT_FALSE(has({{kUnknownDim}}, {{1, 3}}, false)) << "a waveform";
  EXPECT_FALSE(has({{16000}}, {{3}}, false));
  EXPECT_FALSE(has({{1, 2}, {2, 1, 4}}, {{1, 3}}, false));
  EXPECT_FALSE(has({{kUnknownDim, 2}, {2, kUnknownDim, 4}}, {{kUnknownDim, 3}}, false));
  EXPECT_FALSE(has({{kUnknownDim, 2}, Shape{}}, {{kUnknownDim, 3}}, false)) << "a scalar";
}

TEST_F(SamplesTest, EachFileIsOneOfWholeInputs) {
  signature_.inputs = {{"x", DType::kF32, Shape{1, kUnknownDim}},
                       {"state", DType::kF32, {2, 1, 2}}};
  Write("a.npz", {{"x", Counting<float>({1, 3}, 0)},
                  {"state", Counting<float>({2, 1, 2}, 10)},
                  {"labels", Counting<int32_t>({}, 4)}});
  Write("b.npz", {{"x", Counting<float>({1, 5}, 3)},
                  {"state", Counting<float>({2, 1, 2}, 20)},
                  {"labels", Counting<int32_t>({1}, 5)}});
  // Two of one shape.
  Write("c.npz", {{"x", Counting<float>({2, 1, 2}, 8)},
                  {"state", Counting<float>({2, 2, 1, 2}, 30)},
                  {"labels", Counting<int32_t>({2}, 6)}});
  const auto samples = Open({{folder_}, ""});
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_TRUE(samples->whole_inputs());
  ASSERT_EQ(samples->count(), 4);
  EXPECT_THAT(samples->labels(), ElementsAre(4, 5, 6, 7));
  EXPECT_THAT(samples->BatchShapes(0, 1), ElementsAre(Shape{1, 3}, Shape{2, 1, 2}));
  EXPECT_THAT(samples->BatchShapes(1, 1), ElementsAre(Shape{1, 5}, Shape{2, 1, 2}));
  EXPECT_THAT(Rows<float>(*samples, 0, 1, 1), ElementsAre(3, 4, 5, 6, 7));
  EXPECT_THAT(Rows<float>(*samples, 1, 1, 1), ElementsAre(20, 21, 22, 23));
  EXPECT_THAT(Rows<float>(*samples, 0, 3, 1), ElementsAre(10, 11));
  EXPECT_THAT(Rows<float>(*samples, 1, 3, 1), ElementsAre(34, 35, 36, 37));
  EXPECT_EQ(samples->data().Drawn(std::vector<int64_t>{2}).RunShape("state", 0, 1),
            (Shape{2, 1, 2}));
  const std::string wrong =
      Write("wrong", {{"x", Counting<float>({1, 3}, 0)}, {"state", Counting<float>({2, 3, 2}, 0)}});
  EXPECT_THAT(Refusal({{wrong}, ""}),
              HasSubstr("array 'state': expected shape [2,1,2] (of one sample, or with samples "
                        "along an axis before it), got [2,3,2]"));
}

TEST_F(SamplesTest, OfWholeInputsAreMappedByTheirOwnAxes) {
  signature_.inputs = {{"x", DType::kF32, Shape{kUnknownDim, 2}}};
  std::ofstream(folder_ + "/model.yaml")
      << "inputs: {x: {wire: {datatype: UINT8, scale: [0.5, 2]}}}\n";
  const std::string path = Write("stacked", {{"x", Counting<uint8_t>({2, 3, 2}, 0)}});
  const auto samples = Open({{path}, folder_ + "/model.yaml"});
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_TRUE(samples->whole_inputs()) << "an axis more than the input has";
  EXPECT_EQ(samples->count(), 2);
  EXPECT_THAT(Rows<float>(*samples, 0, 1, 1), ElementsAre(3, 14, 4, 18, 5, 22));
}

TEST_F(SamplesTest, LabelsAreJoined) {
  Write("a.npz", {{"x", Counting<float>({2, 2}, 0)}, {"labels", Counting<int32_t>({2}, 5)}});
  Write("b.npz", {{"x", Counting<float>({1, 2}, 0)}, {"labels", Counting<uint8_t>({1, 1}, 9)}});
  const auto samples = Open({{folder_}, ""});
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_THAT(samples->labels(), ElementsAre(5, 6, 9));
  Write("c.npz", {{"x", Counting<float>({1, 2}, 0)}});
  EXPECT_THAT(Refusal({{folder_}, ""}), HasSubstr("c.npz: no array 'labels': the 3 samples before "
                                                  "it have theirs, expected all or none"));
  Write("c.npz", {{"x", Counting<float>({1, 2}, 0)}, {"labels", Counting<float>({1}, 1)}});
  EXPECT_THAT(Refusal({{folder_}, ""}),
              HasSubstr("c.npz: array 'labels': expected 1 integers, got [1] of FP32"));
}

TEST_F(SamplesTest, SaysWhatCannotBeReadAnyMore) {
  const std::string path = Write("a.npz", {{"x", Counting<float>({20'000, 2}, 0)}});
  const auto samples = Open({{path}, ""});
  ASSERT_TRUE(samples.ok()) << samples.status();
  std::filesystem::resize_file(path, 1000);
  Tensor row(DType::kF32, Shape{1, 2});
  const absl::Status cut = samples->Read(0, 15'000, 1, row.mutable_view());
  EXPECT_THAT(std::string(Message(cut)),
              HasSubstr(path + ", array 'x': truncated or corrupt array: "
                               "byte 120000 of its elements"));
}

TEST_F(SamplesTest, AreOfNoUseToAModelThatTakesNone) {
  signature_.inputs[0].shape = Shape{0, 2};
  const std::string path = Write("a.npz", {{"x", Counting<float>({4, 2}, 0)}});
  EXPECT_THAT(Refusal({{path}, ""}), HasSubstr("a.npz: input 'x': [0,2] takes no samples"));
}

TEST_F(SamplesTest, ThereAreSome) {
  const std::string path = Write("a.npz", {{"x", Tensor(DType::kF32, Shape{0, 2})}});
  EXPECT_THAT(Refusal({{path}, ""}), HasSubstr("a.npz: no samples"));
  EXPECT_EQ(Open({{folder_ + "/none.npz"}, ""}).status().code(), absl::StatusCode::kNotFound);
}

/// The different elements of 100,000 random ones.
template <typename T>
std::set<T> RandomElements(DType dtype) {
  Tensor tensor(dtype, Shape{100, 1000});
  std::mt19937 random(1);
  FillRandom(tensor.mutable_view(), random);
  const auto elements = tensor.span<T>();
  return {elements.begin(), elements.end()};
}

TEST(RandomElementsTest, AreWithinWhatModelsTake) {
  EXPECT_THAT(RandomElements<int64_t>(DType::kI64), ElementsAre(0, 1)) << "indices, masks";
  EXPECT_THAT(RandomElements<int32_t>(DType::kI32), ElementsAre(0, 1));
  EXPECT_THAT(RandomElements<uint16_t>(DType::kU16), ElementsAre(0, 1));
  EXPECT_THAT(RandomElements<bool>(DType::kBool), ElementsAre(false, true));
  const auto pixels = RandomElements<uint8_t>(DType::kU8);
  EXPECT_EQ(pixels.size(), 256U);
  const auto steps = RandomElements<int8_t>(DType::kI8);
  EXPECT_EQ(steps.size(), 256U);
  const auto reals = RandomElements<double>(DType::kF64);
  EXPECT_GT(reals.size(), 1000U);
  EXPECT_GE(*reals.begin(), 0);
  EXPECT_LT(*reals.rbegin(), 1);
}

TEST(RandomElementsTest, AreTheSameOfTheSameSeed) {
  const auto make = [](unsigned seed) {
    Tensor tensor(DType::kU8, Shape{100'000});
    std::mt19937 random(seed);
    FillRandom(tensor.mutable_view(), random);
    return tensor;
  };
  const Tensor first = make(1), again = make(1), other = make(2);
  EXPECT_TRUE(std::ranges::equal(first.span<uint8_t>(), again.span<uint8_t>()));
  EXPECT_FALSE(std::ranges::equal(first.span<uint8_t>(), other.span<uint8_t>()));
}

}  // namespace samples_test
}  // namespace octet::cli

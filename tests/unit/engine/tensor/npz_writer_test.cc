#include "engine/tensor/npz_writer.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "engine/tensor/npz.h"
#include "engine/tensor/status.h"

namespace octet {
namespace npz_writer_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class NpzWriterTest : public ::testing::Test {
 protected:
  NpzWriterTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "octet-npz-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~NpzWriterTest() override { std::filesystem::remove_all(folder_); }

  std::string File() const { return (folder_ / "x.npz").string(); }
  std::vector<std::string> Entries() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }
  Tensor Written(const NpzArray& array) {
    const absl::Status status = WriteNpz(File(), std::span(&array, 1));
    EXPECT_TRUE(status.ok()) << status;
    const auto arrays = ReadNpz(File());
    EXPECT_TRUE(arrays.ok()) << arrays.status();
    return arrays.ok() ? arrays->at(array.name) : Tensor();
  }

  std::filesystem::path folder_;
};

TEST_F(NpzWriterTest, PiecesAreJoinedAlongAxis0) {
  const auto a = Tensor::From<float>({1, 2}, {1, 2});
  const auto b = Tensor::From<float>({2, 2}, {3, 4, 5, 6});
  const Tensor read = Written({"serving/x:0", {a.view(), b.view()}});
  EXPECT_EQ(read.shape(), (Shape{3, 2}));
  EXPECT_THAT(read.span<float>(), ElementsAre(1, 2, 3, 4, 5, 6));
}

TEST_F(NpzWriterTest, AScalarIsOnePiece) {
  const Tensor number = Written({"n", {Tensor::Scalar(2.5F).view()}});
  EXPECT_EQ(number.shape(), Shape{});
  EXPECT_EQ(number.span<float>()[0], 2.5F);
  const std::string_view word = "word";
  const Tensor text = Written({"t", {Tensor::Strings(Shape{}, {&word, 1}).view()}});
  EXPECT_EQ(text.shape(), Shape{});
  EXPECT_EQ(text.span<std::string_view>()[0], word);
}

TEST_F(NpzWriterTest, EveryElementTypeComesBack) {
  for (const DType dtype :
       {DType::kBool, DType::kU8, DType::kI8, DType::kU16, DType::kI16, DType::kU32, DType::kI32,
        DType::kU64, DType::kI64, DType::kF16, DType::kF32, DType::kF64}) {
    ASSERT_TRUE(NpzHolds(dtype));
    Tensor tensor(dtype, {3, 1, 2});
    auto* bytes = static_cast<std::byte*>(tensor.mutable_data());
    for (size_t i = 0; i < tensor.bytes(); ++i) {
      bytes[i] = static_cast<std::byte>(dtype == DType::kBool ? i % 2 : i);
    }
    const Tensor read = Written({"x", {tensor.view()}});
    EXPECT_EQ(read.spec(), tensor.spec()) << DTypeName(dtype);
    EXPECT_EQ(std::memcmp(read.data(), tensor.data(), tensor.bytes()), 0) << DTypeName(dtype);
  }
  EXPECT_FALSE(NpzHolds(DType::kBF16));
}

TEST_F(NpzWriterTest, StringsGetTheLengthOfTheLongest) {
  const std::vector<std::string_view> first = {"a", "", "longest"};
  const std::vector<std::string_view> second = {"xy"};
  const auto a = Tensor::Strings({3}, first);
  const auto b = Tensor::Strings({1}, second);
  const Tensor read = Written({"x", {a.view(), b.view()}});
  EXPECT_EQ(read.shape(), (Shape{4}));
  EXPECT_THAT(read.span<std::string_view>(), ElementsAre("a", "", "longest", "xy"));
}

TEST_F(NpzWriterTest, PiecesWithoutDataAreZeros) {
  const auto a = Tensor::From<int32_t>({1, 2}, {7, 8});
  const Tensor read = Written({"x", {{nullptr, a.spec()}, a.view()}});
  EXPECT_THAT(read.span<int32_t>(), ElementsAre(0, 0, 7, 8));
  const Tensor texts = Written({"x", {{nullptr, {DType::kString, {2}}}}});
  EXPECT_THAT(texts.span<std::string_view>(), ElementsAre("", ""));
}

TEST_F(NpzWriterTest, TheFileIsItsOwnersAloneAndReplacesTheOneBefore) {
  const auto a = Tensor::From<float>({1}, {1});
  const auto b = Tensor::From<float>({1}, {2});
  Written({"x", {a.view()}});
  EXPECT_THAT(Written({"x", {b.view()}}).span<float>(), ElementsAre(2));
  struct stat info{};
  ASSERT_EQ(stat(File().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  EXPECT_THAT(Entries(), ElementsAre("x.npz"));
}

TEST_F(NpzWriterTest, WhatCannotBeWrittenIsNamedAndLeavesNothing) {
  const auto a = Tensor::From<float>({1}, {1});
  const NpzArray array = {"x", {a.view()}};
  const std::string nowhere = (folder_ / "no/x.npz").string();
  const absl::Status missing = WriteNpz(nowhere, std::span(&array, 1));
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Message(missing)), HasSubstr(nowhere));
  EXPECT_THAT(std::string(Message(missing)), HasSubstr("No such file or directory"));
  std::filesystem::create_directories(folder_ / "x.npz/in_the_way");
  EXPECT_EQ(WriteNpz(File(), std::span(&array, 1)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Entries(), ElementsAre("x.npz"));
  const std::vector<NpzArray> twice = {array, array};
  const absl::Status same = WriteNpz((folder_ / "y.npz").string(), twice);
  EXPECT_EQ(same.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(same)), HasSubstr("y.npz: array 'x': "));
  EXPECT_THAT(Entries(), ElementsAre("x.npz"));
}

// The limit stands for a disk that is full: what could not be written is said, and the file before is left alone.
TEST_F(NpzWriterTest, AFileThatDoesNotFitLeavesTheOneBefore) {
  const auto small = Tensor::From<float>({1}, {1});
  Written({"x", {small.view()}});
  const Tensor large(DType::kF32, {1 << 20});
  const NpzArray array = {"x", {large.view()}};
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit least{1 << 16, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &least), 0);
  const absl::Status refused = WriteNpz(File(), std::span(&array, 1));
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(Message(refused), Format("cannot write {}: File too large", File()));
  EXPECT_THAT(Entries(), ElementsAre("x.npz"));
  EXPECT_EQ(ReadNpz(File())->at("x").shape(), (Shape{1}));
}

TEST_F(NpzWriterTest, AnArchiveOfNoArraysIsOne) {
  ASSERT_TRUE(WriteNpz(File(), {}).ok());
  const auto arrays = ReadNpz(File());
  ASSERT_TRUE(arrays.ok()) << arrays.status();
  EXPECT_TRUE(arrays->empty());
}

// Each writes a file of its own before it takes the place of the last.
TEST_F(NpzWriterTest, SeveralWritersOfOneFileLeaveItWhole) {
  const auto write = [&](float value, int times) {
    Tensor tensor(DType::kF32, {20'000});
    for (float& x : tensor.mutable_span<float>()) x = value;
    const NpzArray array = {"x", {tensor.view()}};
    for (int i = 0; i < times; ++i) {
      const absl::Status status = WriteNpz(File(), std::span(&array, 1));
      ASSERT_TRUE(status.ok()) << status;
    }
  };
  write(0, 1);
  std::atomic<bool> done = false;
  std::jthread reader([&] {
    while (!done) {
      const auto arrays = ReadNpz(File());
      ASSERT_TRUE(arrays.ok()) << arrays.status();
      const auto elements = arrays->at("x").span<float>();
      ASSERT_EQ(std::ranges::count(elements, elements[0]), std::ssize(elements));
    }
  });
  {
    const std::jthread one(write, 1.0F, 200);
    const std::jthread two(write, 2.0F, 200);
  }
  done = true;
  reader.join();
  EXPECT_THAT(Entries(), ElementsAre("x.npz"));
}

TEST_F(NpzWriterTest, ALargeArrayOfManyPieces) {
  std::vector<Tensor> pieces;
  NpzArray array = {.name = "x", .pieces = {}};
  for (int i = 0; i < 300; ++i) {
    Tensor& piece = pieces.emplace_back(DType::kI32, Shape{1, 1237});
    for (int32_t& x : piece.mutable_span<int32_t>()) x = i;
    array.pieces.push_back(piece.view());
  }
  const Tensor read = Written(array);
  ASSERT_EQ(read.shape(), (Shape{300, 1237}));
  const auto elements = read.span<int32_t>();
  for (size_t i = 0; i < elements.size(); ++i) {
    ASSERT_EQ(elements[i], static_cast<int32_t>(i / 1237)) << i;
  }
}

}  // namespace npz_writer_test
}  // namespace octet

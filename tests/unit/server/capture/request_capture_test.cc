#include "server/capture/request_capture.h"

#include <malloc.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "engine/tensor/status.h"
#include "tests/support/sanitizer.h"

namespace octet {
namespace request_capture_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

namespace fs = std::filesystem;

mode_t ModeOf(const fs::path& path) {
  struct stat info{};
  EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
  return info.st_mode & 0777;
}

/// Requests to "net", version 3: image [?, 2] and text BYTES [?].
class RequestCaptureTest : public ::testing::Test {
 protected:
  RequestCaptureTest() {
    std::string pattern = (fs::temp_directory_path() / "octet-capture-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
    signature_.inputs = {{"image", DType::kF32, {kUnknownDim, kUnknownDim}},
                         {"text", DType::kString, {kUnknownDim}}};
  }
  ~RequestCaptureTest() override { fs::remove_all(path_); }

  absl::StatusOr<std::shared_ptr<RequestCapture>> Make(const ModelConfig::Capture& rule) {
    return RequestCapture::Make({.model = model_, .version = 3, .path = path_.string()}, signature_,
                                rule, metrics_);
  }
  void Open(const ModelConfig::Capture& rule = {.percent = 100}) {
    auto capture = Make(rule);
    ASSERT_TRUE(capture.ok()) << capture.status();
    capture_ = *std::move(capture);
  }
  std::string ErrorOf(const ModelConfig::Capture& rule = {.percent = 100}) {
    return std::string(Message(Make(rule).status()));
  }

  /// One row.
  void Offer(double draw, std::vector<float> image, std::string_view text) {
    const std::vector<std::string_view> texts = {text};
    capture_->Offer(draw,
                    std::vector<WireTensor>{{image.data(), {DType::kF32, {1, std::ssize(image)}}},
                                            {texts.data(), {DType::kString, {1}}}});
  }

  fs::path Folder() const { return path_ / "net/3"; }
  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(Folder())) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }
  NpzArrays Read(const std::string& name) const {
    auto arrays = ReadNpz((Folder() / name).string());
    EXPECT_TRUE(arrays.ok()) << arrays.status();
    return arrays.ok() ? *std::move(arrays) : NpzArrays();
  }
  uint64_t Dropped(CaptureDrop why) { return metrics_->dropped.value(static_cast<size_t>(why)); }

  fs::path path_;
  std::string model_ = "net";
  Signature signature_;
  std::shared_ptr<CaptureMetrics> metrics_ = std::make_shared<CaptureMetrics>();
  std::shared_ptr<RequestCapture> capture_;
};

TEST_F(RequestCaptureTest, TheFileHoldsTheInputsAsTheyCame) {
  Open();
  Offer(0.5, {1, 2}, "one");
  Offer(0.25, {3, 4}, "three");
  EXPECT_FALSE(fs::exists(path_ / "net")) << "nothing is written while requests are served";
  capture_->Write();
  EXPECT_THAT(Files(), ElementsAre("fp32-2_bytes.npz"));
  const NpzArrays arrays = Read("fp32-2_bytes.npz");
  ASSERT_EQ(arrays.size(), 2U);
  EXPECT_EQ(arrays.at("image").shape(), (Shape{2, 2}));
  EXPECT_THAT(arrays.at("image").span<float>(), ElementsAre(3, 4, 1, 2));
  EXPECT_THAT(arrays.at("text").span<std::string_view>(), ElementsAre("three", "one"));
  EXPECT_EQ(ModeOf(Folder() / "fp32-2_bytes.npz"), 0600U);
  EXPECT_EQ(ModeOf(Folder()), 0700U);
  EXPECT_EQ(ModeOf(path_ / "net"), 0700U);
  EXPECT_EQ(metrics_->drawn.value(), 2U);
  EXPECT_EQ(metrics_->requests.value(), 2U);
  EXPECT_EQ(metrics_->rows.value(), 2U);
  EXPECT_EQ(metrics_->sample_requests.value(), 2);
  EXPECT_GT(metrics_->sample_bytes.value(), 0);
  EXPECT_EQ(metrics_->writes.value(), 1U);
}

TEST_F(RequestCaptureTest, OnlyWhatChangedIsWritten) {
  Open();
  capture_->Write();
  EXPECT_FALSE(fs::exists(path_ / "net"));
  Offer(0.5, {1, 2}, "a");
  Offer(0.5, {1, 2, 3}, "a");
  capture_->Write();
  capture_->Write();
  EXPECT_EQ(metrics_->writes.value(), 1U);
  fs::remove(Folder() / "fp32-3_bytes.npz");
  Offer(0.4, {3, 4}, "b");
  capture_->Write();
  EXPECT_THAT(Files(), ElementsAre("fp32-2_bytes.npz"));
  EXPECT_EQ(Read("fp32-2_bytes.npz").at("image").shape()[0], 2);
}

TEST_F(RequestCaptureTest, OtherShapesAndTypesGoToFilesOfTheirOwn) {
  Open();
  Offer(0.5, {1, 2}, "a");
  Offer(0.6, {1, 2, 3}, "b");
  Offer(0.7, {4, 5, 6}, "c");
  const std::vector<uint8_t> narrow = {7, 8};
  const std::vector<std::string_view> texts = {"d"};
  capture_->Offer(0.1, std::vector<WireTensor>{{narrow.data(), {DType::kU8, {1, 2}}},
                                               {texts.data(), {DType::kString, {1}}}});
  capture_->Write();
  EXPECT_THAT(Files(),
              UnorderedElementsAre("fp32-2_bytes.npz", "fp32-3_bytes.npz", "uint8-2_bytes.npz"));
  EXPECT_EQ(Read("fp32-3_bytes.npz").at("image").shape(), (Shape{2, 3}));
  EXPECT_THAT(Read("uint8-2_bytes.npz").at("image").span<uint8_t>(), ElementsAre(7, 8));
}

TEST_F(RequestCaptureTest, RowsWithoutElementsAreKept) {
  Open();
  Offer(0.5, {}, "a");
  Offer(0.25, {}, "b");
  capture_->Write();
  EXPECT_THAT(Files(), ElementsAre("fp32-0_bytes.npz"));
  const NpzArrays arrays = Read("fp32-0_bytes.npz");
  ASSERT_EQ(arrays.size(), 2U);
  EXPECT_EQ(arrays.at("image").shape(), (Shape{2, 0}));
  EXPECT_THAT(arrays.at("text").span<std::string_view>(), ElementsAre("b", "a"));
}

TEST_F(RequestCaptureTest, AFileWithoutRequestsGoesAway) {
  Open({.percent = 100, .max_bytes = 1500});
  Offer(0.9, {1, 2, 3}, "a");
  capture_->Write();
  EXPECT_THAT(Files(), ElementsAre("fp32-3_bytes.npz"));
  for (int i = 0; i < 20; ++i) Offer(0.5 - 0.01 * i, {1, 2}, "b");
  capture_->Write();
  EXPECT_THAT(Files(), ElementsAre("fp32-2_bytes.npz"));
}

TEST_F(RequestCaptureTest, RedactedInputsAreZerosAndAreNotHeld) {
  Open({.percent = 100, .redact = {"image", "text"}});
  const std::vector<float> image(100'000, 5);
  Offer(0.5, image, "secret");
  EXPECT_LT(metrics_->sample_bytes.value(), 2000);
  capture_->Write();
  const NpzArrays arrays = Read("fp32-100000_bytes.npz");
  for (const float x : arrays.at("image").span<float>()) ASSERT_EQ(x, 0);
  EXPECT_THAT(arrays.at("text").span<std::string_view>(), ElementsAre(""));
  std::ifstream file(Folder() / "fp32-100000_bytes.npz", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  EXPECT_EQ(bytes.find("secret"), std::string::npos);
}

TEST_F(RequestCaptureTest, FilesAreBoundedAsMemoryIs) {
  constexpr int64_t kBound = 100'000;
  Open({.percent = 100, .max_bytes = kBound, .redact = {"image"}});
  const std::vector<float> image(5'000);
  for (int i = 0; i < 200; ++i) Offer(0.9 - 0.001 * i, image, "a");
  Offer(0.95, std::vector<float>(200'000), "a");
  const std::string text(50'000, 'x');
  for (int i = 0; i < 100; ++i) Offer(0.5 + 0.001 * i, {1, 2}, i == 0 ? text : "b");
  capture_->Write();
  uintmax_t bytes = 0;
  for (const std::string& file : Files()) bytes += fs::file_size(Folder() / file);
  EXPECT_GT(bytes, static_cast<uintmax_t>(kBound));
  EXPECT_LE(bytes, static_cast<uintmax_t>(4 * kBound + 10'000)) << "10 kB: the files' heads";
  Open({.percent = 100, .max_bytes = kBound, .redact = {"image"}});
  Offer(0.5, std::vector<float>(200'000), "a");
  EXPECT_EQ(Dropped(CaptureDrop::kTooLarge), 1U);
}

TEST_F(RequestCaptureTest, OneOfTwoInputsIsRedacted) {
  Open({.percent = 100, .redact = {"image"}});
  Offer(0.5, {1, 2}, "kept");
  capture_->Write();
  const NpzArrays arrays = Read("fp32-2_bytes.npz");
  EXPECT_THAT(arrays.at("image").span<float>(), ElementsAre(0, 0));
  EXPECT_THAT(arrays.at("text").span<std::string_view>(), ElementsAre("kept"));
}

TEST_F(RequestCaptureTest, ThePercentageDecidesWhatIsDrawn) {
  Open({.percent = 25});
  EXPECT_TRUE(capture_->Draws(0.2499));
  EXPECT_FALSE(capture_->Draws(0.25));
  Open({.percent = 0});
  EXPECT_FALSE(capture_->Draws(0));
  Open({.percent = 100});
  EXPECT_TRUE(capture_->Draws(0.999999));
}

TEST_F(RequestCaptureTest, MemoryStaysBelowTheBound) {
  const uint64_t seed = std::random_device()();
  std::cout << "seed " << seed << '\n';
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> draw(0, 1);
  constexpr int64_t kBound = int64_t{8} << 20;
  const auto in_use = [] {
    if (const auto bytes = SanitizedBytes()) return static_cast<int64_t>(*bytes);
    const auto info = mallinfo2();
    return static_cast<int64_t>(info.uordblks + info.hblkhd);
  };
  signature_.inputs = {{"image", DType::kF32, {kUnknownDim, kUnknownDim}}};
  Open({.percent = 100, .max_bytes = kBound});
  const std::vector<float> image(20'000, 1);
  const int64_t before = in_use();
  int64_t most = 0;
  for (int i = 0; i < 20'000; ++i) {
    const auto width = static_cast<int64_t>(1 + random() % (i % 2 == 0 ? 8 : 2000));
    // Few shapes: extents are rounded.
    const int64_t extent = (width + 99) / 100 * 100;
    capture_->Offer(draw(random),
                    std::vector<WireTensor>{{image.data(), {DType::kF32, {1, extent}}}});
    most = std::max(most, in_use() - before);
    ASSERT_LE(metrics_->sample_bytes.value(), static_cast<double>(kBound));
  }
  std::cout << "sample " << metrics_->sample_bytes.value() << ", malloc " << most << " bytes\n";
  EXPECT_GT(metrics_->sample_bytes.value(), 0.98 * kBound);
  EXPECT_GT(most, kBound / 2) << "the test sees what is allocated";
  EXPECT_LE(most, kBound + 10'000) << "10 kB: a request's own lists";
}

TEST_F(RequestCaptureTest, WhatCannotBeKeptIsCountedByItsReason) {
  Open({.percent = 100, .max_bytes = 1000});
  Offer(0.5, std::vector<float>(1000), "a");
  EXPECT_EQ(Dropped(CaptureDrop::kTooLarge), 1U);
  const std::vector<uint16_t> bf16(2);
  const std::vector<std::string_view> texts = {"a", "b"};
  capture_->Offer(0.5, std::vector<WireTensor>{{bf16.data(), {DType::kBF16, {1, 2}}},
                                               {texts.data(), {DType::kString, {1}}}});
  EXPECT_EQ(Dropped(CaptureDrop::kDType), 1U);
  const std::vector<float> image(2);
  capture_->Offer(0.5, std::vector<WireTensor>{{image.data(), {DType::kF32, {1, 2}}},
                                               {texts.data(), {DType::kString, {2}}}});
  capture_->Offer(0.5, std::vector<WireTensor>{{image.data(), {DType::kF32, {1, 2}}},
                                               {texts.data(), {DType::kString, {}}}});
  EXPECT_EQ(Dropped(CaptureDrop::kAxis0), 2U);
  capture_->Offer(0.5, std::vector<WireTensor>{{nullptr, {DType::kF32, {0, 2}}},
                                               {nullptr, {DType::kString, {0}}}});
  EXPECT_EQ(Dropped(CaptureDrop::kAxis0), 3U) << "no rows are no sample";
  EXPECT_EQ(metrics_->drawn.value(), 5U);
  EXPECT_EQ(metrics_->requests.value(), 0U);
  Open();
  for (size_t i = 1; i <= UniformSample::kMostShapes + 1; ++i) {
    Offer(0.5, std::vector<float>(i), "a");
  }
  EXPECT_EQ(Dropped(CaptureDrop::kShapes), 1U);
}

TEST_F(RequestCaptureTest, AStringThatAFileWouldCutIsNotKept) {
  constexpr std::string_view kCut("a\0", 2);
  constexpr std::string_view kWhole("a\0b", 3);
  Open();
  Offer(0.5, {1, 2}, kCut);
  EXPECT_EQ(Dropped(CaptureDrop::kNul), 1U);
  EXPECT_EQ(CaptureDropLabel::kValues[static_cast<size_t>(CaptureDrop::kNul)], "trailing_nul");
  Offer(0.4, {1, 2}, kWhole);
  Offer(0.6, {1, 2}, "");
  capture_->Write();
  EXPECT_THAT(Read("fp32-2_bytes.npz").at("text").span<std::string_view>(),
              ElementsAre(kWhole, ""));
  Open({.percent = 100, .redact = {"text"}});
  Offer(0.5, {1, 2}, kCut);
  EXPECT_EQ(Dropped(CaptureDrop::kNul), 1U) << "nothing of it is written";
  EXPECT_EQ(metrics_->requests.value(), 3U);
}

TEST_F(RequestCaptureTest, WhatTheNextOneRedactsIsThrownAway) {
  Open({.percent = 100, .redact = {"image"}});
  const auto narrow = capture_;
  Open();
  const auto wide = capture_;
  EXPECT_TRUE(wide->ShowsMoreThan(*narrow));
  EXPECT_FALSE(narrow->ShowsMoreThan(*wide));
  EXPECT_FALSE(narrow->ShowsMoreThan(*narrow));
  wide->Discard();
  EXPECT_FALSE(fs::exists(path_ / "net")) << "nothing was there";
  Open();
  Offer(0.5, {1, 2}, "a");
  Offer(0.5, {1, 2, 3}, "a");
  capture_->Write();
  std::ofstream(Folder() / "int8-7_bytes.npz") << "of a load before";
  std::ofstream(Folder() / "notes.txt") << "somebody's";
  Offer(0.4, {1, 2}, "b");
  capture_->Discard();
  EXPECT_THAT(Files(), ElementsAre("notes.txt"));
  Offer(0.3, {1, 2}, "c");
  capture_->Write();
  EXPECT_THAT(Files(), ElementsAre("notes.txt"));
}

TEST_F(RequestCaptureTest, ThrowingAwayFollowsNoLinks) {
  const fs::path elsewhere = path_ / "elsewhere";
  const auto discard = [&] {
    Open();
    testing::internal::CaptureStderr();
    capture_->Discard();
    return testing::internal::GetCapturedStderr();
  };
  for (const char* link : {"net", "net/3"}) {
    fs::create_directories(elsewhere / "3");
    std::ofstream(elsewhere / "keep.npz") << "somebody's";
    std::ofstream(elsewhere / "3/keep.npz") << "somebody's";
    fs::create_directories((path_ / link).parent_path());
    fs::create_directory_symlink(elsewhere, path_ / link);
    EXPECT_THAT(discard(), HasSubstr("event=capture_not_removed")) << link;
    EXPECT_TRUE(fs::exists(elsewhere / "keep.npz")) << link;
    EXPECT_TRUE(fs::exists(elsewhere / "3/keep.npz")) << link;
    fs::remove(path_ / link);
  }
  fs::create_directories(Folder());
  fs::create_symlink(elsewhere / "keep.npz", Folder() / "b.npz");
  EXPECT_THAT(discard(), HasSubstr("event=capture_discarded"));
  EXPECT_THAT(Files(), ElementsAre("b.npz"));
}

TEST_F(RequestCaptureTest, ThrowingAwayIsDoneWhateverElseIsThere) {
  Open();
  for (const size_t pixels : {2, 3, 4}) Offer(0.5, std::vector<float>(pixels), "a");
  capture_->Write();
  EXPECT_EQ(Files().size(), 3U);
  fs::create_directories(Folder() / "a.npz/inside");
  for (const char* part : {".x.npz.12-0.tmp", ".x.npz.7-1.tmp", ".notes.tmp"}) {
    std::ofstream(Folder() / part) << "of a process that was killed";
  }
  capture_->Discard();
  EXPECT_THAT(Files(), UnorderedElementsAre("a.npz", ".notes.tmp"));
}

TEST_F(RequestCaptureTest, WhatAKilledProcessHadHalfWrittenGoes) {
  fs::create_directories(Folder());
  const auto write = [this](const char* name, std::chrono::minutes age) {
    std::ofstream(Folder() / name) << "part";
    fs::last_write_time(Folder() / name, fs::file_time_type::clock::now() - age);
  };
  write(".fp32-2_bytes.npz.1-0.tmp", std::chrono::minutes(30));
  write(".fp32-2_bytes.npz.1-1.tmp", std::chrono::minutes(1));  // somebody may be at it
  write(".notes.tmp", std::chrono::minutes(30));
  write("int8-2_bytes.npz", std::chrono::minutes(30));  // an earlier load's
  Open();
  Offer(0.5, {1, 2}, "one");
  capture_->Write();
  EXPECT_THAT(Files(), UnorderedElementsAre("fp32-2_bytes.npz", "int8-2_bytes.npz", ".notes.tmp",
                                            ".fp32-2_bytes.npz.1-1.tmp"));
  EXPECT_EQ(metrics_->writes.value(), 1U);
}

TEST_F(RequestCaptureTest, AMissingFolderIsCountedAndTriedAgain) {
  Open();
  Offer(0.5, {1, 2}, "a");
  fs::remove_all(path_);
  capture_->Write();
  capture_->Write();
  EXPECT_EQ(metrics_->write_failures.value(), 2U);
  EXPECT_FALSE(fs::exists(path_)) << "a mount that is away is not made up";
  fs::create_directory(path_);
  capture_->Write();
  EXPECT_EQ(metrics_->writes.value(), 1U);
  EXPECT_THAT(Files(), ElementsAre("fp32-2_bytes.npz"));
}

TEST_F(RequestCaptureTest, SomethingElseInTheFoldersPlaceIsCounted) {
  Open();
  Offer(0.5, {1, 2}, "a");
  std::ofstream(path_ / "net") << "a file";
  capture_->Write();
  EXPECT_EQ(metrics_->write_failures.value(), 1U);
  fs::remove(path_ / "net");
  const fs::path elsewhere = path_ / "elsewhere";
  fs::create_directory(elsewhere);
  fs::create_directory_symlink(elsewhere, path_ / "net");
  capture_->Write();
  EXPECT_EQ(metrics_->write_failures.value(), 2U) << "a link might lead anywhere";
  EXPECT_TRUE(fs::is_empty(elsewhere));
}

TEST_F(RequestCaptureTest, ClosingWritesAndTakesNothingMore) {
  Open();
  Offer(0.5, {1, 2}, "a");
  capture_->Close();
  EXPECT_THAT(Files(), ElementsAre("fp32-2_bytes.npz"));
  Offer(0.4, {1, 2}, "b");
  capture_->Write();
  EXPECT_EQ(metrics_->writes.value(), 1U);
}

TEST_F(RequestCaptureTest, WhatIsCopiedWhileItClosesDoesNotReplaceTheNextOnesFiles) {
  for (int round = 0; round < 20; ++round) {
    Open({.percent = 100, .max_bytes = 8 << 20});
    const std::vector<float> image(1 << 18);  // to copy it takes a while
    std::atomic<bool> stopped = false;
    std::jthread offering([&] {
      for (double draw = 0.9; !stopped; draw *= 0.999) Offer(draw, image, "a");
    });
    while (metrics_->requests.value() == 0) std::this_thread::yield();
    capture_->Close();
    const fs::path file = Folder() / Files().front();
    std::ofstream(file) << "the next one's";
    stopped = true;
    offering.join();
    capture_->Write();  // as who found the version before it was replaced
    EXPECT_EQ(fs::file_size(file), 14U);
    metrics_ = std::make_shared<CaptureMetrics>();
    fs::remove(file);
  }
}

TEST_F(RequestCaptureTest, ALongListOfInputsHasAShortName) {
  signature_.inputs.clear();
  std::vector<WireTensor> views;
  const std::vector<float> image(2);
  for (int i = 0; i < 60; ++i) {
    signature_.inputs.push_back({Format("x{}", i), DType::kF32, {kUnknownDim, 2}});
    views.push_back({image.data(), {DType::kF32, {1, 2}}});
  }
  Open();
  capture_->Offer(0.5, views);
  capture_->Write();
  const std::vector<std::string> files = Files();
  ASSERT_EQ(files.size(), 1U);
  EXPECT_LT(files[0].size(), 240U);
  EXPECT_EQ(Read(files[0]).size(), 60U);
}

TEST_F(RequestCaptureTest, ARuleThatDoesNotFitTheModelIsRefused) {
  EXPECT_THAT(ErrorOf({.percent = 100, .redact = {"text", "face"}}),
              HasSubstr("capture.redact: the model has no input 'face', it has image, text"));
  signature_.inputs[1] = {"state", DType::kBF16, {kUnknownDim}};
  EXPECT_THAT(ErrorOf(),
              HasSubstr("capture: element type of input 'state': .npz files hold no BF16"));
  signature_.inputs[1] = {"rate", DType::kI64, {}};
  EXPECT_THAT(ErrorOf(), HasSubstr("input 'rate' is a scalar"));
  signature_.inputs = {{"x", DType::kF32, {1, 4}}, {"h", DType::kF32, {2, 1, 4}}};
  EXPECT_THAT(ErrorOf(), HasSubstr("inputs 'x' and 'h' have 1 and 2"));
  signature_.inputs.clear();
  EXPECT_THAT(ErrorOf(), HasSubstr("the model has no inputs"));
}

TEST_F(RequestCaptureTest, AModelsNameIsAFolderOrNothing) {
  for (const std::string name : {"", ".", "..", "../net", "a/b", "/etc"}) {
    model_ = name;
    EXPECT_THAT(ErrorOf(), HasSubstr("the model's name is no folder's")) << name;
  }
  model_ = std::string("a\0b", 3);
  EXPECT_THAT(ErrorOf(), HasSubstr("no folder's"));
  model_ = "..net";
  EXPECT_EQ(ErrorOf(), "");
}

TEST_F(RequestCaptureTest, GoesOnForTheSameInputsAndRuleAlone) {
  const ModelConfig::Capture rule = {.percent = 5};
  Open(rule);
  EXPECT_TRUE(capture_->Serves(signature_, rule));
  EXPECT_FALSE(capture_->Serves(signature_, {.percent = 6}));
  EXPECT_FALSE(capture_->Serves(signature_, {.percent = 5, .redact = {"text"}}));
  signature_.inputs[0].name = "picture";
  EXPECT_FALSE(capture_->Serves(signature_, rule));
}

}  // namespace request_capture_test
}  // namespace octet

// Requests that a server in this process captures.
#include <filesystem>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/capture/request_capture.h"
#include "tests/support/rpc_test.h"

namespace octet {
namespace capture_offer_test {

using ::testing::ElementsAre;

class CaptureOfferTest : public RpcTest {
 protected:
  CaptureOfferTest() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "octet-captures-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~CaptureOfferTest() override { std::filesystem::remove_all(path_); }

  void Serve(double percent, const ModelConfig::Routing& routing = {}) {
    const auto version = repository_.Make(
        "net", 1, {{Precision::kFp32, fp32_}, {Precision::kInt8, int8_}}, {}, routing);
    version->capture = *RequestCapture::Make({.model = "net", .version = 1, .path = path_},
                                             version->signature, {.percent = percent}, captured_);
    capture_ = version->capture;
    shadow_ = version->shadow;
    repository_.Put(version);
  }
  /// Captures lie behind the answer, which the client may have first.
  void WaitFor(const Counter& counter, uint64_t value) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (counter.value() < value && std::chrono::steady_clock::now() < until) {
      std::this_thread::yield();
    }
    ASSERT_EQ(counter.value(), value);
  }
  std::vector<float> Written() {
    capture_->Write();
    const auto arrays = ReadNpz(path_ + "/net/1/fp32-4.npz");
    EXPECT_TRUE(arrays.ok()) << arrays.status();
    const auto elements = arrays->at("x").span<float>();
    return {elements.begin(), elements.end()};
  }

  std::string path_;
  std::shared_ptr<CaptureMetrics> captured_ = std::make_shared<CaptureMetrics>();
  std::shared_ptr<RequestCapture> capture_;
  std::shared_ptr<ServedShadow> shadow_;
};

TEST_F(CaptureOfferTest, AnAnsweredRequestIsKept) {
  Serve(100);
  ASSERT_TRUE(Infer(Row({5, 6, 7, 8})).ok());
  WaitFor(captured_->requests, 1);
  EXPECT_THAT(Written(), ElementsAre(5, 6, 7, 8));
}

TEST_F(CaptureOfferTest, WhatFailsIsNot) {
  Serve(100);
  fp32_->before_run = [] { return absl::InternalError("broken"); };
  EXPECT_FALSE(Infer(Row({5, 6, 7, 8})).ok());
  EXPECT_FALSE(Infer(Row({5, 6, 7})).ok());
  fp32_->before_run = nullptr;
  ASSERT_TRUE(Infer(Row({1, 2, 3, 4})).ok());
  WaitFor(captured_->requests, 1);
  EXPECT_EQ(captured_->drawn.value(), 1U);
  EXPECT_THAT(Written(), ElementsAre(1, 2, 3, 4));
}

TEST_F(CaptureOfferTest, WithoutAShareNothingIsDrawn) {
  Serve(0);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(Infer(Row()).ok());
  EXPECT_EQ(captured_->drawn.value(), 0U);
}

TEST_F(CaptureOfferTest, ARequestCanAskNotToBeKept) {
  Serve(100);
  Request request = Row({5, 6, 7, 8});
  (*request.mutable_parameters())["capture"].set_bool_param(false);
  ASSERT_TRUE(Infer(request).ok());
  (*request.mutable_parameters())["capture"].set_bool_param(true);
  ASSERT_TRUE(Infer(request).ok());
  WaitFor(captured_->requests, 1);
  EXPECT_EQ(captured_->drawn.value(), 1U);
}

TEST_F(CaptureOfferTest, AShadowGetsTheSameRequest) {
  ModelConfig::Routing routing;
  routing.shadow = {.precision = Precision::kInt8, .percent = 100};
  Serve(100, routing);
  ASSERT_TRUE(Infer(Row({5, 6, 7, 8})).ok());
  WaitFor(captured_->requests, 1);
  WaitFor(shadow_->pairs.at(Precision::kFp32)->compared, 1);
  EXPECT_THAT(int8_->last_input(), ElementsAre(5, 6, 7, 8));
  EXPECT_THAT(Written(), ElementsAre(5, 6, 7, 8));
}

TEST_F(CaptureOfferTest, RequestsOfAStreamAreKept) {
  Serve(100);
  const auto context = Context();
  const auto stream = stub_->ModelStreamInfer(context.get());
  for (const float x : {1.0F, 2.0F, 3.0F}) {
    ASSERT_TRUE(stream->Write(Row({x, x, x, x})));
    inference::ModelStreamInferResponse response;
    ASSERT_TRUE(stream->Read(&response));
  }
  stream->WritesDone();
  ASSERT_TRUE(stream->Finish().ok());
  WaitFor(captured_->requests, 3);
  std::vector<float> elements = Written();
  std::ranges::sort(elements);
  EXPECT_THAT(elements, ElementsAre(1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3));
}

}  // namespace capture_offer_test
}  // namespace octet

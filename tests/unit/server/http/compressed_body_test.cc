#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/http_test.h"
#include "tests/support/packed.h"

namespace octet {
namespace compressed_body_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class CompressedBodyTest : public HttpServerTest {
 protected:
  std::string Send(const std::string& body, const char* coding = "gzip") {
    return Post("/v2/models/net/infer", body, {{"Content-Encoding", coding}});
  }
  /// A body that is nothing but the one input.
  httplib::Result SendRaw(const std::string& body, const char* coding = "gzip") {
    return client_->Post("/v2/models/net/infer",
                         {{"Content-Encoding", coding}, {"Inference-Header-Content-Length", "0"}},
                         body, "application/octet-stream");
  }
  void ExpectTwice(const httplib::Result& result) {
    ASSERT_TRUE(result);
    ASSERT_EQ(result->status, 200) << result->body;
    std::vector<float> y(4);
    ASSERT_GE(result->body.size(), 16U);
    std::memcpy(y.data(), result->body.data() + result->body.size() - 16, 16);
    EXPECT_THAT(y, ElementsAre(2, 4, 6, 8));
  }

  const std::vector<float> x_ = {1, 2, 3, 4};
  const std::string raw_ = {reinterpret_cast<const char*>(x_.data()), 16};
};

TEST_F(CompressedBodyTest, WhatBreaksOffIsNoShorterBody) {
  for (const char* coding : {"gzip", "deflate"}) {
    const int window_bits = std::string_view(coding) == "gzip" ? 15 + 16 : 15;
    const std::string json = Packed(RowJson() + std::string(1000, ' '), window_bits);
    const std::string raw = Packed(raw_ + raw_.substr(0, 8), window_bits);
    EXPECT_THAT(Send(json, coding), StartsWith("200 "));
    for (const size_t cut : {1, 4, 8}) {
      EXPECT_THAT(Send(json.substr(0, json.size() - cut), coding),
                  StartsWith("400 {\"error\":\"the body breaks off"))
          << coding << cut;
      EXPECT_THAT(Told(SendRaw(raw.substr(0, raw.size() - cut), coding)),
                  StartsWith("400 {\"error\":\"the body breaks off"))
          << coding << cut;
    }
  }
}

TEST_F(CompressedBodyTest, WhatGoesOnIsNotLeftOut) {
  const std::string behind = "garbage";
  EXPECT_THAT(Send(Packed(RowJson()) + behind), StartsWith("400 "));
  EXPECT_THAT(Told(SendRaw(Packed(raw_) + behind)), StartsWith("400 "));
  EXPECT_THAT(Send(Packed(RowJson(), 15) + behind, "deflate"), StartsWith("400 "));
  EXPECT_THAT(Told(SendRaw(Packed(raw_, 15) + behind, "deflate")), StartsWith("400 "));
}

TEST_F(CompressedBodyTest, MembersFollowEachOther) {
  ExpectTwice(SendRaw(Packed(raw_)));
  ExpectTwice(SendRaw(Packed(raw_.substr(0, 8)) + Packed(raw_.substr(8))));
  const std::string json = RowJson();
  EXPECT_THAT(Send(Packed(json.substr(0, 20)) + Packed(json.substr(20))), StartsWith("200 "));
}

TEST_F(CompressedBodyTest, SeveralCodingsAreNotKnown) {
  EXPECT_THAT(Send(Packed(Packed(RowJson())), "gzip, gzip"), HasSubstr("got \\\"gzip, gzip\\\""));
  const httplib::Result twice = client_->Post(
      "/v2/models/net/infer", {{"Content-Encoding", "gzip"}, {"Content-Encoding", "deflate"}},
      Packed(RowJson()), "application/json");
  EXPECT_THAT(Told(twice), StartsWith("415 "));
  EXPECT_THAT(Send(RowJson(), "identity"), StartsWith("200 "));
}

TEST_F(CompressedBodyTest, MembersTogetherAreBounded) {
  const std::string member = Packed(std::string(60'000, ' '));
  EXPECT_THAT(Send(member + Packed(RowJson())), StartsWith("200 "));
  EXPECT_THAT(Send(member + member + Packed(RowJson())), StartsWith("413 "));
}

}  // namespace compressed_body_test
}  // namespace octet

// What comes in and goes out as bytes: bodies, their codings, their bounds, and what is none.
#include <zlib.h>

#include <random>
#include <thread>

#include "httplib.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/support/http_test.h"

namespace octet {
namespace http_bodies_test {

using ::testing::HasSubstr;

class HttpBodiesTest : public HttpServerTest {};

std::string Gzip(const std::string& text, int window_bits = 15 + 16) {
  z_stream stream = {};
  deflateInit2(&stream, 9, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

TEST_F(HttpBodiesTest, BodiesAreDecompressedWithinBounds) {
  const std::string row = RowJson();
  EXPECT_THAT(Post(kInfer, Gzip(row), {{"Content-Encoding", "gzip"}}), HasSubstr("200 "));
  EXPECT_THAT(Post(kInfer, Gzip(row, 15), {{"Content-Encoding", "deflate"}}), HasSubstr("200 "));
  EXPECT_THAT(Post(kInfer, Gzip(row), {{"Content-Encoding", "GZip"}}), HasSubstr("200 "));
  EXPECT_THAT(Post(kInfer, row, {{"Content-Encoding", "gzip"}}), HasSubstr("400"));
  EXPECT_THAT(Post(kInfer, row, {{"Content-Encoding", "br"}}), HasSubstr("415"));
  const std::string bomb = Gzip(std::string(50 << 20, ' '));
  ASSERT_LT(bomb.size(), 100'000U);
  EXPECT_THAT(Post(kInfer, bomb, {{"Content-Encoding", "gzip"}}), HasSubstr("413"));
  EXPECT_THAT(Post("/v2/logging", bomb, {{"Content-Encoding", "gzip"}}), HasSubstr("413"));
  EXPECT_THAT(Post(kInfer, row), HasSubstr("200 "));
}

TEST_F(HttpBodiesTest, AnswersAreCompressedWhereAskedFor) {
  client_->set_decompress(false);
  const auto encoding = [&](const char* accepted) {
    const httplib::Result result =
        client_->Post(kInfer, {{"Accept-Encoding", accepted}}, RowJson(), kJson);
    return result ? result->get_header_value("Content-Encoding") : "no answer";
  };
  EXPECT_EQ(encoding("gzip"), "gzip");
  EXPECT_EQ(encoding("br, deflate, gzip;q=0.5"), "gzip");
  EXPECT_EQ(encoding("br"), "");
  EXPECT_EQ(encoding("gzip;q=0, br"), "");
  EXPECT_EQ(encoding("identity"), "");
}

TEST_F(HttpBodiesTest, ABodyThatIsTooLargeIsRefusedBeforeItCame) {
  RawClient client(http_->port());
  client.Say("POST /v2/models/net/infer HTTP/1.1\r\nContent-Length: 10000000000\r\n\r\n{");
  EXPECT_THAT(client.Hear("}"), HasSubstr("413 Payload Too Large"));
  client.Say(std::string(20'000, ' '));
  EXPECT_TRUE(client.HearsTheEnd());
  RawClient polite(http_->port());
  polite.Say(
      "POST /v2/models/net/infer HTTP/1.1\r\nContent-Length: 10000000000\r\nExpect: "
      "100-continue\r\n\r\n");
  EXPECT_THAT(polite.Hear("}"), HasSubstr("413 Payload Too Large"));
  const auto exhausted = static_cast<size_t>(absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(metrics_.server().unrouted.value(exhausted), 2U) << "both are counted";
}

TEST_F(HttpBodiesTest, RequestsMayComeInPiecesOrAllAtOnce) {
  RawClient client(http_->port());
  const std::string body = RowJson();
  const std::string request =
      Format("POST {} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{}", kInfer, body.size(), body);
  for (const char c : request) client.Say({&c, 1});
  EXPECT_THAT(client.Hear("]}]}"), HasSubstr("200 OK"));
  client.Say(request + request + "GET /v2/health/live HTTP/1.1\r\n\r\n");
  const std::string heard = client.Hear("\"live\":true}");
  EXPECT_NE(heard.find("r1"), heard.rfind("r1")) << heard;
  client.Say("POST /v2/models/net/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" +
             Format("{:x}\r\n{}\r\n0\r\n\r\n", body.size(), body));
  EXPECT_THAT(client.Hear("]}]}"), HasSubstr("200 OK"));
  client.Say("POST /v2/models/net/infer HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n" +
             Format("{:x}\r\n{}\r\n0\r\n\r\n", body.size(), body));
  EXPECT_THAT(client.Hear("]}]}"), HasSubstr("200 OK"));
  client.Say("POST /v2/repository/index HTTP/1.1\r\n\r\n");
  EXPECT_THAT(client.Hear("]"), HasSubstr("READY")) << "no length is no body";
}

TEST_F(HttpBodiesTest, OtherTransferCodingsAreRefused) {
  for (const char* coding : {"gzip, chunked", "gzip", "chunked\r\nTransfer-Encoding: gzip"}) {
    RawClient client(http_->port());
    client.Say(Format("POST {} HTTP/1.1\r\nTransfer-Encoding: {}\r\n\r\n{{}}", kInfer, coding));
    const std::string heard = client.Hear("}");
    EXPECT_THAT(heard, HasSubstr("501 Not Implemented")) << coding;
    EXPECT_THAT(heard, HasSubstr("Connection: close"));
    EXPECT_TRUE(client.HearsTheEnd());
  }
}

TEST_F(HttpBodiesTest, AHeadThatIsNoneEndsTheConnection) {
  RawClient client(http_->port());
  client.Say("GET\r\nGET /v2/health/live HTTP/1.1\r\n\r\n");
  const std::string heard = client.Hear("nothing more");
  EXPECT_THAT(heard, HasSubstr("400 Bad Request"));
  EXPECT_THAT(heard, ::testing::Not(HasSubstr("live\":true")));
}

TEST_F(HttpBodiesTest, ABodyOfNoBytesIsNone) {
  RawClient client(http_->port());
  for (int i = 0; i < 2; ++i) {
    client.Say("GET /v2/health/live HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    const std::string heard = client.Hear("}");
    EXPECT_THAT(heard, HasSubstr("{\"live\":true}"));
    EXPECT_THAT(heard, ::testing::Not(HasSubstr("Connection: close")));
  }
  client.Say("GET /v2 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc");
  EXPECT_THAT(client.Hear("nothing more"), HasSubstr("Connection: close")) << "with a body unread";
}

TEST_F(HttpBodiesTest, ASilentBodyEndsItsRequest) {
  const auto began = std::chrono::steady_clock::now();
  RawClient client(http_->port());
  client.Say("POST /v2/models/net/infer HTTP/1.1\r\nContent-Length: 100\r\n\r\n{");
  EXPECT_THAT(client.Hear("}"), HasSubstr("400 Bad Request"));
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(18));
}

/// 6.4 MB of binary outputs, which no socket buffer takes at once.
TEST_F(HttpBodiesTest, AnswersUnderWayAreFinishedOrCutOff) {
  http_options_.max_body_bytes = 64 << 20;
  StartHttp();
  constexpr int64_t kWidth = 1'600'000;
  const auto wide = std::make_shared<FakeModel>(Shape{kUnknownDim, kWidth}, 2.0F);
  repository_.Put(repository_.Make("wide", 1, {{Precision::kFp32, wide}}));
  const std::string head = Format(
      R"({{"parameters":{{"binary_data_output":true}},"inputs":[{{"name":"x","datatype":"FP32",)"
      R"("shape":[1,{}],"parameters":{{"binary_data_size":{}}}}}]}})",
      kWidth, kWidth * 4);
  const std::string request = Format(
                                  "POST /v2/models/wide/infer HTTP/1.1\r\nContent-Length: {}\r\n"
                                  "Inference-Header-Content-Length: {}\r\n\r\n",
                                  head.size() + kWidth * 4, head.size()) +
                              head + std::string(kWidth * 4, '\0');
  RawClient slow(http_->port(), 64 << 10);
  RawClient deaf(http_->port(), 4096);
  slow.Say(request);
  deaf.Say(request);
  EXPECT_THAT(slow.Hear("\r\n\r\n"), HasSubstr("200 OK"));
  EXPECT_THAT(deaf.Hear("\r\n\r\n"), HasSubstr("200 OK"));
  const auto began = std::chrono::steady_clock::now();
  // Time enough for the slow one, however busy the machine is.
  std::jthread stopper([this] {
    EXPECT_FALSE(http_->Stop(Clock::Real().Now() + std::chrono::seconds(5))) << "one is cut off";
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_GT(slow.Hear("nothing more").size(), static_cast<size_t>(kWidth * 4 - 10'000));
  stopper.join();
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(15));
}

TEST_F(HttpBodiesTest, ABodyThatTheServersEndCutsOffIsNotTheClientsMistake) {
  RawClient client(http_->port());
  client.Say(
      "POST /v2/models/net/infer HTTP/1.1\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n");
  ASSERT_THAT(client.Hear("\r\n\r\n"), HasSubstr("100 Continue")) << "its body is being read";
  client.Say("{");
  EXPECT_TRUE(http_->Stop(Clock::Real().Now() + std::chrono::seconds(20)));
  const std::string answer = client.Hear("nothing more");
  EXPECT_THAT(answer, HasSubstr("HTTP/1.1 503 "));
  EXPECT_THAT(answer, HasSubstr("Retry-After: 1\r\n"));
}

TEST_F(HttpBodiesTest, FormsAreRefused) {
  const httplib::Result result = client_->Post(
      kInfer, "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--b--\r\n",
      "multipart/form-data; boundary=b");
  ASSERT_TRUE(result);
  EXPECT_EQ(result->status, 415) << result->body;
}

TEST_F(HttpBodiesTest, DamagedRequestsDoNoHarm) {
  const std::string body = RowJson();
  const std::string good = Format(
      "POST {} HTTP/1.1\r\nContent-Length: {}\r\nInference-Header-Content-Length: {}\r\n\r\n{}",
      kInfer, body.size(), body.size(), body);
  std::mt19937 random(23);
  for (int round = 0; round < 300; ++round) {
    std::string request = good;
    for (uint32_t changes = random() % 4 + 1; changes > 0; --changes) {
      request[random() % request.size()] = static_cast<char>(random());
    }
    RawClient client(http_->port());
    client.Say(request);
  }
  // Until the last of them has been read to its end there may be no place for another connection.
  const TimePoint deadline = Clock::Real().Now() + std::chrono::seconds(20);
  std::string answer;
  do {
    answer = Post(kInfer, body);
  } while (!answer.starts_with("200 ") && Clock::Real().Now() < deadline);
  EXPECT_THAT(answer, HasSubstr("200 "));
}

}  // namespace http_bodies_test
}  // namespace octet

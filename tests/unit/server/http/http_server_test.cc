#include "server/http/http_server.h"

#include <atomic>

#include "httplib.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"

namespace octet {
namespace http_server_test {

using ::testing::HasSubstr;

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest() {
    auto started = HttpServer::Start("127.0.0.1", 0, [this] { return ready_.load(); });
    EXPECT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }
  /// "200 {...}".
  std::string Get(const std::string& path) {
    httplib::Client client("127.0.0.1", server_->port());
    const httplib::Result result = client.Get(path);
    return result ? std::format("{} {}", result->status, result->body) : "no answer";
  }

  std::atomic<bool> ready_{false};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, SaysWhetherItIsReady) {
  EXPECT_EQ(Get("/v2/health/live"), "200 {\"live\":true}");
  EXPECT_EQ(Get("/v2/health/ready"), "503 {\"ready\":false}");
  ready_ = true;
  EXPECT_EQ(Get("/v2/health/ready"), "200 {\"ready\":true}");
}

TEST_F(HttpServerTest, AnythingElseIsNotFound) {
  EXPECT_THAT(Get("/"), HasSubstr("404 {\"error\":"));
  EXPECT_THAT(Get("/v2/health/ready/x"), HasSubstr("404 {\"error\":"));
  httplib::Client client("127.0.0.1", server_->port());
  EXPECT_EQ(client.Post("/v2/health/live", "x", "text/plain")->status, 404);
  EXPECT_EQ(client.Post("/v2/health/live", std::string(100'000, 'x'), "text/plain")->status, 413);
  EXPECT_EQ(Get("/v2/health/live"), "200 {\"live\":true}");
}

TEST_F(HttpServerTest, APortIsTakenByOneServerAlone) {
  const auto second = HttpServer::Start("127.0.0.1", server_->port(), [] { return true; });
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(Message(second.status())),
              HasSubstr(std::format("127.0.0.1:{}", server_->port())));
}

TEST_F(HttpServerTest, APortIsFreeAgainAfterTheServer) {
  const int port = server_->port();
  EXPECT_EQ(Get("/v2/health/live"), "200 {\"live\":true}");
  server_.reset();
  EXPECT_TRUE(HttpServer::Start("127.0.0.1", port, [] { return true; }).ok());
}

TEST_F(HttpServerTest, AnAddressThatIsNotOursIsNamed) {
  const auto refused = HttpServer::Start("192.0.2.1", 0, [] { return true; });
  EXPECT_THAT(std::string(Message(refused.status())), HasSubstr("192.0.2.1"));
}

}  // namespace http_server_test
}  // namespace octet

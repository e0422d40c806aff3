// Requests while every thread of the HTTP server has one, and while threads come and go.
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/http_test.h"

namespace octet {
namespace busy_threads_test {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kProbe = "GET /v2/health/live HTTP/1.1\r\n\r\n";
constexpr const char* kDescribe = "GET /v2 HTTP/1.1\r\n\r\n";  // Its answer ends with "]}".

class BusyThreadsTest : public HttpServerTest {
 protected:
  /// A client whose request has a thread, which waits for the body.
  std::unique_ptr<RawClient> KeepAThread() {
    auto client = std::make_unique<RawClient>(http_->port());
    client->Say(
        "POST /v2/models/net/infer HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    EXPECT_THAT(client->Hear("\r\n\r\n"), HasSubstr("100 Continue"));
    return client;
  }
};

TEST_F(BusyThreadsTest, RequestsWaitForAThreadAndProbesDoNot) {
  std::vector<std::unique_ptr<RawClient>> busy;
  for (int i = 0; i < http_options_.threads; ++i) busy.push_back(KeepAThread());
  std::vector<std::unique_ptr<RawClient>> waiting;
  for (int i = 0; i < 3; ++i) {
    waiting.push_back(std::make_unique<RawClient>(http_->port()));
    waiting.back()->Say(kDescribe);
  }
  for (int i = 0; i < 3; ++i) {
    RawClient probe(http_->port());
    probe.Say(std::string(kProbe) + kProbe);
    EXPECT_THAT(probe.Hear("true}"), HasSubstr("200 OK"));
  }
  for (const auto& client : waiting) EXPECT_FALSE(client->IsAnswered(20));
  busy.front()->Say("{}");
  EXPECT_THAT(busy.front()->Hear("}"), HasSubstr("400 Bad Request"));
  for (const auto& client : waiting) EXPECT_THAT(client->Hear("]}"), HasSubstr("200 OK"));
}

TEST_F(BusyThreadsTest, NoRequestIsForgottenWhileThreadsComeAndGo) {
  // More clients than threads: requests are seen by threads and by who watches for them, and wait behind others of their own connection.
  std::vector<std::thread> clients;
  for (int i = 0; i < 6; ++i) {
    clients.emplace_back([this, i] {
      RawClient client(http_->port());
      for (int turn = 0; turn < 100; ++turn) {
        const bool two = (turn + i) % 3 == 0;
        client.Say(two ? std::string(kProbe) + kDescribe : std::string(kDescribe));
        const std::string heard = client.Hear("]}");
        ASSERT_THAT(heard, AllOf(HasSubstr("200 OK"), HasSubstr("]}"))) << "turn " << turn;
        ASSERT_EQ(heard.find("{\"live\":true}") != std::string::npos, two);
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

}  // namespace busy_threads_test
}  // namespace octet

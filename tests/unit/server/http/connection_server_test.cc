#include "server/http/connection_server.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "tests/support/fake_clock.h"
#include "tests/support/http_test.h"
#include "tests/support/sanitizer.h"

namespace octet {
namespace connection_server_test {

using ::testing::HasSubstr;

using ConnectionServerTest = HttpServerTest;

TEST_F(ConnectionServerTest, HeadsAreBounded) {
  RawClient client(http_->port());
  client.Say("GET /v2 HTTP/1.1\r\nX: " + std::string(20'000, 'x'));
  EXPECT_THAT(client.Hear("}"), HasSubstr("431"));
  client.Say(std::string(20'000, 'x'));
  EXPECT_TRUE(client.HearsTheEnd());
}

TEST_F(ConnectionServerTest, AHeadThatIsTooLargeIsToldBehindAnotherRequest) {
  RawClient client(http_->port());
  client.Say("GET /v2/health/live HTTP/1.1\r\n\r\nGET /v2 HTTP/1.1\r\nX: " +
             std::string(20'000, 'x'));
  const std::string heard = client.Hear("too long\"}");
  EXPECT_THAT(heard, HasSubstr("200 OK"));
  EXPECT_THAT(heard, HasSubstr("431"));
  client.Say(std::string(20'000, 'x'));
  EXPECT_TRUE(client.HearsTheEnd());
}

/// Such answers are not the library's.
void ExpectAsLongAsItSays(const std::string& heard) {
  const size_t head = heard.find("\r\n\r\n");
  ASSERT_NE(head, std::string::npos) << heard;
  EXPECT_THAT(heard, HasSubstr(Format("\r\nContent-Length: {}\r\n", heard.size() - head - 4)));
}

TEST_F(ConnectionServerTest, AnAnswerToAHeadThatIsNoneIsAsLongAsItSays) {
  for (const std::string& head :
       {"GET /v2 HTTP/1.1\r\nX: " + std::string(20'000, 'x'),
        std::string("GET /v2 HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n")}) {
    RawClient client(http_->port());
    client.Say(head);
    ExpectAsLongAsItSays(client.Hear("nothing more"));
  }
}

/// Where a proxy in front finds one request with a body, there must not be two here.
TEST_F(ConnectionServerTest, AHeadThatCouldHaveTwoLengthsIsRefused) {
  for (const char* lines :
       {"Content-Length: 0\r\nContent-Length: 33", "content-length: 0\r\nA: b\r\nContent-length: 0",
        "Content-Length : 33", "Content-Length\t: 33", "Content-Length\v: 33",
        "A: b\r\n Content-Length: 33", "Content-Length: 33\r\nTransfer-Encoding: chunked",
        "A: b\nContent-Length: 33", "A: b\rContent-Length: 33", "A: b\r\n\nContent-Length: 33"}) {
    RawClient client(http_->port());
    client.Say(Format(
        "POST /v2/repository/index HTTP/1.1\r\n{}\r\n\r\nGET /v2/health/live HTTP/1.1\r\n\r\n",
        lines));
    const std::string heard = client.Hear("nothing more");
    EXPECT_THAT(heard, HasSubstr("400 Bad Request")) << lines;
    EXPECT_THAT(heard, HasSubstr("expected one Content-Length")) << lines;
    EXPECT_THAT(heard, ::testing::Not(HasSubstr("live\":true"))) << lines;
  }
}

/// Both threads wait for bodies that do not come, and every place is taken by somebody idle.
TEST_F(ConnectionServerTest, SlowAndIdleClientsDoNotKeepProbesOut) {
  std::vector<std::unique_ptr<RawClient>> slow;
  for (int i = 0; i < 2; ++i) {
    slow.push_back(std::make_unique<RawClient>(http_->port()));
    slow.back()->Say("POST /v2/models/net/infer HTTP/1.1\r\nContent-Length: 100\r\n\r\n{");
  }
  for (int i = 0; i < 40; ++i) {
    slow.push_back(std::make_unique<RawClient>(http_->port()));
    slow.back()->Say("GET /v2");
  }
  for (int i = 0; i < 10; ++i) {
    RawClient probe(http_->port());
    probe.Say("GET /v2/health/live HTTP/1.1\r\n\r\n");
    ASSERT_THAT(probe.Hear("}"), HasSubstr("{\"live\":true}"));
  }
}

TEST_F(ConnectionServerTest, IdleConnectionsMakeRoomForNewOnes) {
  std::vector<std::unique_ptr<RawClient>> idle;
  for (int i = 0; i < 100; ++i) {
    idle.push_back(std::make_unique<RawClient>(http_->port()));
    idle.back()->Say("GET /v2/health/live HTTP/1.1\r\n\r\n");
    ASSERT_THAT(idle.back()->Hear("}"), HasSubstr("{\"live\":true}"));
  }
}

TEST_F(ConnectionServerTest, IdleConnectionsMakeRoomForRequests) {
  std::vector<std::unique_ptr<RawClient>> idle;
  for (int i = 0; i < 20; ++i) {
    idle.push_back(std::make_unique<RawClient>(http_->port()));
    idle.back()->Say("GET /v2 HTTP/1.1\r\n\r\n");
    ASSERT_THAT(idle.back()->Hear("}"), HasSubstr("200 OK"));
  }
}

/// A client that always has more to send is never waited for.
class FloodTest : public HttpServerTest {
 protected:
  void SetUp() override {
    clock_ = &still_;
    HttpServerTest::SetUp();
  }
  FakeClock still_;
};

TEST_F(FloodTest, ABodyThatNeverEndsIsGivenUp) {
  RawClient client(http_->port());
  client.Say("POST /v2/models/net/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "1;" + std::string(20'000, 'x') + "\r\n \r\n";
  // When it is looked for what leaves for too long is a matter of real time.
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  bool listens = true;
  while (listens && std::chrono::steady_clock::now() < patience) {
    listens = client.Says(chunk);
    still_.Advance(std::chrono::seconds(1));
  }
  EXPECT_FALSE(listens) << "to 20 kB, of which one byte is the body's, again and again";
}

/// Every place is taken by a request whose body does not come, and time stands still.
class FullServerTest : public HttpServerTest {
 protected:
  static constexpr std::string_view kFirstPiece =
      "POST /v2/models/net/infer HTTP/1.1\r\nContent-Length: 100000\r\n\r\n{";

  void SetUp() override {
    clock_ = &still_;
    HttpServerTest::SetUp();
    // One that has not been looked at may have to make room for one that has: others come until one is refused.
    std::string heard;
    do {
      slow_.push_back(std::make_unique<RawClient>(http_->port()));
      slow_.back()->Say(kFirstPiece);
      if (slow_.back()->IsAnswered(100)) heard = slow_.back()->Hear("}\r\n");
    } while (heard.find("503 Service Unavailable") == std::string::npos);
    EXPECT_GT(slow_.size(), static_cast<size_t>(http_options_.connections));
  }
  /// A client that has sent a part of its request, and whose answer is there.
  std::unique_ptr<RawClient> Refused() {
    auto client = std::make_unique<RawClient>(http_->port());
    client->Say(kFirstPiece);
    EXPECT_TRUE(client->IsAnswered(20'000));
    return client;
  }

  FakeClock still_;
  std::vector<std::unique_ptr<RawClient>> slow_;
};

TEST_F(FullServerTest, WhoIsRefusedWhileItSendsHearsWhy) {
  const auto client = Refused();
  for (int i = 0; i < 100; ++i) client->Say(std::string(10'000, ' '));
  const std::string heard = client->Hear("}\r\n");
  EXPECT_THAT(heard, HasSubstr("503 Service Unavailable"));
  ExpectAsLongAsItSays(heard);
  client->Say(std::string(10'000, ' '));
  EXPECT_TRUE(client->HearsTheEnd());
}

TEST_F(FullServerTest, WhoIsRefusedAndSendsForEverIsCutOff) {
  const auto client = Refused();
  const std::string piece(10'000, ' ');
  EXPECT_TRUE(client->Says(piece));
  while (client->Says(piece)) still_.Advance(ConnectionServer::kLeavingTime);
}

TEST_F(FullServerTest, OfManyThatAreRefusedTheOldestIsCutOff) {
  std::vector<std::unique_ptr<RawClient>> refused;
  for (size_t i = 0; i <= ConnectionServer::kLeavingPlaces; ++i) refused.push_back(Refused());
  while (refused[0]->Says(std::string(100, ' '))) std::this_thread::yield();
  refused[1]->Say(std::string(100, ' '));
  EXPECT_THAT(refused[1]->Hear("}\r\n"), HasSubstr("503 Service Unavailable"));
  EXPECT_TRUE(refused[1]->HearsTheEnd());
  RawClient probe(http_->port());
  probe.Say("GET /v2/health/live HTTP/1.1\r\n\r\n");
  EXPECT_THAT(probe.Hear("}"), HasSubstr("{\"live\":true}"));
}

TEST_F(ConnectionServerTest, AClientThatReadsNoProbesKeepsNobodyOut) {
  RawClient deaf(http_->port(), 4096);
  const std::string_view probe = "GET /v2/health/live HTTP/1.1\r\n\r\n";
  EXPECT_TRUE(deaf.SayForEver(probe, 5000)) << "the connection is closed";
  RawClient other(http_->port());
  other.Say(probe);
  EXPECT_THAT(other.Hear("}"), HasSubstr("{\"live\":true}"));
}

TEST_F(ConnectionServerTest, AcceptingGoesOnWhenDescriptorsAreBack) {
  if (IsSanitized()) GTEST_SKIP() << "the sanitizer ends a process that has no descriptor left";
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  RawClient waiting(http_->port());
  waiting.Say("GET /v2 HTTP/1.1\r\n\r\n");
  ASSERT_THAT(waiting.Hear("}"), HasSubstr("200 OK"));
  ::testing::internal::CaptureStderr();
  const int low = dup(0);  // The lowest that is free: none below it is.
  close(low);
  std::optional<RawClient> late;
  const rlimit none = {.rlim_cur = static_cast<rlim_t>(low) + 1, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  late.emplace(http_->port());  // It has the last one.
  late->Say("GET /v2 HTTP/1.1\r\n\r\n");
  // Stderr is the file that it is captured in.
  std::string logged(4096, ' ');
  while (logged.find("http_accept_failed") == std::string::npos) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    (void)!pread(STDERR_FILENO, logged.data(), logged.size(), 0);
  }
  // It goes on failing, and says so once.
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_THAT(late->Hear("}"), HasSubstr("200 OK"));
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("http_accept_failed"));
  EXPECT_EQ(log.find("http_accept_failed"), log.rfind("http_accept_failed")) << "logged once";
  EXPECT_THAT(log, HasSubstr("http_accept_recovered"));
}

/// The descriptor that listens on a port of this process.
int ListenerOf(int port) {
  for (int fd = 0; fd < 1024; ++fd) {
    int listens = 0;
    socklen_t size = sizeof(listens);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens == 0) continue;
    sockaddr_in address = {};
    size = sizeof(address);
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) continue;
    if (address.sin_family == AF_INET && ntohs(address.sin_port) == port) return fd;
  }
  return -1;
}

TEST_F(ConnectionServerTest, ASocketThatListensNoMoreIsLoggedAndDoesNotSpin) {
  RawClient before(http_->port());
  const std::string_view request = "GET /v2/health/live HTTP/1.1\r\n\r\n";
  before.Say(request);
  ASSERT_THAT(before.Hear("}"), HasSubstr("200 OK"));
  const int listener = ListenerOf(http_->port());
  ASSERT_GE(listener, 0);
  ::testing::internal::CaptureStderr();
  ASSERT_EQ(shutdown(listener, SHUT_RDWR), 0);
  before.Say(request);
  EXPECT_THAT(before.Hear("}"), HasSubstr("200 OK")) << "who is connected is served";
  http_.reset();
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("level=error event=http_accept_ended error="));
  EXPECT_EQ(log.find("http_accept_ended"), log.rfind("http_accept_ended"));
}

}  // namespace connection_server_test
}  // namespace octet

#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/http_test.h"

namespace octet {
namespace slow_answer_test {

using std::chrono::seconds;
using ::testing::HasSubstr;

/// A model whose answer is more than sockets hold.
class SlowAnswerTest : public HttpServerTest {
 protected:
  static constexpr int64_t kColumns = int64_t{3} << 20;

  void SetUp() override {
    http_options_.max_body_bytes = int64_t{64} << 20;
    HttpServerTest::SetUp();
    const auto large = std::make_shared<FakeModel>(Shape{1, kColumns});
    repository_.Put(repository_.Make("large", 1, {{Precision::kFp32, large}}));
  }
  /// A client that is answered, and takes no more than its system does.
  std::unique_ptr<RawClient> Ask() {
    auto client = std::make_unique<RawClient>(http_->port(), 4096);
    const std::string body(static_cast<size_t>(kColumns) * sizeof(float), '\0');
    client->Say(
        Format("POST /v2/models/large/infer HTTP/1.1\r\nContent-Length: {}\r\n"
               "Inference-Header-Content-Length: 0\r\n\r\n{}",
               body.size(), body));
    EXPECT_THAT(client->Hear("\r\n\r\n"), HasSubstr("200 OK"));
    return client;
  }
};

TEST_F(SlowAnswerTest, ARequestIsInsideUntilItsAnswerIsTaken) {
  const auto client = Ask();
  gate_.Close();
  EXPECT_EQ(gate_.inside(), 1);
  EXPECT_FALSE(gate_.WaitUntilEmpty(clock_->Now()));
  std::string rest;
  std::thread reader([&] { rest = client->Hear("never"); });
  EXPECT_TRUE(gate_.WaitUntilEmpty(clock_->Now() + seconds(60)));
  EXPECT_TRUE(http_->Stop(clock_->Now() + seconds(60)));
  reader.join();
  EXPECT_GT(rest.size(), static_cast<size_t>(kColumns - 4096) * sizeof(float)) << "all of it";
}

TEST_F(SlowAnswerTest, WhoIsStillReadingIsWaitedForAsLongAsTold) {
  const auto client = Ask();
  RawClient idle(http_->port());
  idle.Say("GET /v2/health/live HTTP/1.1\r\n\r\n");
  EXPECT_THAT(idle.Hear("}"), HasSubstr("200 OK"));
  std::thread stop([&] { EXPECT_TRUE(http_->Stop(clock_->Now() + seconds(60))); });
  EXPECT_TRUE(idle.HearsTheEnd()) << "whom nothing is owed is not kept";
  const std::string rest = client->Hear("never");
  EXPECT_GT(rest.size(), static_cast<size_t>(kColumns - 4096) * sizeof(float));
  stop.join();
}

TEST_F(SlowAnswerTest, WhoDoesNotTakeItsAnswerInTimeIsCutOffAndThatIsSaid) {
  const auto client = Ask();
  EXPECT_FALSE(http_->Stop(clock_->Now()));
  EXPECT_EQ(gate_.inside(), 0) << "nobody waits for it any more";
  EXPECT_LT(client->Hear("never").size(), static_cast<size_t>(kColumns) * sizeof(float));
}

}  // namespace slow_answer_test
}  // namespace octet

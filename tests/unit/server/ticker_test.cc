#include "server/repository_poller.h"

#include <optional>

#include <gtest/gtest.h>

#include "tests/support/fake_clock.h"
#include "tests/support/fake_repository.h"

namespace octet {
namespace repository_poller_test {

TEST(RepositoryPollerTest, PollsAtEveryIntervalAndNotBefore) {
  MetricsRegistry metrics{{}};
  FakeRepository repository(metrics);
  FakeClock clock;
  RepositoryPoller poller(repository, std::chrono::seconds(5), clock);
  clock.AwaitWaiters(1);
  clock.Advance(std::chrono::milliseconds(4999));
  clock.AwaitWaiters(1);
  EXPECT_EQ(repository.polls, 0);
  for (int i = 1; i <= 3; ++i) {
    clock.Advance(std::chrono::seconds(5));
    while (repository.polls < i) std::this_thread::yield();
    clock.AwaitWaiters(1);
  }
  EXPECT_EQ(repository.polls, 3);
}

TEST(RepositoryPollerTest, EndsWhileItWaits) {
  MetricsRegistry metrics{{}};
  FakeRepository repository(metrics);
  FakeClock clock;
  std::optional<RepositoryPoller> poller(std::in_place, repository, std::chrono::hours(1), clock);
  clock.AwaitWaiters(1);
  poller.reset();
  EXPECT_EQ(repository.polls, 0);
}

}  // namespace repository_poller_test
}  // namespace octet

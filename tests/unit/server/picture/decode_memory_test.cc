#include "server/picture/decode_memory.h"

#include <unistd.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <gtest/gtest.h>
#include <sys/types.h>

namespace octet {
namespace decode_memory_test {

constexpr size_t kMost = DecodeMemory::kMost;

/// A thread that a test can wait for until it sleeps.
class Sleeper {
 public:
  explicit Sleeper(std::function<void()> task)
      : thread_([this, task = std::move(task)] {
          id_ = gettid();
          task();
        }) {}
  void Join() { thread_.join(); }
  void AwaitSleep() const {
    while (State() != 'S') std::this_thread::yield();
  }

 private:
  /// As proc(5) tells it: 'S' of one that waits for another.
  char State() const {
    std::ifstream stat("/proc/self/task/" + std::to_string(id_) + "/stat");
    std::string line;
    std::getline(stat, line);
    const size_t name = line.rfind(") ");  // it may hold anything
    return name == std::string::npos ? ' ' : line[name + 2];
  }

  std::atomic<pid_t> id_{0};
  std::jthread thread_;
};

TEST(DecodeMemoryTest, WhoFindsTooLittleWaits) {
  auto first = std::make_unique<DecodeMemory>(kMost - 10);
  const auto small = std::make_unique<DecodeMemory>(10);  // fits
  EXPECT_EQ(DecodeMemory::used(), kMost);
  std::atomic<bool> given = false;
  Sleeper other([&] {
    const DecodeMemory memory(20);
    given = true;
  });
  other.AwaitSleep();
  EXPECT_FALSE(given);
  first.reset();
  other.Join();
  EXPECT_TRUE(given);
  EXPECT_EQ(DecodeMemory::used(), 10U);
}

TEST(DecodeMemoryTest, MoreThanThereIsWaitsUntilItIsAlone) {
  auto first = std::make_unique<DecodeMemory>(1);
  std::atomic<bool> given = false;
  Sleeper large([&] {
    const DecodeMemory memory(kMost + 1);
    given = true;
  });
  large.AwaitSleep();
  EXPECT_FALSE(given);
  first.reset();
  large.Join();
  EXPECT_TRUE(given);
}

TEST(DecodeMemoryTest, ItMovesWithItsOwner) {
  DecodeMemory first(100);
  DecodeMemory second;
  second = std::move(first);
  const DecodeMemory third = std::move(second);
  EXPECT_EQ(DecodeMemory::used(), 100U);
  second = DecodeMemory(5);
  EXPECT_EQ(DecodeMemory::used(), 105U);
  second = DecodeMemory();
  EXPECT_EQ(DecodeMemory::used(), 100U);
}

}  // namespace decode_memory_test
}  // namespace octet

#include "engine/plan/plan_cache.h"

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "engine/plan/executable_plan.h"
#include "engine/tensor/status.h"

namespace octet {
namespace plan_cache_test {

absl::StatusOr<std::shared_ptr<const Plan>> EmptyPlan() {
  return std::make_shared<ExecutablePlan>(PlanParts{});
}

class PlanCacheTest : public ::testing::Test {
 protected:
  std::shared_ptr<const Plan> Get(int64_t batch, bool pinned = false) {
    const Shape shape{batch, 3};
    auto plan = cache_.Get({&shape, 1}, pinned, [&] {
      ++compilations_;
      return EmptyPlan();
    });
    EXPECT_TRUE(plan.ok()) << plan.status();
    return plan.ok() ? *plan : nullptr;
  }

  PlanCache cache_{2};
  int compilations_ = 0;
};

TEST_F(PlanCacheTest, CompilesEachShapeOnce) {
  const auto one = Get(1);
  EXPECT_EQ(Get(1), one);
  EXPECT_NE(Get(2), one);
  EXPECT_EQ(compilations_, 2);
  EXPECT_EQ(cache_.size(), 2);
}

TEST_F(PlanCacheTest, DropsTheShapeUsedLongestAgo) {
  const auto one = Get(1);
  Get(2);
  Get(1);
  Get(3);  // 2 goes
  EXPECT_EQ(cache_.size(), 2);
  EXPECT_EQ(Get(1), one);
  EXPECT_EQ(compilations_, 3);
  Get(2);
  EXPECT_EQ(compilations_, 4);
}

TEST_F(PlanCacheTest, NeverDropsPinnedShapes) {
  const auto pinned = Get(1, true);
  for (int64_t batch = 2; batch < 10; ++batch) Get(batch);
  EXPECT_EQ(cache_.size(), 3) << "the pinned one and two others";
  EXPECT_EQ(Get(1), pinned);
}

TEST_F(PlanCacheTest, ReportsAFailureAndTriesAgain) {
  const Shape shape{1};
  const auto failed = cache_.Get({&shape, 1}, false, [] {
    return absl::StatusOr<std::shared_ptr<const Plan>>(absl::ResourceExhaustedError("not now"));
  });
  EXPECT_EQ(failed.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(cache_.size(), 0);
  const auto second = cache_.Get({&shape, 1}, false, EmptyPlan);
  EXPECT_TRUE(second.ok());
}

TEST_F(PlanCacheTest, RemembersTheLastShapesThatTheModelDoesNotTake) {
  int attempts = 0;
  const auto refused = [&](int64_t batch) {
    const Shape shape{batch, 7};
    const auto plan = cache_.Get({&shape, 1}, batch % 2 == 0, [&] {
      ++attempts;
      return absl::StatusOr<std::shared_ptr<const Plan>>(InvalidArgument("of {} rows", batch));
    });
    EXPECT_EQ(plan.status(), InvalidArgument("of {} rows", batch));
  };
  const auto one = Get(1);
  for (int i = 0; i < 3; ++i) {
    refused(5);
    refused(6);
  }
  EXPECT_EQ(attempts, 2);
  EXPECT_EQ(cache_.size(), 1) << "a refusal is no plan";
  refused(7);  // 5 goes
  EXPECT_EQ(attempts, 3);
  refused(6);
  EXPECT_EQ(attempts, 3);
  refused(5);
  EXPECT_EQ(attempts, 4);
  EXPECT_EQ(Get(1), one) << "refusals push out no plan";
  EXPECT_EQ(compilations_, 1);
}

TEST_F(PlanCacheTest, LetsGoOfPlansWithoutItsLock) {
  // Asks the cache when the plan goes, which needs the lock.
  struct Asking {
    ~Asking() { size = cache.size(); }
    PlanCache& cache;
    int& size;
    std::shared_ptr<const Plan> plan;
  };
  int size = -1;
  const Shape shape{1, 3};
  const auto first = [&] {
    const auto asking = std::make_shared<Asking>(cache_, size, *EmptyPlan());
    return absl::StatusOr<std::shared_ptr<const Plan>>(
        std::shared_ptr<const Plan>(asking, asking->plan.get()));
  };
  ASSERT_TRUE(cache_.Get({&shape, 1}, false, first).ok());
  Get(2);
  EXPECT_EQ(size, -1);
  Get(3);
  EXPECT_EQ(size, 2) << "of the plan that made room for the third";
}

TEST_F(PlanCacheTest, LetsConcurrentCallersWaitForOneCompilation) {
  std::atomic<int> compilations = 0;
  std::vector<std::shared_ptr<const Plan>> plans(8);
  {
    std::vector<std::jthread> threads;
    for (auto& plan : plans) {
      threads.emplace_back([&] {
        const Shape shape{7};
        plan = *cache_.Get({&shape, 1}, false, [&] {
          ++compilations;
          return EmptyPlan();
        });
      });
    }
  }
  EXPECT_EQ(compilations, 1);
  for (const auto& plan : plans) EXPECT_EQ(plan, plans[0]);
}

}  // namespace plan_cache_test
}  // namespace octet

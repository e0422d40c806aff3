// What a repository answers after an exception has cut a load short.
#include <pthread.h>

#include <new>

#include <gtest/gtest.h>

#include "server/repository/model_repository.h"
#include "tests/support/accumulating_model.h"
#include "tests/support/model_folder.h"

namespace octet {
namespace interrupted_load_test {

/// While it lives no thread can be made: its stack would be larger than the address space.
class NoThreads {
 public:
  NoThreads() {
    pthread_getattr_default_np(&before_);
    pthread_attr_t huge;
    pthread_getattr_default_np(&huge);
    EXPECT_EQ(pthread_attr_setstacksize(&huge, size_t{1} << 47), 0);
    EXPECT_EQ(pthread_setattr_default_np(&huge), 0);
    pthread_attr_destroy(&huge);
  }
  ~NoThreads() {
    pthread_setattr_default_np(&before_);
    pthread_attr_destroy(&before_);
  }
  NoThreads(const NoThreads&) = delete;
  NoThreads& operator=(const NoThreads&) = delete;

 private:
  pthread_attr_t before_;
};

/// The machine's clock, unless it is to throw.
class ThrowingClock final : public Clock {
 public:
  TimePoint Now() const override {
    if (throws) throw std::bad_alloc();
    return Clock::Real().Now();
  }
  void WaitUntil(absl::CondVar& signal, absl::Mutex& mutex, TimePoint time) override {
    Clock::Real().WaitUntil(signal, mutex, time);
  }
  bool throws = false;
};

class InterruptedLoadTest : public ::testing::Test {
 protected:
  void Open() {
    ServerConfig config;
    config.repository.path = folder_.path();
    auto opened = ModelRepository::Open(config, 1, metrics_, clock_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    repository_ = *std::move(opened);
  }

  ModelFolder folder_;
  ThrowingClock clock_;
  MetricsRegistry metrics_{{}};
  std::unique_ptr<ModelRepository> repository_;
};

TEST_F(InterruptedLoadTest, WithoutAThreadALoadFailsAndTheNextOneLoads) {
  Open();
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  {
    const NoThreads none;
    EXPECT_EQ(repository_->Load("net").code(), absl::StatusCode::kResourceExhausted);
  }
  EXPECT_TRUE(repository_->Load("net").ok());
  const auto before = *repository_->Find("net", "");
  EXPECT_TRUE(before->ready());
  folder_.Write("net/1/fp32.onnx", ScalingModel(3));
  {
    const NoThreads none;
    EXPECT_FALSE(repository_->Load("net").ok()) << "the file before answers";
  }
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_NE((*repository_->Find("net", ""))->Find(Precision::kFp32)->queue,
            before->Find(Precision::kFp32)->queue);
  EXPECT_EQ(metrics_.server().loads.value(), 2U);
}

TEST_F(InterruptedLoadTest, WhatWasCutShortIsFollowedAtTheNextLook) {
  folder_.Write("net/model.yaml", "state: {before: {output: total}}\n");
  folder_.Write("net/1/fp32.onnx", AccumulatingGraph(1));
  Open();
  const auto before = *repository_->Find("net", "");
  folder_.Write("net/1/fp32.onnx", AccumulatingGraph(2));
  clock_.throws = true;  // when sequences are to move
  EXPECT_THROW((void)repository_->Load("net"), std::bad_alloc);
  clock_.throws = false;
  EXPECT_EQ(*repository_->Find("net", ""), before);
  repository_->Poll();
  EXPECT_NE(*repository_->Find("net", ""), before);
  EXPECT_TRUE((*repository_->Find("net", ""))->ready());
}

}  // namespace interrupted_load_test
}  // namespace octet

#include "server/sequence/sequence_store.h"

#include <atomic>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/scheduling/retry_after.h"
#include "tests/support/sequence_store_test.h"

namespace octet {
namespace sequence_store_test {

using ::testing::HasSubstr;

TEST_F(SequenceStoreTest, EachSequenceGoesOnWithItsOwnState) {
  EXPECT_EQ(Step(1, 1, true), 1);
  EXPECT_EQ(Step(2, 10, true), 10);
  EXPECT_EQ(Step(1, 2), 3);
  EXPECT_EQ(Step(2, 20), 30);
  EXPECT_EQ(Step(1, 3), 6);
  EXPECT_EQ(home_.metrics->live.value(), 2);
  EXPECT_EQ(home_.metrics->state_bytes.value(), 2 * 2 * static_cast<double>(home_.layout->bytes));
  EXPECT_EQ(Step(1, 4, false, true), 10);
  EXPECT_EQ(home_.metrics->live.value(), 1);
  EXPECT_EQ(home_.metrics->state_bytes.value(), 2 * static_cast<double>(home_.layout->bytes));
  EXPECT_EQ(Ended(SequenceEnd::kEnd), 1U);
  EXPECT_THAT(ErrorOf(1), HasSubstr("inference request for sequence 1 to model 'net' must specify "
                                    "the START flag on the first request of the sequence"));
}

TEST_F(SequenceStoreTest, ANumberAndATextAreDifferentNames) {
  Step(7, 1, true);
  const auto step = store_->Enter({std::string("7")}, std::nullopt);
  EXPECT_THAT(std::string(Message(step.status())), HasSubstr("sequence '7'"));
}

TEST_F(SequenceStoreTest, TheFirstRequestGetsTheInitialValue) {
  SequenceHome home = Home();
  home.layout = MakeLayout(100);
  Asked asked;
  asked.step = *store_->Enter({uint64_t{1}, true}, home);
  Await(asked);
  EXPECT_EQ(Run(asked, 1), 101);
}

TEST_F(SequenceStoreTest, RequestsOfASequenceRunOneAtATimeInTheOrderOfTheirArrival) {
  auto first = Enter(1, true);
  auto second = Enter(1);
  auto third = Ask(1);  // ready before those that came before it
  EXPECT_FALSE(third->turn);
  Await(*second);
  EXPECT_FALSE(second->turn);
  Await(*first);
  EXPECT_TRUE(first->runs());
  EXPECT_FALSE(second->turn);
  Run(*first, 1);
  ASSERT_TRUE(first->step->Commit().ok());
  EXPECT_FALSE(second->turn) << "before the first one's answer was sent";
  first->step.reset();
  EXPECT_TRUE(second->runs());
  EXPECT_FALSE(third->turn);
  EXPECT_EQ(metrics_->waiting.value(), 1);
  EXPECT_EQ(Run(*second, 2), 3);
  ASSERT_TRUE(second->step->Commit().ok());
  second->step.reset();
  EXPECT_TRUE(third->runs());
  EXPECT_EQ(Run(*third, 3), 6);
}

TEST_F(SequenceStoreTest, ARequestThatFailsLeavesTheStateAsItWas) {
  Step(1, 1, true);
  auto failed = Ask(1);
  auto next = Ask(1);
  Run(*failed, 100);  // ran, but was not answered
  failed->step.reset();
  ASSERT_TRUE(next->runs());
  EXPECT_EQ(Run(*next, 2), 3);
  ASSERT_TRUE(next->step->Commit().ok());
  next->step.reset();
  Enter(1).reset();  // was refused before it waited
  auto last = Ask(1, false, true);
  last->step.reset();
  EXPECT_EQ(Step(1, 3), 6) << "an end that failed ends nothing";
}

TEST_F(SequenceStoreTest, AStateOfAnotherShapeIsNoStep) {
  Step(1, 1, true);
  auto asked = Ask(1);
  const float x = 1;
  asked->step->Inputs({{&x, {DType::kF32, {1}}}}, asked->answer);
  EXPECT_EQ(asked->step->Reserve(1, {DType::kF32, {2}}), nullptr);
  EXPECT_TRUE(absl::IsInternal(asked->step->Commit()));
  asked->step.reset();
  EXPECT_EQ(Step(1, 2), 3);
}

TEST_F(SequenceStoreTest, AStartThatFailsLeavesNoSequence) {
  auto start = Ask(1, true);
  auto waiting = Ask(1);
  auto entering = Enter(1);
  start->step.reset();
  ASSERT_TRUE(waiting->turn);
  EXPECT_THAT(std::string(Message(*waiting->turn)), HasSubstr("must specify the START flag"));
  Await(*entering);
  EXPECT_TRUE(absl::IsInvalidArgument(*entering->turn));
  EXPECT_THAT(ErrorOf(1), HasSubstr("must specify the START flag"));
  EXPECT_EQ(Ended(SequenceEnd::kFailedStart), 1U);
  EXPECT_EQ(home_.metrics->live.value(), 0);
}

TEST_F(SequenceStoreTest, AnotherStartIsAnotherSequence) {
  Step(1, 5, true);
  auto old = Ask(1);
  auto waiting = Ask(1);
  EXPECT_EQ(Step(1, 100, true), 100);
  EXPECT_EQ(Ended(SequenceEnd::kRestart), 1U);
  EXPECT_EQ(Run(*old, 1), 6) << "what the first one holds is still its own";
  ASSERT_TRUE(old->step->Commit().ok());
  old->step.reset();
  ASSERT_TRUE(waiting->runs());
  EXPECT_EQ(Run(*waiting, 1), 7);
  waiting->step.reset();
  EXPECT_EQ(Step(1, 1), 101);
  EXPECT_EQ(home_.metrics->live.value(), 1);
}

TEST_F(SequenceStoreTest, WhatWaitsBehindTheEndIsRefused) {
  Step(1, 1, true);
  auto end = Ask(1, false, true);
  std::vector<std::unique_ptr<Asked>> behind;
  for (int i = 0; i < 50; ++i) behind.push_back(Ask(1));
  Run(*end, 1);
  ASSERT_TRUE(end->step->Commit().ok());
  end->step.reset();
  for (const auto& asked : behind) {
    ASSERT_TRUE(asked->turn);
    EXPECT_THAT(std::string(Message(*asked->turn)), HasSubstr("must specify the START flag"));
  }
}

TEST_F(SequenceStoreTest, ALongRowOfRefusedRequestsTakesNoDeepStack) {
  store_->SetLimits({.max_waiting_requests = 100'000});
  auto start = Ask(1, true);
  constexpr size_t kMany = 50'000;
  std::vector<std::unique_ptr<Asked>> row(kMany);
  size_t ended = 0;
  for (auto& asked : row) {
    asked = Enter(1);
    asked->step->AwaitTurn({.bytes = 4}, [&asked, &ended](const absl::Status& turn) {
      EXPECT_FALSE(turn.ok());
      ++ended;
      asked->step.reset();  // as an inference that is over does
    });
  }
  start->step.reset();
  EXPECT_EQ(ended, kMany);
}

TEST_F(SequenceStoreTest, AnIdleSequenceIsForgottenAndABusyOneIsNot) {
  store_->SetLimits({.idle = std::chrono::seconds(10)});
  Step(1, 1, true);
  clock_.Advance(std::chrono::seconds(5));
  Step(2, 1, true);
  auto busy = Ask(3, true);
  clock_.Advance(std::chrono::seconds(5));
  store_->Expire();
  EXPECT_EQ(store_->live(), 2U);
  EXPECT_THAT(ErrorOf(1), HasSubstr("must specify the START flag"));
  EXPECT_EQ(Step(2, 1), 2) << "5 s idle";
  clock_.Advance(std::chrono::seconds(60));
  Run(*busy, 1);
  ASSERT_TRUE(busy->step->Commit().ok());
  busy->step.reset();
  store_->Expire();
  EXPECT_EQ(store_->live(), 1U);
  EXPECT_EQ(Ended(SequenceEnd::kIdle), 2U);
  EXPECT_EQ(Step(3, 1), 2) << "idle from its answer on";
}

TEST_F(SequenceStoreTest, OneSequenceTooManyIsRefusedAndTakesNobodysPlace) {
  store_->SetLimits({.max_sequences = 2, .idle = std::chrono::seconds(10)});
  Step(1, 1, true);
  Step(2, 1, true);
  Asked third;
  const absl::Status refused = TryEnter(3, true, false, third);
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_THAT(std::string(Message(refused)), HasSubstr("too many sequences, at most 2"));
  EXPECT_EQ(Refused(SequenceRefusal::kTooMany), 1U);
  EXPECT_EQ(Step(1, 1, true), 1) << "a restart needs no place";
  EXPECT_EQ(Step(2, 1), 2);
  clock_.Advance(std::chrono::seconds(10));
  EXPECT_EQ(Step(3, 1, true), 1) << "the idle ones make room at once";
}

TEST_F(SequenceStoreTest, WaitingForATurnIsBounded) {
  store_->SetLimits({.max_waiting_requests = 2, .max_waiting_bytes = 100});
  auto running = Ask(1, true);
  auto a = Enter(1);
  Await(*a, 60);
  auto b = Enter(1);
  Await(*b, 60);
  ASSERT_TRUE(b->turn) << "bytes";
  EXPECT_TRUE(absl::IsResourceExhausted(*b->turn));
  auto c = Enter(1);
  Await(*c, 40);
  EXPECT_FALSE(c->turn);
  auto d = Enter(1);
  Await(*d, 0);
  ASSERT_TRUE(d->turn) << "requests";
  EXPECT_TRUE(absl::IsResourceExhausted(*d->turn));
  EXPECT_EQ(RetryAfterOf(*d->turn), kUnknownRetryAfter);
  EXPECT_EQ(Refused(SequenceRefusal::kTooManyWait), 2U);
  EXPECT_TRUE(Ask(2, true)->runs()) << "others do not wait";
  Run(*running, 1);
  ASSERT_TRUE(running->step->Commit().ok());
  running->step.reset();
  EXPECT_TRUE(a->runs());
}

TEST_F(SequenceStoreTest, WhoWaitsInVainIsToldAndMakesRoom) {
  store_->SetLimits({.max_waiting_requests = 2});
  auto running = Ask(1, true);
  std::atomic<bool> gone{false};
  auto cancelled = Enter(1);
  auto late = Enter(1);
  Await(*cancelled, {.cancelled = &gone});
  Await(*late, {.deadline = clock_.Now() + std::chrono::seconds(1)});
  store_->Expire();
  EXPECT_FALSE(cancelled->turn || late->turn);
  clock_.Advance(std::chrono::seconds(1));
  store_->Expire();
  ASSERT_TRUE(late->turn);
  EXPECT_TRUE(absl::IsDeadlineExceeded(*late->turn));
  late->step.reset();
  auto next = Ask(1);
  EXPECT_FALSE(next->turn);
  gone = true;
  auto last = Ask(1);
  ASSERT_TRUE(cancelled->turn) << "there was no room for the last one";
  EXPECT_TRUE(absl::IsCancelled(*cancelled->turn));
  cancelled->step.reset();
  EXPECT_EQ(metrics_->waiting.value(), 2);
  EXPECT_EQ(Run(*running, 1), 1);
  ASSERT_TRUE(running->step->Commit().ok());
  running->step.reset();
  ASSERT_TRUE(next->runs());
  EXPECT_EQ(Run(*next, 2), 3);
  EXPECT_FALSE(last->turn);
}

/// Another sequence of its name has begun, and the first of the old one still runs.
TEST_F(SequenceStoreTest, WhoWaitsInVainInARestartedSequenceIsToldToo) {
  store_->SetLimits({.max_waiting_requests = 2});
  auto running = Ask(1, true);
  std::atomic<bool> gone{false};
  auto cancelled = Enter(1);
  auto late = Enter(1);
  Await(*cancelled, {.cancelled = &gone});
  Await(*late, {.deadline = clock_.Now() + std::chrono::seconds(1)});
  auto restarted = Ask(1, true);
  ASSERT_TRUE(restarted->runs());
  clock_.Advance(std::chrono::seconds(1));
  store_->Expire();
  ASSERT_TRUE(late->turn);
  EXPECT_TRUE(absl::IsDeadlineExceeded(*late->turn));
  late->step.reset();
  EXPECT_FALSE(cancelled->turn);
  auto next = Ask(1);
  gone = true;
  auto last = Ask(1);
  ASSERT_TRUE(cancelled->turn) << "there was no room for the last one";
  EXPECT_TRUE(absl::IsCancelled(*cancelled->turn));
  cancelled->step.reset();
  EXPECT_FALSE(next->turn || last->turn);
  EXPECT_EQ(metrics_->waiting.value(), 2);
  EXPECT_EQ(Run(*running, 1), 1);
  EXPECT_TRUE(running->step->Commit().ok());
  running->step.reset();
  store_->Expire();
  EXPECT_EQ(Run(*restarted, 5), 5);
  EXPECT_TRUE(restarted->step->Commit().ok());
  restarted->step.reset();
  EXPECT_TRUE(next->runs());
  EXPECT_EQ(home_.metrics->live.value(), 1);
}

TEST_F(SequenceStoreTest, WhoWaitsInASequenceThatIsCutOffIsToldAtOnce) {
  for (const bool unloads : {true, false}) {
    store_->SetLimits({.drain = std::chrono::seconds(20)});
    auto front = Enter(1, true);  // held: it has not come to wait
    auto running = Ask(2, true);
    auto behind_front = Ask(1);
    auto behind_running = Ask(2);
    if (unloads) {
      store_->EndAll();
    } else {
      store_->Replace(home_.version, {});
      clock_.Advance(std::chrono::seconds(20));
      store_->Expire();
    }
    ASSERT_TRUE(behind_front->turn && behind_running->turn) << unloads;
    EXPECT_TRUE(absl::IsUnavailable(*behind_front->turn));
    EXPECT_TRUE(absl::IsUnavailable(*behind_running->turn));
    EXPECT_EQ(metrics_->waiting.value(), 0);
    Run(*running, 1);
    EXPECT_TRUE(running->step->Commit().ok()) << "what runs is answered";
    Await(*front);
    EXPECT_TRUE(absl::IsUnavailable(*front->turn));
  }
}

TEST_F(SequenceStoreTest, WhoAsksForASequenceWhoseTimeIsOverEndsItForThoseWhoWait) {
  store_->SetLimits({.drain = std::chrono::seconds(20)});
  auto running = Ask(1, true);
  auto waiting = Ask(1);
  store_->Replace(home_.version, {});
  clock_.Advance(std::chrono::seconds(20));
  EXPECT_FALSE(waiting->turn);
  EXPECT_THAT(ErrorOf(1), HasSubstr("start it again"));
  ASSERT_TRUE(waiting->turn);
  EXPECT_TRUE(absl::IsUnavailable(*waiting->turn));
}

TEST_F(SequenceStoreTest, OnAReplacedVersionASequenceMayGoOnForAWhile) {
  store_->SetLimits({.idle = std::chrono::seconds(1000), .drain = std::chrono::seconds(20)});
  Step(1, 1, true);
  Step(2, 1, true);
  store_->Replace(home_.version, {OtherVersion(Precision::kInt8)});
  EXPECT_EQ(Step(1, 1), 2);
  clock_.Advance(std::chrono::seconds(19));
  store_->Expire();
  EXPECT_EQ(Step(1, 1), 3);
  auto running = Ask(2);
  auto waiting = Ask(2);
  clock_.Advance(std::chrono::seconds(1));
  EXPECT_THAT(ErrorOf(1), HasSubstr("start it again: sequence 1 of model 'net'"));
  store_->Expire();
  EXPECT_EQ(store_->live(), 0U);
  EXPECT_EQ(Ended(SequenceEnd::kReplaced), 2U);
  Run(*running, 1);
  EXPECT_TRUE(running->step->Commit().ok()) << "what runs is answered";
  running->step.reset();
  ASSERT_TRUE(waiting->turn);
  EXPECT_TRUE(absl::IsUnavailable(*waiting->turn));
  EXPECT_EQ(Step(1, 7, true), 7);
}

TEST_F(SequenceStoreTest, WhereTheSameModelIsServedASequenceGoesOnForGood) {
  Step(1, 1, true);
  const SequenceHome next = OtherVersion(Precision::kFp32);
  store_->Replace(home_.version, {next});
  clock_.Advance(std::chrono::seconds(10));
  store_->Expire();
  auto asked = Ask(1);
  EXPECT_EQ(asked->step->home().version, next.version);
  EXPECT_EQ(Run(*asked, 1), 2);
}

TEST_F(SequenceStoreTest, WhoBeginsOnAVersionThatHasJustGoneIsDrainedToo) {
  store_->SetLimits({.drain = std::chrono::seconds(20)});
  store_->Replace(home_.version, {});
  EXPECT_EQ(Step(1, 1, true), 1);
  clock_.Advance(std::chrono::seconds(20));
  EXPECT_THAT(ErrorOf(1), HasSubstr("start it again"));
}

TEST_F(SequenceStoreTest, WhoBeginsThereGoesOnForGoodWhereTheSameModelIsServed) {
  store_->SetLimits({.drain = std::chrono::seconds(5)});
  SequenceHome next = OtherVersion(Precision::kFp32);
  store_->Replace(home_.version, {OtherVersion(Precision::kInt8), next});
  EXPECT_EQ(Step(1, 1, true), 1);
  // The one between goes before anybody begins.
  const SequenceHome last = OtherVersion(Precision::kFp32);
  store_->Replace(next.version, {last});
  next.version.reset();
  EXPECT_EQ(Step(2, 1, true), 1);
  clock_.Advance(std::chrono::seconds(10));
  store_->Expire();
  for (const uint64_t id : {uint64_t{1}, uint64_t{2}}) {
    auto asked = Ask(id);
    EXPECT_EQ(asked->step->home().version, last.version);
    EXPECT_EQ(Run(*asked, 1), 2);
  }
}

TEST_F(SequenceStoreTest, AnUnloadedModelHasNoSequences) {
  Step(1, 1, true);
  auto busy = Ask(2, true);
  store_->EndAll();
  EXPECT_EQ(store_->live(), 0U);
  EXPECT_EQ(home_.metrics->state_bytes.value(), 0);
  EXPECT_THAT(ErrorOf(3, true), HasSubstr("start it again"));
  store_->SetLimits({});
  EXPECT_THAT(ErrorOf(1), HasSubstr("start it again"));
  EXPECT_EQ(Step(3, 1, true), 1);
}

}  // namespace sequence_store_test
}  // namespace octet

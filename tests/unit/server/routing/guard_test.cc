#include "server/routing/guard.h"

#include <array>

#include <gtest/gtest.h>

namespace octet {
namespace guard_test {

using Rules = ModelConfig::Routing::Guard;

constexpr GuardFacts kGood = {.class_rows = 200,
                              .agreed_rows = 196,
                              .ratios = 200,
                              .ratio_sum_db = 200 * 25.0,
                              .requests = 1000,
                              .errors = 2,
                              .timed = 1000,
                              .slow = 10};

Rules All() {
  Rules rules;
  rules.agreement_percent = 98;
  rules.sqnr_db = 25;
  rules.error_percent = 0.2;
  rules.p99_us = 900;
  return rules;
}

TEST(GuardTest, ALimitThatIsJustMetIsKept) {
  const GuardJudgement judgement = Judge(All(), kGood);
  EXPECT_EQ(judgement.verdict, GuardVerdict::kKept);
  EXPECT_EQ(judgement.reason, "");
}

TEST(GuardTest, AWindowThatRefusedManyIsNoConsent) {
  GuardFacts facts = kGood;
  facts.refused = 10;
  EXPECT_EQ(Judge(All(), facts).verdict, GuardVerdict::kKept) << "10 of 1010";
  facts.refused = 11;
  EXPECT_EQ(Judge(All(), facts).verdict, GuardVerdict::kRefusing);
  EXPECT_EQ(Judge(All(), {.refused = 1}).verdict, GuardVerdict::kRefusing) << "all of them";
  facts.errors = 3;
  EXPECT_EQ(Judge(All(), facts).verdict, GuardVerdict::kBroken);
  const GuardState tripped = {.tripped = true, .kept_in_a_row = 1};
  EXPECT_EQ(Advance(All(), tripped, GuardVerdict::kRefusing).state, tripped);
}

TEST(GuardTest, EachRuleCanBeBrokenAndIsNamed) {
  const auto reason = [](auto change) {
    GuardFacts facts = kGood;
    change(facts);
    const GuardJudgement judgement = Judge(All(), facts);
    EXPECT_EQ(judgement.verdict, GuardVerdict::kBroken);
    return judgement.reason;
  };
  EXPECT_EQ(reason([](GuardFacts& f) { f.agreed_rows = 183; }), "agreement 91.50 % < 98 %");
  EXPECT_EQ(reason([](GuardFacts& f) { f.ratio_sum_db = 200 * 12.0; }), "sqnr 12.00 dB < 25 dB");
  EXPECT_EQ(reason([](GuardFacts& f) { f.errors = 3; }), "errors 0.30 % > 0.2 %");
  EXPECT_EQ(reason([](GuardFacts& f) { f.slow = 11; }), "slower than 900 us 1.10 % > 1 %");
  EXPECT_EQ(reason([](GuardFacts& f) { f.lost_outputs = 1; }), "sqnr -inf dB < 25 dB");
  EXPECT_EQ(reason([](GuardFacts& f) {
              f.errors = 10;
              f.slow = 20;
            }),
            "errors 1.00 % > 0.2 %; slower than 900 us 2.00 % > 1 %");
}

TEST(GuardTest, ARuleWithoutSamplesSaysNothing) {
  GuardFacts facts = kGood;
  facts.agreed_rows = 0;
  facts.class_rows = 99;
  EXPECT_EQ(Judge(All(), facts).verdict, GuardVerdict::kUndecided);
  facts.class_rows = 100;
  EXPECT_EQ(Judge(All(), facts).verdict, GuardVerdict::kBroken);
  facts = kGood;
  facts.requests = 0;
  EXPECT_EQ(Judge(All(), facts).verdict, GuardVerdict::kUndecided);
  facts.agreed_rows = 0;
  EXPECT_EQ(Judge(All(), facts).verdict, GuardVerdict::kBroken) << "one rule is enough";
  Rules one;
  one.agreement_percent = 98;
  facts = kGood;
  facts.requests = 0;
  EXPECT_EQ(Judge(one, facts).verdict, GuardVerdict::kKept) << "what is no rule needs no samples";
  EXPECT_EQ(Judge(All(), {}).verdict, GuardVerdict::kUndecided);
}

/// The actions that a row of verdicts causes, as letters: a(lert), f(all back), r(ecover), - nothing.
std::string Actions(const Rules& rules, std::string_view verdicts) {
  GuardState state;
  std::string actions;
  for (const char verdict : verdicts) {
    const GuardStep step = Advance(rules, state,
                                   verdict == 'B'   ? GuardVerdict::kBroken
                                   : verdict == 'K' ? GuardVerdict::kKept
                                                    : GuardVerdict::kUndecided);
    state = step.state;
    actions += step.action ? "afrs"[static_cast<size_t>(*step.action)] : '-';
  }
  return actions;
}

TEST(GuardTest, ItActsOnceAndRecoversAfterWindowsInARow) {
  Rules rules = All();
  rules.recover_windows = 3;
  EXPECT_EQ(Actions(rules, "KKBBBKKK"), "--a----r");
  EXPECT_EQ(Actions(rules, "BKKBKKK"), "a-----r") << "a broken one starts the row anew";
  EXPECT_EQ(Actions(rules, "B?K?K??K"), "a------r") << "an undecided one leaves it as it is";
  EXPECT_EQ(Actions(rules, "?????"), "-----");
  EXPECT_EQ(Actions(rules, "B??????"), "a------") << "silence is no recovery";
  EXPECT_EQ(Actions(rules, "BKKKB"), "a--ra");
  rules.action = Rules::Action::kFallBack;
  EXPECT_EQ(Actions(rules, "BKKKBKKK"), "f--rf--r");
  rules.action = Rules::Action::kShift;
  EXPECT_EQ(Actions(rules, "BBKBKKKB"), "ss-s--rs");
  EXPECT_EQ(Actions(rules, "BBBBBBB"), "sssss--") << "a 32nd is the least";
}

TEST(GuardTest, WithoutRecoveryALoadAloneBringsItBack) {
  Rules rules = All();
  rules.recover_windows = 0;
  EXPECT_EQ(Actions(rules, "BKKKKKKKK"), "a--------");
}

TEST(GuardTest, AQuantileLiesInItsBucketInProportion) {
  constexpr std::array kBounds = {1.0, 2.0, 4.0};
  EXPECT_DOUBLE_EQ(Quantile(0.5, kBounds, std::array<uint64_t, 4>{50, 50, 0, 0}), 1);
  EXPECT_DOUBLE_EQ(Quantile(0.75, kBounds, std::array<uint64_t, 4>{50, 50, 0, 0}), 1.5);
  EXPECT_DOUBLE_EQ(Quantile(0.99, kBounds, std::array<uint64_t, 4>{0, 0, 100, 0}), 3.98);
  EXPECT_DOUBLE_EQ(Quantile(0.99, kBounds, std::array<uint64_t, 4>{1, 0, 0, 99}), 4);
  EXPECT_DOUBLE_EQ(Quantile(0.99, kBounds, std::array<uint64_t, 4>{}), 0);
}

}  // namespace guard_test
}  // namespace octet

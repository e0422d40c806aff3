#include "server/routing/rollout.h"

#include <algorithm>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/routing/guard.h"

namespace octet {
namespace rollout_test {

using std::chrono::seconds;
using ::testing::HasSubstr;
using Kind = RolloutStage::Kind;
using Verdict = RolloutDecision::Verdict;

RolloutPlan Plan() {
  RolloutPlan plan;
  plan.guard.agreement_percent = 99;
  plan.guard.error_percent = 0.1;
  plan.guard.window_seconds = 10;
  plan.ramp_percent = {5, 50, 100};
  return plan;
}

/// Enough of everything.
RolloutFacts Fine() {
  return {.ready = true,
          .kept_windows = 3,
          .compared = 1000,
          .class_rows = 1000,
          .requests = 50,
          .held = seconds(300)};
}

Verdict Decide(Kind kind, const RolloutFacts& facts) {
  return DecideRollout(Plan(), {kind, 0}, facts).verdict;
}

TEST(RolloutTest, GoesThroughItsStagesInOrder) {
  RolloutStage stage;
  std::vector<std::string> names;
  for (; stage.kind != Kind::kPromoted; stage = NextStage(Plan(), stage)) {
    names.push_back(RolloutStageName(Plan(), stage));
    ASSERT_LT(names.size(), 10U);
  }
  EXPECT_THAT(names,
              testing::ElementsAre("shadow", "ramp to 5 %", "ramp to 50 %", "ramp to 100 %"));
  EXPECT_EQ(RolloutStageName(Plan(), stage), "promoted");
}

TEST(RolloutTest, WaitsForTimeWindowsAndCopies) {
  EXPECT_EQ(Decide(Kind::kShadow, Fine()), Verdict::kForward);
  RolloutFacts early = Fine();
  early.held = seconds(299);
  early.kept_windows = 2;
  early.undecided_windows = 7;
  early.compared = 10;
  const RolloutDecision decision = DecideRollout(Plan(), {}, early);
  EXPECT_EQ(decision.verdict, Verdict::kWait);
  EXPECT_EQ(decision.reason,
            "299 of 300 seconds held, 2 of 3 windows kept, 10 of 1000 copies compared");
}

TEST(RolloutTest, OnTheRampUndecidedWindowsCountButSilenceDoesNot) {
  RolloutFacts facts = Fine();
  facts.kept_windows = 0;
  facts.undecided_windows = 3;
  facts.compared = 0;
  facts.requests = 1;
  EXPECT_EQ(Decide(Kind::kRamp, facts), Verdict::kForward);
  EXPECT_EQ(Decide(Kind::kShadow, facts), Verdict::kWait);
  facts.requests = 0;
  EXPECT_EQ(Decide(Kind::kRamp, facts), Verdict::kWait);
}

TEST(RolloutTest, GoesBackAtOnceWhenTheGuardBreaks) {
  for (const Kind kind : {Kind::kShadow, Kind::kRamp}) {
    RolloutFacts facts = Fine();
    facts.broken_windows = 1;
    facts.last_broken = "agreement 91.00 % < 99 %";
    const RolloutDecision decision = DecideRollout(Plan(), {kind, 0}, facts);
    EXPECT_EQ(decision.verdict, Verdict::kBack);
    EXPECT_THAT(decision.reason, HasSubstr("agreement 91.00 %"));
    facts = Fine();
    facts.fallen_back = true;
    EXPECT_EQ(Decide(kind, facts), Verdict::kBack);
    facts = Fine();
    facts.ready = false;
    EXPECT_EQ(Decide(kind, facts), Verdict::kBack);
  }
}

TEST(RolloutTest, OneRestartMayBeAnybodysASecondIsTheCandidates) {
  for (const Kind kind : {Kind::kShadow, Kind::kRamp}) {
    RolloutFacts facts = Fine();
    facts.restarts = 1;
    EXPECT_EQ(Decide(kind, facts), Verdict::kForward);
    facts.restarts = 2;
    const RolloutDecision decision = DecideRollout(Plan(), {kind, 0}, facts);
    EXPECT_EQ(decision.verdict, Verdict::kBack);
    EXPECT_EQ(decision.reason, "the server restarted 2 times while int8 was on trial");
  }
}

TEST(RolloutTest, GoesBackWhenTheCandidateRefusesRequestsAndTheBaselineDoesNot) {
  RolloutFacts facts = Fine();
  facts.kept_windows = 0;
  facts.refusing_windows = 2;
  EXPECT_EQ(Decide(Kind::kRamp, facts), Verdict::kWait);
  facts.refusing_windows = 3;
  const RolloutDecision decision = DecideRollout(Plan(), {Kind::kRamp, 1}, facts);
  EXPECT_EQ(decision.verdict, Verdict::kBack);
  EXPECT_EQ(decision.reason,
            "3 windows in which more than 1 % of the requests to int8 were refused, and of those "
            "to fp32 no more than that");
  EXPECT_EQ(Decide(Kind::kShadow, facts), Verdict::kWait) << "who asks for it alone";
}

TEST(RolloutTest, GoesBackWhenItsPatienceIsOver) {
  RolloutFacts facts = Fine();
  facts.compared = 0;
  facts.since_entered = seconds(86399);
  EXPECT_EQ(Decide(Kind::kShadow, facts), Verdict::kWait);
  facts.since_entered = seconds(86400);
  const RolloutDecision decision = DecideRollout(Plan(), {}, facts);
  EXPECT_EQ(decision.verdict, Verdict::kBack);
  EXPECT_EQ(decision.reason, "after 86400 s still 0 of 1000 copies compared");
}

TEST(RolloutTest, LoadsThatRecurHoldNoStageForEver) {
  RolloutFacts facts = Fine();
  facts.held = seconds(10);
  facts.since_entered = seconds(86399);
  EXPECT_EQ(Decide(Kind::kRamp, facts), Verdict::kWait);
  facts.since_entered = seconds(86400);
  const RolloutDecision decision = DecideRollout(Plan(), {Kind::kRamp, 0}, facts);
  EXPECT_EQ(decision.verdict, Verdict::kBack);
  EXPECT_EQ(decision.reason, "after 86400 s still 10 of 300 seconds held");
  facts.held = seconds(300);
  EXPECT_EQ(Decide(Kind::kRamp, facts), Verdict::kForward) << "held long enough at last";
}

ModelConfig Routed(const RolloutStage& stage, const RolloutPlan& plan = Plan()) {
  const auto config = ParseModelConfig(RolloutYaml(plan, stage), "rollout.yaml");
  EXPECT_TRUE(config.ok()) << config.status();
  const auto applied = ApplyRollout(ModelConfig(), *config, "rollout.yaml");
  EXPECT_TRUE(applied.ok()) << applied.status();
  return *applied;
}

TEST(RolloutTest, TheShadowAnswersNobody) {
  const ModelConfig::Routing routing = Routed({}).routing;
  EXPECT_EQ(routing.default_precision, Precision::kFp32);
  EXPECT_EQ(routing.split, (std::map<Precision, double>{{Precision::kFp32, 100}}));
  ASSERT_TRUE(routing.shadow);
  EXPECT_EQ(routing.shadow->precision, Precision::kInt8);
  EXPECT_EQ(routing.shadow->against, Precision::kFp32);
  const auto& guard = routing.guard.at(Precision::kInt8);
  EXPECT_EQ(guard.agreement_percent, 99);
  EXPECT_FALSE(guard.error_percent) << "it has no requests of its own";
  EXPECT_EQ(guard.recover_windows, 0);
  EXPECT_EQ(guard.action, ModelConfig::Routing::Guard::Action::kFallBack);
}

/// What the guard says of windows full of what the stage can show.
GuardVerdict Verdicts(const RolloutStage& stage, const GuardFacts& facts) {
  return Judge(Routed(stage).routing.guard.at(Precision::kInt8), facts).verdict;
}

TEST(RolloutTest, TheGuardOfEachStageCanBeKeptTo) {
  const GuardFacts copies = {.class_rows = 1000, .agreed_rows = 1000};
  EXPECT_EQ(Verdicts({}, copies), GuardVerdict::kKept);
  EXPECT_EQ(Verdicts({Kind::kRamp, 2}, {.requests = 1000}), GuardVerdict::kKept);
  EXPECT_EQ(Verdicts({Kind::kPromoted, 0}, {.requests = 1000}), GuardVerdict::kKept);
}

TEST(RolloutTest, WithoutARuleTheShadowNeedsNoWindows) {
  RolloutPlan plan = Plan();
  plan.guard.agreement_percent.reset();
  EXPECT_TRUE(Routed({}, plan).routing.guard.empty());
  RolloutFacts facts = Fine();
  facts.kept_windows = 0;
  facts.class_rows = 0;
  EXPECT_EQ(DecideRollout(plan, {}, facts).verdict, Verdict::kForward);
}

TEST(RolloutTest, AgreementOnClassesThatDoNotExistIsNoProof) {
  RolloutFacts facts = Fine();
  facts.kept_windows = 0;
  facts.class_rows = 0;
  EXPECT_THAT(DecideRollout(Plan(), {}, facts).reason, HasSubstr("no output has class scores"));
  EXPECT_EQ(Decide(Kind::kShadow, facts), Verdict::kBack);
  facts.compared = 999;
  EXPECT_EQ(Decide(Kind::kShadow, facts), Verdict::kWait);
}

TEST(RolloutTest, AClockThatWasSetBackEndsNoStage) {
  RolloutFacts facts = Fine();
  facts.held = facts.since_entered = seconds(-5);
  EXPECT_EQ(Decide(Kind::kShadow, facts), Verdict::kWait);
}

TEST(RolloutTest, PrecisionsThatModelYamlListsAreListedWithTheCandidate) {
  RolloutPlan plan = Plan();
  plan.precisions = {Precision::kFp32, Precision::kInt8};
  const auto over = ParseModelConfig(RolloutYaml(plan, {}), "rollout.yaml");
  ASSERT_TRUE(over.ok()) << over.status();
  const auto model = ParseModelConfig("precisions: [fp32]", "model.yaml");
  EXPECT_TRUE(ApplyRollout(*model, *over, "rollout.yaml").ok());
}

/// What each rollout.yaml of a rollout makes of a model.yaml that names its precisions, the baseline's alone first.
std::vector<ModelConfig> RolledOut(RolloutPlan plan, std::string_view model_yaml) {
  const auto model = ParseModelConfig(model_yaml, "model.yaml");
  EXPECT_TRUE(model.ok()) << model.status();
  plan.precisions = model->precisions;
  if (!std::ranges::contains(plan.precisions, plan.candidate)) {
    plan.precisions.push_back(plan.candidate);
  }
  std::vector<std::string> yamls = {BaselineYaml(plan, "")};
  RolloutStage stage;
  for (; stage.kind != Kind::kPromoted; stage = NextStage(plan, stage)) {
    yamls.push_back(RolloutYaml(plan, stage));
  }
  yamls.push_back(RolloutYaml(plan, stage));
  std::vector<ModelConfig> configs;
  for (const std::string& yaml : yamls) {
    const auto over = ParseModelConfig(yaml, "rollout.yaml");
    EXPECT_TRUE(over.ok()) << over.status();
    const auto applied = ApplyRollout(*model, *over, "rollout.yaml");
    EXPECT_TRUE(applied.ok()) << yaml << applied.status();
    if (applied.ok()) configs.push_back(*applied);
  }
  EXPECT_EQ(configs.size(), yamls.size());
  return configs;
}

TEST(RolloutTest, APrecisionThatModelYamlHasOnTrialCanBeRolledOut) {
  const auto configs = RolledOut(Plan(),
                                 "precisions: [fp32, int8]\n"
                                 "routing: {default: fp32, shadow: {precision: int8, percent: 5}, "
                                 "guard: {int8: {agreement_percent: 95, action: fall_back}}}");
  ASSERT_FALSE(configs.empty());
  EXPECT_THAT(configs[0].precisions, testing::ElementsAre(Precision::kFp32));
  EXPECT_FALSE(configs[0].routing.shadow);
  EXPECT_TRUE(configs[0].routing.guard.empty());
}

TEST(RolloutTest, AGuardOfAnotherPrecisionIsNotInTheWayOfOneWithoutRules) {
  RolloutPlan plan = Plan();
  plan.candidate = Precision::kBf16;
  plan.guard.agreement_percent.reset();
  for (const ModelConfig& config :
       RolledOut(plan,
                 "precisions: [fp32, int8]\n"
                 "routing: {default: fp32, shadow: {precision: int8, percent: 5}, "
                 "guard: {int8: {agreement_percent: 95}}}")) {
    EXPECT_FALSE(config.routing.guard.contains(Precision::kInt8));
  }
}

TEST(RolloutTest, TheRampSharesAndKeepsComparing) {
  const ModelConfig::Routing routing = Routed({Kind::kRamp, 0}).routing;
  EXPECT_EQ(routing.split,
            (std::map<Precision, double>{{Precision::kFp32, 95}, {Precision::kInt8, 5}}));
  EXPECT_TRUE(routing.shadow);
  EXPECT_EQ(routing.default_precision, Precision::kFp32);
}

TEST(RolloutTest, WithAllOfTheTrafficThereIsNothingToCompareWith) {
  for (const RolloutStage stage :
       {RolloutStage{Kind::kRamp, 2}, RolloutStage{Kind::kPromoted, 0}}) {
    const ModelConfig::Routing routing = Routed(stage).routing;
    EXPECT_EQ(routing.split, (std::map<Precision, double>{{Precision::kInt8, 100}}));
    EXPECT_FALSE(routing.shadow);
    EXPECT_FALSE(routing.guard.at(Precision::kInt8).agreement_percent);
    EXPECT_EQ(routing.guard.at(Precision::kInt8).error_percent, 0.1);
    RolloutPlan plan = Plan();
    plan.guard.error_percent.reset();
    EXPECT_TRUE(Routed(stage, plan).routing.guard.empty()) << "no rule is left";
  }
  EXPECT_EQ(Routed({Kind::kRamp, 2}).routing.default_precision, Precision::kFp32);
  EXPECT_EQ(Routed({Kind::kPromoted, 0}).routing.default_precision, Precision::kInt8);
}

}  // namespace rollout_test
}  // namespace octet

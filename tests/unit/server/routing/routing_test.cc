#include "server/routing/routing.h"

#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/routing/stable_hash.h"

namespace octet {
namespace routing_test {

using ::testing::HasSubstr;

using Split = std::map<Precision, double>;
constexpr int kRequests = 100'000;

/// A version in which `present` are ready.
RouteTable Table(const Split& split, const std::vector<Precision>& present, std::string salt = "") {
  ModelConfig::Routing config;
  config.split = split;
  config.sticky.salt = std::move(salt);
  std::vector<RouteCandidate> candidates;
  for (const Precision precision : present) candidates.push_back({precision, true});
  return MakeRouteTable(config, candidates);
}

const std::vector<Precision> kTwo = {Precision::kFp32, Precision::kInt8};
const std::vector<Precision> kThree = {Precision::kFp32, Precision::kBf16, Precision::kInt8};

Precision Sticky(const RouteTable& table, int user) {
  const std::string key = Format("user-{}", user);
  const auto route = ChoosePrecision(table, {.sticky_key = key});
  EXPECT_EQ(route->reason, RouteReason::kSticky);
  return route->precision;
}

std::map<Precision, double> StickyShares(const RouteTable& table) {
  std::map<Precision, double> shares;
  for (int user = 0; user < kRequests; ++user) shares[Sticky(table, user)] += 1.0 / kRequests;
  return shares;
}

std::string ErrorOf(const RouteTable& table, const RouteFacts& facts, absl::StatusCode code) {
  const auto route = ChoosePrecision(table, facts);
  EXPECT_EQ(route.status().code(), code);
  return std::string(Message(route.status()));
}

TEST(RoutingTest, WhatTheRequestAsksForWins) {
  const RouteTable table = Table({{Precision::kFp32, 100}}, kTwo);
  const auto route = ChoosePrecision(table, {.precision = "int8", .sticky_key = "somebody"});
  ASSERT_TRUE(route.ok());
  EXPECT_EQ(route->precision, Precision::kInt8);
  EXPECT_EQ(route->reason, RouteReason::kExplicit);
}

TEST(RoutingTest, AskingForWhatIsNotThereListsWhatIs) {
  RouteTable table = Table({}, kTwo);
  table.candidates[1].ready = false;
  EXPECT_EQ(ErrorOf(table, {.precision = "int4"}, absl::StatusCode::kInvalidArgument),
            "unknown precision, this model has fp32, int8 (not ready): \"int4\"");
  EXPECT_EQ(ErrorOf(table, {.precision = "bf16"}, absl::StatusCode::kNotFound),
            "the model has no such precision, it has fp32, int8 (not ready): bf16");
  EXPECT_EQ(ErrorOf(table, {.precision = "int8"}, absl::StatusCode::kUnavailable),
            "the precision is not ready, there are fp32, int8 (not ready): int8");
}

TEST(RoutingTest, WithoutAnyRuleTheMostExactReadyPrecisionAnswers) {
  EXPECT_EQ(ChoosePrecision(Table({}, kThree), {})->precision, Precision::kFp32);
  EXPECT_EQ(ChoosePrecision(Table({}, {Precision::kInt8, Precision::kBf16}), {})->precision,
            Precision::kBf16);
  EXPECT_EQ(ChoosePrecision(Table({}, {Precision::kInt8}), {.sticky_key = "k"})->reason,
            RouteReason::kDefault);
}

TEST(RoutingTest, TheConfiguredDefaultAnswersWhileItIsReady) {
  RouteTable table = Table({}, kTwo);
  table.default_precision = Precision::kInt8;
  EXPECT_EQ(ChoosePrecision(table, {})->precision, Precision::kInt8);
  table.candidates[1].ready = false;
  EXPECT_EQ(ChoosePrecision(table, {})->precision, Precision::kFp32);
}

TEST(RoutingTest, NothingReadyIsUnavailable) {
  RouteTable table = Table({{Precision::kInt8, 1}}, {Precision::kInt8});
  table.candidates[0].ready = false;
  EXPECT_THAT(ErrorOf(table, {}, absl::StatusCode::kUnavailable), HasSubstr("int8 (not ready)"));
}

TEST(RoutingTest, TheSplitFollowsItsWeights) {
  const RouteTable table =
      Table({{Precision::kFp32, 50}, {Precision::kBf16, 30}, {Precision::kInt8, 20}}, kThree);
  std::map<Precision, double> shares;
  for (int i = 0; i < kRequests; ++i) {
    const auto route = ChoosePrecision(table, {.draw = static_cast<double>(i) / kRequests});
    EXPECT_EQ(route->reason, RouteReason::kSplit);
    shares[route->precision] += 1.0 / kRequests;
  }
  EXPECT_NEAR(shares[Precision::kFp32], 0.5, 1e-4);
  EXPECT_NEAR(shares[Precision::kBf16], 0.3, 1e-4);
  EXPECT_NEAR(shares[Precision::kInt8], 0.2, 1e-4);
}

TEST(RoutingTest, AWeightOfZeroTakesNoTraffic) {
  const RouteTable table = Table({{Precision::kFp32, 1}, {Precision::kInt8, 0}}, kTwo);
  for (const double draw : {0.0, 0.5, 0.999999999}) {
    EXPECT_EQ(ChoosePrecision(table, {.draw = draw})->precision, Precision::kFp32);
  }
  EXPECT_EQ(StickyShares(table).count(Precision::kInt8), 0U);
}

TEST(RoutingTest, ABrokenPrecisionLeavesItsShareToTheOthers) {
  RouteTable table =
      Table({{Precision::kFp32, 25}, {Precision::kBf16, 25}, {Precision::kInt8, 50}}, kThree);
  const RouteTable whole = table;
  table.candidates[2].ready = false;
  EXPECT_EQ(ChoosePrecision(table, {.draw = 0.49})->precision, Precision::kFp32);
  EXPECT_EQ(ChoosePrecision(table, {.draw = 0.51})->precision, Precision::kBf16);
  for (int user = 0; user < 1000; ++user) {
    const Precision before = Sticky(whole, user);
    if (before == Precision::kInt8) continue;
    EXPECT_EQ(Sticky(table, user), before) << "user " << user << " was moved";
  }
}

TEST(StickyRoutingTest, SharesFollowTheWeights) {
  const auto shares = StickyShares(
      Table({{Precision::kFp32, 90}, {Precision::kBf16, 7}, {Precision::kInt8, 3}}, kThree));
  // Five standard deviations of a binomial share of 100,000 draws.
  EXPECT_NEAR(shares.at(Precision::kFp32), 0.90, 0.005);
  EXPECT_NEAR(shares.at(Precision::kBf16), 0.07, 0.004);
  EXPECT_NEAR(shares.at(Precision::kInt8), 0.03, 0.003);
}

TEST(StickyRoutingTest, OnlyTheRatioOfTheWeightsMatters) {
  const RouteTable percent = Table({{Precision::kFp32, 60}, {Precision::kInt8, 40}}, kTwo);
  const RouteTable parts = Table({{Precision::kFp32, 0.75}, {Precision::kInt8, 0.5}}, kTwo);
  for (int user = 0; user < 1000; ++user) EXPECT_EQ(Sticky(percent, user), Sticky(parts, user));
}

TEST(StickyRoutingTest, TheChoiceIsTheSameInEveryProcess) {
  const RouteTable table = Table({{Precision::kFp32, 50}, {Precision::kInt8, 50}}, kTwo, "salt");
  std::string choices;
  for (int user = 0; user < 16; ++user)
    choices += Sticky(table, user) == Precision::kInt8 ? '8' : 'f';
  EXPECT_EQ(choices, "f8888ff8f8fffff8");
  EXPECT_EQ(HashBytes("foobar"), 0x85944171f73967e8ULL) << "FNV-1a's published test vector";
  EXPECT_EQ(MixBits(1), 0xb456bcfc34c2cb2cULL);
}

TEST(StickyRoutingTest, MovingAWeightMovesOnlyItsShare) {
  const RouteTable before =
      Table({{Precision::kFp32, 1}, {Precision::kBf16, 1}, {Precision::kInt8, 1}}, kThree);
  const RouteTable after =
      Table({{Precision::kFp32, 1}, {Precision::kBf16, 1}, {Precision::kInt8, 2}}, kThree);
  int moved = 0;
  for (int user = 0; user < kRequests; ++user) {
    const Precision to = Sticky(after, user);
    if (Sticky(before, user) == to) continue;
    EXPECT_EQ(to, Precision::kInt8)
        << "a user moved between precisions whose weight did not change";
    ++moved;
  }
  EXPECT_NEAR(static_cast<double>(moved) / kRequests, 1.0 / 2 - 1.0 / 3, 0.006);
}

TEST(StickyRoutingTest, AnotherSaltDrawsTheGroupsAnew) {
  const Split split = {{Precision::kFp32, 50}, {Precision::kInt8, 50}};
  const RouteTable a = Table(split, kTwo, "a");
  const RouteTable b = Table(split, kTwo, "b");
  int same = 0;
  for (int user = 0; user < kRequests; ++user) same += Sticky(a, user) == Sticky(b, user) ? 1 : 0;
  EXPECT_NEAR(static_cast<double>(same) / kRequests, 0.5, 0.008);
}

TEST(StickyRoutingTest, SimilarKeysAreIndependent) {
  const RouteTable table = Table({{Precision::kFp32, 50}, {Precision::kInt8, 50}}, kTwo);
  int runs = 1;
  for (int user = 1; user < kRequests; ++user)
    runs += Sticky(table, user) != Sticky(table, user - 1) ? 1 : 0;
  EXPECT_NEAR(static_cast<double>(runs) / kRequests, 0.5, 0.008);
}

TEST(RoutingTest, WhatItsGuardLetFallBackLeavesItsShareAndAnswersWhenAsked) {
  ModelConfig::Routing config;
  config.split = {{Precision::kFp32, 1}, {Precision::kInt8, 99}};
  const auto kept = std::make_shared<std::atomic<double>>(1);
  const RouteTable table =
      MakeRouteTable(config, {{.precision = Precision::kFp32, .ready = true},
                              {.precision = Precision::kInt8, .ready = true, .guard_share = kept}});
  const auto chosen = [&](RouteFacts facts) { return ChoosePrecision(table, facts)->precision; };
  EXPECT_EQ(chosen({.draw = 0.5}), Precision::kInt8);
  *kept = 0;
  EXPECT_EQ(chosen({.draw = 0.5}), Precision::kFp32);
  EXPECT_EQ(chosen({.draw = 0.999}), Precision::kFp32);
  for (const char* key : {"a", "b", "c", "d"}) {
    EXPECT_EQ(chosen({.sticky_key = key}), Precision::kFp32);
  }
  EXPECT_EQ(chosen({.precision = "int8"}), Precision::kInt8);
  *kept = 1;
  EXPECT_EQ(chosen({.draw = 0.5}), Precision::kInt8);
}

TEST(RoutingTest, ADefaultThatFellBackAnswersWhenNobodyElseCan) {
  ModelConfig::Routing config;
  config.default_precision = Precision::kInt8;
  const auto kept = std::make_shared<std::atomic<double>>(0);
  const RouteCandidate int8 = {.precision = Precision::kInt8, .ready = true, .guard_share = kept};
  const RouteTable both =
      MakeRouteTable(config, {{.precision = Precision::kBf16, .ready = true}, int8});
  EXPECT_EQ(ChoosePrecision(both, {})->precision, Precision::kBf16);
  const RouteTable alone = MakeRouteTable(config, {{.precision = Precision::kBf16}, int8});
  EXPECT_EQ(ChoosePrecision(alone, {})->precision, Precision::kInt8);
}

TEST(RoutingTest, AShiftedWeightIsThePartThatItsGuardLeaves) {
  ModelConfig::Routing config;
  config.split = {{Precision::kFp32, 1}, {Precision::kInt8, 1}};
  const auto kept = std::make_shared<std::atomic<double>>(0.25);
  const RouteTable table =
      MakeRouteTable(config, {{.precision = Precision::kFp32, .ready = true},
                              {.precision = Precision::kInt8, .ready = true, .guard_share = kept}});
  EXPECT_EQ(ChoosePrecision(table, {.draw = 0.79})->precision, Precision::kFp32);
  EXPECT_EQ(ChoosePrecision(table, {.draw = 0.81})->precision, Precision::kInt8);
  EXPECT_NEAR(StickyShares(table)[Precision::kInt8], 0.2, 0.005);
}

TEST(RoutingTest, ARampTakesItsShareAndTheRestIsSplitAsBefore) {
  ModelConfig::Routing config;
  config.split = {{Precision::kFp32, 3}, {Precision::kBf16, 1}};
  const auto share = std::make_shared<std::atomic<double>>(0.2);
  RouteTable table =
      MakeRouteTable(config, {{.precision = Precision::kFp32, .ready = true},
                              {.precision = Precision::kBf16, .ready = true},
                              {.precision = Precision::kInt8, .ready = true, .ramped = true}});
  const RouteTable without = table;
  table.ramp_share = share;
  std::map<Precision, double> drawn;
  for (int i = 0; i < kRequests; ++i) {
    const double draw = static_cast<double>(i) / kRequests;
    drawn[ChoosePrecision(table, {.draw = draw})->precision] += 1.0 / kRequests;
  }
  EXPECT_NEAR(drawn[Precision::kInt8], 0.2, 1e-4);
  EXPECT_NEAR(drawn[Precision::kFp32], 0.6, 1e-4);
  std::vector<int> in;
  for (int user = 0; user < 10'000; ++user) {
    if (Sticky(table, user) == Precision::kInt8)
      in.push_back(user);
    else
      EXPECT_EQ(Sticky(table, user), Sticky(without, user));
  }
  EXPECT_NEAR(static_cast<double>(in.size()), 2000, 150);
  *share = 0.4;
  for (const int user : in) EXPECT_EQ(Sticky(table, user), Precision::kInt8) << "nobody goes back";
  *share = 1;
  EXPECT_EQ(ChoosePrecision(table, {.draw = 0.999})->precision, Precision::kInt8);
  *share = 0;
  EXPECT_EQ(ChoosePrecision(table, {.draw = 0})->precision, Precision::kFp32);
  *share = 1;
  table.candidates[2].ready = false;
  EXPECT_EQ(ChoosePrecision(table, {.draw = 0.1})->precision, Precision::kFp32);
}

TEST(RoutingTest, SharesAreWhatDrawsComeTo) {
  ModelConfig::Routing config;
  config.split = {{Precision::kFp32, 3}, {Precision::kBf16, 2}};
  const auto kept = std::make_shared<std::atomic<double>>(0.5);
  const auto ramp = std::make_shared<std::atomic<double>>(0.2);
  RouteTable table =
      MakeRouteTable(config, {{.precision = Precision::kFp32, .ready = true},
                              {.precision = Precision::kBf16, .ready = true, .guard_share = kept},
                              {.precision = Precision::kInt8, .ready = true, .ramped = true}});
  const auto expect_shares = [&table](const std::vector<double>& expected) {
    std::map<Precision, double> drawn;
    for (int i = 0; i < kRequests; ++i) {
      const auto route = ChoosePrecision(table, {.draw = static_cast<double>(i) / kRequests});
      if (route.ok()) drawn[route->precision] += 1.0 / kRequests;
    }
    const std::vector<double> shares = SharesOf(table);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(shares[i], expected[i], 1e-9) << i;
      EXPECT_NEAR(drawn[table.candidates[i].precision], expected[i], 1e-3) << i;
    }
  };
  expect_shares({0.75, 0.25, 0});
  table.ramp_share = ramp;
  expect_shares({0.6, 0.2, 0.2});
  *kept = 0;
  expect_shares({0.8, 0, 0.2});
  table.candidates[2].ready = false;
  expect_shares({1, 0, 0});
  table.candidates[0].ready = false;
  expect_shares({0, 1, 0});  // fell back, and nobody else can
  table.candidates[1].ready = false;
  expect_shares({0, 0, 0});
  table.has_split = false;
  for (RouteCandidate& candidate : table.candidates) candidate.ready = true;
  expect_shares({0.8, 0, 0.2});
}

const std::vector<VersionShare> kVersions = {{3, 90}, {4, 10}};

TEST(VersionSplitTest, TheSplitFollowsItsWeightsAndAKeyKeepsToOne) {
  double drawn = 0;
  double keyed = 0;
  for (int i = 0; i < kRequests; ++i) {
    drawn += ChooseVersion(kVersions, "", "", static_cast<double>(i) / kRequests) == 4 ? 1 : 0;
    const std::string key = Format("user-{}", i);
    const auto version = ChooseVersion(kVersions, "", key, 0.999);
    EXPECT_EQ(version, ChooseVersion(kVersions, "", key, 0));
    keyed += version == 4 ? 1 : 0;
  }
  EXPECT_NEAR(drawn / kRequests, 0.1, 1e-4);
  EXPECT_NEAR(keyed / kRequests, 0.1, 0.005);
}

TEST(VersionSplitTest, AVersionThatIsGoneLeavesItsShareAndNobodyElseMoves) {
  const std::vector<VersionShare> three = {{3, 50}, {4, 30}, {7, 20}};
  const std::vector<VersionShare> two = {{3, 50}, {7, 20}};
  for (int i = 0; i < 1000; ++i) {
    const std::string key = Format("user-{}", i);
    const auto before = ChooseVersion(three, "", key, 0);
    const auto after = ChooseVersion(two, "", key, 0);
    EXPECT_TRUE(before == 4 || before == after);
  }
  EXPECT_EQ(ChooseVersion({}, "", "", 0.5), std::nullopt);
}

TEST(VersionSplitTest, VersionAndPrecisionOfAKeyAreIndependent) {
  const RouteTable table = Table({{Precision::kFp32, 1}, {Precision::kInt8, 1}}, kTwo);
  const std::vector<VersionShare> even = {{1, 1}, {2, 1}};
  double both = 0;
  for (int user = 0; user < kRequests; ++user) {
    const bool int8 = Sticky(table, user) == Precision::kInt8;
    both += int8 && ChooseVersion(even, "", Format("user-{}", user), 0) == 2 ? 1 : 0;
  }
  EXPECT_NEAR(both / kRequests, 0.25, 0.005);
}

}  // namespace routing_test
}  // namespace octet

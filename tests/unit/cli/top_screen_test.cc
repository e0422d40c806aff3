#include "cli/top_screen.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace octet::cli {
namespace top_screen_test {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

json Guard() {
  return {{"fallen_back", false}, {"share", 1.0},           {"kept_windows", 3},
          {"broken_windows", 0},  {"undecided_windows", 0}, {"refusing_windows", 0},
          {"last_broken", ""}};
}

json Arm(const char* precision, double weight, uint64_t requests) {
  return {{"precision", precision},
          {"ready", true},
          {"reason", ""},
          {"weight", weight},
          {"share_percent", weight},
          {"errors", 0},
          {"refused", {{"queue_full", 0}, {"deadline", 0}}},
          {"rows", requests},
          {"batches", requests},
          {"waiting", 0},
          {"int8_mac_ratio", 0.5},
          {"histogram_us", {{"bounds", {100.0, 200.0}}, {"counts", {0, requests, 0}}}},
          {"over_baseline_us", nullptr},
          {"guard", nullptr}};
}

json Answer(const std::vector<json>& arms, int64_t started_ms = 1) {
  const json experiment = {
      {"model", "net"},          {"version", "1"},      {"started_ms", started_ms},
      {"precisions", arms},      {"pipeline", nullptr}, {"sample_ratio", nullptr},
      {"shadow", json::array()}, {"ramp", nullptr},     {"events", json::array()}};
  return {{"experiments", json::array({experiment})},
          {"version_splits", json::array()},
          {"index", json::array()}};
}

/// The line that begins with `name`.
std::string Line(const std::string& screen, const std::string& name) {
  const size_t begin = screen.find("\n  " + name + ' ');
  if (begin == std::string::npos) return "";
  return screen.substr(begin + 1, screen.find('\n', begin + 1) - begin - 1);
}

class TopScreenTest : public ::testing::Test {
 protected:
  std::string Draw(const json& answer) { return screen_.Draw(answer, 2); }

  int asked_ = 0;
  json certificates_ = {{"certificates",
                         {{{"precision", "int8"},
                           {"layers",
                            {{{"macs", 75}, {"runs", "int8"}},
                             {{"macs", 0}, {"runs", "f32"}},
                             {{"macs", 25}, {"runs", "f32"}}}}}}}};
  TopScreen screen_{[this](const std::string&, const std::string&) {
    ++asked_;
    return certificates_;
  }};
};

TEST_F(TopScreenTest, RatesAreThoseSinceTheLookBefore) {
  json arm = Arm("int8", 10, 1000);
  EXPECT_THAT(Line(Draw(Answer({arm})), "int8"), HasSubstr(" 0.0 ")) << "nothing is known yet";
  arm = Arm("int8", 10, 1500);
  arm["refused"]["queue_full"] = 1000;
  const std::string line = Line(Draw(Answer({arm})), "int8");
  EXPECT_THAT(line, HasSubstr(" 250.0 ")) << line;
  EXPECT_THAT(line, HasSubstr(" 500.0 ")) << "refused";
  // A restart, or other weights.
  EXPECT_THAT(Line(Draw(Answer({Arm("int8", 10, 20)}, 2)), "int8"), HasSubstr(" 10.0 "));
}

TEST_F(TopScreenTest, AShareOfInt8ThatIsNotKnownIsNoNumber) {
  json arm = Arm("int8", 10, 1);
  EXPECT_THAT(Line(Draw(Answer({arm})), "int8"), HasSubstr("  50.0  "));
  arm["int8_mac_ratio"] = nullptr;
  EXPECT_THAT(Line(Draw(Answer({arm})), "int8"), HasSubstr("     -  "));
}

TEST_F(TopScreenTest, AGuardSaysWhatItDid) {
  json arm = Arm("int8", 10, 1);
  arm["guard"] = Guard();
  EXPECT_THAT(Draw(Answer({arm})), HasSubstr("3 kept, 0 broken\n"));
  arm["guard"]["refusing_windows"] = 2;
  EXPECT_THAT(Draw(Answer({arm})), HasSubstr("3 kept, 0 broken, 2 refusing\n"));
  arm["guard"]["share"] = 1.0 / 32;
  arm["guard"]["last_broken"] = "agreement 90.00 % < 95 %";
  EXPECT_THAT(Draw(Answer({arm})), HasSubstr("3.1 % of its weight: agreement 90.00 % < 95 %\n"));
  arm["guard"]["share"] = 0;
  arm["guard"]["fallen_back"] = true;
  EXPECT_THAT(Draw(Answer({arm})), HasSubstr("fell back: agreement 90.00 % < 95 %\n"));
  arm["ready"] = false;
  arm["reason"] = "file does not exist";
  EXPECT_THAT(Draw(Answer({arm})), HasSubstr("not ready: file does not exist\n"));
}

TEST_F(TopScreenTest, WhatTheExperimentAsAWholeSays) {
  json arm = Arm("int8", 10, 1);
  arm["over_baseline_us"] = {{"mean", -300.2}, {"low", -310.5}, {"high", -289.9}};
  json answer = Answer({arm});
  json& experiment = answer["experiments"][0];
  experiment["sample_ratio"] = {{"p_value", 1e-9}, {"alarm", true}};
  experiment["ramp"] = {{"ramped", "int8"},
                        {"share_percent", 5.0},
                        {"step", 1},
                        {"steps", {1, 5}},
                        {"stopped", false}};
  experiment["shadow"] = {{{"precision", "int8"},
                           {"against", "fp32"},
                           {"compared", 100},
                           {"dropped", 7},
                           {"failed", 3},
                           {"agreement_percent", 99.0},
                           {"mean_sqnr_db", 31.25}}};
  for (int i = 0; i < 7; ++i) {
    experiment["events"].push_back({{"time_ms", 1'700'000'000'000 + 1000 * i},
                                    {"who", "net/1/int8"},
                                    {"action", "guard shift"},
                                    {"reason", std::to_string(i)}});
  }
  const std::string screen = Draw(answer);
  EXPECT_THAT(screen, HasSubstr("-300 (-310 .. -290)"));
  EXPECT_THAT(screen, HasSubstr("\n  SAMPLE RATIO MISMATCH (p = 1e-09)"));
  EXPECT_THAT(screen, HasSubstr("\n  ramp of int8: 5.0 % of the traffic, step 2 of 2\n"));
  EXPECT_THAT(screen,
              HasSubstr("100 compared, 7 dropped, 3 failed, agreement 99.00 %, SQNR 31.25 dB"));
  EXPECT_THAT(screen, HasSubstr("\n  2023-11-14T22:13:26Z net/1/int8 guard shift: 6\n"));
  EXPECT_THAT(screen, HasSubstr("guard shift: 2\n"));
  EXPECT_THAT(screen, Not(HasSubstr("guard shift: 1\n"))) << "the last five";
}

TEST_F(TopScreenTest, CertificatesAreAskedForWhenTheExperimentBegins) {
  const std::string line =
      "\n  certificate int8: 3 layers, multiply-adds: f32 25.0 %, int8 75.0 %\n";
  EXPECT_THAT(Draw(Answer({Arm("int8", 10, 1)})), HasSubstr(line));
  EXPECT_THAT(Draw(Answer({Arm("int8", 10, 2)})), HasSubstr(line));
  EXPECT_EQ(asked_, 1);
  certificates_ = nullptr;
  EXPECT_THAT(Draw(Answer({Arm("int8", 10, 2)}, 2)), Not(HasSubstr("certificate")));
  EXPECT_EQ(asked_, 2);
}

TEST_F(TopScreenTest, PipelinesSplitsAndTheIndexAreShown) {
  json answer = Answer({});
  answer["experiments"][0]["pipeline"] = Arm("pipeline", 0, 5);
  answer["version_splits"] = {{{"model", "other"},
                               {"baseline", "3"},
                               {"sample_ratio", {{"p_value", 1e-5}, {"alarm", true}}},
                               {"versions",
                                {{{"version", "4"},
                                  {"weight", 20.0},
                                  {"drawn", 17},
                                  {"sticky", 2},
                                  {"latency_us", {{"count", 19}, {"mean", 900.0}}},
                                  {"over_baseline_us", nullptr}},
                                 {{"version", "5"},
                                  {"weight", 1.0},
                                  {"drawn", 0},
                                  {"sticky", 0},
                                  {"latency_us", {{"count", 0}, {"mean", 0.0}}},
                                  {"over_baseline_us", nullptr}}}}}};
  answer["index"] = {{{"model", "broken"},
                      {"version", "1"},
                      {"state", "UNAVAILABLE"},
                      {"reason", "fp32: not an ONNX model"}}};
  const std::string screen = Draw(answer);
  EXPECT_NE(Line(screen, "pipeline"), "");
  EXPECT_EQ(asked_, 0);
  EXPECT_THAT(screen, HasSubstr("other, shared out between its versions, baseline 3\n"));
  EXPECT_THAT(Line(screen, "4"), HasSubstr(" 17 "));
  EXPECT_THAT(Line(screen, "4"), HasSubstr(" 900  -"));
  EXPECT_THAT(Line(screen, "5"), HasSubstr(" 0         -  -")) << "nothing took no time";
  EXPECT_THAT(screen, HasSubstr("  SAMPLE RATIO MISMATCH (p = 1e-05)"));
  EXPECT_THAT(screen, HasSubstr("\nbroken version 1 UNAVAILABLE: fp32: not an ONNX model\n"));
}

}  // namespace top_screen_test
}  // namespace octet::cli

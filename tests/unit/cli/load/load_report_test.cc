#include "cli/load/load_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace octet::cli {
namespace load_report_test {
namespace {

using std::chrono::microseconds;

/// An open loop of two models, one of which answered in two precisions, and of three errors.
LoadRun OpenRun() {
  LoadRun run;
  run.settings.in_flight = 64;
  run.settings.connections = 2;
  run.settings.plan = RatePlan{100, 300, 2};
  run.tally.seconds = 4;
  run.tally.cpu_seconds = 0.01;
  run.tally.by_connection = {50, 53};
  run.tally.answered.resize(2);
  for (int i = 1; i <= 100; ++i) {
    run.tally.answered[i % 2][i <= 50 ? "int8" : "fp32"].Add(microseconds(i));
    run.tally.late.Add(microseconds(1));
  }
  for (int i = 0; i < 3; ++i) run.tally.late.Add(microseconds(1));
  run.tally.errors.Add("8: busy", 3);
  return run;
}

std::vector<LoadStream> TwoStreams() {
  std::vector<LoadStream> streams(2);
  streams[0].target = {.model = "a<b>", .precision = "int8"};
  streams[1].target = {.model = "net"};
  return streams;
}

TEST(LoadReportTest, JsonCountsEveryRequestOnce) {
  const auto json = LoadAsJson(OpenRun(), TwoStreams());
  EXPECT_EQ(json["requests"], 103);
  EXPECT_EQ(json["errors"], 3);
  EXPECT_EQ(json["errors_by_code"]["8: busy"], 3);
  EXPECT_EQ(json["throughput"], 25.0);
  EXPECT_EQ(json["asked_rate"], 51.5);
  EXPECT_EQ(json["achieved_rate"], 25.75);
  EXPECT_NEAR(json["client_cpu_us_per_request"].get<double>(), 1e4 / 103, 1e-6);
  EXPECT_EQ(json["requests_per_connection"]["min"], 50);
  EXPECT_EQ(json["requests_per_connection"]["max"], 53);
  ASSERT_EQ(json["series"].size(), 4u);
  int64_t sum = 0;
  for (const auto& series : json["series"]) sum += series["count"].get<int64_t>();
  EXPECT_EQ(sum, 100);
  EXPECT_EQ(json["series"][0]["asked_precision"], "int8");
  EXPECT_NEAR(json["p50_us"].get<double>(), 50, 0.1);
  EXPECT_EQ(json["max_us"], 100.0);
  EXPECT_TRUE(json["warnings"].empty());
}

TEST(LoadReportTest, AClosedLoopHasNoAskedRate) {
  LoadRun run = OpenRun();
  run.settings.plan.reset();
  const auto json = LoadAsJson(run, TwoStreams());
  EXPECT_EQ(json["concurrency"], 64);
  EXPECT_FALSE(json.contains("asked_rate"));
  EXPECT_FALSE(json.contains("held_back"));
}

TEST(LoadReportTest, WarnsOfAClientThatIsLateOrHeldBack) {
  LoadRun late = OpenRun();
  for (int i = 0; i < 5; ++i) late.tally.late.Add(microseconds(7000));
  ASSERT_EQ(WarningsOf(late).size(), 1u);
  EXPECT_NE(WarningsOf(late)[0].find(
                "did not keep up: it sent one request in a hundred more than 7.0 ms"),
            std::string::npos);
  LoadRun held = late;
  held.tally.held_back = 9;
  ASSERT_EQ(WarningsOf(held).size(), 1u);
  EXPECT_NE(WarningsOf(held)[0].find("9 of 108 requests were held back while 64"),
            std::string::npos);
  EXPECT_NE(LoadAsTable({held}, TwoStreams()).find("warning: 9 of"), std::string::npos);
}

TEST(LoadReportTest, ThePlotHasALinePerModelAndPrecision) {
  const std::string svg = LoadAsPlot({OpenRun()}, TwoStreams());
  EXPECT_TRUE(svg.starts_with("<svg "));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  for (const char* label : {"a&lt;b&gt; fp32", "a&lt;b&gt; int8", "net fp32", "net int8"})
    EXPECT_NE(svg.find(label), std::string::npos) << label;
  // Lines differ by more than their colour.
  EXPECT_NE(svg.find("stroke-dasharray=\"8 4\""), std::string::npos);
  for (const char* tick : {">50 %", ">90 %"}) EXPECT_NE(svg.find(tick), std::string::npos) << tick;
  EXPECT_EQ(svg.find(">99 %"), std::string::npos) << "25 values have no 99th percentile";
  for (const char* bad : {"nan", "inf", "a<b>"}) EXPECT_EQ(svg.find(bad), std::string::npos) << bad;
}

TEST(LoadReportTest, ARunWithoutAnswersIsDrawnAndToldToo) {
  LoadRun run;
  run.tally.answered.resize(2);
  run.tally.by_connection = {0};
  const std::string svg = LoadAsPlot({run}, TwoStreams());
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  const auto json = LoadAsJson(run, TwoStreams());
  EXPECT_EQ(json["throughput"], 0.0);
  EXPECT_EQ(json["client_cpu_us_per_request"], 0.0);
}

}  // namespace
}  // namespace load_report_test
}  // namespace octet::cli

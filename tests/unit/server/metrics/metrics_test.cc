#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "engine/tensor/status.h"
#include "server/metrics/process_metrics.h"
#include "server/metrics/registry.h"

namespace octet {
namespace metrics_test {

using ::testing::HasSubstr;
using ::testing::Not;

const BuildInfo kBuild = {"0.1.0", "3.7.2", "AVX2"};
const VariantLabels kVariant = {"net", "1", "int8"};

/// Sends a GET to 127.0.0.1 and returns everything that comes back.
int Connected(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

std::string Get(int port, const std::string& path) {
  const int fd = Connected(port);
  std::string answer;
  const std::string request =
      Format("GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
  if (write(fd, request.data(), request.size()) == static_cast<ssize_t>(request.size())) {
    char block[4096];
    for (ssize_t n = 0; (n = read(fd, block, sizeof(block))) > 0;)
      answer.append(block, static_cast<size_t>(n));
  }
  close(fd);
  return answer;
}

/// One observation of everything.
void ObserveEverything(MetricsRegistry& registry, VariantMetrics& metrics) {
  metrics.request_duration.Observe(0.002);
  metrics.queue_duration.Observe(0.0001);
  metrics.batch_rows.Observe(3);
  metrics.requests.Add(0);
  metrics.routed.Add(2);
  metrics.rows.Add(3);
  metrics.executions.Add();
  metrics.queue_depth.Add(1);
  metrics.ready.Set(1);
  metrics.int8_mac_ratio.Set(0.991);
  registry.server().unrouted.Add(5);
}

TEST(MetricsTest, ObservationsAppearUnderTheirLabels) {
  MetricsRegistry registry(kBuild);
  const auto metrics = registry.ForVariant(kVariant);
  ObserveEverything(registry, *metrics);
  const std::string text = registry.Text();
  const auto has = [&text](std::string_view name, std::string_view more, std::string_view value) {
    constexpr std::string_view kLabels = R"(model="net",version="1",precision="int8")";
    EXPECT_THAT(text, HasSubstr(Format("{}{{{}{}}} {}\n", name, kLabels, more, value)));
  };
  has("octet_rows_total", "", "3");
  has("octet_int8_mac_ratio", "", "0.991");
  has("octet_requests_total", R"(,code="OK")", "1");
  has("octet_routed_requests_total", R"(,reason="split")", "1");
  has("octet_batch_rows_bucket", R"(,le="2")", "0");
  has("octet_batch_rows_bucket", R"(,le="4")", "1");
  has("octet_batch_rows_bucket", R"(,le="+Inf")", "1");
  EXPECT_THAT(text, HasSubstr(R"(octet_unrouted_requests_total{code="NOT_FOUND"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(octet_build_info{version="0.1.0",onednn="3.7.2",isa="AVX2"} 1)"));
}

TEST(MetricsTest, APairOfPrecisionsHasBothForLabels) {
  MetricsRegistry registry(kBuild);
  EXPECT_THAT(registry.Text(), Not(HasSubstr("octet_shadow_")));
  auto pair = registry.ForShadow({"net", "1", "int8", "fp32"});
  pair->compared.Add();
  pair->dropped.Add(3);
  pair->sqnr.Observe(22);
  pair->sqnr.Observe(-150);
  pair->lost_outputs.Add();
  EXPECT_EQ(registry.ForShadow({"net", "1", "int8", "fp32"}), pair);
  EXPECT_NE(registry.ForShadow({"net", "1", "int8", "bf16"}), pair);
  const std::string text = registry.Text();
  constexpr std::string_view kLabels = R"(model="net",version="1",precision="int8",against="fp32")";
  for (const auto& line :
       {Format("octet_shadow_compared_requests_total{{{}}} 1\n", kLabels),
        Format("octet_shadow_dropped_requests_total{{{},reason=\"draining\"}} 1\n", kLabels),
        Format("octet_shadow_lost_outputs_total{{{}}} 1\n", kLabels),
        Format("octet_shadow_sqnr_db_bucket{{{},le=\"0\"}} 1\n", kLabels),
        Format("octet_shadow_sqnr_db_bucket{{{},le=\"20\"}} 1\n", kLabels),
        Format("octet_shadow_sqnr_db_bucket{{{},le=\"25\"}} 2\n", kLabels)}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr("le=\"-"))) << "a quantile would lie between it and 0";
  EXPECT_THAT(text, Not(HasSubstr("bf16"))) << "nobody holds it";
  pair.reset();
  EXPECT_THAT(registry.Text(), Not(HasSubstr("octet_shadow_")));
}

TEST(MetricsTest, ACaptureHasModelAndVersionForLabels) {
  MetricsRegistry registry(kBuild);
  auto capture = registry.ForCapture({"net", "1"});
  capture->dropped.Add(4);
  EXPECT_EQ(registry.ForCapture({"net", "1"}), capture);
  EXPECT_NE(registry.ForCapture({"net", "2"}), capture);
  EXPECT_THAT(registry.Text(), HasSubstr(Format("octet_capture_dropped_requests_total{{{}}} 1\n",
                                                R"(model="net",version="1",reason="busy")")));
  capture.reset();
  EXPECT_THAT(registry.Text(), Not(HasSubstr("octet_capture_")));
}

TEST(MetricsTest, DifferencesAreTwoBucketsADecade) {
  const auto& bounds = metric_bounds::kDifference;
  EXPECT_DOUBLE_EQ(bounds.front(), 1e-6);
  EXPECT_NEAR(bounds.back(), 1000, 1e-9);
  for (size_t i = 1; i < bounds.size(); ++i) EXPECT_NEAR(bounds[i] / bounds[i - 1], 3.16, 0.01);
}

TEST(MetricsTest, LatencyBucketsReachFromTenMicrosecondsToAMinute) {
  const auto& bounds = metric_bounds::kLatencySeconds;
  EXPECT_DOUBLE_EQ(bounds.front(), 10e-6);
  EXPECT_GE(bounds.back(), 60);
  for (size_t i = 1; i < bounds.size(); ++i) EXPECT_NEAR(bounds[i] / bounds[i - 1], 1.8, 0.02);
}

TEST(MetricsTest, BoundsAreReadInThreeDigits) {
  MetricsRegistry registry(kBuild);
  const auto metrics = registry.ForVariant(kVariant);
  const auto pair = registry.ForShadow({"net", "1", "int8", "fp32"});
  const std::string text = registry.Text();
  constexpr std::string_view kBegin = "le=\"";
  int seen = 0;
  for (size_t at = text.find(kBegin); at != std::string::npos; at = text.find(kBegin, at)) {
    at += kBegin.size();
    const std::string bound = text.substr(at, text.find('"', at) - at);
    std::string digits = bound.substr(0, bound.find('e'));
    std::erase_if(digits, [](char c) { return c < '0' || c > '9'; });
    digits.erase(0, digits.find_first_not_of('0'));
    digits.erase(digits.find_last_not_of('0') + 1);
    // Whole numbers are numbers of rows.
    if (bound.find_first_of(".e") != std::string::npos) {
      EXPECT_LE(digits.size(), 3U) << bound;
    }
    ++seen;
  }
  EXPECT_GT(seen, 100);
}

TEST(MetricsTest, ABoundBelongsToItsBucket) {
  RowsHistogram histogram;
  for (const double rows : {1, 2, 3, 4, 5000}) histogram.Observe(rows);
  const HistogramCounts counts = histogram.Read();
  EXPECT_EQ(counts.counts[0], 1U) << "1";
  EXPECT_EQ(counts.counts[1], 1U) << "2";
  EXPECT_EQ(counts.counts[2], 2U) << "3 and 4";
  EXPECT_EQ(counts.counts[counts.bounds.size()], 1U) << "above the last bound";
  EXPECT_EQ(counts.sum, 5010);
}

TEST(MetricsTest, AReloadedVariantCountsOn) {
  MetricsRegistry registry(kBuild);
  auto before = registry.ForVariant(kVariant);
  before->rows.Add(5);
  const auto after = registry.ForVariant(kVariant);
  before.reset();
  after->rows.Add(2);
  EXPECT_EQ(after->rows.value(), 7U);
}

TEST(MetricsTest, TheSeriesOfAnUnloadedVariantDisappear) {
  MetricsRegistry registry(kBuild);
  registry.ForVariant(kVariant).reset();
  EXPECT_THAT(registry.Text(), Not(HasSubstr("octet_rows_total")));
}

TEST(MetricsTest, ConcurrentObservationsAreAllCounted) {
  constexpr int kEach = 20'000;
  RowsHistogram histogram;
  Gauge gauge;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < kEach; ++i) {
          histogram.Observe(1);
          gauge.Add(i % 2 == 0 ? 1 : -1);
        }
      });
    }
  }
  EXPECT_EQ(histogram.Read().counts[0], 4U * kEach);
  EXPECT_EQ(histogram.Read().sum, 4.0 * kEach);
  EXPECT_EQ(gauge.value(), 0);
}

TEST(ProcessMetricsTest, TheKernelsFiguresAreThere) {
  std::map<std::string, double> values;
  for (const ProcessMetric& metric : ReadProcessMetrics()) values[metric.name] = metric.value;
  EXPECT_EQ(values.size(), 7U);
  EXPECT_GE(values["process_cpu_seconds_total"], 0);
  EXPECT_GT(values["process_resident_memory_bytes"], 1e6);
  EXPECT_GT(values["process_virtual_memory_bytes"], values["process_resident_memory_bytes"]);
  EXPECT_GE(values["process_threads"], 1);
  EXPECT_GE(values["process_open_fds"], 3);
  EXPECT_GT(values["process_max_fds"], values["process_open_fds"]);
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  EXPECT_NEAR(values["process_start_time_seconds"], now.count(), 3600);
}

TEST(MetricsEndpointTest, ServesTheTextOnAFreePort) {
  MetricsRegistry registry(kBuild);
  const auto endpoint = MetricsEndpoint::Start(registry, "127.0.0.1", 0);
  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
  EXPECT_GT((*endpoint)->port(), 0);
  const std::string answer = Get((*endpoint)->port(), "/metrics");
  EXPECT_THAT(answer, HasSubstr("200 OK"));
  EXPECT_THAT(answer, HasSubstr("octet_build_info"));
}

TEST(MetricsEndpointTest, ConnectionsThatAskNothingKeepPrometheusOutForNoLongerThanItWaits) {
  MetricsRegistry registry(kBuild);
  const auto endpoint = MetricsEndpoint::Start(registry, "127.0.0.1", 0);
  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
  std::vector<int> silent(12);
  for (int& fd : silent) fd = Connected((*endpoint)->port());
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THAT(Get((*endpoint)->port(), "/metrics"), HasSubstr("200 OK"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(8));
  for (const int fd : silent) close(fd);
}

TEST(MetricsEndpointTest, APortInUseIsAnErrorThatNamesIt) {
  MetricsRegistry registry(kBuild);
  const auto first = MetricsEndpoint::Start(registry, "127.0.0.1", 0);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = MetricsEndpoint::Start(registry, "127.0.0.1", (*first)->port());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(Message(second.status())),
              HasSubstr(Format("127.0.0.1:{}", (*first)->port())));
}

TEST(MetricsEndpointTest, PromtoolFindsNothingToSay) {
  if (std::system("command -v promtool > /dev/null") != 0)
    GTEST_SKIP() << "promtool is not installed";
  MetricsRegistry registry(kBuild);
  const auto metrics = registry.ForVariant(kVariant);
  ObserveEverything(registry, *metrics);
  const auto endpoint = MetricsEndpoint::Start(registry, "127.0.0.1", 0);
  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
  const std::string answer = Get((*endpoint)->port(), "/metrics");
  const auto file =
      std::filesystem::temp_directory_path() / Format("octet-metrics-{}.txt", getpid());
  std::ofstream(file) << answer.substr(answer.find("\r\n\r\n") + 4);
  FILE* promtool = popen(Format("promtool check metrics < {} 2>&1", file.string()).c_str(), "r");
  ASSERT_NE(promtool, nullptr);
  std::string said;
  char block[4096];
  while (const size_t n = fread(block, 1, sizeof(block), promtool)) said.append(block, n);
  EXPECT_EQ(pclose(promtool), 0) << said;
  EXPECT_EQ(said, "");
  std::filesystem::remove(file);
}

}  // namespace metrics_test
}  // namespace octet

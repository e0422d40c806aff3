#include "server/tracing/tracer.h"

#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <opentelemetry/exporters/memory/in_memory_span_data.h>
#include <opentelemetry/exporters/memory/in_memory_span_exporter_factory.h>
#include <opentelemetry/sdk/trace/exporter.h>

#include "engine/tensor/status.h"
#include "tests/support/fake_clock.h"

namespace octet {
namespace tracer_test {

using opentelemetry::exporter::memory::InMemorySpanData;
using opentelemetry::exporter::memory::InMemorySpanExporterFactory;
using std::chrono::microseconds;

constexpr const char* kTraceId = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr const char* kSampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
constexpr const char* kNotSampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

class TracerTest : public ::testing::Test {
 protected:
  void Make(int64_t rate) {
    tracer_ = std::make_unique<Tracer>(InMemorySpanExporterFactory::Create(spans_), rate,
                                       Tracer::Service{"test", "1"}, clock_);
  }
  std::unique_ptr<RequestTrace> Sample(const std::string& model, std::string_view parent = {}) {
    return tracer_->Sample(model, [&](std::string_view key) -> std::optional<std::string_view> {
      if (key == "traceparent" && !parent.empty()) return parent;
      return std::nullopt;
    });
  }
  int Sampled(const std::string& model, int requests, std::string_view parent = {}) {
    int sampled = 0;
    for (int i = 0; i < requests; ++i) sampled += Sample(model, parent) != nullptr ? 1 : 0;
    return sampled;
  }
  /// The spans, when the tracer has sent them all.
  auto Sent() {
    tracer_.reset();
    return spans_->GetSpans();
  }

  FakeClock clock_;
  std::shared_ptr<InMemorySpanData> spans_;
  std::unique_ptr<Tracer> tracer_;
};

std::string Hex(const opentelemetry::trace::TraceId& id) {
  std::string text(32, '0');
  id.ToLowerBase16(opentelemetry::nostd::span<char, 32>(text.data(), 32));
  return text;
}

TEST_F(TracerTest, OneOfSoManyRequests) {
  Make(4);
  EXPECT_EQ(Sampled("net", 40), 10);
}

TEST_F(TracerTest, ACallersTraceDecides) {
  Make(1);
  EXPECT_EQ(Sampled("net", 5, kNotSampled), 0);
  tracer_->Tell("", {.rate = 1'000'000});
  EXPECT_EQ(Sampled("net", 5, kSampled), 5);
  EXPECT_EQ(Sampled("net", 5, "00-no-trace-01"), 0) << "as if it had come without";
}

TEST_F(TracerTest, AModelsSettingsGoBeforeTheServers) {
  Make(1);
  tracer_->Tell("quiet", {.on = false});
  EXPECT_EQ(Sampled("quiet", 5, kSampled), 0);
  EXPECT_EQ(Sampled("net", 5), 5);
  tracer_->Tell("", {.on = false});
  tracer_->Tell("quiet", {.on = true, .rate = 5});
  EXPECT_EQ(Sampled("quiet", 10), 2);
  EXPECT_EQ(Sampled("net", 5), 0);
  tracer_->Tell("quiet", {});
  EXPECT_EQ(Sampled("quiet", 10), 0);
}

TEST_F(TracerTest, ACountEnds) {
  Make(1);
  tracer_->Tell("", {.count = 3});
  EXPECT_EQ(Sampled("net", 2), 2);
  EXPECT_EQ(tracer_->Effective("").count, 1);
  EXPECT_EQ(Sampled("net", 8, kSampled), 1);
  EXPECT_EQ(tracer_->Effective("net").count, 0);
  for (int time = 0; time < 2; ++time) {
    tracer_->Tell("", {.count = 2});
    EXPECT_EQ(Sampled("net", 8), 2);
  }
  tracer_->Tell("", {});
  EXPECT_EQ(Sampled("net", 8), 8);
}

TEST_F(TracerTest, StagesAreSpansBelowTheRequest) {
  Make(1);
  const auto trace = Sample("net", kSampled);
  ASSERT_NE(trace, nullptr);
  const TimePoint received = clock_.Now();
  const absl::Status ok;
  trace->Finish({.id = "7",
                 .model = "net",
                 .version = "3",
                 .precision = "int8",
                 .route = "split",
                 .rows = 2,
                 .received = received,
                 .submitted = received + microseconds(10),
                 .timings = {.queue = microseconds(20),
                             .compute_input = microseconds(30),
                             .compute_infer = microseconds(40),
                             .compute_output = microseconds(50),
                             .total = microseconds(200),
                             .ran = true},
                 .status = ok});
  const auto spans = Sent();
  std::map<std::string, std::pair<int64_t, int64_t>> times;  // begin after the request's, duration
  for (const auto& span : spans) {
    EXPECT_EQ(Hex(span->GetTraceId()), kTraceId);
    const auto begin =
        span->GetStartTime().time_since_epoch() - spans.back()->GetStartTime().time_since_epoch();
    times[std::string(span->GetName())] = {
        std::chrono::duration_cast<microseconds>(begin).count(),
        std::chrono::duration_cast<microseconds>(span->GetDuration()).count()};
  }
  EXPECT_THAT(times, ::testing::UnorderedElementsAre(
                         ::testing::Pair("infer net", std::pair<int64_t, int64_t>(0, 200)),
                         ::testing::Pair("decode", std::pair<int64_t, int64_t>(0, 10)),
                         ::testing::Pair("queue", std::pair<int64_t, int64_t>(10, 20)),
                         ::testing::Pair("compute_input", std::pair<int64_t, int64_t>(30, 30)),
                         ::testing::Pair("compute_infer", std::pair<int64_t, int64_t>(60, 40)),
                         ::testing::Pair("compute_output", std::pair<int64_t, int64_t>(100, 50))));
  EXPECT_EQ(spans.back()->GetAttributes().size(), 7U);
  EXPECT_EQ(spans.front()->GetParentSpanId(), spans.back()->GetSpanId());
}

TEST_F(TracerTest, StepsOfAPipelineAreSpansThatHaveTheStages) {
  Make(1);
  const TimePoint received = clock_.Now();
  const RequestTimings ran = {.queue = microseconds(10),
                              .compute_infer = microseconds(20),
                              .total = microseconds(40),
                              .ran = true};
  std::vector<TracedStep> steps(3);
  steps[0] = {.name = "embed",
              .model = "net",
              .version = "3",
              .precision = "int8",
              .route = "split",
              .begin = received + microseconds(5),
              .timings = ran};
  steps[1] = {.name = "inner", .model = "pipe", .version = "1", .begin = received};
  steps[1].steps.push_back({.name = "refused",
                            .begin = received + microseconds(7),
                            .timings = {.queue = microseconds(3), .total = microseconds(3)},
                            .status = absl::InternalError("broken")});
  steps[2].name = "never its turn";
  const absl::Status ok;
  Sample("outer", kSampled)
      ->Finish({.model = "outer",
                .version = "1",
                .received = received,
                .submitted = received + microseconds(5),
                .timings = {.total = microseconds(100), .ran = true},
                .status = ok,
                .steps = steps});
  const auto spans = Sent();
  const auto name_of = [&spans](const opentelemetry::trace::SpanId& id) {
    for (const auto& span : spans) {
      if (span->GetSpanId() == id) return std::string(span->GetName());
    }
    return std::string("the caller");
  };
  std::vector<std::string> seen;  // in the order in which they ended
  for (const auto& span : spans) {
    seen.push_back(name_of(span->GetParentSpanId()) + " > " + std::string(span->GetName()));
  }
  EXPECT_THAT(seen,
              ::testing::ElementsAre("infer outer > decode", "step embed > queue",
                                     "step embed > compute_input", "step embed > compute_infer",
                                     "step embed > compute_output", "infer outer > step embed",
                                     "step refused > queue", "step inner > step refused",
                                     "infer outer > step inner", "the caller > infer outer"));
  const auto& embed = *spans[5];
  EXPECT_EQ(embed.GetDuration(), microseconds(40));
  for (const auto& [key, value] : std::map<std::string, std::string>{{"octet.step", "embed"},
                                                                     {"octet.model", "net"},
                                                                     {"octet.version", "3"},
                                                                     {"octet.precision", "int8"},
                                                                     {"octet.route", "split"}}) {
    EXPECT_EQ(opentelemetry::nostd::get<std::string>(embed.GetAttributes().at(key)), value);
  }
  EXPECT_EQ(spans[7]->GetStatus(), opentelemetry::trace::StatusCode::kError);
  EXPECT_EQ(spans[7]->GetDescription(), "broken");
  EXPECT_EQ(spans[8]->GetStatus(), opentelemetry::trace::StatusCode::kUnset);
}

TEST_F(TracerTest, ARefusedRequestIsOneSpanThatSaysWhyAndWhoseFaultItWas) {
  Make(1);
  const absl::Status unknown = absl::NotFoundError("no such model");
  Sample("net")->Finish({.model = "net", .received = clock_.Now(), .status = unknown});
  const absl::Status broken = absl::InternalError("broken");
  Sample("net")->Finish({.model = "net", .received = clock_.Now(), .status = broken});
  const auto spans = Sent();
  ASSERT_EQ(spans.size(), 2U);
  EXPECT_EQ(spans[0]->GetName(), "infer");
  EXPECT_EQ(spans[0]->GetStatus(), opentelemetry::trace::StatusCode::kUnset);
  const auto said = spans[0]->GetAttributes().at("octet.error");
  EXPECT_EQ(opentelemetry::nostd::get<std::string>(said), "no such model");
  EXPECT_EQ(spans[1]->GetStatus(), opentelemetry::trace::StatusCode::kError);
  EXPECT_EQ(spans[1]->GetDescription(), "broken");
}

TEST_F(TracerTest, TextsOfClientsAreCutAndMadeUtf8) {
  Make(1);
  const absl::Status ok;
  const std::string id = "\xff" + std::string(1 << 20, 'x');
  Sample("net")->Finish({.id = id, .model = "net", .received = clock_.Now(), .status = ok});
  const auto kept = Sent().at(0)->GetAttributes().at("octet.request.id");
  EXPECT_EQ(opentelemetry::nostd::get<std::string>(kept), "?" + std::string(255, 'x'));
}

TEST_F(TracerTest, ALongTracestateIsLeftOut) {
  Make(1);
  const std::string longest(513, 'a');
  const absl::Status ok;
  tracer_
      ->Sample("net",
               [&](std::string_view key) -> std::optional<std::string_view> {
                 if (key == "traceparent") return kSampled;
                 if (key == "tracestate") return longest;
                 return std::nullopt;
               })
      ->Finish({.model = "net", .received = clock_.Now(), .status = ok});
  EXPECT_EQ(Hex(Sent().at(0)->GetTraceId()), kTraceId);
}

TEST(TracerEndpointTest, MustBeAUrl) {
  for (const char* url : {"http://collector:4317", "https://[::1]:4317"}) {
    EXPECT_TRUE(Tracer::CheckEndpoint(url).ok());
  }
  EXPECT_EQ(Message(Tracer::CheckEndpoint("collector:4317")),
            "tracing.otlp_endpoint: expected http://HOST:PORT or https://HOST:PORT, got "
            "\"collector:4317\"");
}

}  // namespace tracer_test
}  // namespace octet

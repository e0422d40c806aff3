#include "server/rpc/trace_settings.h"

#include <gtest/gtest.h>
#include <opentelemetry/exporters/memory/in_memory_span_data.h>
#include <opentelemetry/exporters/memory/in_memory_span_exporter_factory.h>
#include <opentelemetry/sdk/trace/exporter.h>

#include "engine/tensor/status.h"
#include "tests/support/fake_clock.h"

namespace octet {
namespace trace_settings_test {

class TraceSettingsTest : public ::testing::Test {
 protected:
  /// Asks for one change; an empty value sets back.
  absl::Status Change(const std::string& model, const std::string& name, const std::string& value) {
    response_.Clear();
    inference::TraceSettingRequest request;
    request.set_model_name(model);
    auto& setting = (*request.mutable_settings())[name];
    if (!value.empty()) setting.add_value(value);
    return ChangeTraceSettings(&tracer_, request, response_);
  }
  std::string Says(const std::string& name) { return response_.settings().at(name).value(0); }

  FakeClock clock_;
  std::shared_ptr<opentelemetry::exporter::memory::InMemorySpanData> spans_;
  Tracer tracer_{opentelemetry::exporter::memory::InMemorySpanExporterFactory::Create(spans_), 1000,
                 Tracer::Service{"test", "1"}, clock_};
  inference::TraceSettingResponse response_;
};

TEST_F(TraceSettingsTest, AreToldAndSetBack) {
  ASSERT_TRUE(ChangeTraceSettings(&tracer_, {}, response_).ok());
  EXPECT_EQ(Says("trace_level"), "TIMESTAMPS");
  EXPECT_EQ(Says("trace_rate"), "1000");
  EXPECT_EQ(Says("trace_count"), "-1");
  EXPECT_EQ(Says("trace_mode"), "opentelemetry");
  ASSERT_TRUE(Change("", "trace_rate", "10").ok());
  ASSERT_TRUE(Change("net", "trace_level", "OFF").ok());
  EXPECT_EQ(Says("trace_level"), "OFF");
  EXPECT_EQ(Says("trace_rate"), "10");
  ASSERT_TRUE(Change("net", "trace_level", "").ok());
  EXPECT_EQ(Says("trace_level"), "TIMESTAMPS");
  ASSERT_TRUE(Change("", "trace_rate", "").ok());
  EXPECT_EQ(Says("trace_rate"), "1000");
}

TEST_F(TraceSettingsTest, WhatCannotBeIsNamed) {
  EXPECT_EQ(Message(Change("", "trace_rate", "0")),
            "trace setting \"trace_rate\": expected a whole number >= 1, got \"0\"");
  EXPECT_EQ(Message(Change("", "trace_level", "TENSORS")),
            "trace setting \"trace_level\": expected \"TIMESTAMPS\" or \"OFF\", got \"TENSORS\"");
  EXPECT_EQ(Message(Change("", "trace_file", "/tmp/trace")),
            "trace setting \"trace_file\" cannot be changed here");
  EXPECT_TRUE(Change("", "trace_mode", "opentelemetry").ok());
  EXPECT_EQ(tracer_.Told(""), TraceSettings());
}

TEST_F(TraceSettingsTest, WithoutACollectorAllIsOff) {
  ASSERT_TRUE(ChangeTraceSettings(nullptr, {}, response_).ok());
  EXPECT_EQ(Says("trace_level"), "OFF");
  inference::TraceSettingRequest request;
  (*request.mutable_settings())["trace_level"].add_value("TIMESTAMPS");
  EXPECT_EQ(ChangeTraceSettings(nullptr, request, response_).code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace trace_settings_test
}  // namespace octet

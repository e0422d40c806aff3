#include "server/logging/event_log.h"

#include <algorithm>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace octet {
namespace event_log_test {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

/// What `log` writes to stderr.
template <typename Log>
std::string Written(const Log& log) {
  ::testing::internal::CaptureStderr();
  log();
  return ::testing::internal::GetCapturedStderr();
}

class EventLogTest : public ::testing::Test {
 protected:
  ~EventLogTest() override { EXPECT_TRUE(ConfigureLog("info").ok()); }
};

TEST_F(EventLogTest, EveryKindOfValueIsWritten) {
  EXPECT_EQ(EventText(LogLevel::kInfo, "model_loaded",
                      {{"model", "resnet"},
                       {"rows", int64_t{-3}},
                       {"bytes", uint64_t{18446744073709551615U}},
                       {"seconds", 0.41},
                       {"ready", true}}),
            "level=info event=model_loaded model=resnet rows=-3 bytes=18446744073709551615 "
            "seconds=0.41 ready=true");
}

TEST_F(EventLogTest, TextIsQuotedOnlyWhenItNeedsToBe) {
  const auto text = [](std::string_view value) {
    return EventText(LogLevel::kWarn, "e", {{"k", value}})
        .substr(std::string("level=warn event=e k=").size());
  };
  EXPECT_EQ(text("/models/a-b_c.onnx:1"), "/models/a-b_c.onnx:1");
  EXPECT_EQ(text(""), "\"\"");
  EXPECT_EQ(text("two words"), "\"two words\"");
  EXPECT_EQ(text("a=b"), "\"a=b\"");
  EXPECT_EQ(text("say \"x\\y\""), R"("say \"x\\y\"")");
  EXPECT_EQ(text("a\nb\tc\x7f"), R"("a\nb\x09c\x7f")");
  EXPECT_EQ(text("gr\xc3\xbc\xc3\x9f"), "gr\xc3\xbc\xc3\x9f");
}

TEST_F(EventLogTest, AForgedLineStaysInsideItsValue) {
  const std::string out = Written([] {
    LogEvent(LogLevel::kInfo, "request", {{"id", "x\ntime=2026 level=error event=forged"}});
  });
  EXPECT_EQ(std::ranges::count(out, '\n'), 1);
  EXPECT_THAT(out, HasSubstr(R"(id="x\ntime=2026 level=error event=forged")"));
}

TEST_F(EventLogTest, EveryLineIsUtf8) {
  EXPECT_EQ(EventText(LogLevel::kInfo, "e", {{"id", "a\xff\xc3\xa9\xed\xa0\x80"}}),
            "level=info event=e id=\"a\\xff\xc3\xa9\\xed\\xa0\\x80\"");
}

TEST_F(EventLogTest, ALineBeginsWithTheTimeInUtc) {
  const std::string out = Written([] { LogEvent(LogLevel::kError, "e", {{"k", "{} %v"}}); });
  EXPECT_THAT(out,
              MatchesRegex("time=[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z "
                           "level=error event=e k=\"\\{\\} %v\"\n"));
}

TEST_F(EventLogTest, EventsBelowTheLevelAreNotWritten) {
  ASSERT_TRUE(ConfigureLog("warn").ok());
  EXPECT_FALSE(Logs(LogLevel::kInfo));
  EXPECT_TRUE(Logs(LogLevel::kWarn));
  const std::string out = Written([] {
    LogEvent(LogLevel::kInfo, "quiet", {});
    LogEvent(LogLevel::kWarn, "loud", {});
  });
  EXPECT_THAT(out, HasSubstr("event=loud"));
  EXPECT_THAT(out, Not(HasSubstr("quiet")));
  ASSERT_TRUE(ConfigureLog("off").ok());
  EXPECT_EQ(Written([] { LogEvent(LogLevel::kError, "e", {}); }), "");
}

TEST_F(EventLogTest, AnUnknownLevelIsNamed) {
  const absl::Status status = ConfigureLog("loud");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message().data(), status.message().size()), HasSubstr("loud"));
  EXPECT_TRUE(Logs(LogLevel::kInfo));
}

TEST_F(EventLogTest, LinesOfSeveralThreadsDoNotMix) {
  constexpr int kThreads = 4;
  constexpr int kLines = 50;
  const std::string out = Written([] {
    std::vector<std::jthread> threads;
    for (int64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([t] {
        for (int i = 0; i < kLines; ++i) LogEvent(LogLevel::kInfo, "tick", {{"thread", t}});
      });
    }
  });
  std::istringstream lines(out);
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    EXPECT_THAT(line, MatchesRegex("time=[^ ]+ level=info event=tick thread=[0-3]"));
  }
  EXPECT_EQ(count, kThreads * kLines);
}

}  // namespace event_log_test
}  // namespace octet

#include "server/rpc/log_settings.h"

#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/logging/event_log.h"

namespace octet {
namespace log_settings_test {

class LogSettingsTest : public ::testing::Test {
 protected:
  ~LogSettingsTest() override { SetLeastSevereLogged(LogLevel::kInfo); }
  inference::LogSettingsRequest::SettingValue& Set(const std::string& name) {
    return (*request_.mutable_settings())[name];
  }
  absl::Status Change() { return ChangeLogSettings(request_, response_); }

  inference::LogSettingsRequest request_;
  inference::LogSettingsResponse response_;
};

TEST_F(LogSettingsTest, EveryLevelIsToldAndCanBeSetBack) {
  for (const LogLevel level : {LogLevel::kTrace, LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarn,
                               LogLevel::kError, LogLevel::kOff}) {
    SetLeastSevereLogged(level);
    request_.Clear();
    ASSERT_TRUE(Change().ok());
    for (const char* name : {"log_error", "log_warning", "log_info"}) {
      Set(name).set_bool_param(response_.settings().at(name).bool_param());
    }
    Set("log_verbose_level")
        .set_uint32_param(response_.settings().at("log_verbose_level").uint32_param());
    SetLeastSevereLogged(LogLevel::kWarn);
    ASSERT_TRUE(Change().ok());
    EXPECT_EQ(LeastSevereLogged(), level);
  }
}

TEST_F(LogSettingsTest, WhatNoLevelStandsForChangesNothing) {
  Set("log_warning").set_bool_param(false);
  EXPECT_EQ(
      Message(Change()),
      "log settings: what is logged includes all that is more severe, got error true, warning "
      "false, info true, verbose 0");
  Set("log_info").set_bool_param(false);
  EXPECT_TRUE(Change().ok());
  EXPECT_EQ(LeastSevereLogged(), LogLevel::kError);
  Set("log_info").set_string_param("yes");
  EXPECT_EQ(Message(Change()), "log setting \"log_info\": expected true or false");
  request_.Clear();
  Set("log_file").set_string_param("/tmp/log");
  EXPECT_EQ(Message(Change()), "log setting \"log_file\" cannot be changed here");
  EXPECT_EQ(LeastSevereLogged(), LogLevel::kError);
}

}  // namespace log_settings_test
}  // namespace octet

#include "cli/load/load_target.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace load_target_test {
namespace {

TEST(LoadTargetTest, ReadsNamePrecisionAndWeight) {
  struct Case {
    const char* text;
    const char* model;
    const char* precision;
    double weight;
  };
  for (const Case& c : {Case{"net", "net", "", 1}, Case{"net@int8", "net", "int8", 1},
                        Case{"net=2.5", "net", "", 2.5}, Case{"net@bf16=3", "net", "bf16", 3},
                        Case{"a@b@fp32", "a@b", "fp32", 1}}) {
    const auto target = LoadTarget::Parse(c.text);
    ASSERT_TRUE(target.ok()) << c.text;
    EXPECT_EQ(target->model, c.model);
    EXPECT_EQ(target->precision, c.precision);
    EXPECT_EQ(target->weight, c.weight);
  }
}

TEST(LoadTargetTest, RefusesWhatNamesNobody) {
  for (const char* text : {"", "@int8", "=1", "net@", "net@=1", "net=", "net=x", "net=0", "net=-1",
                           "net=nan", "net=inf", "net=1e7"}) {
    const auto target = LoadTarget::Parse(text);
    ASSERT_FALSE(target.ok()) << text;
    EXPECT_EQ(target.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(Message(target.status()).find(Format("\"{}\"", text)), std::string_view::npos);
  }
}

}  // namespace
}  // namespace load_target_test
}  // namespace octet::cli

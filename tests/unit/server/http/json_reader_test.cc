#include "server/http/json_reader.h"

#include <cmath>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/http/json_writer.h"

namespace octet {
namespace json_reader_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::Status SkipAll(std::string_view text) {
  JsonReader json(text);
  OCTET_RETURN_IF_ERROR(json.Skip().status());
  return json.End();
}

std::string Refusal(std::string_view text) {
  const absl::Status status = SkipAll(text);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(Message(status));
}

std::string Text(std::string_view text) {
  std::string value;
  JsonReader json(text);
  const absl::Status status = json.Text(value);
  return status.ok() ? value : std::string(Message(status));
}

TEST(JsonReaderTest, ReadsWhatIsJson) {
  for (const std::string_view text :
       {"{}", "[]", " [ 1 , -2.5e+3 , \"a\" , null , true , false , { \"k\" : [ ] } ] ", "0",
        "-0.0", "NaN", "-Infinity", "[Infinity]", "\"\\u00e9\\n\""}) {
    EXPECT_TRUE(SkipAll(text).ok()) << text << SkipAll(text);
  }
}

TEST(JsonReaderTest, RefusesWhatIsNot) {
  for (const std::string_view text :
       {"",          "{",           "[1,]",        "[,1]",
        "{\"a\"}",   "{\"a\":}",    "{\"a\":1,}",  "{a:1}",
        "[1 2]",     "01",          "1.",          ".5",
        "+1",        "1e",          "-",           "-NaN",
        "nul",       "truth",       "\"",          "\"\\x\"",
        "\"\\u12\"", "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"",
        "\"\n\"",    "[] []",       "'a'",         "{\"a\":1 \"b\":2}",
        "\xff"}) {
    EXPECT_THAT(Refusal(text), HasSubstr("JSON: ")) << text;
  }
  EXPECT_EQ(Refusal("[1, x]"), "JSON: expected a value, got `x]` at byte 4");
  EXPECT_EQ(Refusal("[1"), "JSON: expected `,` or `]`, got the end");
  EXPECT_EQ(Refusal("{\"a\":1,\"a\":2}"), "JSON: the key \"a\" comes twice in an object");
}

TEST(JsonReaderTest, NestingIsBounded) {
  EXPECT_TRUE(SkipAll(std::string(64, '[') + std::string(64, ']')).ok());
  EXPECT_THAT(Refusal(std::string(65, '[') + std::string(65, ']')), HasSubstr("less deep"));
  EXPECT_THAT(Refusal(std::string(1 << 20, '[')), HasSubstr("less deep"));
}

TEST(JsonReaderTest, EscapesAreCharacters) {
  EXPECT_EQ(Text(R"("a\"\\\/\b\f\n\r\tz")"), "a\"\\/\b\f\n\r\tz");
  EXPECT_EQ(Text(R"("\u0041\u00e9\u20ac\ud83d\ude00")"), "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
  EXPECT_EQ(Text(R"("\u0000")"), std::string(1, '\0'));
}

TEST(JsonReaderTest, NumbersKeepTheirTypesRange) {
  EXPECT_EQ(*ConvertNumber<int8_t>("-128"), -128);
  EXPECT_EQ(*ConvertNumber<uint64_t>("18446744073709551615"), UINT64_MAX);
  EXPECT_EQ(Message(ConvertNumber<int8_t>("128").status()),
            "expected a whole number in -128 .. 127, got 128");
  EXPECT_FALSE(ConvertNumber<int32_t>("1.0").ok());
  EXPECT_FALSE(ConvertNumber<uint8_t>("-1").ok());
  EXPECT_FALSE(ConvertNumber<int64_t>("NaN").ok());
  EXPECT_EQ(*ConvertNumber<float>("0.1"), 0.1F);
  EXPECT_EQ(*ConvertNumber<double>("1e-400"), 0);
  EXPECT_EQ(*ConvertNumber<float>("1e-60"), 0);
  EXPECT_TRUE(std::isnan(*ConvertNumber<float>("NaN")));
  EXPECT_EQ(*ConvertNumber<double>("-Infinity"), -std::numeric_limits<double>::infinity());
  EXPECT_FALSE(ConvertNumber<float>("1e39").ok());
  EXPECT_FALSE(ConvertNumber<double>("-1e999").ok());
}

TEST(JsonReaderTest, LeavesComeInOrderHoweverTheyAreNested) {
  JsonReader json("[[1,[2]],3,[],[[4]]]");
  std::vector<std::string> leaves;
  EXPECT_TRUE(json.Leaves([&]() -> absl::Status {
                    OCTET_ASSIGN_OR_RETURN(const std::string_view number, json.Number());
                    leaves.emplace_back(number);
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_THAT(leaves, ElementsAre("1", "2", "3", "4"));
}

TEST(JsonReaderTest, TextsSurviveBothWays) {
  std::mt19937 random(20);
  for (int round = 0; round < 200; ++round) {
    std::string text;
    for (int i = 0; i < 20; ++i) text += static_cast<char>(random() % 128);
    text += "\xC3\xA9\xF0\x9F\x98\x80";
    std::string json;
    AppendJsonText(text, json);
    EXPECT_EQ(Text(json), text) << json;
  }
}

TEST(JsonWriterTest, WhatIsNotUtf8IsReplaced) {
  std::string json;
  AppendJsonText("a\xff\xC0\x80z", json);
  EXPECT_EQ(json, "\"a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDz\"");
}

/// Damage to a document is an error or another document, never more.
TEST(JsonReaderTest, DamagedDocumentsDoNoHarm) {
  const std::string good =
      R"({"id":"\u0041","inputs":[{"name":"x","shape":[1,4],"data":[[1,-2.5e3,NaN,0]]}],"p":{"a":true}})";
  std::mt19937 random(21);
  for (int round = 0; round < 20'000; ++round) {
    std::string text = good;
    for (uint32_t changes = random() % 4 + 1; changes > 0; --changes) {
      const size_t at = random() % text.size();
      if (random() % 2 == 0) text.erase(at, random() % 5);
      if (!text.empty()) text[at % text.size()] = static_cast<char>(random());
      if (text.empty()) text = "[";
    }
    const absl::Status status = SkipAll(text);
    EXPECT_TRUE(status.ok() || absl::IsInvalidArgument(status)) << text;
  }
}

}  // namespace json_reader_test
}  // namespace octet

#include "engine/tensor/utf8.h"

#include <string>

#include <gtest/gtest.h>

namespace octet {
namespace utf8_test {

TEST(Utf8Test, EveryLengthGoesBothWays) {
  for (const char32_t point :
       {0x0, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF}) {
    std::string text = "a";
    AppendUtf8(point, text);
    const CodePoint decoded = DecodeUtf8(text, 1);
    EXPECT_TRUE(decoded.valid) << uint32_t{point};
    EXPECT_EQ(decoded.point, point);
    EXPECT_EQ(decoded.bytes, text.size() - 1);
  }
}

TEST(Utf8Test, WhatIsNoUtf8IsAByteAlone) {
  // A tail, an overlong form of each length, a surrogate, above U+10FFFF, no form at all, one that ends too early.
  for (const std::string_view text :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF", "\xED\xA0\x80",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xE2\x82", "\xC3(", "\xF0\x9F\x98"}) {
    const CodePoint decoded = DecodeUtf8(text, 0);
    EXPECT_FALSE(decoded.valid) << ::testing::PrintToString(text);
    EXPECT_EQ(decoded.bytes, 1u);
    EXPECT_FALSE(IsUtf8("a" + std::string(text)));
  }
}

TEST(Utf8Test, EachByteThatIsNoUtf8IsReplaced) {
  EXPECT_EQ(Utf8Of(""), "");
  EXPECT_TRUE(IsUtf8(""));
  EXPECT_TRUE(IsUtf8("caf\u00e9 \U0001F600"));
  EXPECT_EQ(Utf8Of("caf\u00e9 \U0001F600"), "caf\u00e9 \U0001F600");
  EXPECT_EQ(Utf8Of("caf\xE9!"), "caf\uFFFD!");
  EXPECT_EQ(Utf8Of("\xE2\x82"), "\uFFFD\uFFFD");
  EXPECT_EQ(Utf8Of(std::string_view("a\0b", 3)), std::string_view("a\0b", 3));
}

}  // namespace utf8_test
}  // namespace octet

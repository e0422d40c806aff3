#include "engine/tensor/bytes_elements.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"

namespace octet {
namespace bytes_elements_test {

using ::testing::ElementsAre;

std::string Refused(std::string_view wire) {
  std::vector<std::string_view> elements;
  const absl::Status status = ReadBytesElements(wire, 1000, elements);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(Message(status));
}

TEST(BytesElementsTest, GoToTheWireAndBack) {
  const std::vector<std::string_view> elements = {"ab", "", std::string_view("\0\xff", 2)};
  std::string wire;
  for (const std::string_view element : elements) AppendBytesElement(element, wire);
  EXPECT_EQ(wire, std::string_view("\2\0\0\0ab\0\0\0\0\2\0\0\0\0\xff", 16));
  EXPECT_EQ(BytesOnWire(elements), wire.size());
  std::vector<std::string_view> read;
  ASSERT_TRUE(ReadBytesElements(wire, 1000, read).ok());
  EXPECT_EQ(read, elements);
  EXPECT_EQ(read[0].data(), wire.data() + 4);
}

TEST(BytesElementsTest, NoBytesAreNoElements) {
  std::vector<std::string_view> read;
  EXPECT_TRUE(ReadBytesElements("", 0, read).ok());
  EXPECT_THAT(read, ElementsAre());
}

TEST(BytesElementsTest, LengthsThatAreNotThereAreRefused) {
  EXPECT_EQ(Refused(std::string_view("\1\0\0\0a\1\0\0", 8)),
            "element 1: length, expected 4 bytes, got 3");
  EXPECT_EQ(Refused(std::string_view("\2\0\0\0a", 5)),
            "element 0: expected 2 bytes by its length, got 1");
  EXPECT_EQ(Refused("\xff\xff\xff\xff"),
            "element 0: expected 4294967295 bytes by its length, got 0");
}

TEST(BytesElementsTest, ReadsNoMoreThanTheShapeHolds) {
  std::vector<std::string_view> read;
  const std::string zeros(64, '\0');
  EXPECT_EQ(Message(ReadBytesElements(zeros, 3, read)),
            "elements, expected 3 by the shape, got more");
  EXPECT_EQ(read.size(), 3U);
}

}  // namespace bytes_elements_test
}  // namespace octet

// octet:Table, whole vectors and what is left over, against the reference kernel.
#include <algorithm>
#include <cstring>
#include <random>

#include <gtest/gtest.h>

#include "engine/onednn/isa.h"
#include "engine/tensor/byte_lookup.h"
#include "tests/support/one_node.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace table_test {

using testing::Elements;
using testing::Lower;
using testing::OneNode;

std::vector<uint8_t> RandomBytes(size_t n) {
  std::mt19937 random(3);
  std::vector<uint8_t> bytes(n);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

TEST(LookUpBytesTest, ReadsEveryEntryAtEveryLength) {
  const std::vector<uint8_t> entries = RandomBytes(256);
  ByteTable table;
  std::ranges::copy(entries, table.begin());
  for (size_t n = 0; n < 300; ++n) {
    std::vector<uint8_t> x(n);
    for (size_t i = 0; i < n; ++i) x[i] = static_cast<uint8_t>(7 * i + n);
    std::vector<uint8_t> y(n + 1, 0xAB);
    LookUpBytes(table, x.data(), y.data(), static_cast<int64_t>(n));
    for (size_t i = 0; i < n; ++i) ASSERT_EQ(y[i], table[x[i]]) << i << " of " << n;
    ASSERT_EQ(y[n], 0xAB) << "wrote behind the end";
    LookUpBytes(table, x.data(), x.data(), static_cast<int64_t>(n));
    ASSERT_TRUE(std::equal(x.begin(), x.end(), y.begin())) << "in place";
  }
}

OneNode Table(DType from, DType to) {
  const std::vector<uint8_t> bytes = RandomBytes(1000);
  Tensor x(from, {4, 250});
  std::memcpy(x.mutable_data(), bytes.data(), x.bytes());
  return OneNode("Table", 1, kOctetDomain)
      .Input(std::move(x), QuantParams::PerTensor(0.1F, 5))
      .Constant(Tensor::From<uint8_t>({256}, RandomBytes(256)))
      .Declare(to, {}, QuantParams::PerTensor(0.3F, -2));
}

TEST(TableTest, TakesStoredIntegersAsTheyAre) {
  for (const DType from : {DType::kU8, DType::kI8}) {
    for (const DType to : {DType::kU8, DType::kI8}) {
      const OneNode node = Table(from, to);
      const auto lowered = Lower(node, onednn::DetectTarget(1));
      ASSERT_TRUE(lowered.ok()) << lowered.status();
      const auto expected = node.Run();
      ASSERT_TRUE(expected.ok()) << expected.status();
      EXPECT_EQ(Elements<uint8_t>(lowered->outputs[0]), Elements<uint8_t>((*expected)[0]));
      EXPECT_EQ(lowered->layer.impl, "octet:table");
      EXPECT_EQ(lowered->layer.runs, "int8");
    }
  }
}

TEST(TableTest, RefusesTablesOfAnotherSize) {
  const auto answers = OneNode("Table", 1, kOctetDomain)
                           .Input(Tensor::From<uint8_t>({2}, {1, 2}))
                           .Constant(Tensor::From<uint8_t>({3}, {1, 2, 3}))
                           .Declare(DType::kU8, {})
                           .Run();
  EXPECT_EQ(answers.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace table_test
}  // namespace octet

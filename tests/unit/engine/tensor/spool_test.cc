#include "engine/tensor/spool.h"

#include <cstdlib>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"

namespace octet {
namespace spool_test {

using ::testing::HasSubstr;

// Puts TMPDIR back when it goes.
class Folder {
 public:
  explicit Folder(const std::string& path) {
    if (const char* const before = std::getenv("TMPDIR")) before_ = before;
    setenv("TMPDIR", path.c_str(), 1);
  }
  ~Folder() {
    setenv("TMPDIR", before_.empty() ? ::testing::TempDir().c_str() : before_.c_str(), 1);
  }

 private:
  std::string before_;
};

std::vector<uint32_t> Numbers(size_t count, uint32_t begin) {
  std::vector<uint32_t> numbers(count);
  for (size_t i = 0; i < count; ++i) numbers[i] = begin + static_cast<uint32_t>(i);
  return numbers;
}

uint32_t NumberAt(const Spool& spool, uint64_t index) {
  uint32_t number = 0;
  EXPECT_TRUE(spool.Read(4 * index, sizeof(number), &number).ok());
  return number;
}

TEST(SpoolTest, ReadsWhatWasAppendedInMemoryAndOnDisk) {
  const Folder folder(::testing::TempDir());
  Spool spool;
  constexpr size_t kPiece = 100'000;
  uint32_t appended = 0;
  while (spool.size() <= 2 * Spool::kInMemory) {
    const std::vector<uint32_t> numbers = Numbers(kPiece, appended);
    ASSERT_TRUE(spool.Append(numbers.data(), 4 * numbers.size()).ok());
    appended += kPiece;
    for (const uint32_t at : {0U, appended / 2, appended - 1}) EXPECT_EQ(NumberAt(spool, at), at);
  }
  EXPECT_EQ(spool.size(), 4 * appended);
  std::vector<uint32_t> all(appended);
  ASSERT_TRUE(spool.Read(0, spool.size(), all.data()).ok());
  EXPECT_EQ(all, Numbers(appended, 0));
}

TEST(SpoolTest, NamesTheFolderThatIsNotThere) {
  const Folder folder("/no/such/folder");
  Spool spool;
  const std::vector<std::byte> bytes(Spool::kInMemory);
  ASSERT_TRUE(spool.Append(bytes.data(), bytes.size()).ok());
  const absl::Status refused = spool.Append(bytes.data(), 1);
  EXPECT_EQ(refused.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Message(refused)), HasSubstr("/no/such/folder"));
  EXPECT_THAT(std::string(Message(refused)), HasSubstr("TMPDIR"));
}

}  // namespace spool_test
}  // namespace octet

#include "engine/tensor/npz.h"

#include <unistd.h>
#include <zip.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/npz_writer.h"
#include "engine/tensor/status.h"

namespace octet {
namespace npz_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// An archive with one array "x" of the given header and elements.
class Archive {
 public:
  Archive(const std::string& descr, const std::string& shape, const std::string& elements) {
    std::string header =
        Format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}\n", descr, shape);
    std::string member("\x93NUMPY\1\0", 8);
    member += static_cast<char>(header.size());
    member += '\0';
    member += header + elements;
    int code = 0;
    zip_t* archive = zip_open(path_.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &code);
    zip_source_t* source = zip_source_buffer(archive, member.data(), member.size(), 0);
    zip_file_add(archive, "x.npy", source, ZIP_FL_OVERWRITE);
    EXPECT_EQ(zip_close(archive), 0);
  }
  ~Archive() { std::filesystem::remove(path_); }

  absl::StatusOr<NpzArrays> Read() const { return ReadNpz(path_.string()); }

 private:
  std::filesystem::path path_ =
      std::filesystem::path(::testing::TempDir()) / Format("npz_test_{}.npz", getpid());
};

std::vector<std::string> Texts(const NpzArrays& arrays) {
  const auto texts = arrays.at("x").span<std::string_view>();
  return {texts.begin(), texts.end()};
}

TEST(NpzTest, ReadsBytesWithoutTheZerosBehindThem) {
  const auto arrays = Archive("|S3", "2, 2", std::string("abcd\0\0\0\0\0e\0f", 12)).Read();
  ASSERT_TRUE(arrays.ok()) << arrays.status();
  EXPECT_EQ(arrays->at("x").shape(), (Shape{2, 2}));
  EXPECT_THAT(Texts(*arrays), ElementsAre("abc", "d", "", std::string("e\0f", 3)));
}

TEST(NpzTest, ReadsUnicodeAsUtf8) {
  const auto arrays =
      Archive("<U2", "2,", std::string("\x41\0\0\0\xe9\0\0\0\x1e\xf6\1\0\0\0\0\0", 16)).Read();
  ASSERT_TRUE(arrays.ok()) << arrays.status();
  EXPECT_THAT(Texts(*arrays), ElementsAre("Aé", "😞"));
}

TEST(NpzTest, RefusesWhatIsNoString) {
  const auto above = Archive("<U1", "1,", std::string("\0\0\x11\0", 4)).Read();
  EXPECT_THAT(std::string(Message(above.status())),
              HasSubstr("member 'x.npy': element 0 is no Unicode"));
  const auto object = Archive("|O", "1,", std::string(8, '\0')).Read();
  EXPECT_THAT(std::string(Message(object.status())), HasSubstr("unsupported element type '|O'"));
  const auto cut = Archive("|S4", "2,", "abcd").Read();
  EXPECT_THAT(std::string(Message(cut.status())), HasSubstr("truncated"));
  const auto huge = Archive("|S4294967295", "1000000000,", "").Read();
  EXPECT_EQ(huge.status().code(), absl::StatusCode::kResourceExhausted) << huge.status();
}

// Its claim is below the limit and would be taken from the machine's memory, were it believed.
TEST(NpzTest, RefusesAClaimBeyondTheFileBeforeTakingMemory) {
  const auto refused = [](const std::string& descr, const std::string& shape) {
    return std::string(Message(Archive(descr, shape, std::string(64, '\0')).Read().status()));
  };
  EXPECT_THAT(refused("<f4", "1000000000,"),
              HasSubstr("member 'x.npy': truncated or corrupt array: its header says 4000000000 "
                        "bytes of elements, 64 are there at most"));
  EXPECT_THAT(refused("|S1000", "4000000,"), HasSubstr("4000000000 bytes of elements, 64 are"));
}

TEST(NpzTest, RefusesStringsOfNoLengthBeforeTakingMemory) {
  for (const std::string descr : {"|S0", "<U0"}) {
    const auto read = Archive(descr, "400000000,", "").Read();
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(Message(read.status())),
                HasSubstr(Format("member 'x.npy': unsupported element type '{}'", descr)));
  }
}

TEST(NpzTest, TheLimitIsOfAllArraysTogether) {
  const auto path = std::filesystem::path(::testing::TempDir()) / Format("{}.npz", getpid());
  const Tensor a = Tensor::From<float>({16}, std::vector<float>(16));
  const std::vector<std::string_view> texts = {"one", "another"};
  const Tensor b = Tensor::Strings({2}, texts);
  const std::vector<NpzArray> arrays = {{"a", {a.view()}}, {"b", {b.view()}}};
  ASSERT_TRUE(WriteNpz(path.string(), arrays).ok());
  EXPECT_TRUE(ReadNpz(path.string(), 64 + 200).ok());
  for (const uint64_t limit : {uint64_t{63}, uint64_t{64 + 100}}) {
    const auto read = ReadNpz(path.string(), limit);
    EXPECT_EQ(read.status().code(), absl::StatusCode::kResourceExhausted) << limit;
    EXPECT_THAT(
        std::string(Message(read.status())),
        HasSubstr(limit < 64 ? "member 'a.npy': array of 16 elements"
                             : "member 'b.npy': array of 2 elements exceeds the limit of 100"));
  }
  std::filesystem::remove(path);
}

TEST(NpzTest, RefusesAClaimBeyondTheFileOfAnArrayByItself) {
  const auto path = std::filesystem::path(::testing::TempDir()) / Format("{}.npy", getpid());
  const std::string header = "{'descr': '<f8', 'fortran_order': False, 'shape': (500000000,), }\n";
  std::ofstream(path) << std::string("\x93NUMPY\1\0", 8) << static_cast<char>(header.size()) << '\0'
                      << header << std::string(16, '\0');
  const auto read = OpenNpy(path.string(), {.spool = std::make_shared<Spool>()});
  std::filesystem::remove(path);
  EXPECT_THAT(std::string(Message(read.status())),
              HasSubstr("says 4000000000 bytes of elements, 16 are there at most"));
}

}  // namespace npz_test
}  // namespace octet

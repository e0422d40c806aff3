// Arrays that are read where they lie.
#include <unistd.h>
#include <zip.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/npz.h"
#include "engine/tensor/status.h"

namespace octet {
namespace stored_array_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Key;

std::string Npy(const std::string& descr, const std::string& shape, const std::string& elements,
                const std::string& fortran_order = "False") {
  const std::string header = Format("{{'descr': '{}', 'fortran_order': {}, 'shape': ({}), }}\n",
                                    descr, fortran_order, shape);
  std::string bytes("\x93NUMPY\1\0", 8);
  bytes += static_cast<char>(header.size());
  bytes += '\0';
  return bytes + header + elements;
}

std::string Elements(size_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 0.0F);
  return {reinterpret_cast<const char*>(values.data()), 4 * count};
}

class StoredArrayTest : public ::testing::Test {
 protected:
  ~StoredArrayTest() override { std::filesystem::remove(path_); }

  void WriteArchive(zip_int32_t method,
                    const std::vector<std::pair<std::string, std::string>>& members) {
    int code = 0;
    zip_t* archive = zip_open(path_.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &code);
    for (const auto& [name, bytes] : members) {
      zip_source_t* source = zip_source_buffer(archive, bytes.data(), bytes.size(), 0);
      const zip_int64_t index = zip_file_add(archive, name.c_str(), source, ZIP_FL_OVERWRITE);
      zip_set_file_compression(archive, static_cast<zip_uint64_t>(index), method, 0);
    }
    ASSERT_EQ(zip_close(archive), 0);
  }
  void WriteFile(const std::string& bytes) { std::ofstream(path_, std::ios::binary) << bytes; }
  // Of the file, as the test left it.
  std::string Bytes() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::filesystem::path path_ =
      std::filesystem::path(::testing::TempDir()) / Format("stored_array_test_{}", getpid());
  std::shared_ptr<Spool> spool_ = std::make_shared<Spool>();
};

std::vector<float> Floats(const StoredArray& array, uint64_t first, uint64_t count) {
  std::vector<float> values(count);
  const absl::Status read = array.Read(4 * first, 4 * count, values.data());
  EXPECT_TRUE(read.ok()) << read;
  return values;
}

TEST_F(StoredArrayTest, ReadsMembersInAnyOrder) {
  for (const auto& [method, in_place, copied] :
       {std::tuple(ZIP_CM_STORE, true, false), std::tuple(ZIP_CM_STORE, false, true),
        std::tuple(ZIP_CM_DEFLATE, true, true)}) {
    WriteArchive(method, {{"a.npy", Npy("<f4", "5000, 2", Elements(10'000))},
                          {"b.npy", Npy("|u1", "3,", "xyz")}});
    spool_ = std::make_shared<Spool>();
    const auto arrays = OpenNpz(path_.string(), {spool_, in_place});
    ASSERT_TRUE(arrays.ok()) << arrays.status();
    ASSERT_THAT(*arrays, ElementsAre(Key("a"), Key("b")));
    EXPECT_EQ(spool_->size(), copied ? 40'003U : 0U);
    const StoredArray& a = *arrays->at("a");
    EXPECT_EQ(a.spec(), (TensorSpec{DType::kF32, Shape{5000, 2}}));
    EXPECT_THAT(Floats(a, 9998, 2), ElementsAre(9998, 9999));
    EXPECT_THAT(Floats(a, 0, 3), ElementsAre(0, 1, 2));
    char b = 0;
    ASSERT_TRUE(arrays->at("b")->Read(1, 1, &b).ok());
    EXPECT_EQ(b, 'y');
    EXPECT_THAT(Floats(a, 5000, 1), ElementsAre(5000));
  }
}

TEST_F(StoredArrayTest, EachMemberHasATypeOfItsOwn) {
  for (const zip_int32_t method : {ZIP_CM_STORE, ZIP_CM_DEFLATE}) {
    const int16_t shorts[] = {-3, 4};
    const double doubles[] = {0.5, -0.25};
    WriteArchive(method,
                 {{"d.npy", Npy("<f8", "1, 2", {reinterpret_cast<const char*>(doubles), 16})},
                  {"s.npy", Npy("<i2", "2,", {reinterpret_cast<const char*>(shorts), 4})},
                  {"t.npy", Npy("|S2", "2,", "abcd")},
                  {"u.npy", Npy("|u1", "3,", "xyz")}});
    const auto arrays = OpenNpz(path_.string(), {spool_, true});
    ASSERT_TRUE(arrays.ok()) << arrays.status();
    EXPECT_EQ(arrays->at("d")->spec(), (TensorSpec{DType::kF64, Shape{1, 2}}));
    EXPECT_EQ(arrays->at("s")->spec(), (TensorSpec{DType::kI16, Shape{2}}));
    double second = 0;
    ASSERT_TRUE(arrays->at("d")->Read(8, 8, &second).ok());
    EXPECT_EQ(second, -0.25);
    int16_t both[2];
    ASSERT_TRUE(arrays->at("s")->Read(0, 4, both).ok());
    EXPECT_THAT(both, ElementsAre(-3, 4));
    std::string_view text;
    ASSERT_TRUE(arrays->at("t")->Read(sizeof(text), sizeof(text), &text).ok());
    EXPECT_EQ(text, "cd");
    char last = 0;
    ASSERT_TRUE(arrays->at("u")->Read(2, 1, &last).ok());
    EXPECT_EQ(last, 'z');
  }
}

// Its rows do not follow each other; of a vector there is one order alone.
TEST_F(StoredArrayTest, RefusesFortranOrder) {
  const std::string columns = Npy("<f4", "3, 2", Elements(6), "True");
  WriteArchive(ZIP_CM_DEFLATE,
               {{"a.npy", Npy("<f4", "6,", Elements(6), "True")}, {"b.npy", columns}});
  EXPECT_THAT(std::string(Message(OpenNpz(path_.string(), {spool_, true}).status())),
              HasSubstr("member 'b.npy': Fortran order is not supported"));
  WriteFile(columns);
  EXPECT_THAT(std::string(Message(OpenNpy(path_.string(), {spool_, true}).status())),
              HasSubstr(path_.string() + ": Fortran order is not supported"));
  WriteFile(Npy("<f4", "6,", Elements(6), "True"));
  EXPECT_TRUE(OpenNpy(path_.string(), {spool_, true}).ok());
}

// Members have one place in the archive between them.
TEST_F(StoredArrayTest, ThreadsReadMembersOfOneArchive) {
  constexpr size_t kElements = 100'000;
  WriteArchive(ZIP_CM_STORE, {{"a.npy", Npy("<f4", "100000,", Elements(kElements))},
                              {"b.npy", Npy("<f4", "100000,", Elements(kElements))},
                              {"c.npy", Npy("<f4", "100000,", Elements(kElements))}});
  auto arrays = OpenNpz(path_.string(), {spool_, true});
  ASSERT_TRUE(arrays.ok()) << arrays.status();
  std::atomic<int> wrong = 0;
  std::vector<std::thread> readers;
  for (auto& [unused, array] : *arrays) {
    readers.emplace_back([&wrong, own = std::move(array)]() mutable {
      std::vector<float> values(1000);
      for (size_t i = 0; i < 5000; ++i) {
        const size_t first = i * 7919 % (kElements - values.size());
        const bool read = own->Read(4 * first, 4 * values.size(), values.data()).ok();
        if (!read || values.front() != static_cast<float>(first)) ++wrong;
      }
      own.reset();
    });
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(StoredArrayTest, ReadsAnArrayByItself) {
  for (const bool in_place : {true, false}) {
    WriteFile(Npy("<f4", "100,", Elements(100)));
    const auto array = OpenNpy(path_.string(), {spool_, in_place});
    ASSERT_TRUE(array.ok()) << array.status();
    EXPECT_THAT(Floats(**array, 97, 3), ElementsAre(97, 98, 99));
    EXPECT_THAT(Floats(**array, 1, 1), ElementsAre(1));
  }
}

TEST_F(StoredArrayTest, KeepsStringsInMemory) {
  WriteArchive(ZIP_CM_STORE, {{"t.npy", Npy("|S2", "2,", std::string("ab\0\0", 4))}});
  const auto arrays = OpenNpz(path_.string(), {spool_, true});
  ASSERT_TRUE(arrays.ok()) << arrays.status();
  std::filesystem::remove(path_);
  std::string_view text;
  ASSERT_TRUE(arrays->at("t")->Read(0, sizeof(std::string_view), &text).ok());
  EXPECT_EQ(text, "ab");
}

TEST_F(StoredArrayTest, RefusesDamageWhenItIsOpened) {
  WriteArchive(ZIP_CM_STORE, {{"a.npy", Npy("<f4", "1000,", Elements(1000))}});
  std::string bytes = Bytes();
  bytes[2000] = static_cast<char>(bytes[2000] ^ 1);
  WriteFile(bytes);
  const auto damaged = OpenNpz(path_.string(), {spool_, true});
  EXPECT_EQ(damaged.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(damaged.status())), HasSubstr("member 'a.npy': CRC"));
  WriteArchive(ZIP_CM_STORE, {{"a.npy", Npy("<f4", "1000,", Elements(999))}});
  EXPECT_THAT(std::string(Message(OpenNpz(path_.string(), {spool_, true}).status())),
              HasSubstr("its header says 4000 bytes of elements, 3996"));
  WriteFile(Npy("<f4", "1000,", Elements(999)));
  EXPECT_THAT(std::string(Message(OpenNpy(path_.string(), {spool_, true}).status())),
              HasSubstr("its header says 4000 bytes of elements, 3996"));
  EXPECT_EQ(OpenNpz("/no/such.npz", {spool_, true}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(OpenNpy("/no/such.npy", {spool_, true}).status().code(), absl::StatusCode::kNotFound);
}

// A mapped file would end the process.
TEST_F(StoredArrayTest, SaysThatAFileHasBecomeShorter) {
  WriteFile(Npy("<f4", "100000,", Elements(100'000)));
  const auto array = OpenNpy(path_.string(), {spool_, true});
  ASSERT_TRUE(array.ok()) << array.status();
  std::filesystem::resize_file(path_, 1000);
  float value = 0;
  const absl::Status cut = (*array)->Read(360'000, 4, &value);
  EXPECT_EQ(cut.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Message(cut), path_.string() +
                              ": truncated or corrupt array: byte 360000 of its "
                              "elements cannot be read");
  WriteArchive(ZIP_CM_STORE, {{"a.npy", Npy("<f4", "100000,", Elements(100'000))}});
  const auto arrays = OpenNpz(path_.string(), {spool_, true});
  ASSERT_TRUE(arrays.ok()) << arrays.status();
  std::filesystem::resize_file(path_, 1000);
  EXPECT_EQ(Message(arrays->at("a")->Read(360'000, 4, &value)),
            path_.string() +
                ", array 'a': truncated or corrupt array: byte 360000 of its elements "
                "cannot be read");
}

}  // namespace stored_array_test
}  // namespace octet

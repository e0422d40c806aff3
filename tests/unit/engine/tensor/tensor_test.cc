#include "engine/tensor/tensor.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include <gtest/gtest.h>

namespace octet {
namespace tensor_test {

TEST(TensorTest, BuffersAreAlignedAndNeverNull) {
  for (const size_t bytes : {0, 1, 63, 4096}) {
    const auto memory = AllocateAligned(bytes);
    ASSERT_NE(memory, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.get()) % kTensorAlignment, 0u);
  }
}

TEST(TensorTest, CopiesShareTheirElements) {
  const Tensor a = Tensor::From<float>({2, 2}, {1, 2, 3, 4});
  const Tensor b = a;  // NOLINT(performance-unnecessary-copy-initialization): what is tested
  EXPECT_EQ(a.data(), b.data());
  const Tensor c = a.Reshaped({4});
  EXPECT_EQ(c.data(), a.data());
  EXPECT_EQ(c.shape(), (Shape{4}));
  EXPECT_EQ(c.span<float>()[3], 4);
}

TEST(TensorTest, DefaultIsNoTensorButAnEmptyOneIs) {
  EXPECT_TRUE(Tensor().empty_handle());
  const Tensor empty(DType::kF32, {0, 3});
  EXPECT_FALSE(empty.empty_handle());
  EXPECT_EQ(empty.bytes(), 0u);
  const Tensor wrapped(DType::kF32, {0}, nullptr, nullptr);
  EXPECT_FALSE(wrapped.empty_handle());
}

TEST(TensorTest, WrapsElementsForAsLongAsTheyAreNeeded) {
  auto owner = std::make_shared<std::vector<int32_t>>(std::vector<int32_t>{1, 2, 3});
  const std::weak_ptr<std::vector<int32_t>> watch = owner;
  Tensor tensor(DType::kI32, {3}, owner, owner->data());
  owner.reset();
  EXPECT_EQ(tensor.span<int32_t>()[2], 3);
  EXPECT_FALSE(watch.expired());
  tensor = Tensor();
  EXPECT_TRUE(watch.expired());
}

TEST(TensorTest, ScalarHasRankZero) {
  const Tensor s = Tensor::Scalar<int64_t>(7);
  EXPECT_EQ(s.shape().rank(), 0);
  EXPECT_EQ(s.elements(), 1);
  EXPECT_EQ(s.dtype(), DType::kI64);
}

TEST(TensorTest, StringsOwnTheirCharacters) {
  std::vector<std::string> words = {"a long string that is no small one", "",
                                    std::string("\0b", 2)};
  const Tensor t =
      Tensor::Strings({3, 1}, std::vector<std::string_view>(words.begin(), words.end()));
  const std::vector<std::string> copy = words;
  for (std::string& word : words) word.assign(word.size(), 'x');
  EXPECT_EQ(t.dtype(), DType::kString);
  EXPECT_EQ(t.shape(), (Shape{3, 1}));
  const auto texts = t.span<std::string_view>();
  EXPECT_EQ(std::vector<std::string>(texts.begin(), texts.end()), copy);
  EXPECT_EQ(t.bytes(), 3 * sizeof(std::string_view));
  EXPECT_EQ(MemoryBytes(t.view()), t.bytes() + copy[0].size() + 2);
}

TEST(TensorTest, NewStringsAreEmpty) {
  const Tensor t(DType::kString, {100});
  for (const std::string_view text : t.span<std::string_view>()) EXPECT_EQ(text, "");
}

TEST(TensorTest, GivesBackThePagesOfItsFirstElementsAlone) {
  constexpr size_t kMegabyte = size_t{1} << 20;
  Tensor tensor(DType::kU8, {8 * kMegabyte});
  std::memset(tensor.mutable_data(), 7, tensor.bytes());
  DiscardFirst(tensor, 5 * kMegabyte);
  const std::span<const uint8_t> elements = tensor.span<uint8_t>();
  EXPECT_EQ(elements[0], 0);
  EXPECT_EQ(elements[4 * kMegabyte - 1], 0);
  EXPECT_EQ(elements[4 * kMegabyte], 7) << "the rest of a huge page";
  EXPECT_EQ(elements.back(), 7);
}

TEST(TensorTest, GivesBackNoPagesOfOthers) {
  auto owner = std::make_shared<std::vector<uint8_t>>(size_t{8} << 20, uint8_t{7});
  const Tensor tensor(DType::kU8, {int64_t{8} << 20}, owner, owner->data());
  DiscardFirst(tensor, tensor.bytes());
  EXPECT_EQ(std::ranges::count(*owner, 7), int64_t{8} << 20);
}

}  // namespace tensor_test
}  // namespace octet

// Pieces of larger blocks.
#include "engine/tensor/slab.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "engine/tensor/tensor.h"

namespace octet {
namespace slab_test {

TEST(Slab, PiecesAreAlignedAndApart) {
  Slab slab;
  std::vector<std::pair<std::shared_ptr<std::byte[]>, size_t>> pieces;
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{64}, size_t{100}, size_t{100} << 10,
                             size_t{200} << 10, size_t{3} << 20, size_t{5} << 20, size_t{7}}) {
    pieces.emplace_back(slab.Allocate(bytes), bytes);
    const auto piece = pieces.back().first;
    ASSERT_NE(piece, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(piece.get()) % kTensorAlignment, 0U);
    std::memset(piece.get(), static_cast<int>(pieces.size()), bytes);
  }
  for (size_t i = 0; i < pieces.size(); ++i) {
    const auto& [piece, bytes] = pieces[i];
    for (size_t at = 0; at < bytes; ++at)
      ASSERT_EQ(piece[at], static_cast<std::byte>(i + 1)) << "piece " << i << " byte " << at;
  }
}

TEST(Slab, NeighboursShareABlockThatLivesAsLongAsOneOfThem) {
  std::shared_ptr<std::byte[]> second;
  {
    Slab slab;
    const auto first = slab.Allocate(1000);
    second = slab.Allocate(1000);
    EXPECT_EQ(second.get() - first.get(), 1024);
  }
  std::memset(second.get(), 1, 1000);
  EXPECT_EQ(second.use_count(), 1);
}

size_t ResidentBytes(const std::byte* begin, size_t bytes) {
  std::vector<unsigned char> pages(bytes / 4096);
  EXPECT_EQ(mincore(const_cast<std::byte*>(begin), bytes, pages.data()), 0);
  return 4096 * static_cast<size_t>(
                    std::ranges::count_if(pages, [](unsigned char page) { return page & 1; }));
}

TEST(Slab, AHugePageGoesBackWithItsLastPiece) {
  constexpr size_t kHalf = kHugePage / 2;
  Slab slab;
  std::vector<std::shared_ptr<std::byte[]>> pieces;
  for (int i = 0; i < 8; ++i) pieces.push_back(slab.Allocate(kHalf));
  // Two that fill a page, and a third behind them in their block: nothing more will come of that page.
  size_t i = 0;
  while (reinterpret_cast<uintptr_t>(pieces[i].get()) % kHugePage != 0 ||
         pieces[i + 1].get() != pieces[i].get() + kHalf ||
         pieces[i + 2].get() != pieces[i].get() + kHugePage) {
    ASSERT_LT(++i, pieces.size() - 2);
  }
  std::shared_ptr<std::byte[]> first = pieces[i];
  std::shared_ptr<std::byte[]> second = pieces[i + 1];
  const std::shared_ptr<std::byte[]> third = pieces[i + 2];
  pieces.clear();
  const std::byte* page = first.get();
  std::memset(first.get(), 1, kHalf);
  std::memset(second.get(), 2, kHalf);
  const std::weak_ptr<std::byte[]> remembered = first;
  first.reset();
  EXPECT_EQ(ResidentBytes(page, kHugePage), kHugePage);
  EXPECT_EQ(second[kHalf - 1], std::byte{2});
  second.reset();
  EXPECT_EQ(ResidentBytes(page, kHugePage), 0U);
}

TEST(Slab, TrimGivesBackWhatLiesBehindTheLastPiece) {
  constexpr size_t kBytes = kHugePage / 4;
  Slab slab;
  slab.Trim();  // Nothing yet.
  std::vector<std::shared_ptr<std::byte[]>> pieces;
  while (pieces.empty() || reinterpret_cast<uintptr_t>(pieces.back().get()) % kHugePage != 0)
    pieces.push_back(slab.Allocate(kBytes));
  std::byte* page = pieces.back().get();
  std::memset(page, 1, kBytes);
  slab.Trim();
  EXPECT_EQ(ResidentBytes(page, kHugePage), kBytes);
  const auto next = slab.Allocate(kBytes);
  ASSERT_EQ(next.get(), page + kBytes);
  std::memset(next.get(), 2, kBytes);
  slab.Trim();
  EXPECT_EQ(ResidentBytes(page, kHugePage), 2 * kBytes);
  EXPECT_EQ(page[kBytes - 1], std::byte{1});
  EXPECT_EQ(next[kBytes - 1], std::byte{2});
}

}  // namespace slab_test
}  // namespace octet

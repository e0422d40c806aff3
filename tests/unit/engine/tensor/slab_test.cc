// Pieces of larger blocks.
#include "engine/tensor/slab.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

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

}  // namespace slab_test
}  // namespace octet

#include "engine/tensor/slab.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include <sys/mman.h>

#include "engine/tensor/tensor.h"

namespace octet {
namespace {

constexpr size_t kFirstBlock = size_t{256} << 10;
constexpr size_t kLargestBlock = size_t{16} << 20;
/// What does not fill a block's last huge pages is lost: longer pieces would leave too much of them.
constexpr size_t kLongestPiece = kLargestBlock / 4;
constexpr size_t kSmallPage = 4096;

}  // namespace

// Counts for each huge page how many pieces lie in it at least in part; what has not been handed out yet is one of them.
class Slab::Block {
 public:
  explicit Block(size_t bytes) : memory_(AllocateAligned(bytes)), pieces_(bytes / kHugePage) {
    for (std::atomic<uint32_t>& pieces : pieces_) pieces = 1;
  }

  std::byte* data() const { return memory_.get(); }

  void Take(size_t begin, size_t end) {
    for (size_t page = begin / kHugePage; page < PagesBefore(end); ++page) ++pieces_[page];
  }

  // Pages whose last piece this was are given back.
  void LetGo(size_t begin, size_t end) { LetGoOfPages(begin / kHugePage, PagesBefore(end)); }

  // What has not been handed out begins at `to` and no longer at `from`.
  void Advance(size_t from, size_t to) { LetGoOfPages(from / kHugePage, to / kHugePage); }

 private:
  size_t PagesBefore(size_t end) const {
    return std::min((end + kHugePage - 1) / kHugePage, pieces_.size());
  }

  void LetGoOfPages(size_t begin, size_t end) {
    for (size_t page = begin; page < std::min(end, pieces_.size()); ++page) {
      // Pages that stay are memory that is freed with the block: no error.
      if (--pieces_[page] == 0) madvise(data() + page * kHugePage, kHugePage, MADV_DONTNEED);
    }
  }

  std::shared_ptr<std::byte[]> memory_;
  std::vector<std::atomic<uint32_t>> pieces_;
};

Slab::~Slab() {
  if (block_ != nullptr) block_->Advance(used_, size_);
}

std::shared_ptr<std::byte[]> Slab::Allocate(size_t bytes) {
  if (bytes >= kLongestPiece) return AllocateAligned(bytes);
  bytes = std::max(AlignUp(bytes), kTensorAlignment);
  if (bytes > size_ - used_) {
    size_t size = std::clamp(2 * size_, kFirstBlock, kLargestBlock);
    while (size < bytes) size *= 2;
    auto block = std::make_shared<Block>(size);  // May throw: nothing has changed then.
    if (block_ != nullptr) block_->Advance(used_, size_);
    block_ = std::move(block);
    size_ = size;
    used_ = 0;
  }
  const size_t begin = used_;
  const size_t end = begin + bytes;
  block_->Take(begin, end);
  auto let_go = [block = block_, begin, end](std::byte*) mutable {
    block->LetGo(begin, end);
    block.reset();  // Whoever merely remembers a piece must not keep its block.
  };
  std::shared_ptr<std::byte[]> piece(block_->data() + begin, std::move(let_go));
  block_->Advance(begin, end);
  used_ = end;
  return piece;
}

void Slab::Trim() {
  const size_t begin = (used_ + kSmallPage - 1) / kSmallPage * kSmallPage;
  const size_t end = std::min((used_ + kHugePage - 1) / kHugePage * kHugePage, size_);
  // Blocks below a huge page are in small pages, of which those behind the last piece were never touched.
  if (size_ >= kHugePage && begin < end)
    madvise(block_->data() + begin, end - begin, MADV_DONTNEED);
}

}  // namespace octet

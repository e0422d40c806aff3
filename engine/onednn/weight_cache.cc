#include "engine/onednn/weight_cache.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <numeric>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "engine/onednn/panels.h"
#include "engine/onednn/runtime.h"
#include "engine/tensor/in_place.h"
#include "engine/tensor/status.h"

namespace octet::onednn {
namespace {

constexpr uint64_t kPrimeA = 0x9E3779B97F4A7C15;
constexpr uint64_t kPrimeB = 0xC2B2AE3D27D4EB4F;
constexpr uint64_t kKeyLow = 0xA0761D6478BD642F;
constexpr uint64_t kKeyHigh = 0xE7037ED1A0B428DB;

__extension__ using uint128 = unsigned __int128;

uint64_t FoldedMultiply(uint64_t a, uint64_t b) {
  const uint128 product = static_cast<uint128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t Load(const std::byte* p) {
  uint64_t word;
  std::memcpy(&word, p, sizeof(word));
  return word;
}

// A key is not what its chain begins with: the product would then be the same for the first two words in either order.
struct HashChains {
  uint64_t low = kPrimeA;
  uint64_t high = kPrimeB;

  void Add(uint64_t a, uint64_t b) {
    low = FoldedMultiply(low ^ a, b ^ kKeyLow);
    high = FoldedMultiply(high ^ b, a ^ kKeyHigh) + kPrimeA;
  }
};

template <typename T>
void AppendBytes(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

using Dims = dnnl::memory::dims;

// What index i of axis `axis` adds to an element's place in a blocked layout: blocks of an axis are digits of its index, so
// that the axes' parts add up.
std::vector<int64_t> PlacesAlong(const dnnl::memory::desc& layout, size_t axis) {
  const Dims blocks = layout.get_inner_blks();
  const Dims block_axes = layout.get_inner_idxs();
  const int64_t stride = layout.get_strides()[axis];
  std::vector<int64_t> places(static_cast<size_t>(layout.get_padded_dims()[axis]));
  for (size_t i = 0; i < places.size(); ++i) {
    auto position = static_cast<int64_t>(i);
    int64_t inner = 1;
    for (size_t b = blocks.size(); b-- > 0; inner *= blocks[b]) {
      if (block_axes[b] != static_cast<int64_t>(axis)) continue;
      places[i] += position % blocks[b] * inner;
      position /= blocks[b];
    }
    places[i] += position * stride;
  }
  return places;
}

// Writes the elements of a layout without blocks where a blocked one has them, and zeros into its padding. The innermost
// loop is along the axis whose elements are behind each other in `from`.
// Requires: one element type, of the size of T.
template <typename T>
class Packer {
 public:
  Packer(const std::byte* data, const dnnl::memory::desc& from, const dnnl::memory::desc& to,
         std::byte* out)
      : data_(reinterpret_cast<const T*>(data) + from.get_submemory_offset()),
        out_(reinterpret_cast<T*>(out) + to.get_submemory_offset()) {
    const Dims strides = from.get_strides();
    for (size_t axis = 0; axis < strides.size(); ++axis)
      axes_.push_back({strides[axis], to.get_dims()[axis], PlacesAlong(to, axis)});
    std::ranges::stable_sort(axes_, std::greater(), &Axis::stride);
  }

  void Run() const { Along(0, 0, 0, true); }

 private:
  struct Axis {
    int64_t stride;  ///< In `from`.
    int64_t extent;
    std::vector<int64_t> places;
  };

  void Along(size_t index, int64_t from, int64_t place, bool inside) const {
    const Axis& axis = axes_[index];
    const auto padded = static_cast<int64_t>(axis.places.size());
    const int64_t extent = inside ? axis.extent : 0;
    if (index + 1 < axes_.size()) {
      for (int64_t i = 0; i < padded; ++i)
        Along(index + 1, from + i * axis.stride, place + axis.places[i], i < extent);
      return;
    }
    for (int64_t i = 0; i < extent; ++i)
      out_[place + axis.places[i]] = data_[from + i * axis.stride];
    for (int64_t i = extent; i < padded; ++i) out_[place + axis.places[i]] = T{};
  }

  const T* data_;
  T* out_;
  std::vector<Axis> axes_;
};

void Pack(const std::byte* data, const dnnl::memory::desc& from, const dnnl::memory::desc& to,
          std::byte* out) {
  switch (dnnl::memory::data_type_size(to.get_data_type())) {
    case 1:
      return Packer<uint8_t>(data, from, to, out).Run();
    case 2:
      return Packer<uint16_t>(data, from, to, out).Run();
    default:
      return Packer<uint32_t>(data, from, to, out).Run();
  }
}

// oneDNN 3.7's reorder mixes up the elements of layouts with padding on AVX-512 ("jit:uni": 40 or 640 output channels in
// blocks of 16 or 48).
bool IsPackedHere(const dnnl::memory::desc& from, const dnnl::memory::desc& to) {
  return dnnl::memory::data_type_size(to.get_data_type()) <= sizeof(uint32_t) &&
         to.get_format_kind() == dnnl::memory::format_kind::blocked &&
         to.get_dims() != to.get_padded_dims() && from.get_inner_nblks() == 0 &&
         from.get_data_type() == to.get_data_type();
}

// Bytes of the elements and the padding, without what oneDNN adds behind them.
size_t PaddedBytes(const dnnl::memory::desc& desc) {
  const Dims padded = desc.get_padded_dims();
  return static_cast<size_t>(
             std::accumulate(padded.begin(), padded.end(), int64_t{1}, std::multiplies<>())) *
         dnnl::memory::data_type_size(desc.get_data_type());
}

// oneDNN 3.7's reorder ("jit:uni") leaves 0 for what it is to add behind the elements, sums that zero points are multiplied by, of layouts
// without blocks whose channels have as many weights as there are channels (8 of 8). Not where the elements lie as they are to.
bool MayLackSums(const dnnl::memory::desc& to) {
  return to.get_format_kind() == dnnl::memory::format_kind::blocked && to.get_inner_nblks() == 0 &&
         to.get_size() != PaddedBytes(to) && to.get_data_type() == dnnl::memory::data_type::s8;
}

absl::Status ReorderByOneDnn(const std::byte* data, const dnnl::memory::desc& from,
                             const dnnl::memory::desc& to, std::byte* out) {
  const auto done = Catch([&] {
    dnnl::memory src(from, CpuEngine(), const_cast<std::byte*>(data));
    dnnl::memory dst(to, CpuEngine(), out);
    dnnl::stream stream(CpuEngine());
    if (MayLackSums(to)) {
      dnnl::memory moved({to.get_dims(), to.get_data_type(), to.get_strides()}, CpuEngine());
      dnnl::reorder(src, moved).execute(stream, src, moved);
      src = std::move(moved);
    }
    dnnl::reorder(src, dst).execute(stream, src, dst);
    stream.wait();
    return true;
  });
  return done.status();
}

absl::Status Reorder(const std::byte* data, const dnnl::memory::desc& from,
                     const dnnl::memory::desc& to, std::byte* out) {
  const bool packed = IsPackedHere(from, to);
  // What oneDNN adds behind the elements of 8-bit weights is right.
  if (!packed || to.get_size() != PaddedBytes(to))
    OCTET_RETURN_IF_ERROR(ReorderByOneDnn(data, from, to, out));
  if (packed) Pack(data, from, to, out);
  return absl::OkStatus();
}

// Of what is packed in pieces. The shorter they are, the more primitives are made, each in a fraction of a millisecond.
constexpr size_t kPieceBytes = size_t{8} << 20;

// Whether Reorder can be done in pieces: what oneDNN puts behind the elements is sums of columns by these factors, or nothing.
std::optional<std::vector<int32_t>> FactorsOfPieces(const dnnl::memory::desc& from,
                                                    const dnnl::memory::desc& to) {
  constexpr auto kBlocked = dnnl::memory::format_kind::blocked;
  if (from.get_format_kind() != kBlocked || from.get_inner_nblks() != 0 ||
      to.get_format_kind() != kBlocked)
    return std::nullopt;
  if (to.get_size() == PaddedBytes(to)) return std::vector<int32_t>();
  const Dims strides = from.get_strides();
  if (to.get_ndims() != 2 || !IsPackedHere(from, to) || std::ranges::min(strides) != 1)
    return std::nullopt;
  return SumFactorsOf(to);
}

// A part of a layout is as long as all of it. What lies behind the elements of all is no matter of the piece, though its descriptor has
// it: oneDNN would write it behind the piece's.
absl::Status ReorderPiece(const std::byte* data, const dnnl::memory::desc& from,
                          const dnnl::memory::desc& to, bool packed_here, std::byte* out) {
  if (!packed_here && !IsPackedHere(from, to)) return ReorderByOneDnn(data, from, to, out);
  Pack(data, from, to, out);
  return absl::OkStatus();
}

// Goes through `source` from its first byte to its last: a piece is some indices of the axis with the longest stride, whole
// blocks of `to`. What has been packed is given back. `factors`: FactorsOfPieces.
absl::Status ReorderAndDiscard(const Tensor& source, const dnnl::memory::desc& from,
                               const dnnl::memory::desc& to, std::span<const int32_t> factors,
                               std::byte* out) {
  const Dims strides = from.get_strides();
  const auto axis = static_cast<size_t>(std::ranges::max_element(strides) - strides.begin());
  const size_t index_bytes = static_cast<size_t>(strides[axis]) * SizeOf(source.dtype());
  const Dims blocks = to.get_inner_blks();
  const Dims block_axes = to.get_inner_idxs();
  int64_t block = 1;
  for (size_t b = 0; b < blocks.size(); ++b) {
    if (block_axes[b] == static_cast<int64_t>(axis)) block *= blocks[b];
  }
  const auto fitting = static_cast<int64_t>(kPieceBytes / index_bytes);
  const int64_t step = std::max(fitting / block, int64_t{1}) * block;
  const int64_t extent = to.get_dims()[axis];
  const auto* data = static_cast<const std::byte*>(source.data());
  std::vector<int32_t> sums(factors.empty() ? 0 : static_cast<size_t>(to.get_padded_dims()[1]));
  Dims dims = to.get_dims();
  Dims offsets(dims.size());
  for (int64_t begin = 0; begin < extent; begin += step) {
    dims[axis] = std::min(step, extent - begin);
    offsets[axis] = begin;
    const auto pieces = Catch([&] {
      return std::pair(from.submemory_desc(dims, offsets), to.submemory_desc(dims, offsets));
    });
    absl::Status done = pieces.status();
    if (done.ok()) done = ReorderPiece(data, pieces->first, pieces->second, !factors.empty(), out);
    if (!done.ok())
      return begin == 0 ? done : BehindDiscard(Annotate(done, "weights packed in part"));
    if (!factors.empty())
      AddColumnSums(reinterpret_cast<const int8_t*>(data), pieces->first,
                    std::span(sums).subspan(static_cast<size_t>(offsets[1])));
    DiscardFirst(source, static_cast<size_t>(begin + dims[axis]) * index_bytes);
  }
  WriteSums(factors, sums, out + PaddedBytes(to));
  return absl::OkStatus();
}

}  // namespace

absl::Status BehindDiscard(absl::Status error) {
  return absl::IsUnimplemented(error) ? Internal("{}", Message(error)) : error;
}

ContentHash HashBytes(const void* data, size_t bytes) {
  // Two chains with different keys over 16-byte steps; the tail is zero-padded, the length is mixed in last. Of long ones there
  // are four pairs side by side, since a step waits for the product of the one before; the first pair takes up the others.
  const auto* p = static_cast<const std::byte*>(data);
  size_t left = bytes;
  std::array<HashChains, 4> lanes;
  if (left >= 1024) {
    for (size_t lane = 1; lane < lanes.size(); ++lane) lanes[lane].low += lane;
    for (; left >= 64; left -= 64, p += 64) {
      for (size_t lane = 0; lane < lanes.size(); ++lane)
        lanes[lane].Add(Load(p + 16 * lane), Load(p + 16 * lane + 8));
    }
    for (size_t lane = 1; lane < lanes.size(); ++lane)
      lanes[0].Add(lanes[lane].low, lanes[lane].high);
  }
  for (; left >= 16; left -= 16, p += 16) lanes[0].Add(Load(p), Load(p + 8));
  auto [low, high] = lanes[0];
  std::byte tail[16] = {};
  if (left > 0) std::memcpy(tail, p, left);
  low = FoldedMultiply(low ^ Load(tail), Load(tail + 8) ^ kKeyHigh);
  high = FoldedMultiply(high ^ Load(tail + 8), Load(tail) ^ kKeyLow);
  return {FoldedMultiply(low ^ bytes, kPrimeB), FoldedMultiply(high ^ bytes, kPrimeA)};
}

struct WeightCache::Counter {
  std::atomic<size_t> bytes = 0;
};

WeightCache::WeightCache() : counter_(std::make_shared<Counter>()) {}

std::string WeightCache::SourceKey(const Tensor& source) const {
  std::string key = Format("{}{}|", DTypeName(source.dtype()), source.shape().ToString());
  std::optional<ContentHash> hash;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = hashes_.find(source.data());
    if (found != hashes_.end() && found->second.bytes == source.bytes()) {
      const std::shared_ptr<const void> owner = found->second.owner.lock();
      if (owner != nullptr && owner == source.owner()) hash = found->second.hash;
    }
  }
  if (!hash) {
    hash = HashBytes(source.data(), source.bytes());
    absl::MutexLock lock(&mutex_);
    hashes_[source.data()] = {source.owner(), source.bytes(), *hash};
  }
  AppendBytes(key, *hash);
  return key;
}

std::shared_ptr<std::byte[]> WeightCache::Allocate(size_t bytes) {
  std::shared_ptr<std::byte[]> memory = [&] {
    absl::MutexLock lock(&mutex_);
    return memory_.Allocate(bytes);
  }();
  std::byte* data = memory.get();
  return Counted(std::move(memory), data, bytes);
}

std::shared_ptr<std::byte[]> WeightCache::Counted(std::shared_ptr<const void> memory,
                                                  std::byte* data, size_t bytes) {
  counter_->bytes += bytes;
  return {data, [memory = std::move(memory), counter = counter_, bytes](std::byte*) mutable {
            memory.reset();
            counter->bytes -= bytes;
          }};
}

void WeightCache::DropExpired() {
  std::erase_if(hashes_, [](const auto& entry) { return entry.second.owner.expired(); });
  std::erase_if(forms_, [](const auto& entry) { return entry.second.expired(); });
  for (auto& [key, layouts] : layouts_) {
    std::erase_if(layouts, [](const Layout& layout) { return layout.data.expired(); });
  }
  std::erase_if(layouts_, [](const auto& entry) { return entry.second.empty(); });
}

absl::StatusOr<std::shared_ptr<const std::byte[]>> WeightCache::GetOrMake(
    const Tensor& source, std::string_view form, size_t bytes,
    const std::function<absl::Status(std::byte*)>& fill) {
  std::string key = SourceKey(source);
  key.append(form);
  {
    absl::MutexLock lock(&mutex_);
    const auto found = forms_.find(key);
    if (found != forms_.end()) {
      if (std::shared_ptr<const std::byte[]> held = found->second.lock()) return held;
    }
  }
  // Filled without the lock; when two plans fill the same form at once, the first to finish is kept.
  std::shared_ptr<std::byte[]> made = Allocate(bytes);
  OCTET_RETURN_IF_ERROR(fill(made.get()));
  absl::MutexLock lock(&mutex_);
  std::weak_ptr<const std::byte[]>& entry = forms_[key];
  if (std::shared_ptr<const std::byte[]> held = entry.lock()) return held;
  entry = made;
  DropExpired();
  return std::shared_ptr<const std::byte[]>(std::move(made));
}

std::shared_ptr<const std::byte[]> WeightCache::Held(const std::string& key,
                                                     const dnnl::memory::desc& from,
                                                     const dnnl::memory::desc& to) const {
  const auto found = layouts_.find(key);
  if (found == layouts_.end()) return nullptr;
  for (const Layout& layout : found->second) {
    if (layout.from != from || layout.to != to) continue;
    if (std::shared_ptr<const std::byte[]> held = layout.data.lock()) return held;
  }
  return nullptr;
}

absl::StatusOr<std::shared_ptr<std::byte[]>> WeightCache::Pack(const Tensor& source,
                                                               const dnnl::memory::desc& from,
                                                               const dnnl::memory::desc& to,
                                                               SourceUse use) {
  const bool discards = use == SourceUse::kDiscard && source.bytes() > kPieceBytes;
  const std::optional<Panels> panels = PanelsOf(from, to);
  std::byte* const room = discards && panels ? RoomOf(source, to.get_size()) : nullptr;
  if (room != nullptr) {
    {
      absl::MutexLock lock(&mutex_);
      hashes_.erase(source.data());  // The owner lives on, with other bytes.
    }
    PackPanelsInPlace(*panels, room);
    return Counted(source.owner(), room, to.get_size());
  }
  std::shared_ptr<std::byte[]> made = Allocate(to.get_size());
  const auto* data = static_cast<const std::byte*>(source.data());
  if (panels) {
    PackPanels(*panels, data, made.get());
    return made;
  }
  const auto factors = discards ? FactorsOfPieces(from, to) : std::nullopt;
  if (factors) {
    OCTET_RETURN_IF_ERROR(ReorderAndDiscard(source, from, to, *factors, made.get()));
  } else {
    OCTET_RETURN_IF_ERROR(Reorder(data, from, to, made.get()));
  }
  return made;
}

// Descriptors are compared, not hashed: equal ones differ in the bytes between their members.
absl::StatusOr<std::shared_ptr<const std::byte[]>> WeightCache::Reordered(
    const Tensor& source, const dnnl::memory::desc& from, const dnnl::memory::desc& to,
    SourceUse use) {
  const std::string key = SourceKey(source);
  {
    absl::MutexLock lock(&mutex_);
    if (auto held = Held(key, from, to)) return held;
  }
  // Filled without the lock, as in GetOrMake.
  OCTET_ASSIGN_OR_RETURN(std::shared_ptr<std::byte[]> made, Pack(source, from, to, use));
  absl::MutexLock lock(&mutex_);
  if (auto held = Held(key, from, to)) return held;
  DropExpired();
  layouts_[key].push_back({from, to, made});
  return std::shared_ptr<const std::byte[]>(std::move(made));
}

std::vector<dnnl::memory::desc> WeightCache::LayoutsOf(const Tensor& source) const {
  const std::string key = SourceKey(source);
  std::vector<dnnl::memory::desc> descs;
  absl::MutexLock lock(&mutex_);
  const auto found = layouts_.find(key);
  if (found == layouts_.end()) return descs;
  for (const Layout& layout : found->second) {
    if (!layout.data.expired()) descs.push_back(layout.to);
  }
  return descs;
}

Tensor WeightCache::Intern(const Tensor& source) {
  const auto copy = [&source](std::byte* out) {
    std::memcpy(out, source.data(), source.bytes());
    return absl::OkStatus();
  };
  // Copying cannot fail, so neither can this.
  std::shared_ptr<const std::byte[]> data = *GetOrMake(source, "plain", source.bytes(), copy);
  const void* elements = data.get();
  return Tensor(source.dtype(), source.shape(), std::move(data), elements);
}

size_t WeightCache::resident_bytes() const { return counter_->bytes; }

void WeightCache::Trim() {
  absl::MutexLock lock(&mutex_);
  memory_.Trim();
}

}  // namespace octet::onednn

// TopK: one pass over each row, in which few elements are kept.
//
// An element's key is an unsigned integer that is the smaller the earlier the element comes. Candidates are pairs of key and
// position: no two are equal, and of equal elements the first one comes first. Those before the k-th best that has been seen are
// kept; when the room for them is full, the k best of them are found, and the others go. Of many elements in a row a block is
// passed over whose earliest key is behind that.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/ops/dispatch.h"
#include "engine/ops/movement_step.h"
#include "engine/ops/top_k.h"
#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Elements that one thread gets at least.
constexpr int64_t kTopKGrain = int64_t{1} << 14;
/// Elements whose earliest key is looked for at once.
constexpr int64_t kKeyBlock = 64;
/// Room for candidates, at least: few of them are searched as fast as they are sorted.
constexpr int64_t kLeastRoom = 256;

template <typename T>
using KeyOf = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

/// Unsigned integers in the order of the elements; NaN is the largest, -0 is 0.
template <typename T>
[[gnu::always_inline]] inline KeyOf<T> Ordered(T x) {
  using Key = KeyOf<T>;
  constexpr Key kSign = Key{1} << (8 * sizeof(Key) - 1);
  if constexpr (std::is_floating_point_v<T>) {
    const Key bits = std::bit_cast<Key>(x + T{0});  // -0 + 0 is 0.
    const Key ordered = (bits & kSign) != 0 ? ~bits : bits | kSign;
    return x != x ? std::numeric_limits<Key>::max() : ordered;
  } else if constexpr (std::is_signed_v<T>) {
    return static_cast<Key>(std::make_signed_t<Key>{x}) ^ kSign;
  } else {
    return Key{x};
  }
}

/// The smallest key of n elements. `flip`: all ones where the largest elements come first.
template <typename T>
OCTET_CPU_CLONES [[gnu::flatten]] static KeyOf<T> EarliestKey(const T* x, KeyOf<T> flip,
                                                              int64_t n) {
  KeyOf<T> earliest = std::numeric_limits<KeyOf<T>>::max();
  for (int64_t i = 0; i < n; ++i) earliest = std::min<KeyOf<T>>(earliest, Ordered(x[i]) ^ flip);
  return earliest;
}

template <typename T>
class BestOfRow {
 public:
  using Key = KeyOf<T>;
  using Candidate = std::pair<Key, int64_t>;

  explicit BestOfRow(const TopKForm& form)
      : form_(form),
        flip_(form.largest ? std::numeric_limits<Key>::max() : 0),
        room_(static_cast<size_t>(std::min(form.extent, std::max(2 * form.k, kLeastRoom)))) {}

  /// The first k of a row, in order.
  std::span<const Candidate> Find(const T* x) {
    count_ = 0;
    limit_ = {std::numeric_limits<Key>::max(), std::numeric_limits<int64_t>::max()};
    const int64_t step = form_.inner;
    for (int64_t first = 0; first < form_.extent; first += kKeyBlock) {
      const int64_t end = std::min(first + kKeyBlock, form_.extent);
      if (step == 1 && IsFull() && EarliestKey(x + first, flip_, end - first) >= limit_.first)
        continue;
      for (int64_t i = first; i < end; ++i) Offer({Ordered(x[i * step]) ^ flip_, i});
    }
    const size_t k = std::min(count_, static_cast<size_t>(form_.k));
    const auto begin = room_.begin();
    const auto stop = begin + static_cast<int64_t>(count_);
    if (k < count_) std::nth_element(begin, begin + static_cast<int64_t>(k), stop);
    std::sort(begin, begin + static_cast<int64_t>(k));
    return {room_.data(), k};
  }

 private:
  /// There is a k-th best, so that later elements with its key come behind it.
  bool IsFull() const { return limit_.second != std::numeric_limits<int64_t>::max(); }

  void Offer(const Candidate& candidate) {
    if (!(candidate < limit_)) return;
    room_[count_++] = candidate;
    if (count_ < room_.size() || std::ssize(room_) == form_.extent) return;
    const auto last = room_.begin() + (form_.k - 1);
    std::nth_element(room_.begin(), last, room_.end());
    limit_ = *last;
    count_ = static_cast<size_t>(form_.k);
  }

  TopKForm form_;
  Key flip_;
  std::vector<Candidate> room_;
  size_t count_ = 0;
  Candidate limit_;
};

template <typename T>
Kernel TopKKernel(const TopKForm& form) {
  return [form](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    const T* x = inputs[0].as<T>();
    T* values = outputs[0].as<T>();
    int64_t* indices = outputs.size() > 1 ? outputs[1].as<int64_t>() : nullptr;
    ParallelFor(form.groups, 1 + kTopKGrain / form.extent, [&](int64_t begin, int64_t end) {
      BestOfRow<T> best(form);
      for (int64_t g = begin; g < end; ++g) {
        const T* row = x + form.InputAt(g);
        int64_t to = form.OutputAt(g);
        for (const auto& [key, index] : best.Find(row)) {
          if (values != nullptr) values[to] = row[index * form.inner];
          if (indices != nullptr) indices[to] = index;
          to += form.inner;
        }
      }
    });
    return absl::OkStatus();
  };
}

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerTopK(const LowerContext& context) {
  const Node& node = context.node;
  if (!node.post_ops.empty()) return Unimplemented("post-ops");
  const Value& x = context.input(0);
  const size_t known = node.output(0) != kNone ? 0 : 1;
  if (x.quant || (known == 0 && context.output().quant))
    return Unimplemented("'{}' stands for reals by a scale", x.name);
  if (known == 0 && context.output().dtype != x.dtype)
    return Unimplemented("'{}' and '{}' are not stored alike", x.name, context.output().name);
  OCTET_ASSIGN_OR_RETURN(const TopKForm form,
                         ReadTopK(node, *x.shape, *context.output(known).shape));
  if (form.extent == 0 || form.k == 0) return Unimplemented("no elements");
  OCTET_ASSIGN_OR_RETURN(Kernel kernel,
                         KernelFor(kNumberKernels, x.dtype, node,
                                   [&]<typename T>() -> Kernel { return TopKKernel<T>(form); }));
  context.layer.runs = "none";
  context.layer.impl = "octet:top_k";
  context.layer.isa = context.target.isa;
  return MakeKernelStep(std::move(kernel), context);
}

}  // namespace octet

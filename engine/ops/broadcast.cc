#include "engine/ops/broadcast.h"

namespace octet {
namespace {

/// Stride of every output axis for an input of shape `input`, 0 where it is broadcast.
absl::InlinedVector<int64_t, 6> AlignedStrides(const Shape& output, const Shape& input) {
  const auto own = input.strides();
  const int shift = output.rank() - input.rank();
  absl::InlinedVector<int64_t, 6> strides(output.rank());
  for (int d = shift; d < output.rank(); ++d) {
    strides[d] = input[d - shift] == 1 ? 0 : own[d - shift];
  }
  return strides;
}

}  // namespace

BroadcastPlan::BroadcastPlan(const Shape& output, std::span<const Shape> inputs)
    : elements_(output.elements()) {
  absl::InlinedVector<Extents, 3> full;
  for (const Shape& input : inputs) {
    full.push_back(AlignedStrides(output, input));
  }
  strides_.resize(inputs.size());
  extents_.clear();
  // Outermost first: an axis joins the one before it when every input steps over both as over one.
  for (int d = 0; d < output.rank(); ++d) {
    if (output[d] == 1) continue;
    bool joins = !extents_.empty();
    for (size_t i = 0; joins && i < inputs.size(); ++i) {
      joins = strides_[i].back() == full[i][d] * output[d];
    }
    if (joins) {
      extents_.back() *= output[d];
    } else {
      extents_.push_back(output[d]);
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (joins) {
        strides_[i].back() = full[i][d];
      } else {
        strides_[i].push_back(full[i][d]);
      }
    }
  }
  if (!extents_.empty()) return;
  extents_.push_back(1);
  for (Extents& strides : strides_) strides.push_back(1);
}

}  // namespace octet

// Which layout a primitive gets its constant weights in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/onednn/memory_desc.h"
#include "engine/onednn/weight_cache.h"
#include "engine/tensor/status.h"

namespace octet {

/// What U8 weights lose to become the I8 that oneDNN takes.
inline constexpr int32_t kUnsignedZero = 128;

/// UNIMPLEMENTED where oneDNN has only its reference kernel for what `described` says.
template <typename Desc>
absl::StatusOr<Desc> Fast(absl::StatusOr<Desc> described) {
  if (!described.ok()) return described;
  const std::string_view impl = described->impl_info_str();
  // "conv:any+ref:any": a transposed convolution by way of another one.
  if (impl.starts_with("ref") || impl.ends_with("ref:any"))
    return Unimplemented("oneDNN has only {} for this shape", impl);
  return described;
}

/// The descriptor that describe(layout of the weights) makes for the fastest kernel; where a plan for another batch
/// packed the weights otherwise and the same kernel takes them so, for that layout: one copy serves both. `dims` are the
/// weights' extents as the primitive sees them. Errors: those of Fast.
template <typename DescribeFn>
auto DescribeSharing(const onednn::WeightCache& cache, const Tensor& weights,
                     std::span<const int64_t> dims, const DescribeFn& describe)
    -> decltype(describe(dnnl::memory::desc())) {
  OCTET_ASSIGN_OR_RETURN(auto best, Fast(describe(onednn::AnyDesc(weights.dtype(), dims))));
  const std::string_view impl = best.impl_info_str();
  const std::vector<dnnl::memory::desc> held = cache.LayoutsOf(weights);
  if (std::ranges::find(held, best.weights_desc()) != held.end()) return best;
  for (const dnnl::memory::desc& layout : held) {
    auto same = describe(layout);
    if (same.ok() && same->impl_info_str() == impl) return same;
  }
  return best;
}

}  // namespace octet

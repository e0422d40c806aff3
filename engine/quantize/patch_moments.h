// What the weights of a layer are multiplied with: second moments of its patches over a calibration set.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/ops/window.h"
#include "engine/quantize/calibration.h"
#include "engine/quantize/selection.h"

namespace octet {

/// A patch is the vector that one row of weights is multiplied with: K elements, in the order of the weights' own row. A
/// convolution has one per output position and group, K = input channels per group * taps, zeros in the padding (of a transposed one
/// also where a tap meets no input, between two of them); a matrix product has one per row of its input. Patches are drawn at random, the same number from every sample, with a seed that is the
/// number of patches seen before: a run that goes on draws what one without a break draws.
/// Not thread-safe.
class PatchMoments : public Collector {
 public:
  /// Moments of a layer, K^2 per group; layers with more are not looked at, for these cost more than they give.
  static constexpr int64_t kMaxMoments = int64_t{2304} * 2304;

  /// nullopt where the node has too many moments, or its window more than three axes. `samples`: in the calibration set.
  static std::optional<PatchMoments> For(const Graph& graph, const WeightedNode& weighted,
                                         int64_t samples);

  absl::Status Observe(ConstTensorView batch) override;
  /// Adds what others have seen of the same layer: sums and products of all groups, over `count` patches each.
  /// INVALID_ARGUMENT when they are not as many as here.
  absl::Status Add(int64_t count, std::span<const float> sums, std::span<const float> products);
  /// As if every input channel (of all groups) had been multiplied by its factor.
  void Scale(std::span<const double> factors);

  int64_t groups() const { return groups_; }
  int64_t length() const { return length_; }
  int64_t count() const { return count_; }
  std::span<const float> sums() const { return sums_; }
  std::span<const float> products() const { return products_; }
  /// Sums over the patches of a group: [length()], of element i.
  std::span<const float> sums(int64_t group) const;
  /// [length(), length()], of the products of elements i and j at [i, j] for j >= i; zeros below.
  std::span<const float> products(int64_t group) const;

 private:
  PatchMoments(const Node& node, int64_t groups, int64_t length, int64_t samples);

  int64_t PerSample(int64_t positions) const;
  /// `each` positions for each of the next samples.
  std::vector<int64_t> Drawn(int64_t samples, int64_t each, int64_t positions) const;
  /// Over spatial extents.
  absl::StatusOr<std::array<AxisWindow, 3>> Axes(std::span<const int64_t> extents) const;
  /// What a tap multiplies for a result; outside [0, in) where that is nothing.
  int64_t InputOf(const AxisWindow& axis, int64_t result, int64_t tap) const;
  absl::Status ReadConv(ConstTensorView batch);
  void ReadRows(ConstTensorView batch);
  void CopyPatch(const float* image, std::span<const int64_t> extents,
                 const std::array<AxisWindow, 3>& axes, int64_t position, float* to) const;
  void AddPatches(std::span<const float> patches, int64_t group);

  Node node_;  ///< Its attributes are the window's.
  bool transposed_;
  std::vector<int64_t> kernel_;
  int64_t groups_;
  int64_t length_;
  int64_t samples_;
  int64_t count_ = 0;  ///< Patches of each group.
  std::vector<float> sums_;
  std::vector<float> products_;
};

}  // namespace octet

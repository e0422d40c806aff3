#include "engine/train/varied_samples.h"

#include <algorithm>
#include <cmath>

#include "engine/tensor/status.h"

namespace octet::train {
namespace {

constexpr double kMostSteps = 255;

// The first spatial axis of [N, C, spatial...].
constexpr int kSpatial = 2;

void RoundToGrids(std::span<const ChannelGrid> grids, std::span<float> row) {
  const size_t inner = row.size() / grids.size();
  for (size_t k = 0; k < row.size(); ++k) {
    const ChannelGrid& grid = grids[k / inner];
    const double q = std::clamp(std::round(row[k] / grid.step + grid.offset), 0.0, kMostSteps);
    row[k] = static_cast<float>(grid.step * (q - grid.offset));
  }
}

// row[.., i, ..] = row[.., from(i), ..] along one axis of `extent` elements that lie `inner` apart.
template <typename From>
void Reorder(std::span<float> row, size_t extent, size_t inner, std::vector<float>& copy,
             const From& from) {
  copy.assign(row.begin(), row.end());
  const size_t block = extent * inner;
  for (size_t first = 0; first < row.size(); first += block) {
    for (size_t i = 0; i < extent; ++i)
      std::copy_n(copy.data() + first + from(i) * inner, inner, row.data() + first + i * inner);
  }
}

void MoveRow(const Moves& moves, const Shape& shape, std::mt19937_64& random, std::span<float> row,
             std::vector<float>& copy) {
  for (int axis = kSpatial; axis < shape.rank() && moves.shift > 0; ++axis) {
    const int64_t by = std::uniform_int_distribution<int64_t>(-moves.shift, moves.shift)(random);
    const auto inner = static_cast<size_t>(shape.elements(axis + 1, shape.rank()));
    Reorder(row, static_cast<size_t>(shape[axis]), inner, copy, [&](size_t i) {
      return static_cast<size_t>(
          std::clamp<int64_t>(static_cast<int64_t>(i) + by, 0, shape[axis] - 1));
    });
  }
  if (!moves.flip || random() % 2 == 0) return;
  const auto extent = static_cast<size_t>(shape[shape.rank() - 1]);
  Reorder(row, extent, 1, copy, [&](size_t i) { return extent - 1 - i; });
}

}  // namespace

Blend DrawBlend(std::span<const int64_t> others, std::mt19937_64& random) {
  const int64_t other = others[random() % others.size()];
  return {other, std::uniform_real_distribution<float>(0, 1)(random)};
}

absl::Status BlendRow(const ModelSamples& samples, std::span<const std::vector<ChannelGrid>> grids,
                      const Blend& blend, size_t row, std::vector<Tensor>& batch) {
  const float t = blend.t;
  std::vector<float> y;
  for (size_t i = 0; i < batch.size(); ++i) {
    const auto rows = static_cast<size_t>(batch[i].shape()[0]);
    const size_t length = static_cast<size_t>(batch[i].elements()) / rows;
    const std::span<float> x = batch[i].mutable_span<float>().subspan(row * length, length);
    y.resize(length);
    OCTET_RETURN_IF_ERROR(samples.Read(i, blend.other, y.data()));
    for (size_t k = 0; k < length; ++k) x[k] = t * x[k] + (1 - t) * y[k];
    if (!grids[i].empty()) RoundToGrids(grids[i], x);
  }
  return absl::OkStatus();
}

void MoveSamples(const Moves& moves, std::mt19937_64& random, std::vector<Tensor>& batch) {
  std::vector<float> copy;
  for (Tensor& tensor : batch) {
    const Shape& shape = tensor.shape();
    if (shape.rank() <= kSpatial) continue;
    const auto rows = static_cast<size_t>(shape[0]);
    const size_t length = static_cast<size_t>(tensor.elements()) / rows;
    const std::span<float> all = tensor.mutable_span<float>();
    for (size_t row = 0; row < rows; ++row)
      MoveRow(moves, shape, random, all.subspan(row * length, length), copy);
  }
}

}  // namespace octet::train

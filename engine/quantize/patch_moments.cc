#include "engine/quantize/patch_moments.h"

#include <algorithm>
#include <functional>
#include <random>

#include "engine/ops/conv_transpose.h"
#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// In all, shared by the samples; estimates of K^2 moments get no better for what more of them cost.
constexpr int64_t kPatches = 8192;
constexpr int64_t kRowsAtOnce = 8;
constexpr int64_t kSamplesDrawn = 8;

// products[i][j] += sum over the rows r of rows[r][i] * rows[r][j], for j >= i.
OCTET_CPU_CLONES void AddProducts(const float* rows, int64_t length, float* products) {
  for (int64_t i = 0; i < length; ++i) {
    float* const to = products + i * length;
    float left[kRowsAtOnce];
    for (int64_t r = 0; r < kRowsAtOnce; ++r) left[r] = rows[r * length + i];
    for (int64_t j = i; j < length; ++j) {
      float sum = 0;
      for (int64_t r = 0; r < kRowsAtOnce; ++r) sum += left[r] * rows[r * length + j];
      to[j] += sum;
    }
  }
}

}  // namespace

std::optional<PatchMoments> PatchMoments::For(const Graph& graph, const WeightedNode& weighted,
                                              int64_t samples) {
  const Node& node = graph.node(weighted.node);
  const Shape& weights = graph.value(node.inputs[1]).constant.shape();
  const WeightLayout layout = LayoutOf(graph, weighted);
  if (weights.elements() == 0 || weights.rank() > 5) return std::nullopt;
  const int64_t length = weights.elements() / layout.Outputs(weights);
  const int64_t groups = layout.groups;
  // Compared by division: an odd file's extents may have a product beyond 64 bits.
  if (length > kMaxMoments / length / groups) return std::nullopt;
  PatchMoments moments(node, groups, length, samples);
  for (int axis = 2; axis < weights.rank(); ++axis) moments.kernel_.push_back(weights[axis]);
  return moments;
}

PatchMoments::PatchMoments(const Node& node, int64_t groups, int64_t length, int64_t samples)
    : node_(node),
      transposed_(node.is("ConvTranspose")),
      groups_(groups),
      length_(length),
      samples_(samples),
      sums_(static_cast<size_t>(groups * length)),
      products_(static_cast<size_t>(groups * length * length)) {}

absl::Status PatchMoments::Observe(ConstTensorView batch) {
  if (batch.shape().elements() == 0) return absl::OkStatus();
  if (IsConvolutional(node_)) return ReadConv(batch);
  ReadRows(batch);
  return absl::OkStatus();
}

absl::Status PatchMoments::Add(int64_t count, std::span<const float> sums,
                               std::span<const float> products) {
  if (sums.size() != sums_.size() || products.size() != products_.size())
    return InvalidArgument("expected {} sums, got {}", sums_.size(), sums.size());
  std::ranges::transform(sums_, sums, sums_.begin(), std::plus<>());
  std::ranges::transform(products_, products, products_.begin(), std::plus<>());
  count_ += count;
  return absl::OkStatus();
}

void PatchMoments::Scale(std::span<const double> factors) {
  int64_t taps = 1;
  for (const int64_t extent : kernel_) taps *= extent;
  const int64_t channels = length_ / taps;
  for (int64_t group = 0; group < groups_; ++group) {
    const auto factor = [&](int64_t i) {
      return static_cast<float>(factors[static_cast<size_t>(group * channels + i / taps)]);
    };
    float* const sums = sums_.data() + group * length_;
    float* const products = products_.data() + group * length_ * length_;
    for (int64_t i = 0; i < length_; ++i) {
      sums[i] *= factor(i);
      for (int64_t j = i; j < length_; ++j) products[i * length_ + j] *= factor(i) * factor(j);
    }
  }
}

std::span<const float> PatchMoments::sums(int64_t group) const {
  return std::span(sums_).subspan(static_cast<size_t>(group * length_),
                                  static_cast<size_t>(length_));
}

std::span<const float> PatchMoments::products(int64_t group) const {
  return std::span(products_).subspan(static_cast<size_t>(group * length_ * length_),
                                      static_cast<size_t>(length_ * length_));
}

int64_t PatchMoments::PerSample(int64_t positions) const {
  return std::min(positions, std::max<int64_t>(1, kPatches / samples_));
}

// A generator serves kSamplesDrawn samples, however many of them are seen at once.
std::vector<int64_t> PatchMoments::Drawn(int64_t samples, int64_t each, int64_t positions) const {
  std::vector<int64_t> drawn;
  if (each <= 0) return drawn;
  std::mt19937 random;
  std::uniform_int_distribution<int64_t> any(0, positions - 1);
  for (int64_t i = 0; i < samples; ++i) {
    const int64_t done = count_ / each + i;
    const int64_t skipped = done % kSamplesDrawn;
    if (i == 0 || skipped == 0) random.seed(static_cast<uint32_t>((done - skipped) * each));
    for (int64_t k = i == 0 ? -skipped * each : 0; k < each; ++k) {
      const int64_t position = any(random);
      if (k >= 0) drawn.push_back(position);
    }
  }
  return drawn;
}

absl::StatusOr<std::array<AxisWindow, 3>> PatchMoments::Axes(
    std::span<const int64_t> extents) const {
  if (transposed_) return TransposedAxes(node_, extents, kernel_);
  OCTET_ASSIGN_OR_RETURN(const WindowAttributes window,
                         ReadWindow(node_, static_cast<int>(extents.size()), kernel_));
  return ResolveWindow(node_, window, extents);
}

int64_t PatchMoments::InputOf(const AxisWindow& axis, int64_t result, int64_t tap) const {
  if (!transposed_) return axis.Position(result, tap);
  const int64_t steps = result + axis.pad_begin - tap * axis.dilation;
  return steps >= 0 && steps % axis.stride == 0 ? steps / axis.stride : -1;
}

absl::Status PatchMoments::ReadConv(ConstTensorView batch) {
  const Shape& shape = batch.shape();
  const std::vector<int64_t> extents = SpatialExtents(shape, false);
  OCTET_ASSIGN_OR_RETURN(const auto axes, Axes(extents));
  const int64_t positions = axes[0].out * axes[1].out * axes[2].out;
  const int64_t drawn = PerSample(positions);
  const std::vector<int64_t> chosen = Drawn(shape[0], drawn, positions);
  const int64_t per_group = shape.elements() / shape[0] / groups_;
  std::vector<float> patches(chosen.size() * static_cast<size_t>(length_));
  for (int64_t group = 0; group < groups_; ++group) {
    for (int64_t i = 0; i < std::ssize(chosen); ++i) {
      const float* image = batch.as<float>() + (i / drawn * groups_ + group) * per_group;
      CopyPatch(image, extents, axes, chosen[static_cast<size_t>(i)], patches.data() + i * length_);
    }
    AddPatches(patches, group);
  }
  count_ += std::ssize(chosen);
  return absl::OkStatus();
}

void PatchMoments::ReadRows(ConstTensorView batch) {
  const int64_t rows = batch.shape().elements() / length_;
  const int64_t in_sample = rows / batch.shape()[0];
  const int64_t drawn = PerSample(in_sample);
  const std::vector<int64_t> chosen = Drawn(batch.shape()[0], drawn, in_sample);
  std::vector<float> patches;
  for (int64_t i = 0; i < std::ssize(chosen); ++i) {
    const int64_t at = i / drawn * in_sample + chosen[static_cast<size_t>(i)];
    const float* row = batch.as<float>() + at * length_;
    patches.insert(patches.end(), row, row + length_);
  }
  AddPatches(patches, 0);
  count_ += std::ssize(chosen);
}

void PatchMoments::CopyPatch(const float* image, std::span<const int64_t> extents,
                             const std::array<AxisWindow, 3>& axes, int64_t position,
                             float* to) const {
  const int64_t at[3] = {position / axes[2].out / axes[1].out, position / axes[2].out % axes[1].out,
                         position % axes[2].out};
  const int64_t taps = axes[0].kernel * axes[1].kernel * axes[2].kernel;
  int64_t plane = 1;
  for (const int64_t extent : extents) plane *= extent;
  for (int64_t channel = 0; channel < length_ / taps; ++channel, image += plane) {
    for (int64_t z = 0; z < axes[0].kernel; ++z) {
      const int64_t in_z = InputOf(axes[0], at[0], z);
      for (int64_t y = 0; y < axes[1].kernel; ++y) {
        const int64_t in_y = InputOf(axes[1], at[1], y);
        for (int64_t x = 0; x < axes[2].kernel; ++x) {
          const int64_t in_x = InputOf(axes[2], at[2], x);
          const bool inside = in_z >= 0 && in_z < axes[0].in && in_y >= 0 && in_y < axes[1].in &&
                              in_x >= 0 && in_x < axes[2].in;
          *to++ = inside ? image[(in_z * axes[1].in + in_y) * axes[2].in + in_x] : 0.0F;
        }
      }
    }
  }
}

void PatchMoments::AddPatches(std::span<const float> patches, int64_t group) {
  const int64_t rows = std::ssize(patches) / length_;
  float* const sums = sums_.data() + group * length_;
  for (int64_t i = 0; i < std::ssize(patches); ++i)
    sums[i % length_] += patches[static_cast<size_t>(i)];
  // What is short of whole steps is filled up with zeros, which add nothing.
  std::vector<float> last;
  for (int64_t first = 0; first < rows; first += kRowsAtOnce) {
    const float* at = patches.data() + first * length_;
    if (rows - first < kRowsAtOnce) {
      last.assign(at, patches.data() + rows * length_);
      last.resize(static_cast<size_t>(kRowsAtOnce * length_));
      at = last.data();
    }
    AddProducts(at, length_, products_.data() + group * length_ * length_);
  }
}

}  // namespace octet

// RoiAlign: held against its definition, sample by sample, and regions far larger than their image.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"

namespace octet::testing {
namespace roi_align_test {

using ::testing::Each;
using ::testing::FloatNear;
using ::testing::Pointwise;

struct Form {
  int64_t extent;   ///< Of the output, both ways.
  int64_t samples;  ///< 0: as many as a bin has pixels.
  bool half_pixel;
  bool largest;
};

std::vector<float> Answer(const Tensor& x, const Tensor& region, const Form& form) {
  const auto outputs = OneNode("RoiAlign", 16)
                           .Input(x)
                           .Input(region)
                           .Input(Tensor::From<int64_t>({1}, {0}))
                           .Set("output_height", form.extent)
                           .Set("output_width", form.extent)
                           .Set("sampling_ratio", form.samples)
                           .Set("mode", std::string(form.largest ? "max" : "avg"))
                           .Set("coordinate_transformation_mode",
                                std::string(form.half_pixel ? "half_pixel" : "output_half_pixel"))
                           .Run();
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? Elements<float>(outputs->front()) : std::vector<float>{};
}

/// The four weighted pixels around a point, 0 outside of the image.
std::vector<double> PartsAt(const Tensor& x, double row, double column) {
  const int64_t height = x.shape()[2], width = x.shape()[3];
  const auto limit = [](double at, int64_t extent) {
    return std::clamp(at, 0.0, static_cast<double>(extent - 1));
  };
  if (!(row >= -1 && row <= static_cast<double>(height)) ||
      !(column >= -1 && column <= static_cast<double>(width)))
    return {0, 0, 0, 0};
  row = limit(row, height), column = limit(column, width);
  std::vector<double> parts;
  for (const double r : {std::floor(row), std::floor(row) + 1}) {
    for (const double c : {std::floor(column), std::floor(column) + 1}) {
      const auto at = std::min(static_cast<int64_t>(r), height - 1) * width +
                      std::min(static_cast<int64_t>(c), width - 1);
      parts.push_back((1 - std::abs(row - r)) * (1 - std::abs(column - c)) *
                      static_cast<double>(x.span<float>()[static_cast<size_t>(at)]));
    }
  }
  return parts;
}

/// Every sample of every bin of one region (x1, y1, x2, y2).
std::vector<float> ByDefinition(const Tensor& x, const Tensor& region, const Form& form) {
  const auto roi = Elements<float>(region);
  const double offset = form.half_pixel ? 0.5 : 0;
  const auto start = [&](int axis) { return static_cast<double>(roi[axis]) - offset; };
  const auto size = [&](int axis) {
    const double length = static_cast<double>(roi[axis + 2]) - static_cast<double>(roi[axis]);
    return (form.half_pixel ? length : std::max(length, 1.0)) / static_cast<double>(form.extent);
  };
  const auto samples = [&](int axis) {
    return form.samples > 0 ? form.samples
                            : static_cast<int64_t>(std::max(std::ceil(size(axis)), 0.0));
  };
  std::vector<float> answers;
  for (int64_t bin = 0; bin < form.extent * form.extent; ++bin) {
    double sum = 0;
    double largest = -std::numeric_limits<double>::infinity();
    const int64_t down = samples(1), across = samples(0);
    for (int64_t k = 0; k < down * across; ++k) {
      const auto at = [&](int axis, int64_t b, int64_t s, int64_t count) {
        return start(axis) + (static_cast<double>(b) +
                              (static_cast<double>(s) + 0.5) / static_cast<double>(count)) *
                                 size(axis);
      };
      const auto parts = PartsAt(x, at(1, bin / form.extent, k / across, down),
                                 at(0, bin % form.extent, k % across, across));
      for (const double part : parts) sum += part, largest = std::max(largest, part);
    }
    if (down * across == 0) largest = 0;
    const auto count = static_cast<double>(std::max<int64_t>(down * across, 1));
    answers.push_back(static_cast<float>(form.largest ? largest : sum / count));
  }
  return answers;
}

TEST(RoiAlign, IsTheMeanOrTheLargestOfItsSamples) {
  const Tensor x = RandomReals({1, 1, 5, 7}, 1, -2, -1);
  for (const Tensor& region :
       {Tensor::From<float>({1, 4}, {1, 1, 4, 3}), Tensor::From<float>({1, 4}, {-9, -3, 20, 30}),
        Tensor::From<float>({1, 4}, {6.9F, 4.9F, 8.1F, 6.1F}),
        Tensor::From<float>({1, 4}, {5, 4, -3, -2}),
        Tensor::From<float>({1, 4}, {100, 100, 200, 200})}) {
    for (const int64_t samples : {0, 1, 3}) {
      for (const bool half_pixel : {false, true}) {
        for (const bool largest : {false, true}) {
          const Form form{3, samples, half_pixel, largest};
          EXPECT_THAT(Answer(x, region, form),
                      Pointwise(FloatNear(1e-5F), ByDefinition(x, region, form)))
              << ::testing::PrintToString(Elements<float>(region)) << " samples " << samples
              << " half_pixel " << half_pixel << " largest " << largest;
        }
      }
    }
  }
}

// Sample by sample these are 2^24 steps for each of 2^16 elements.
TEST(RoiAlign, HugeRegionsCostWhatTheirImageCosts) {
  const Tensor x = RandomReals({1, 16, 8, 8}, 2, 1, 2);
  for (const bool largest : {false, true}) {
    const auto y =
        Answer(x, Tensor::From<float>({1, 4}, {1e6F, 1e6F, 1e9F, 1e9F}), {64, 0, true, largest});
    EXPECT_EQ(y.size(), size_t{64} * 64 * 16);
    EXPECT_THAT(y, Each(0));
  }
  // Of 4096 samples along each axis the middle of [-1e5, 1e5] has few in the image.
  const auto mean =
      Answer(Tensor::From<float>({1, 1, 1, 1}, {1}),
             Tensor::From<float>({1, 4}, {-4096, -4096, 4096, 4096}), {1, 0, false, false});
  // Samples lie 2 apart, at odd numbers: those at -1 and 1 are in.
  EXPECT_THAT(mean, Pointwise(FloatNear(1e-12F), {4.0F / 4096 / 4096}));
}

TEST(RoiAlign, RegionsThatAreNoNumbersAreEmpty) {
  const float nan = std::nanf("");
  const float infinity = std::numeric_limits<float>::infinity();
  const Tensor x = RandomReals({1, 1, 4, 4}, 3, 1, 2);
  for (const bool largest : {false, true}) {
    const Form form{2, 0, true, largest};
    EXPECT_THAT(Answer(x, Tensor::From<float>({1, 4}, {nan, 0, nan, 2}), form), Each(0));
    EXPECT_THAT(Answer(x, Tensor::From<float>({1, 4}, {0, 0, infinity, infinity}), form), Each(0));
    EXPECT_THAT(Answer(x, Tensor::From<float>({1, 4}, {-infinity, 0, infinity, 2}), form), Each(0));
  }
}

}  // namespace roi_align_test
}  // namespace octet::testing

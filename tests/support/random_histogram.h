// Histograms of random values, for tests of the quantizer.
#pragma once

#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "engine/quantize/calibration.h"
#include "tests/support/graph_builder.h"

namespace octet {

/// Draws from the normal distribution around 0.
inline std::vector<float> NormalValues(size_t count, float sigma) {
  std::mt19937 random(TestSeed());
  std::normal_distribution<float> normal(0, sigma);
  std::vector<float> values(count);
  for (float& x : values) x = normal(random);
  return values;
}

inline Histogram HistogramOf(const std::vector<float>& values) {
  Histogram histogram;
  EXPECT_TRUE(histogram.Add(values).ok());
  return histogram;
}

}  // namespace octet

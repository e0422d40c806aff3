// GridSample where ONNX's own cases are silent.
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/one_node.h"

namespace octet::testing {
namespace grid_sample_test {

using ::testing::ElementsAre;
using ::testing::FloatNear;

// PyTorch 2 and ONNX Runtime answer the same: the curve through the border's elements goes on outside.
TEST(GridSample, ACubicAtTheBorderClampsEachTap) {
  OneNode node("GridSample", 16);
  node.Input(Tensor::From<float>(Shape{1, 1, 1, 4}, {0, 1, 2, 3}))
      .Input(Tensor::From<float>(Shape{1, 1, 2, 2}, {1.2F, 0, 3, 0}))
      .Set("mode", std::string("bicubic"))
      .Set("padding_mode", std::string("border"))
      .Set("align_corners", int64_t{1});
  const auto outputs = node.Run();
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  // At 3.3: 3 - w(1.3) with w(d) = a (d^3 - 5 d^2 + 8 d - 4) and a = -3/4; far outside, the last element.
  EXPECT_THAT(Elements<float>(outputs->front()),
              ElementsAre(FloatNear(3.11025F, 1e-5F), FloatNear(3, 1e-5F)));
}

}  // namespace grid_sample_test
}  // namespace octet::testing

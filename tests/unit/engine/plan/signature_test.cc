// How the shapes of a request meet what a model takes.
#include "engine/plan/signature.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/limits.h"
#include "engine/tensor/status.h"

namespace octet {
namespace signature_test {

using ::testing::HasSubstr;

// Tables are as long as an extent, and arrays as long as a rank may be: what any rank fits is no exception.
TEST(CheckShapesTest, RefusesImpossibleShapesWhereAnyRankFits) {
  Signature signature;
  TensorInfo& x = signature.inputs.emplace_back();
  x.name = "x";
  x.dtype = DType::kF32;
  x.rank_known = false;
  const auto check = [&](const Shape& shape) { return CheckShapes(signature, {&shape, 1}); };
  const std::vector<int64_t> ones(kMaxRank + 1, 1);
  EXPECT_EQ(check(Shape()), absl::OkStatus());
  EXPECT_EQ(check({2, 0, 3}), absl::OkStatus());
  EXPECT_EQ(check(Shape(std::span(ones).first(kMaxRank))), absl::OkStatus());
  for (const Shape& shape :
       {Shape(std::span(ones)), Shape{0, int64_t{1} << 62}, Shape{int64_t{1} << 40, -2}}) {
    EXPECT_EQ(check(shape).code(), absl::StatusCode::kInvalidArgument) << shape.ToString();
    EXPECT_THAT(std::string(Message(check(shape))), HasSubstr("input 'x': impossible shape: ["));
  }
}

}  // namespace signature_test
}  // namespace octet

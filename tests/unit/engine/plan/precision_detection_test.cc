// What a file shows of its precision.
#include "engine/plan/precision_detection.h"

#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"

namespace octet {
namespace precision_detection_test {

Precision Detected(const Graph& graph) {
  const auto precision = DetectPrecision(graph);
  EXPECT_TRUE(precision.ok()) << precision.status();
  return precision.value_or(Precision::kFp32);
}

// A product with weights stored as T, as they are or behind a Cast, and an F32 bias.
template <typename T>
Graph Product(bool cast) {
  GraphBuilder b;
  const DType dtype = cast ? DType::kF32 : DTypeOf<T>;
  const ValueId weights = b.Constant<T>({4, 5}, std::vector<T>(20));
  const ValueId w = cast ? b.Op("Cast", {weights}, {{"to", int64_t{1}}}) : weights;
  const ValueId y = b.Op("MatMul", {b.Input("x", {2, 4}, dtype), w});
  b.Output(b.Op("Add", {b.Op("Cast", {y}, {{"to", int64_t{1}}}), b.Random({5})}));
  return b.Build();
}

TEST(DetectPrecision, KnowsWhatWeightsAreStoredAs) {
  for (const bool cast : {false, true}) {
    EXPECT_EQ(Detected(Product<float>(cast)), Precision::kFp32);
    EXPECT_EQ(Detected(Product<Half>(cast)), Precision::kFp16);
    EXPECT_EQ(Detected(Product<BFloat16>(cast)), Precision::kBf16);
  }
}

TEST(DetectPrecision, FewOfThemSayNothing) {
  GraphBuilder b;
  const ValueId x = b.Op("MatMul", {b.Input("x", {2, 4}), b.Random({4, 5})});
  const ValueId y = b.Op("Cast", {x}, {{"to", int64_t{10}}});
  b.Output(b.Op("Mul", {y, b.Scalar(ToHalf(2))}));
  EXPECT_EQ(Detected(b.Build()), Precision::kFp32);
}

TEST(DetectPrecision, ReadsConstantNodes) {
  GraphBuilder b;
  const Tensor weights(DType::kBF16, Shape{4, 5});
  const ValueId w = b.Op("Constant", {}, {{"value", weights}});
  b.Output(b.Op("MatMul", {b.Input("x", {2, 4}, DType::kBF16), w}));
  EXPECT_EQ(Detected(b.Build()), Precision::kBf16);
}

TEST(DetectPrecision, LooksAtTheInputsWhereNothingIsConstant) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    GraphBuilder b;
    b.Output(b.Op("MatMul", {b.Input("a", {2, 4}, dtype), b.Input("b", {4, 2}, dtype)}));
    const Precision expected = dtype == DType::kF32   ? Precision::kFp32
                               : dtype == DType::kF16 ? Precision::kFp16
                                                      : Precision::kBf16;
    EXPECT_EQ(Detected(b.Build()), expected);
  }
}

TEST(DetectPrecision, IntegersComeFirst) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 4}, DType::kF16);
  b.Opset(19);
  const ValueId scale = b.Scalar(ToHalf(0.5F));
  const ValueId q = b.Op("QuantizeLinear", {x, scale, b.Scalar<uint8_t>(128)});
  b.Output(b.Op("DequantizeLinear", {q, scale, b.Scalar<uint8_t>(128)}));
  EXPECT_EQ(Detected(b.Build()), Precision::kInt8);
}

}  // namespace precision_detection_test
}  // namespace octet

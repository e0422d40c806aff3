#include "server/scheduling/request_check.h"

#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/scheduling/request.h"

namespace octet {
namespace request_check_test {

using ::testing::HasSubstr;

class RequestCheckTest : public ::testing::Test {
 protected:
  std::string Check(DType dtype, std::vector<int64_t> dims, size_t bytes) {
    const absl::Status status = CheckInput(input_, recipe_, dtype, dims, bytes);
    if (status.ok()) return "OK";
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(Message(status));
  }

  TensorInfo input_ = {"image", DType::kF32, {kUnknownDim, 3, 2}};
  WireMapping mapping_ = {DType::kU8, {1, 1, 1}, {0, 0, 0}};
  InputRecipe recipe_ = *InputRecipe::Make(input_, &mapping_);
};

TEST_F(RequestCheckTest, TheModelsTypeAndTheMappedOneAreAccepted) {
  EXPECT_EQ(Check(DType::kF32, {2, 3, 2}, 48), "OK");
  EXPECT_EQ(Check(DType::kU8, {2, 3, 2}, 12), "OK");
}

TEST_F(RequestCheckTest, MistakesNameTheTensorWhatWasExpectedAndWhatCame) {
  EXPECT_EQ(Check(DType::kF64, {1, 3, 2}, 48),
            "input \"image\": datatype, expected FP32 or UINT8, got FP64");
  EXPECT_EQ(Check(DType::kF32, {1, 3}, 12),
            "input \"image\": shape, expected [?,3,2] (? = at least 0), got [1,3]");
  EXPECT_EQ(Check(DType::kF32, {1, 4, 2}, 32),
            "input \"image\": shape, expected [?,3,2] (? = at least 0), got [1,4,2]");
  EXPECT_EQ(Check(DType::kF32, {2, 3, 2}, 47),
            "input \"image\": bytes, expected 48 for FP32 [2,3,2], got 47");
}

TEST_F(RequestCheckTest, HostileExtentsAreRefused) {
  EXPECT_THAT(Check(DType::kF32, {-1, 3, 2}, 0), HasSubstr("got [-1,3,2]"));
  EXPECT_THAT(Check(DType::kF32, {1, 0, 2}, 0), HasSubstr("got [1,0,2]")) << "3 is known";
  EXPECT_THAT(Check(DType::kF32, {INT64_MAX, 3, 2}, 24), HasSubstr("too many elements"));
  EXPECT_THAT(Check(DType::kF32, {INT64_MAX / 6, 3, 2}, 24), HasSubstr("too many elements"));
}

TEST_F(RequestCheckTest, AnOpenExtentMayBeZero) {
  EXPECT_EQ(Check(DType::kF32, {0, 3, 2}, 0), "OK");
  EXPECT_EQ(Check(DType::kU8, {0, 3, 2}, 0), "OK");
  EXPECT_EQ(Check(DType::kF32, {0, 3, 2}, 4),
            "input \"image\": bytes, expected 0 for FP32 [0,3,2], got 4");
}

TEST_F(RequestCheckTest, AnInputWithoutADeclaredRankTakesAny) {
  input_.shape = {};
  input_.rank_known = false;
  recipe_ = *InputRecipe::Make(input_, nullptr);
  EXPECT_EQ(Check(DType::kF32, {}, 4), "OK");
  EXPECT_EQ(Check(DType::kF32, {2, 3}, 24), "OK");
  EXPECT_EQ(Check(DType::kF32, std::vector<int64_t>(32, 1), 4), "OK");
  constexpr std::string_view kExpected =
      "input \"image\": shape, expected at most 32 extents of at least 0, got [";
  EXPECT_EQ(Check(DType::kF32, {2, 0}, 0), "OK");
  EXPECT_THAT(Check(DType::kF32, {-1, 4}, 16), HasSubstr(kExpected));
  EXPECT_THAT(Check(DType::kF32, std::vector<int64_t>(33, 1), 4), HasSubstr(kExpected));
  EXPECT_THAT(Check(DType::kF32, {2, 3}, 20), HasSubstr("bytes, expected 24"));
}

TEST_F(RequestCheckTest, RowsAreTheCommonFirstExtent) {
  Signature signature;
  signature.inputs = {{"a", DType::kF32, {kUnknownDim, 2}}, {"b", DType::kF32, {kUnknownDim}}};
  signature.batches = true;
  const std::vector<WireTensor> agree = {{nullptr, {DType::kF32, {3, 2}}},
                                         {nullptr, {DType::kF32, {3}}}};
  EXPECT_EQ(*CheckRows(signature, agree, 8), 3);
  EXPECT_THAT(std::string(Message(CheckRows(signature, agree, 2).status())),
              HasSubstr("expected at most 2, got 3"));
  const std::vector<WireTensor> differ = {{nullptr, {DType::kF32, {3, 2}}},
                                          {nullptr, {DType::kF32, {4}}}};
  EXPECT_THAT(std::string(Message(CheckRows(signature, differ, 8).status())),
              HasSubstr("inputs \"a\" and \"b\": batch sizes differ: 3 and 4"));
  const std::vector<WireTensor> none = {{nullptr, {DType::kF32, {0, 2}}},
                                        {nullptr, {DType::kF32, {0}}}};
  EXPECT_EQ(Message(CheckRows(signature, none, 8).status()),
            "input \"a\": batch size, expected at least 1, got 0");
  signature.batches = false;
  EXPECT_EQ(*CheckRows(signature, differ, 1), 1);
  EXPECT_EQ(*CheckRows(signature, none, 1), 1) << "no rows of a batch";
}

TEST_F(RequestCheckTest, StringsAreCountedAsElements) {
  const TensorInfo text = {"text", DType::kString, {kUnknownDim}};
  const InputRecipe recipe = *InputRecipe::Make(text, nullptr);
  const std::vector<int64_t> dims = {2};
  const size_t each = SizeOf(DType::kString);
  EXPECT_TRUE(CheckInput(text, recipe, DType::kString, dims, 2 * each).ok());
  EXPECT_EQ(Message(CheckInput(text, recipe, DType::kString, dims, each)),
            "input \"text\": elements, expected 2 for BYTES [2], got 1");
}

TEST(InferenceRequestTest, CountsTheCharactersOfStrings) {
  const std::string_view words[] = {"twelve bytes", ""};
  InferenceRequest request;
  request.inputs = {{words, {DType::kString, {2}}}};
  EXPECT_EQ(request.bytes(), sizeof(words) + 12);
}

TEST(InputRecipeTest, AMappingThatDoesNotFitTheInputIsRefused) {
  const WireMapping three = {DType::kU8, {1, 1, 1}, {0, 0, 0}};
  EXPECT_THAT(std::string(Message(InputRecipe::Make({"t", DType::kI64, {1, 3}}, &three).status())),
              HasSubstr("inputs.t.wire: only reals can be mapped, this input is INT64"));
  EXPECT_THAT(std::string(Message(InputRecipe::Make({"t", DType::kF32, {1, 4}}, &three).status())),
              HasSubstr("inputs.t.wire"));
  const WireMapping halves = {DType::kF16, {1}, {0}};
  EXPECT_TRUE(InputRecipe::Make({"t", DType::kF32, {1, 4}}, &halves).ok());
  EXPECT_THAT(std::string(Message(InputRecipe::Make({"t", DType::kF16, {1, 4}}, &halves).status())),
              HasSubstr("expected another datatype than the input's own, got FP16"));
}

/// What the wire's {0, 3, 255} become, with a scale of 0.1 and a zero point of 1; F16 and BF16 as bits.
template <typename T>
std::vector<T> Mapped(DType dtype) {
  const WireMapping mapping = {DType::kU8, {0.1F}, {1}};
  const InputRecipe recipe = *InputRecipe::Make({"x", dtype, {kUnknownDim, 3}}, &mapping);
  EXPECT_TRUE(recipe.IsCopy(dtype));
  EXPECT_EQ(recipe.AcceptedTypes(), Format("{} or UINT8", DTypeName(dtype)));
  const std::vector<uint8_t> wire = {0, 3, 255};
  std::vector<T> mapped(4);
  recipe.Convert({wire.data(), {DType::kU8, {1, 3}}}, mapped.data());
  EXPECT_EQ(mapped.back(), 0) << "nothing is written behind them";
  mapped.pop_back();
  return mapped;
}

TEST(InputRecipeTest, MapsToRealsOfAnyType) {
  const std::vector<float> reals = {-0.1F, 0.1F * 2, 0.1F * 254};
  EXPECT_EQ(Mapped<float>(DType::kF32), reals);
  EXPECT_EQ(Mapped<double>(DType::kF64), std::vector<double>(reals.begin(), reals.end()));
  const auto halves = Mapped<uint16_t>(DType::kF16);
  const auto bfloats = Mapped<uint16_t>(DType::kBF16);
  for (size_t i = 0; i < reals.size(); ++i) {
    EXPECT_EQ(halves[i], ToHalf(reals[i]).bits) << i;
    EXPECT_EQ(bfloats[i], ToBFloat16(reals[i]).bits) << i;
  }
}

TEST(InputRecipeTest, RealsAreRoundedToWhatPlansRead) {
  TensorInfo input = {"x", DType::kF32, {kUnknownDim, 4}};
  const std::vector<float> reals = {-1, 0.26F, 0.5F, 1000};
  const WireTensor wire(reals.data(), {DType::kF32, {1, 4}});
  std::vector<float> same(4);
  const InputRecipe wide = *InputRecipe::Make(input, nullptr);
  EXPECT_TRUE(wide.IsCopy(DType::kF32));
  wide.Convert(wire, same.data());
  EXPECT_EQ(same, reals);

  input.narrow = RealFormat{DType::kU8, QuantParams::PerTensor(0.25F, 2)};
  const WireMapping mapping = {DType::kI8, {0.5F}, {1}};
  const InputRecipe narrow = *InputRecipe::Make(input, &mapping);
  EXPECT_FALSE(narrow.IsCopy(DType::kF32));
  EXPECT_EQ(narrow.zero(), 2);
  EXPECT_EQ(wide.zero(), 0);
  EXPECT_EQ(narrow.AcceptedTypes(), "FP32 or INT8") << "clients send what they sent before";
  std::vector<uint8_t> rounded(4);
  narrow.Convert(wire, rounded.data());
  EXPECT_EQ(rounded, (std::vector<uint8_t>{0, 3, 4, 255}));
  const std::vector<int8_t> mapped = {-3, 0, 1, 127};
  narrow.Convert({mapped.data(), {DType::kI8, {1, 4}}}, rounded.data());
  EXPECT_EQ(rounded, (std::vector<uint8_t>{0, 0, 2, 254}));
}

}  // namespace request_check_test
}  // namespace octet

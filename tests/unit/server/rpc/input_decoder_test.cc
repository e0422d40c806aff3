#include "server/rpc/input_decoder.h"

#include <array>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"

namespace octet {
namespace input_decoder_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A model with an FP32 image, which also comes as UINT8, and an INT64 length.
class InputDecoderTest : public ::testing::Test {
 protected:
  InputDecoderTest() {
    signature_.inputs = {{"image", DType::kF32, {kUnknownDim, 2}},
                         {"length", DType::kI64, {kUnknownDim, 1}}};
    signature_.batches = true;
    const WireMapping mapping = {.dtype = DType::kU8, .scale = {0.5F}, .zero_point = {1}};
    recipes_ = {*InputRecipe::Make(signature_.inputs[0], &mapping),
                *InputRecipe::Make(signature_.inputs[1], nullptr)};
  }

  inference::ModelInferRequest::InferInputTensor& Input(const std::string& name,
                                                        const std::string& datatype,
                                                        std::vector<int64_t> shape) {
    auto& input = *request_.add_inputs();
    input.set_name(name);
    input.set_datatype(datatype);
    for (const int64_t extent : shape) input.add_shape(extent);
    return input;
  }

  template <typename T>
  void Raw(std::vector<T> values) {
    request_.add_raw_input_contents(values.data(), values.size() * sizeof(T));
  }

  void GoodRequest() {
    Input("image", "FP32", {2, 2});
    Input("length", "INT64", {2, 1});
    Raw<float>({1, 2, 3, 4});
    Raw<int64_t>({7, 8});
  }

  absl::Status Decode() {
    decoded_ = {};
    const std::vector<WireBytes> raw_contents(request_.raw_input_contents().begin(),
                                              request_.raw_input_contents().end());
    OCTET_ASSIGN_OR_RETURN(const RawInputs raw_inputs, RawInputsOf(request_, raw_contents));
    return DecodeInputs(request_, raw_inputs, signature_, recipes_, 4, decoded_);
  }

  /// The message of the INVALID_ARGUMENT that Decode answers.
  std::string Refusal() {
    const absl::Status status = Decode();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(Message(status));
  }

  Signature signature_;
  std::vector<InputRecipe> recipes_;
  inference::ModelInferRequest request_;
  DecodedInputs decoded_;
};

TEST_F(InputDecoderTest, RawContentsAreSeenWhereTheyAre) {
  GoodRequest();
  ASSERT_TRUE(Decode().ok());
  EXPECT_EQ(decoded_.rows, 2);
  EXPECT_EQ(decoded_.views[0].data, request_.raw_input_contents(0).data());
  EXPECT_EQ(decoded_.views[0].shape(), (Shape{2, 2}));
  EXPECT_EQ(decoded_.views[1].dtype(), DType::kI64);
}

TEST_F(InputDecoderTest, InputsMayComeInAnyOrder) {
  Input("length", "INT64", {1, 1});
  Input("image", "FP32", {1, 2});
  Raw<int64_t>({7});
  Raw<float>({1, 2});
  ASSERT_TRUE(Decode().ok());
  EXPECT_EQ(decoded_.views[0].data, request_.raw_input_contents(1).data());
}

TEST_F(InputDecoderTest, TypedContentsOfTheElementsWidthAreSeenWhereTheyAre) {
  auto& image = *Input("image", "FP32", {1, 2}).mutable_contents();
  image.add_fp32_contents(1);
  image.add_fp32_contents(2);
  Input("length", "INT64", {1, 1}).mutable_contents()->add_int64_contents(3);
  ASSERT_TRUE(Decode().ok());
  EXPECT_EQ(decoded_.views[0].data, request_.inputs(0).contents().fp32_contents().data());
  EXPECT_TRUE(decoded_.narrowed.empty());
}

TEST_F(InputDecoderTest, BytesInWordsAreNarrowed) {
  auto& image = *Input("image", "UINT8", {1, 2}).mutable_contents();
  image.add_uint_contents(0);
  image.add_uint_contents(255);
  Input("length", "INT64", {1, 1}).mutable_contents()->add_int64_contents(3);
  ASSERT_TRUE(Decode().ok());
  EXPECT_EQ(decoded_.views[0].as<uint8_t>()[1], 255);
  image.set_uint_contents(1, 256);
  EXPECT_EQ(Refusal(), "input \"image\": contents, expected 0 .. 255, got 256");
}

TEST_F(InputDecoderTest, NamesWhatIsUnknownMissingOrDoubled) {
  GoodRequest();
  request_.mutable_inputs(0)->set_name("picture");
  EXPECT_EQ(Refusal(), "unknown input \"picture\", expected \"image\", \"length\"");
  request_.mutable_inputs(0)->set_name("length");
  *request_.mutable_inputs(0) = request_.inputs(1);
  *request_.mutable_raw_input_contents(0) = request_.raw_input_contents(1);
  EXPECT_EQ(Refusal(), "input \"length\" comes twice");
  request_.mutable_inputs()->RemoveLast();
  request_.mutable_raw_input_contents()->RemoveLast();
  EXPECT_EQ(Refusal(), "missing input \"image\", expected \"image\", \"length\"");
}

TEST_F(InputDecoderTest, RawAndTypedContentsDoNotMix) {
  GoodRequest();
  request_.mutable_inputs(1)->mutable_contents()->add_int64_contents(1);
  EXPECT_EQ(Refusal(), "input \"length\": both contents and raw_input_contents");
  request_.mutable_inputs(1)->clear_contents();
  request_.mutable_raw_input_contents()->RemoveLast();
  EXPECT_EQ(Refusal(), "raw_input_contents: expected one per input (2), got 1");
}

TEST_F(InputDecoderTest, DatatypesAreThoseThatTheModelTakes) {
  GoodRequest();
  request_.mutable_inputs(0)->set_datatype("FP64");
  EXPECT_EQ(Refusal(), "input \"image\": datatype, expected FP32 or UINT8, got FP64");
  request_.mutable_inputs(0)->set_datatype("FLOAT");
  EXPECT_EQ(Refusal(), "input \"image\": datatype, expected FP32 or UINT8, got \"FLOAT\"");
  request_.mutable_inputs(0)->set_datatype("BYTES");
  EXPECT_EQ(Refusal(), "input \"image\": datatype, expected FP32 or UINT8, got BYTES");
}

TEST_F(InputDecoderTest, ShapesAndSizesMustFit) {
  GoodRequest();
  request_.mutable_inputs(0)->set_shape(1, 3);
  EXPECT_THAT(Refusal(), HasSubstr("input \"image\": shape, expected [?,2]"));
  request_.mutable_inputs(0)->set_shape(1, 2);
  request_.mutable_inputs(0)->set_shape(0, -1);
  EXPECT_THAT(Refusal(), HasSubstr("got [-1,2]"));
  request_.mutable_inputs(0)->set_shape(0, int64_t{1} << 62);
  EXPECT_THAT(Refusal(), HasSubstr("too many elements"));
  request_.mutable_inputs(0)->set_shape(0, 1);
  EXPECT_EQ(Refusal(), "input \"image\": bytes, expected 8 for FP32 [1,2], got 16");
  for (int i = 2; i < 65; ++i) request_.mutable_inputs(0)->add_shape(1);
  EXPECT_EQ(Refusal(), "input \"image\": shape, expected at most 64 extents, got 65");
}

TEST_F(InputDecoderTest, ABatchHasOneSizeAndABound) {
  GoodRequest();
  request_.mutable_inputs(1)->set_shape(0, 1);
  request_.mutable_raw_input_contents(1)->resize(8);
  EXPECT_EQ(Refusal(), "inputs \"image\" and \"length\": batch sizes differ: 2 and 1");
  request_.Clear();
  Input("image", "FP32", {5, 2});
  Input("length", "INT64", {5, 1});
  Raw(std::vector<float>(10));
  Raw(std::vector<int64_t>(5));
  EXPECT_EQ(Refusal(), "input \"image\": batch size, expected at most 4, got 5");
}

TEST_F(InputDecoderTest, TypedContentsGoIntoTheirOwnField) {
  Input("image", "FP32", {1, 2}).mutable_contents()->add_int_contents(1);
  EXPECT_EQ(Refusal(), "input \"image\": contents of FP32 go into fp32_contents alone");
}

TEST_F(InputDecoderTest, SixteenBitFloatsComeRawOnly) {
  const WireMapping mapping = {.dtype = DType::kF16};
  recipes_[0] = *InputRecipe::Make(signature_.inputs[0], &mapping);
  Input("image", "FP16", {1, 2}).mutable_contents()->add_fp32_contents(1);
  EXPECT_EQ(Refusal(), "input \"image\": FP16 comes in raw_input_contents only");
  request_.mutable_inputs(0)->clear_contents();
  Input("length", "INT64", {1, 1});
  Raw<uint16_t>({0x3C00, 0});
  Raw<int64_t>({1});
  EXPECT_TRUE(Decode().ok());
}

TEST_F(InputDecoderTest, NoElementsComeInAnyWay) {
  signature_.inputs[0].shape = {kUnknownDim, kUnknownDim};
  const WireMapping mapping = {.dtype = DType::kF16};
  recipes_[0] = *InputRecipe::Make(signature_.inputs[0], &mapping);
  for (const char* datatype : {"FP32", "FP16"}) {
    request_.Clear();
    Input("image", datatype, {1, 0});
    Input("length", "INT64", {1, 1}).mutable_contents()->add_int64_contents(3);
    ASSERT_TRUE(Decode().ok()) << datatype << ", typed";
    EXPECT_EQ(decoded_.views[0].shape(), (Shape{1, 0}));
    EXPECT_EQ(decoded_.rows, 1);
    request_.mutable_inputs(1)->clear_contents();
    request_.add_raw_input_contents("");
    Raw<int64_t>({3});
    ASSERT_TRUE(Decode().ok()) << datatype << ", raw";
    EXPECT_EQ(decoded_.views[0].shape(), (Shape{1, 0}));
  }
}

TEST_F(InputDecoderTest, TensorsInPiecesStayInThem) {
  Input("image", "FP32", {2, 2});
  Input("length", "INT64", {2, 1});
  const std::string image(16, 'i');
  const std::string length(16, 'l');
  const auto cut = [](std::string_view bytes) {
    return std::array{bytes.substr(0, 5), bytes.substr(5)};
  };
  const auto image_pieces = cut(image);
  const auto length_pieces = cut(length);
  const RawInputs raw = {WireBytes(image_pieces), WireBytes(length_pieces)};
  ASSERT_TRUE(DecodeInputs(request_, raw, signature_, recipes_, 4, decoded_).ok());
  EXPECT_TRUE(decoded_.views[0].in_pieces());
  EXPECT_TRUE(decoded_.views[1].in_pieces());
  EXPECT_EQ(decoded_.views[1].pieces.data(), length_pieces.data());

  WireMapping halves;
  halves.dtype = DType::kF16;
  recipes_[0] = *InputRecipe::Make(signature_.inputs[0], &halves);
  request_.mutable_inputs(0)->set_datatype("FP16");
  const std::string half("\x00\x3C\x00\x40\x00\x44\x00\x48", 8);  // 1, 2, 4, 8
  const std::array<std::string_view, 2> half_pieces = {std::string_view(half).substr(0, 3),
                                                       std::string_view(half).substr(3)};
  decoded_ = {};
  ASSERT_TRUE(DecodeInputs(request_, {WireBytes(half_pieces), WireBytes(length_pieces)}, signature_,
                           recipes_, 4, decoded_)
                  .ok());
  EXPECT_TRUE(decoded_.views[0].in_pieces()) << "though an element lies across two pieces";
  std::array<float, 4> converted{};
  recipes_[0].Convert(decoded_.views[0], converted.data());
  EXPECT_THAT(converted, ElementsAre(1, 2, 4, 8));
}

TEST(InputRecipeTest, MappedBytesAreConvertedWhereverTheyAreCut) {
  WireMapping mapping;
  mapping.dtype = DType::kU8;
  mapping.scale = {1, 10, 100};
  mapping.zero_point = {0, 1, 2};
  const TensorInfo input = {"x", DType::kF32, {kUnknownDim, 3, 2}};
  const InputRecipe recipe = *InputRecipe::Make(input, &mapping);
  const std::string_view bytes("\1\2\3\4\5\6\7\10\11\12\13\14", 12);
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    const std::array<std::string_view, 2> pieces = {bytes.substr(0, cut), bytes.substr(cut)};
    std::array<float, 12> converted{};
    recipe.Convert({WireBytes(pieces), {DType::kU8, {2, 3, 2}}}, converted.data());
    EXPECT_THAT(converted, ElementsAre(1, 2, 20, 30, 300, 400, 7, 8, 80, 90, 900, 1000)) << cut;
  }
}

/// A model of one BYTES input, [?, 2].
class BytesDecoderTest : public InputDecoderTest {
 protected:
  BytesDecoderTest() {
    signature_.inputs = {{"text", DType::kString, {kUnknownDim, 2}}};
    signature_.batches = false;
    recipes_ = {*InputRecipe::Make(signature_.inputs[0], nullptr)};
    Input("text", "BYTES", {1, 2});
  }
  std::vector<std::string_view> Texts() const {
    const auto texts = decoded_.views[0].span<std::string_view>();
    return {texts.begin(), texts.end()};
  }
};

TEST_F(BytesDecoderTest, RawElementsAreSeenWhereTheyAre) {
  request_.add_raw_input_contents(std::string("\2\0\0\0\xff\0\0\0\0\0", 10));
  ASSERT_TRUE(Decode().ok()) << Decode();
  EXPECT_EQ(decoded_.views[0].shape(), (Shape{1, 2}));
  EXPECT_THAT(Texts(), ElementsAre(std::string_view("\xff\0", 2), ""));
  EXPECT_EQ(Texts()[0].data(), request_.raw_input_contents(0).data() + 4);
}

TEST_F(BytesDecoderTest, ElementsInPiecesAreJoined) {
  const std::string_view raw("\2\0\0\0ab\1\0\0\0c", 11);
  for (size_t cut = 0; cut <= raw.size(); ++cut) {
    const std::array<std::string_view, 2> pieces = {raw.substr(0, cut), raw.substr(cut)};
    decoded_ = {};
    ASSERT_TRUE(
        DecodeInputs(request_, {WireBytes(pieces)}, signature_, recipes_, 4, decoded_).ok());
    EXPECT_FALSE(decoded_.views[0].in_pieces());
    EXPECT_THAT(Texts(), ElementsAre("ab", "c")) << cut;
  }
}

TEST_F(BytesDecoderTest, TypedElementsAreSeenWhereTheyAre) {
  auto& contents = *request_.mutable_inputs(0)->mutable_contents();
  contents.add_bytes_contents("a long string that is no small one");
  contents.add_bytes_contents("");
  ASSERT_TRUE(Decode().ok()) << Decode();
  EXPECT_THAT(Texts(), ElementsAre("a long string that is no small one", ""));
  EXPECT_EQ(Texts()[0].data(), contents.bytes_contents(0).data());
  contents.add_int_contents(1);
  EXPECT_EQ(Refusal(), "input \"text\": contents of BYTES go into bytes_contents alone");
}

TEST_F(BytesDecoderTest, LengthsAndCountsMustFit) {
  std::string& raw = *request_.add_raw_input_contents();
  raw = std::string("\1\0\0\0a\5\0\0\0b", 10);
  EXPECT_EQ(Refusal(),
            "input \"text\": raw_input_contents: element 1: expected 5 bytes by its length, got 1");
  raw = std::string("\1\0\0\0a\1\0", 7);
  EXPECT_EQ(Refusal(),
            "input \"text\": raw_input_contents: element 1: length, expected 4 bytes, got 2");
  raw = std::string("\1\0\0\0a", 5);
  EXPECT_EQ(Refusal(), "input \"text\": elements, expected 2 for BYTES [1,2], got 1");
  raw = std::string(12, '\0');
  EXPECT_EQ(Refusal(),
            "input \"text\": raw_input_contents: elements, expected 2 by the shape, got more");
  request_.mutable_inputs(0)->set_datatype("FP32");
  EXPECT_EQ(Refusal(), "input \"text\": datatype, expected BYTES, got FP32");
}

/// A request that is nothing but the bytes of its input.
class OnlyInputTest : public InputDecoderTest {
 protected:
  OnlyInputTest() { Take({"x", DType::kF32, {kUnknownDim, 2, 3}}, true); }
  void Take(const TensorInfo& input, bool batches) {
    signature_.inputs = {input};
    signature_.batches = batches;
    recipes_ = {*InputRecipe::Make(input, nullptr)};
  }
  absl::Status DecodeBody(std::string body) {
    request_.Clear();
    decoded_ = {};
    body_ = std::move(body);
    RawInputs raw_inputs;
    OCTET_RETURN_IF_ERROR(DescribeOnlyInput(signature_, body_, request_, raw_inputs));
    return DecodeInputs(request_, raw_inputs, signature_, recipes_, 4, decoded_);
  }
  std::string BodyRefusal(size_t bytes) {
    const absl::Status status = DecodeBody(std::string(bytes, 'x'));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(Message(status));
  }
  std::string body_;
};

TEST_F(OnlyInputTest, IsOneRowWhereTheModelBatches) {
  ASSERT_TRUE(DecodeBody(std::string(24, 'x')).ok());
  EXPECT_EQ(decoded_.views[0].shape(), (Shape{1, 2, 3}));
  EXPECT_EQ(decoded_.views[0].data, body_.data()) << "seen where it is";
  EXPECT_EQ(BodyRefusal(48), "input \"x\": bytes, expected 24 for FP32 [1,2,3], got 48");
  EXPECT_EQ(BodyRefusal(0), "input \"x\": bytes, expected 24 for FP32 [1,2,3], got 0");
}

TEST_F(OnlyInputTest, OneOpenExtentFollowsFromItsSize) {
  Take({"x", DType::kI16, {kUnknownDim, 3, kUnknownDim}}, true);
  ASSERT_TRUE(DecodeBody(std::string(30, 'x')).ok());
  EXPECT_EQ(decoded_.views[0].shape(), (Shape{1, 3, 5}));
  EXPECT_EQ(BodyRefusal(31),
            "input \"x\": raw bytes, expected a multiple of 6 for INT16 [?,3,?], got 31");
  ASSERT_TRUE(DecodeBody("").ok());
  EXPECT_EQ(decoded_.views[0].shape(), (Shape{1, 3, 0})) << "nothing is a size, too";
  Take({"x", DType::kU8, {kUnknownDim, 3}}, false);
  ASSERT_TRUE(DecodeBody(std::string(12, 'x')).ok());
  EXPECT_EQ(decoded_.views[0].shape(), (Shape{4, 3})) << "no row: the model does not batch";
}

TEST_F(OnlyInputTest, OfBytesItIsTheOneElement) {
  Take({"x", DType::kString, {kUnknownDim, 1}}, true);
  const std::string picture = "a picture that is no small string\xff";
  ASSERT_TRUE(DecodeBody(picture).ok());
  EXPECT_EQ(decoded_.views[0].shape(), (Shape{1, 1}));
  EXPECT_EQ(decoded_.views[0].span<std::string_view>()[0], picture);
  ASSERT_TRUE(DecodeBody("").ok());
  Take({"x", DType::kString, {kUnknownDim}}, false);
  ASSERT_TRUE(DecodeBody(picture).ok());
  EXPECT_EQ(decoded_.views[0].shape(), (Shape{1}));
  Take({"x", DType::kString, {kUnknownDim, 2}}, true);
  EXPECT_EQ(BodyRefusal(9), "input \"x\": raw bytes are one element, the model takes [?,2]");
}

TEST_F(OnlyInputTest, WhatItsBytesDoNotTellIsRefused) {
  Take({"x", DType::kF32, {kUnknownDim, kUnknownDim, kUnknownDim}}, true);
  EXPECT_EQ(
      BodyRefusal(16),
      "input \"x\": its shape does not follow from raw bytes, expected at most one open extent "
      "beside the rows, got [?,?,?]");
  TensorInfo any = {"x", DType::kF32, {}};
  any.rank_known = false;
  Take(any, false);
  EXPECT_EQ(BodyRefusal(16),
            "input \"x\": its shape does not follow from raw bytes: any rank fits");
  Take({"x", DType::kF32, {0, kUnknownDim}}, false);
  EXPECT_THAT(BodyRefusal(16), HasSubstr("expected a multiple of 0"));
  signature_.inputs.push_back({"y", DType::kF32, {2}});
  EXPECT_EQ(BodyRefusal(16), "raw bytes are one input, the model takes 2: \"x\", \"y\"");
}

}  // namespace input_decoder_test
}  // namespace octet

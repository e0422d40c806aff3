#include "server/http/infer_codec.h"

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/bytes_elements.h"
#include "engine/tensor/status.h"

namespace octet {
namespace infer_codec_test {

using ::testing::HasSubstr;

template <typename T>
std::string Raw(std::vector<T> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::string RawStrings(const std::vector<std::string>& texts) {
  std::string wire;
  for (const std::string& text : texts) AppendBytesElement(text, wire);
  return wire;
}

struct InferCodecTest : ::testing::Test {
  absl::Status Read(std::string json, const std::string& binary = "") {
    call = std::make_unique<HttpInference>();
    const size_t length = json.size();
    call->body = std::move(json) + binary;
    return ReadInferBody(binary.empty() ? std::nullopt : std::optional<uint64_t>(length), *call);
  }
  /// One input "x" with these members.
  absl::Status ReadX(const std::string& members, const std::string& binary = "") {
    return Read("{\"inputs\":[{\"name\":\"x\"," + members + "}]}", binary);
  }
  std::string Refusal(const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(Message(status));
  }
  /// Writes `raw` as JSON, and reads it back.
  void ExpectBothWays(const std::string& datatype, const std::string& data, const std::string& raw,
                      int64_t elements) {
    SCOPED_TRACE(datatype + data);
    const std::string shape = Format("\"shape\":[{}]", elements);
    const absl::Status status =
        ReadX(Format("\"datatype\":\"{}\",{},\"data\":{}", datatype, shape, data));
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(call->raw_inputs.at(0)->whole(), raw);
    call = std::make_unique<HttpInference>();
    auto& output = *call->response.add_outputs();
    output.set_name("y");
    output.set_datatype(datatype);
    output.add_shape(elements);
    call->response.add_raw_output_contents(raw);
    const auto answer = WriteInferAnswer(*call);
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_THAT(answer->json,
                HasSubstr(Format("\"datatype\":\"{}\",{},\"data\":{}}}", datatype, shape, data)));
  }

  std::unique_ptr<HttpInference> call;
};

TEST_F(InferCodecTest, WhatCostsMoreMemoryThanItsBytesIsBounded) {
  const auto many = [](int count, const std::string& one) {
    std::string list = one;
    for (int i = 1; i < count; ++i) list += "," + one;
    return list;
  };
  const auto named = [](int count) {
    std::string list = "\"p0\":0";
    for (int i = 1; i < count; ++i) list += Format(",\"p{}\":0", i);
    return list;
  };
  EXPECT_THAT(Refusal(Read("{\"inputs\":[" + many(1025, "{}") + "]}")),
              HasSubstr("inputs: expected at most 1024"));
  EXPECT_EQ(call->request.inputs_size(), 1024) << "the rest is not even read";
  EXPECT_THAT(Refusal(Read("{\"outputs\":[" + many(1025, "{}") + "]}")),
              HasSubstr("outputs: expected at most 1024"));
  EXPECT_TRUE(Read("{\"outputs\":[" + many(1024, "{}") + "]}").ok());
  EXPECT_THAT(Refusal(ReadX("\"shape\":[" + many(65, "1") + "]")),
              HasSubstr("shape: expected at most 64 extents"));
  EXPECT_THAT(Refusal(Read("{\"parameters\":{" + named(257) + "}}")),
              HasSubstr("parameters: expected at most 256"));
  EXPECT_TRUE(Read("{\"parameters\":{" + named(256) + "}}").ok());
  EXPECT_THAT(Refusal(ReadX("\"parameters\":{" + named(257) + "}")),
              HasSubstr("parameters: expected at most 256"));
}

TEST_F(InferCodecTest, EveryDatatypeIsJsonBothWays) {
  ExpectBothWays("BOOL", "[true,false]", {"\1\0", 2}, 2);
  ExpectBothWays("INT8", "[-128,127]", Raw<int8_t>({-128, 127}), 2);
  ExpectBothWays("UINT8", "[0,255]", Raw<uint8_t>({0, 255}), 2);
  ExpectBothWays("INT16", "[-32768]", Raw<int16_t>({-32768}), 1);
  ExpectBothWays("UINT16", "[65535]", Raw<uint16_t>({65535}), 1);
  ExpectBothWays("INT32", "[-2147483648]", Raw<int32_t>({INT32_MIN}), 1);
  ExpectBothWays("UINT32", "[4294967295]", Raw<uint32_t>({UINT32_MAX}), 1);
  ExpectBothWays("INT64", "[-9223372036854775808]", Raw<int64_t>({INT64_MIN}), 1);
  ExpectBothWays("UINT64", "[18446744073709551615]", Raw<uint64_t>({UINT64_MAX}), 1);
  ExpectBothWays("FP16", "[1.5,-2]", Raw<uint16_t>({0x3E00, 0xC000}), 2);
  ExpectBothWays("BF16", "[1.5,-2]", Raw<uint16_t>({0x3FC0, 0xC000}), 2);
  ExpectBothWays("FP32", "[0.1,1e-10,-0,3]", Raw<float>({0.1F, 1e-10F, -0.0F, 3}), 4);
  ExpectBothWays("FP64", "[0.1,1e+300]", Raw<double>({0.1, 1e300}), 2);
  ExpectBothWays("BYTES", R"(["a\"b","","é"])", RawStrings({"a\"b", "", "é"}), 3);
  ExpectBothWays("FP32", "[Infinity,-Infinity]", Raw<float>({INFINITY, -INFINITY}), 2);
  ExpectBothWays("FP32", "[]", "", 0);
}

TEST_F(InferCodecTest, NotANumberIsWrittenAsPythonReadsIt) {
  ASSERT_TRUE(ReadX(R"("datatype":"FP32","shape":[1],"data":[NaN])").ok());
  float value = 0;
  std::memcpy(&value, call->raw_inputs.at(0)->whole().data(), sizeof(value));
  EXPECT_TRUE(std::isnan(value));
}

TEST_F(InferCodecTest, DataIsFlatOrNestedAndMayComeBeforeItsDatatype) {
  for (const char* data : {"[1,2,3,4]", "[[1,2],[3,4]]", "[[[1],[2]],[[3],[4]]]"}) {
    ASSERT_TRUE(ReadX(Format(R"("data":{},"shape":[2,2],"datatype":"INT8")", data)).ok());
    EXPECT_EQ(call->raw_inputs.at(0)->whole(), Raw<int8_t>({1, 2, 3, 4}));
  }
}

TEST_F(InferCodecTest, BinaryTensorsStayInTheBody) {
  const std::string json =
      R"({"id":"7","parameters":{"precision":"int8","timeout":5,"share":0.5,"on":true,"binary_data_output":true},)"
      R"("inputs":[{"name":"a","datatype":"INT8","shape":[2],"parameters":{"binary_data_size":2}},)"
      R"({"name":"b","datatype":"INT8","shape":[1],"data":[9]},)"
      R"({"name":"c","datatype":"INT8","shape":[3],"parameters":{"binary_data_size":3,"own":"x"}}],)"
      R"("outputs":[{"name":"y","parameters":{"binary_data":false,"classification":2}},{"name":"z"}],"model_name":"?"})";
  ASSERT_TRUE(Read(json, "abcde").ok());
  EXPECT_EQ(call->raw_inputs.at(0)->whole(), "ab");
  EXPECT_EQ(call->raw_inputs.at(0)->whole().data(), call->body.data() + json.size())
      << "not copied";
  EXPECT_EQ(call->raw_inputs.at(1)->whole(), "\x9");
  EXPECT_EQ(call->raw_inputs.at(2)->whole(), "cde");
  const auto& parameters = call->request.parameters();
  EXPECT_EQ(call->request.id(), "7");
  EXPECT_EQ(parameters.size(), 4U);
  EXPECT_EQ(parameters.at("precision").string_param(), "int8");
  EXPECT_EQ(parameters.at("timeout").int64_param(), 5);
  EXPECT_EQ(parameters.at("share").double_param(), 0.5);
  EXPECT_TRUE(parameters.at("on").bool_param());
  EXPECT_EQ(call->request.inputs(2).parameters().size(), 1U);
  EXPECT_EQ(call->request.outputs(0).parameters().at("classification").int64_param(), 2);
  for (const char* name : {"y", "z"}) {
    auto& output = *call->response.add_outputs();
    output.set_name(name);
    output.set_datatype("INT8");
    output.add_shape(1);
    call->response.add_raw_output_contents("\x8");
  }
  const auto answer = WriteInferAnswer(*call);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(answer->json, HasSubstr(R"("shape":[1],"data":[8]},{"name":"z")"));
  EXPECT_THAT(answer->json, HasSubstr(R"("parameters":{"binary_data_size":1}})"));
  ASSERT_EQ(answer->binary.size(), 1U);
  EXPECT_EQ(answer->binary[0].data(), call->response.raw_output_contents(1).data());
}

TEST_F(InferCodecTest, SizesMustAddUp) {
  const auto sized = [](const std::string& size) {
    return R"("datatype":"INT8","shape":[2],"parameters":{"binary_data_size":)" + size + "}";
  };
  EXPECT_TRUE(ReadX(sized("2"), "ab").ok());
  EXPECT_THAT(Refusal(ReadX(sized("3"), "ab")), HasSubstr("expected 0 .. 2"));
  EXPECT_THAT(Refusal(ReadX(sized("1"), "ab")), HasSubstr("1 bytes are left"));
  EXPECT_THAT(Refusal(ReadX(sized("-1"), "ab")), HasSubstr("got -1"));
  EXPECT_THAT(Refusal(ReadX(sized("9223372036854775807"), "ab")), HasSubstr("expected 0 .. 2"));
  EXPECT_THAT(Refusal(ReadX(sized("9223372036854775808"), "ab")), HasSubstr("whole number"));
  EXPECT_THAT(Refusal(ReadX(sized("\"2\""), "ab")), HasSubstr("a number"));
  EXPECT_THAT(Refusal(ReadX(sized("2"))), HasSubstr("expected 0 .. 0")) << "no header, no bytes";
  HttpInference longer;
  longer.body = "{}";
  EXPECT_EQ(Refusal(ReadInferBody(3, longer)),
            "Inference-Header-Content-Length: expected at most 2 (the body), got 3");
}

TEST_F(InferCodecTest, ABodyWithoutJsonIsRaw) {
  HttpInference raw;
  raw.body = "{}";
  ASSERT_TRUE(ReadInferBody(0, raw).ok());
  EXPECT_TRUE(raw.is_raw);
  EXPECT_TRUE(raw.binary_by_default);
  EXPECT_EQ(raw.body, "{}");
  EXPECT_GE(raw.bytes, 2U);
  ASSERT_TRUE(Read("{}").ok());
  EXPECT_FALSE(call->is_raw);
}

TEST_F(InferCodecTest, AnInputHasItsElementsInOnePlace) {
  EXPECT_THAT(Refusal(ReadX(R"("datatype":"INT8","shape":[2])")), HasSubstr("got none"));
  EXPECT_THAT(
      Refusal(ReadX(
          R"("datatype":"INT8","shape":[1],"data":[1],"parameters":{"binary_data_size":1})", "a")),
      HasSubstr("got more"));
  EXPECT_THAT(
      Refusal(ReadX(
          R"("datatype":"INT8","shape":[1],"data":[1],"parameters":{"shared_memory_region":"r"})")),
      HasSubstr("got more"));
  ASSERT_TRUE(
      ReadX(R"("datatype":"INT8","shape":[1],"parameters":{"shared_memory_region":"r"})").ok());
  EXPECT_FALSE(call->raw_inputs.at(0).has_value());
}

TEST_F(InferCodecTest, ElementsMustBeOfTheDatatype) {
  const auto refusal = [&](const char* datatype, const char* data) {
    return Refusal(ReadX(Format(R"("datatype":"{}","shape":[1],"data":{})", datatype, data)));
  };
  EXPECT_EQ(refusal("INT8", "[128]"),
            "input \"x\": data: expected a whole number in -128 .. 127, got 128");
  EXPECT_THAT(refusal("INT8", "[1.5]"), HasSubstr("whole number"));
  EXPECT_THAT(refusal("FP32", "[\"1\"]"), HasSubstr("a number"));
  EXPECT_THAT(refusal("FP32", "[null]"), HasSubstr("a number"));
  EXPECT_THAT(refusal("FP32", "[1e39]"), HasSubstr("1e39"));
  EXPECT_THAT(refusal("BYTES", "[1]"), HasSubstr("text"));
  EXPECT_THAT(refusal("BOOL", "[2]"), HasSubstr("true, false, 0 or 1"));
  EXPECT_THAT(refusal("FP32", "1"), HasSubstr("an array"));
}

TEST_F(InferCodecTest, MembersMustBeOfTheirKind) {
  for (const char* json :
       {"", "[]", "7", "{\"inputs\":{}}", "{\"inputs\":[7]}", "{\"id\":7}", "{\"parameters\":[]}",
        "{\"outputs\":[{\"name\":7}]}", "{\"inputs\":[]} x", "{\"parameters\":{\"a\":[1]}}",
        "{\"parameters\":{\"a\":null}}", "{\"parameters\":{\"binary_data_output\":1}}",
        "{\"inputs\":[{\"shape\":[1.5]}]}", "{\"inputs\":[{\"shape\":[[1]]}]}"}) {
    EXPECT_THAT(Refusal(Read(json)), HasSubstr("expected")) << json;
  }
}

TEST_F(InferCodecTest, BytesThatAreNotUtf8AreNoJson) {
  call = std::make_unique<HttpInference>();
  auto& output = *call->response.add_outputs();
  output.set_name("y");
  output.set_datatype("BYTES");
  output.add_shape(2);
  call->response.add_raw_output_contents(RawStrings({"a", "\xff"}));
  EXPECT_EQ(Refusal(call->CheckAnswer()),
            "output \"y\": element 1 is not UTF-8: ask for it as binary data");
  call->binary = {true};
  EXPECT_TRUE(call->CheckAnswer().ok());
  call->binary.clear();
  call->binary_by_default = true;
  EXPECT_TRUE(call->CheckAnswer().ok());
  call->binary_by_default = false;
  *call->response.mutable_raw_output_contents(0) = RawStrings({"a", "\xc3\xbf"});
  EXPECT_TRUE(call->CheckAnswer().ok());
}

TEST_F(InferCodecTest, DamagedBodiesDoNoHarm) {
  const std::string good =
      R"({"inputs":[{"name":"a","datatype":"INT8","shape":[2],"parameters":{"binary_data_size":2}},)"
      R"({"name":"b","datatype":"FP32","shape":[1],"data":[9.5]},{"name":"c","datatype":"BYTES","shape":[1],"data":["t"]}],)"
      R"("outputs":[{"name":"y","parameters":{"binary_data":true}}]})";
  std::mt19937 random(22);
  for (int round = 0; round < 5'000; ++round) {
    std::string text = good;
    for (uint32_t changes = random() % 3 + 1; changes > 0; --changes) {
      text[random() % text.size()] = static_cast<char>(random());
    }
    HttpInference damaged;
    damaged.body = text + "ab";
    const absl::Status status = ReadInferBody(random() % (text.size() + 4), damaged);
    EXPECT_TRUE(status.ok() || absl::IsInvalidArgument(status)) << text;
  }
}

}  // namespace infer_codec_test
}  // namespace octet

#include "engine/onnx/tensor_proto.h"

#include <limits>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/unit/engine/onnx/model_builder.h"

namespace octet::test {
namespace tensor_proto_test {

using onnx::TensorProto;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kPlenty = 1 << 20;

TensorProto Proto(TensorProto::DataType type, std::vector<int64_t> dims) {
  TensorProto proto;
  proto.set_name("t");
  proto.set_data_type(type);
  for (const int64_t d : dims) proto.add_dims(d);
  return proto;
}

absl::StatusOr<Tensor> ReadProto(TensorProto proto, ExternalDataReader* external = nullptr) {
  return TensorReader(kPlenty, external).Read(proto);
}

void ExpectInvalid(const TensorProto& proto, const std::string& message) {
  const absl::Status status = ReadProto(proto).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
  EXPECT_THAT(std::string(Message(status)), HasSubstr(message));
  EXPECT_THAT(std::string(Message(status)), HasSubstr("tensor 't'"));
}

// The same three elements through the typed field and through raw_data.
template <typename T, typename Add>
void ExpectBothEncodings(TensorProto::DataType type, std::vector<T> values, const Add& add) {
  TensorProto typed = Proto(type, {3});
  for (const T v : values) add(typed, v);
  TensorProto raw = Proto(type, {3});
  raw.set_raw_data(values.data(), values.size() * sizeof(T));
  for (const TensorProto& proto : {typed, raw}) {
    const auto tensor = ReadProto(proto);
    ASSERT_TRUE(tensor.ok()) << tensor.status().ToString();
    EXPECT_EQ(tensor->dtype(), DTypeOf<T>);
    // NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): the very bytes
    EXPECT_EQ(std::memcmp(tensor->data(), values.data(), 3 * sizeof(T)), 0)
        << DTypeName(DTypeOf<T>);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor->data()) % kTensorAlignment, 0u);
  }
}

TEST(TensorProtoTest, ReadsEveryTypeFromBothEncodings) {
  const auto int32 = [](TensorProto& p, auto v) { p.add_int32_data(v); };
  const auto uint64 = [](TensorProto& p, auto v) { p.add_uint64_data(v); };
  const auto bits = [](TensorProto& p, auto v) { p.add_int32_data(v.bits); };
  ExpectBothEncodings<float>(TensorProto::FLOAT, {1.5f, -0.0f, 3e38f},
                             [](TensorProto& p, float v) { p.add_float_data(v); });
  ExpectBothEncodings<double>(TensorProto::DOUBLE, {1e300, -2, 0.1},
                              [](TensorProto& p, double v) { p.add_double_data(v); });
  ExpectBothEncodings<int64_t>(TensorProto::INT64, {-1, std::numeric_limits<int64_t>::max(), 0},
                               [](TensorProto& p, int64_t v) { p.add_int64_data(v); });
  ExpectBothEncodings<uint64_t>(TensorProto::UINT64, {~uint64_t{0}, 1, 0}, uint64);
  ExpectBothEncodings<uint32_t>(TensorProto::UINT32, {~uint32_t{0}, 1, 0}, uint64);
  ExpectBothEncodings<int32_t>(TensorProto::INT32, {std::numeric_limits<int32_t>::min(), 1, 0},
                               int32);
  ExpectBothEncodings<int16_t>(TensorProto::INT16, {-32768, 32767, 0}, int32);
  ExpectBothEncodings<uint16_t>(TensorProto::UINT16, {65535, 1, 0}, int32);
  ExpectBothEncodings<int8_t>(TensorProto::INT8, {-128, 127, 0}, int32);
  ExpectBothEncodings<uint8_t>(TensorProto::UINT8, {255, 1, 0}, int32);
  ExpectBothEncodings<Half>(TensorProto::FLOAT16, {Half{0x3c00}, Half{0xffff}, Half{0}}, bits);
  ExpectBothEncodings<BFloat16>(TensorProto::BFLOAT16,
                                {BFloat16{0x3f80}, BFloat16{0xc000}, BFloat16{0}}, bits);
}

TEST(TensorProtoTest, ReadsHalvesWhoseSignWasExtended) {
  TensorProto proto = Proto(TensorProto::FLOAT16, {1});
  proto.add_int32_data(static_cast<int16_t>(0xbc00));
  EXPECT_EQ(ReadProto(proto)->span<Half>()[0].bits, 0xbc00);
}

TEST(TensorProtoTest, MakesBoolsZeroOrOne) {
  TensorProto raw = Proto(TensorProto::BOOL, {3});
  raw.set_raw_data(std::string("\x00\x01\xc8", 3));
  const auto tensor = ReadProto(raw);
  ASSERT_TRUE(tensor.ok());
  const auto* bytes = static_cast<const uint8_t*>(tensor->data());
  EXPECT_THAT(std::vector<int>(bytes, bytes + 3), ElementsAre(0, 1, 1));
  TensorProto typed = Proto(TensorProto::BOOL, {1});
  typed.add_int32_data(2);
  ExpectInvalid(typed, "element 0 does not fit BOOL: 2");
}

// Elements of 4 bits, in bytes of two: through int32_data and through raw_data.
std::vector<std::vector<int>> FourBitElements(TensorProto::DataType type, int64_t count,
                                              std::string bytes) {
  TensorProto typed = Proto(type, {count});
  for (const char byte : bytes) typed.add_int32_data(static_cast<uint8_t>(byte));
  TensorProto extended = Proto(type, {count});
  for (const char byte : bytes) extended.add_int32_data(static_cast<int8_t>(byte));
  TensorProto raw = Proto(type, {count});
  raw.set_raw_data(bytes);
  std::vector<std::vector<int>> read;
  for (const TensorProto& proto : {typed, extended, raw}) {
    const auto tensor = ReadProto(proto);
    if (!tensor.ok()) {
      ADD_FAILURE() << tensor.status();
      continue;
    }
    std::vector<int>& elements = read.emplace_back();
    for (int64_t i = 0; i < tensor->elements(); ++i) {
      const auto at = static_cast<size_t>(i);
      elements.push_back(tensor->dtype() == DType::kI8 ? int{tensor->span<int8_t>()[at]}
                                                       : int{tensor->span<uint8_t>()[at]});
    }
  }
  return read;
}

TEST(TensorProtoTest, UnpacksFourBitsTheLowOnesFirst) {
  using ::testing::Each;
  EXPECT_THAT(FourBitElements(TensorProto::INT4, 4, "\x87\x1f"), Each(ElementsAre(7, -8, -1, 1)));
  EXPECT_THAT(FourBitElements(TensorProto::UINT4, 4, "\x87\x1f"), Each(ElementsAre(7, 8, 15, 1)));
  // What is behind the last of an odd number means nothing.
  EXPECT_THAT(FourBitElements(TensorProto::INT4, 3, "\x21\xf3"), Each(ElementsAre(1, 2, 3)));
  EXPECT_THAT(FourBitElements(TensorProto::UINT4, 1, "\xf9"), Each(ElementsAre(9)));
  EXPECT_THAT(FourBitElements(TensorProto::INT4, 0, ""), Each(ElementsAre()));
  std::string bytes;
  std::vector<int> expected;
  for (int i = 0; i < 1001; ++i) {
    bytes.push_back(static_cast<char>(i % 16 | i * 7 % 16 << 4));
    expected.push_back(i % 16);
    expected.push_back(i * 7 % 16);
  }
  for (const int64_t count : {2002, 2001}) {
    expected.resize(static_cast<size_t>(count));
    EXPECT_THAT(FourBitElements(TensorProto::UINT4, count, bytes), Each(expected));
  }
}

TEST(TensorProtoTest, RefusesFourBitsOfAnotherCount) {
  TensorProto raw = Proto(TensorProto::INT4, {3});
  raw.set_raw_data("123");
  ExpectInvalid(raw, "raw_data for shape [3] of INT4: expected 2, got 3");
  raw.set_data_type(TensorProto::UINT4);
  raw.set_raw_data("1");
  ExpectInvalid(raw, "raw_data for shape [3] of UINT4: expected 2, got 1");
  TensorProto typed = Proto(TensorProto::INT4, {3});
  typed.add_int32_data(1);
  ExpectInvalid(typed, "int32_data, a byte of two each: expected 2 by the shape, got 1");
  typed.add_int32_data(256);
  ExpectInvalid(typed, "element 1 of int32_data is no byte: 256");
  TensorProto claims = Proto(TensorProto::UINT4, {1000});
  claims.add_int32_data(1);
  ExpectInvalid(claims, "too few elements for shape [1000]");
  ExpectInvalid(Proto(TensorProto::INT4, {2}), "expected 1, got 0");
}

TEST(TensorProtoTest, ReadsScalarsAndEmptyTensors) {
  TensorProto scalar = Proto(TensorProto::FLOAT, {});
  scalar.add_float_data(7);
  EXPECT_EQ(ReadProto(scalar)->shape().rank(), 0);
  const auto empty = ReadProto(Proto(TensorProto::FLOAT, {0, 5}));
  ASSERT_TRUE(empty.ok());
  EXPECT_EQ(empty->elements(), 0);
  EXPECT_FALSE(empty->empty_handle());
}

TEST(TensorProtoTest, RefusesCountsThatContradictTheShape) {
  TensorProto typed = Proto(TensorProto::FLOAT, {3});
  typed.add_float_data(1);
  ExpectInvalid(typed, "float_data: expected 3 by the shape, got 1");
  TensorProto raw = Proto(TensorProto::FLOAT, {3});
  raw.set_raw_data("12345678");
  ExpectInvalid(raw, "raw_data for shape [3] of FP32: expected 12, got 8");
  ExpectInvalid(Proto(TensorProto::FLOAT, {1}), "expected 4, got 0");
  TensorProto other_field = Proto(TensorProto::FLOAT, {1});
  other_field.add_int64_data(1);
  ExpectInvalid(other_field, "float_data: expected 1 by the shape, got 0");
}

TEST(TensorProtoTest, RefusesShapesThatNoDataBack) {
  TensorProto overflow = Proto(TensorProto::FLOAT, {int64_t{1} << 32, int64_t{1} << 32});
  ExpectInvalid(overflow, "impossible shape");
  ExpectInvalid(Proto(TensorProto::FLOAT, {-1}), "impossible shape");
  ExpectInvalid(Proto(TensorProto::FLOAT, std::vector<int64_t>(33, 1)), "rank 33 is above 32");
  TensorProto claims = Proto(TensorProto::FLOAT, {1000});
  claims.add_float_data(1);
  ExpectInvalid(claims, "too few elements for shape [1000]");
  const auto over_budget = ReadProto(Proto(TensorProto::FLOAT, {1 << 20}));
  EXPECT_EQ(over_budget.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(TensorProtoTest, RefusesTwoEncodingsAndValuesOutsideTheType) {
  TensorProto both = Proto(TensorProto::FLOAT, {1});
  both.add_float_data(1);
  both.set_raw_data("1234");
  ExpectInvalid(both, "more than one encoding");
  TensorProto wide = Proto(TensorProto::UINT8, {1});
  wide.add_int32_data(256);
  ExpectInvalid(wide, "element 0 does not fit UINT8: 256");
}

TEST(TensorProtoTest, NamesTypesThatItDoesNotKnow) {
  for (const auto type : {TensorProto::COMPLEX64, TensorProto::FLOAT8E4M3FN}) {
    const absl::Status status = ReadProto(Proto(type, {1})).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(Message(status)), HasSubstr(TensorProto::DataType_Name(type)));
    EXPECT_THAT(std::string(Message(status)), HasSubstr("tensor 't'"));
  }
  ExpectInvalid(Proto(TensorProto::UNDEFINED, {1}), "no element type of ONNX: 0");
  TensorProto unheard = Proto(TensorProto::FLOAT, {1});
  unheard.set_data_type(99);
  ExpectInvalid(unheard, "no element type of ONNX: 99");
}

TEST(TensorProtoTest, ReleasesWhatItHasRead) {
  TensorProto proto = Proto(TensorProto::FLOAT, {2});
  proto.set_raw_data("12345678");
  TensorReader reader(8, nullptr);
  ASSERT_TRUE(reader.Read(proto).ok());
  EXPECT_FALSE(proto.has_raw_data());
  EXPECT_EQ(proto.name(), "t");
  proto = Proto(TensorProto::UINT8, {1});
  proto.set_raw_data("1");
  EXPECT_EQ(reader.Read(proto).status().code(), absl::StatusCode::kResourceExhausted)
      << "the budget is for all tensors together";
}

class ExternalDataTest : public testing::Test {
 protected:
  ExternalDataTest() {
    std::filesystem::create_directories(folder.path() / "model" / "sub");
    WriteText(folder / "model/weights.bin", "01234567");
    WriteText(folder / "model/sub/more.bin", "abcd");
    WriteText(folder / "secret.bin", "secret!!");
  }

  absl::StatusOr<Tensor> ReadFrom(const std::string& location, const std::string& offset = "",
                                  const std::string& length = "", int64_t elements = 4,
                                  TensorProto::DataType type = TensorProto::UINT8) {
    TensorProto proto = Proto(type, {elements});
    proto.set_data_location(TensorProto::EXTERNAL);
    const auto add = [&](const char* key, const std::string& value) {
      if (value.empty()) return;
      proto.add_external_data()->set_key(key);
      proto.mutable_external_data()->rbegin()->set_value(value);
    };
    add("location", location);
    add("offset", offset);
    add("length", length);
    ExternalDataReader external(folder / "model/model.onnx");
    return ReadProto(proto, &external);
  }

  void ExpectCode(const absl::StatusOr<Tensor>& tensor, absl::StatusCode code,
                  const std::string& message) {
    EXPECT_EQ(tensor.status().code(), code) << tensor.status().ToString();
    EXPECT_THAT(std::string(Message(tensor.status())), HasSubstr(message));
  }

  TemporaryFolder folder;
};

TEST_F(ExternalDataTest, ReadsARange) {
  EXPECT_THAT(ReadFrom("weights.bin", "2", "4")->span<uint8_t>(), ElementsAre('2', '3', '4', '5'));
  EXPECT_THAT(ReadFrom("weights.bin")->span<uint8_t>(), ElementsAre('0', '1', '2', '3'));
  EXPECT_THAT(ReadFrom("sub/more.bin")->span<uint8_t>(), ElementsAre('a', 'b', 'c', 'd'));
  EXPECT_TRUE(ReadFrom("weights.bin", "8", "0", 0).ok()) << "empty, at the end";
  // Two of 4 bits in a byte: '1' is 0x31.
  EXPECT_THAT(ReadFrom("weights.bin", "1", "2", 3, TensorProto::UINT4)->span<uint8_t>(),
              ElementsAre(1, 3, 2));
  ExpectCode(ReadFrom("weights.bin", "1", "3", 3, TensorProto::UINT4),
             absl::StatusCode::kInvalidArgument, "expected 2 bytes, got 3");
}

TEST_F(ExternalDataTest, RefusesPathsThatLeadOut) {
  for (const std::string location : {"../secret.bin", "sub/../../secret.bin", "..", "sub/.."}) {
    ExpectCode(ReadFrom(location), absl::StatusCode::kInvalidArgument, "outside");
  }
  ExpectCode(ReadFrom(folder / "model/weights.bin"), absl::StatusCode::kInvalidArgument, "outside");
  ExpectCode(ReadFrom(""), absl::StatusCode::kInvalidArgument, "outside");
  ExpectCode(ReadFrom(std::string("weights.bin\0x", 13)), absl::StatusCode::kInvalidArgument,
             "outside");
}

TEST_F(ExternalDataTest, RefusesLinksThatLeadOutAndFollowsThoseThatStay) {
  std::filesystem::create_symlink("../secret.bin", folder.path() / "model/out.bin");
  std::filesystem::create_directory_symlink("..", folder.path() / "model/up");
  std::filesystem::create_symlink("weights.bin", folder.path() / "model/in.bin");
  ExpectCode(ReadFrom("out.bin"), absl::StatusCode::kInvalidArgument, "through a link");
  ExpectCode(ReadFrom("up/secret.bin"), absl::StatusCode::kInvalidArgument, "through a link");
  EXPECT_TRUE(ReadFrom("in.bin").ok());
}

TEST_F(ExternalDataTest, AFolderWhoseNameOnlyStartsAlikeIsOutside) {
  std::filesystem::create_directories(folder.path() / "model2");
  WriteText(folder / "model2/w.bin", "0123");
  std::filesystem::create_symlink("../model2/w.bin", folder.path() / "model/alike.bin");
  ExpectCode(ReadFrom("alike.bin"), absl::StatusCode::kInvalidArgument, "through a link");
}

TEST_F(ExternalDataTest, NamesMissingShortAndImpossibleFiles) {
  ExpectCode(ReadFrom("none.bin"), absl::StatusCode::kNotFound, "'none.bin'");
  ExpectCode(ReadFrom("sub"), absl::StatusCode::kInvalidArgument, "not a regular file");
  ExpectCode(ReadFrom("weights.bin", "5"), absl::StatusCode::kInvalidArgument,
             "too short: expected 4 bytes at offset 5, it has 8 in all");
  ExpectCode(ReadFrom("weights.bin", "9223372036854775807"), absl::StatusCode::kInvalidArgument,
             "too short");
  ExpectCode(ReadFrom("weights.bin", "0", "5"), absl::StatusCode::kInvalidArgument,
             "expected 4 bytes, got 5");
  for (const std::string number : {"-1", "x", "1e3", "18446744073709551616", " 1"}) {
    ExpectCode(ReadFrom("weights.bin", number), absl::StatusCode::kInvalidArgument, "no number");
  }
}

TEST_F(ExternalDataTest, IsRefusedWhereThereIsNoFolder) {
  TensorProto proto = Proto(TensorProto::UINT8, {1});
  proto.set_data_location(TensorProto::EXTERNAL);
  ExpectInvalid(proto, "external data in a model without a folder");
}

TEST_F(ExternalDataTest, ReadsAModelWithItsData) {
  onnx::ModelProto model = SmallModel();
  TensorProto& w = *model.mutable_graph()->mutable_initializer(0);
  w.clear_float_data();
  w.set_data_location(TensorProto::EXTERNAL);
  w.add_external_data()->set_key("location");
  w.mutable_external_data(0)->set_value("w.bin");
  const std::vector<float> values = {5, 6, 7, 8};
  WriteText(folder / "model/w.bin", {reinterpret_cast<const char*>(values.data()), 16});
  WriteText(folder / "model/model.onnx", model.SerializeAsString());
  const auto graph = ReadOnnxFile(folder / "model/model.onnx");
  ASSERT_TRUE(graph.ok()) << graph.status().ToString();
  EXPECT_THAT(graph->value(graph->FindValue("w")).constant.span<float>(), ElementsAre(5, 6, 7, 8));
}

TEST_F(ExternalDataTest, CountsTheBytesOfAModelBesideItsFile) {
  onnx::ModelProto model = SmallModel();
  const auto place = [](TensorProto& tensor, std::vector<std::pair<std::string, std::string>> at) {
    tensor.clear_float_data();
    tensor.set_data_type(TensorProto::FLOAT);
    tensor.set_data_location(TensorProto::EXTERNAL);
    for (const auto& [key, value] : at) {
      onnx::StringStringEntryProto& entry = *tensor.add_external_data();
      entry.set_key(key);
      entry.set_value(value);
    }
  };
  const auto beside = [&]() -> uint64_t {
    const std::string path = folder / "model/model.onnx";
    WriteText(path, model.SerializeAsString());
    const absl::StatusOr<uint64_t> bytes = OnnxFileBytes(path);
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    return bytes.ok() ? *bytes - std::filesystem::file_size(path) : 0;
  };
  EXPECT_EQ(beside(), 0U);
  TensorProto& w = *model.mutable_graph()->mutable_initializer(0);
  place(w, {{"location", "w.bin"}});
  EXPECT_EQ(beside(), 16U) << "2 x 2 floats, without a length";
  place(AddFloats(model, "same", {2, 2}, {}), {{"location", "w.bin"}, {"length", "16"}});
  EXPECT_EQ(beside(), 16U) << "a range that two share";
  place(AddFloats(model, "more", {3}, {}),
        {{"location", "w.bin"}, {"offset", "16"}, {"length", "12"}});
  onnx::AttributeProto& value = *AddNode(model, "Constant", {}, {"c"}).add_attribute();
  value.set_name("value");
  value.set_type(onnx::AttributeProto::TENSOR);
  place(*value.mutable_t(), {{"location", "c.bin"}, {"length", "8"}});
  EXPECT_EQ(beside(), 36U);
  TensorProto& packed = AddFloats(model, "packed", {5}, {});
  place(packed, {{"location", "p.bin"}});
  packed.set_data_type(TensorProto::INT4);
  EXPECT_EQ(beside(), 39U) << "two in a byte";
  WriteText(folder / "model/none.onnx", "\xff\xff");
  EXPECT_THAT(std::string(Message(OnnxFileBytes(folder / "model/none.onnx").status())),
              HasSubstr("none.onnx: not an ONNX model"));
  EXPECT_EQ(OnnxFileBytes(folder / "none.onnx").status().code(), absl::StatusCode::kNotFound);
}

TEST(TensorProtoTest, StringsGoBothWays) {
  TensorProto proto = Proto(TensorProto::STRING, {2, 1});
  proto.add_string_data("a");
  proto.add_string_data(std::string("\0\xff", 2));
  const auto tensor = ReadProto(proto);
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(tensor->dtype(), DType::kString);
  EXPECT_THAT(tensor->span<std::string_view>(), ElementsAre("a", std::string_view("\0\xff", 2)));
  TensorProto written;
  WriteTensor(*tensor, written);
  written.set_name("t");
  EXPECT_EQ(written.SerializeAsString(), proto.SerializeAsString());
}

TEST(TensorProtoTest, StringsThatAreNotThereAreRefused) {
  TensorProto proto = Proto(TensorProto::STRING, {2});
  proto.add_string_data("a");
  ExpectInvalid(proto, "number of elements in string_data: expected 2 by the shape, got 1");
  TensorProto raw = Proto(TensorProto::STRING, {1});
  raw.set_raw_data("a");
  ExpectInvalid(raw, "STRING elements are in string_data alone");
  TensorProto external = Proto(TensorProto::STRING, {1});
  external.set_data_location(TensorProto::EXTERNAL);
  ExpectInvalid(external, "STRING elements are in string_data alone");
  TensorProto floats = Proto(TensorProto::STRING, {1});
  floats.add_float_data(1);
  ExpectInvalid(floats, "expected 1 by the shape, got 0");
}

TEST(TensorProtoTest, StringsCountAgainstTheBudgetWithTheirCharacters) {
  TensorProto proto = Proto(TensorProto::STRING, {1});
  proto.add_string_data(std::string(100, 'x'));
  TensorReader reader(150, nullptr);
  TensorProto first = proto;
  EXPECT_TRUE(reader.Read(first).ok());
  EXPECT_EQ(reader.Read(proto).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace tensor_proto_test
}  // namespace octet::test

#include "engine/onnx/attribute_proto.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"

namespace octet {
namespace attribute_proto_test {

using onnx::AttributeProto;
using ::testing::HasSubstr;

absl::StatusOr<AttributeValue> ReadProto(AttributeProto proto) {
  TensorReader tensors(1 << 10, nullptr);
  return ReadAttribute(proto, tensors);
}

void ExpectError(const AttributeProto& proto, absl::StatusCode code, const std::string& message) {
  const absl::Status status = ReadProto(proto).status();
  EXPECT_EQ(status.code(), code);
  EXPECT_THAT(std::string(Message(status)), HasSubstr("attribute 'a': " + message));
}

TEST(AttributeProtoTest, EveryTypeReadsBackAsWritten) {
  const std::vector<AttributeValue> values = {int64_t{-5},
                                              0.25f,
                                              std::string("text"),
                                              std::vector<int64_t>{1, 2},
                                              std::vector<int64_t>{},
                                              std::vector<float>{0.5f},
                                              std::vector<std::string>{"a", ""}};
  for (const AttributeValue& value : values) {
    AttributeProto proto;
    WriteAttribute("a", value, proto);
    EXPECT_EQ(proto.name(), "a");
    const auto read = ReadProto(proto);
    ASSERT_TRUE(read.ok()) << read.status().ToString();
    ASSERT_EQ(read->index(), value.index());
    std::visit(
        [&]<typename T>(const T& expected) {
          if constexpr (!std::is_same_v<T, Tensor>) {
            EXPECT_EQ(std::get<T>(*read), expected);
          }
        },
        value);
  }
  AttributeProto proto;
  WriteAttribute("a", Tensor::From<int8_t>({2}, {3, -4}), proto);
  const auto read = ReadProto(proto);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(std::get<Tensor>(*read).span<int8_t>()[1], -4);
}

TEST(AttributeProtoTest, TakesTheTypeFromTheValueWhereNoneIsDeclared) {
  AttributeProto proto;
  proto.set_name("a");
  proto.set_f(2);
  EXPECT_EQ(std::get<float>(*ReadProto(proto)), 2);
}

TEST(AttributeProtoTest, TakesADeclaredTypeWithoutValueAsZero) {
  AttributeProto proto;
  proto.set_name("a");
  proto.set_type(AttributeProto::INT);
  EXPECT_EQ(std::get<int64_t>(*ReadProto(proto)), 0);
}

TEST(AttributeProtoTest, RefusesValuesThatContradictTheType) {
  AttributeProto proto;
  proto.set_name("a");
  ExpectError(proto, absl::StatusCode::kInvalidArgument, "without type and value");
  proto.set_type(AttributeProto::INTS);
  proto.set_f(1);
  ExpectError(proto, absl::StatusCode::kInvalidArgument, "declared as INTS, but holds FLOAT");
  proto.clear_type();
  proto.set_i(1);
  ExpectError(proto, absl::StatusCode::kInvalidArgument, "declared as FLOAT, but holds INT");
}

TEST(AttributeProtoTest, NamesTypesThatItDoesNotKnow) {
  for (const auto type : {AttributeProto::SPARSE_TENSOR, AttributeProto::GRAPHS}) {
    AttributeProto proto;
    proto.set_name("a");
    proto.set_type(type);
    ExpectError(proto, absl::StatusCode::kUnimplemented, "unsupported attribute type");
  }
  AttributeProto proto;
  proto.set_name("a");
  proto.set_type(AttributeProto::TENSORS);
  ExpectError(proto, absl::StatusCode::kUnimplemented, "unsupported attribute type: TENSORS");
  proto.set_type(AttributeProto::INT);
  proto.set_ref_attr_name("b");
  ExpectError(proto, absl::StatusCode::kInvalidArgument, "refers to a function's attribute");
}

TEST(AttributeProtoTest, NamesTheTensorInsideIt) {
  AttributeProto proto;
  proto.set_name("a");
  proto.set_type(AttributeProto::TENSOR);
  proto.mutable_t()->set_name("inner");
  proto.mutable_t()->set_data_type(onnx::TensorProto::FLOAT);
  proto.mutable_t()->add_dims(2);
  ExpectError(proto, absl::StatusCode::kInvalidArgument, "tensor 'inner': ");
}

}  // namespace attribute_proto_test
}  // namespace octet

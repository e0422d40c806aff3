#include <array>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/rpc/input_decoder.h"
#include "tests/support/shared_object.h"

namespace octet {
namespace bool_inputs_test {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

/// A request with six BOOL elements, for a model that takes them.
class BoolInputsTest : public ::testing::Test {
 protected:
  BoolInputsTest() {
    signature_.inputs = {{"x", DType::kBool, {kUnknownDim, 6}}};
    signature_.batches = true;
    recipes_ = {*InputRecipe::Make(signature_.inputs[0], nullptr)};
    auto& input = *request_.add_inputs();
    input.set_name("x");
    input.set_datatype("BOOL");
    input.add_shape(1);
    input.add_shape(6);
  }

  absl::Status Decode(const RawInputs& raw) {
    return DecodeInputs(request_, raw, signature_, recipes_, 4, decoded_);
  }
  std::vector<int> Elements() const {
    std::vector<int> elements;
    const auto* bytes = static_cast<const uint8_t*>(decoded_.views[0].data);
    for (int i = 0; i < 6; ++i) elements.push_back(bytes[i]);
    return elements;
  }

  const std::string any_ = {'\x00', '\x01', '\x02', '\x03', '\x80', '\xff'};
  const std::string clean_ = {'\x00', '\x01', '\x01', '\x00', '\x00', '\x01'};
  Signature signature_;
  std::vector<InputRecipe> recipes_;
  inference::ModelInferRequest request_;
  DecodedInputs decoded_;
};

TEST_F(BoolInputsTest, AnyByteButZeroIsTrue) {
  ASSERT_TRUE(Decode({WireBytes(any_)}).ok());
  EXPECT_THAT(Elements(), ElementsAre(0, 1, 1, 1, 1, 1));
  EXPECT_EQ(any_[2], '\x02') << "what was received is not written";
}

TEST_F(BoolInputsTest, OnesAndZerosStayWhereTheyAre) {
  ASSERT_TRUE(Decode({WireBytes(clean_)}).ok());
  EXPECT_EQ(decoded_.views[0].data, clean_.data());
  const std::array<std::string_view, 2> pieces = {std::string_view(clean_).substr(0, 2),
                                                  std::string_view(clean_).substr(2)};
  decoded_ = {};
  ASSERT_TRUE(Decode({WireBytes(pieces)}).ok());
  EXPECT_EQ(decoded_.views[0].pieces.data(), pieces.data());
  EXPECT_THAT(decoded_.copied, IsEmpty());
}

TEST_F(BoolInputsTest, PiecesAreCleanedWhereverTheyAreCut) {
  for (size_t cut = 0; cut <= 6; ++cut) {
    const std::array<std::string_view, 2> pieces = {std::string_view(any_).substr(0, cut),
                                                    std::string_view(any_).substr(cut)};
    decoded_ = {};
    ASSERT_TRUE(Decode({WireBytes(pieces)}).ok());
    EXPECT_FALSE(decoded_.views[0].in_pieces());
    EXPECT_THAT(Elements(), ElementsAre(0, 1, 1, 1, 1, 1)) << cut;
  }
}

TEST_F(BoolInputsTest, SharedMemoryIsReadTheSame) {
  const SharedObject object(6);
  object.Write(0, std::as_bytes(std::span(any_)));
  SharedMemory memory(1000);
  ASSERT_TRUE(memory.Register("in", object.key(), 0, 6).ok());
  auto& parameters = *request_.mutable_inputs(0)->mutable_parameters();
  parameters["shared_memory_region"].set_string_param("in");
  parameters["shared_memory_byte_size"].set_int64_param(6);
  RawInputs raw(1);
  ASSERT_TRUE(ReadSharedInputs(request_, &memory, raw, decoded_).ok());
  ASSERT_TRUE(Decode(raw).ok());
  EXPECT_THAT(Elements(), ElementsAre(0, 1, 1, 1, 1, 1));
}

}  // namespace bool_inputs_test
}  // namespace octet

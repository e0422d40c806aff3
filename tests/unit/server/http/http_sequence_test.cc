// Sequences over HTTP, whose answers JSON may not be able to hold.
#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/bytes_elements.h"
#include "server/sequence/sequence_store.h"
#include "tests/support/graph_builder.h"
#include "tests/support/http_test.h"

namespace octet {
namespace http_sequence_test {

using ::testing::HasSubstr;

/// Model "told": y = the sum of its sequence's x, said = word word.
class HttpSequenceTest : public HttpServerTest {
 protected:
  void SetUp() override {
    HttpServerTest::SetUp();
    GraphBuilder b(20);
    const ValueId total = b.Op("Add", {b.Input("x", {1}), b.Input("before", {1})});
    const ValueId word = b.Input("word", {1}, DType::kString);
    b.Output(b.Op("Mul", {total, b.Scalar(1.0F)}), "y");
    b.Output(total, "total");
    b.Output(b.Op("StringConcat", {word, word}), "said");
    auto model = Model::FromGraph(b.Build(), {});
    ASSERT_TRUE(model.ok()) << model.status();
    auto version = repository_.Make("told", 1, {{Precision::kFp32, *model}});
    ModelConfig config;
    config.state["before"].output = "total";
    const absl::Status added = AddSequences(config, store_, metrics_, *version);
    ASSERT_TRUE(added.ok()) << added;
    repository_.Put(version);
  }
  void TearDown() override {
    HttpServerTest::TearDown();
    store_->EndAll();
  }

  std::string Step(int x, const std::string& word, const std::string& more = "") {
    std::string binary;
    AppendBytesElement(word, binary);
    const std::string json = Format(
        R"({{{}"parameters":{{"sequence_id":1,"sequence_start":{}}},"inputs":[)"
        R"({{"name":"x","datatype":"FP32","shape":[1],"data":[{}]}},)"
        R"({{"name":"word","datatype":"BYTES","shape":[1],"parameters":{{"binary_data_size":{}}}}}]}})",
        more, x == 1 ? "true" : "false", x, binary.size());
    return Post("/v2/models/told/infer", json + binary,
                {{"Inference-Header-Content-Length", std::to_string(json.size())}});
  }

  const std::shared_ptr<SequenceStore> store_ = std::make_shared<SequenceStore>(
      "told", Clock::Real(), metrics_.ForSequences(ModelLabels{"told"}));
};

TEST_F(HttpSequenceTest, AnAnswerThatJsonCannotHoldIsNoStep) {
  EXPECT_THAT(Step(1, "a"), HasSubstr(R"("data":[1])"));
  EXPECT_THAT(Step(10, "\xff"),
              HasSubstr("400 {\"error\":\"output \\\"said\\\": element 0 is not UTF-8"));
  EXPECT_THAT(Step(2, "b"), HasSubstr(R"("data":[3])")) << "the client may ask once more";
  EXPECT_THAT(Step(10, "\xff", R"("outputs":[{"name":"y"}],)"), HasSubstr(R"("data":[13])"));
}

}  // namespace http_sequence_test
}  // namespace octet

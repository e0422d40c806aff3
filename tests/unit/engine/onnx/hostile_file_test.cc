// Damaged files: whatever the bytes are, reading ends with a graph that verifies or with an error.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/support/source_folder.h"
#include "tests/unit/engine/onnx/model_builder.h"

namespace octet::test {
namespace hostile_file_test {

constexpr uint32_t kSeed = 4242;
constexpr std::chrono::milliseconds kBudget{1500};

// A model that uses all that the reader knows.
std::string Seed() {
  onnx::ModelProto model = SmallModel();
  onnx::TensorProto& ints = *model.mutable_graph()->add_initializer();
  ints.set_name("ints");
  ints.set_data_type(onnx::TensorProto::INT8);
  ints.add_dims(3);
  for (const int v : {-1, 0, 1}) ints.add_int32_data(v);
  onnx::TensorProto& raw = *model.mutable_graph()->add_initializer();
  raw.set_name("raw");
  raw.set_data_type(onnx::TensorProto::FLOAT16);
  raw.add_dims(2);
  raw.set_raw_data("abcd");
  onnx::NodeProto& node = AddNode(model, "Constant", {}, {"constant"});
  onnx::AttributeProto& value = *node.add_attribute();
  value.set_name("value");
  value.set_type(onnx::AttributeProto::TENSOR);
  *value.mutable_t() = raw;
  AddNode(model, "Concat", {"ints", "raw", "constant"}, {"z"});
  *model.mutable_graph()->add_value_info() = TensorInfo("h", {4, 2});
  onnx::FunctionProto& function = *model.add_functions();
  function.set_name("Twice");
  function.set_domain("f");
  function.add_input("a");
  function.add_output("b");
  function.add_attribute("low");
  function.add_opset_import()->set_version(13);
  onnx::NodeProto& inner = *function.add_node();
  inner.set_op_type("Elu");
  inner.add_input("a");
  inner.add_output("b");
  onnx::AttributeProto& reference = *inner.add_attribute();
  reference.set_name("alpha");
  reference.set_ref_attr_name("low");
  onnx::NodeProto& call = AddNode(model, "Twice", {"h"}, {"t"});
  call.set_domain("f");
  onnx::AttributeProto& low = *call.add_attribute();
  low.set_name("low");
  low.set_f(2);
  return model.SerializeAsString();
}

// Every outcome is fine but a crash, an internal error, or a message that names no source.
void Feed(const std::string& bytes) {
  const auto graph = ReadOnnxBytes(Bytes(bytes), "hostile", {.max_tensor_bytes = 1 << 24});
  if (graph.ok()) {
    EXPECT_TRUE(Verify(*graph).ok());
    EXPECT_FALSE(Dump(*graph).empty());
    return;
  }
  EXPECT_NE(graph.status().code(), absl::StatusCode::kInternal) << graph.status().ToString();
  EXPECT_TRUE(Message(graph.status()).starts_with("hostile: "));
}

TEST(HostileFileTest, EveryTruncationIsRefusedOrSound) {
  const std::string seed = Seed();
  ASSERT_TRUE(ReadOnnxBytes(Bytes(seed), "seed").ok());
  for (size_t length = 0; length < seed.size(); ++length) Feed(seed.substr(0, length));
}

TEST(HostileFileTest, EveryFlippedBitIsRefusedOrSound) {
  const std::string seed = Seed();
  for (size_t bit = 0; bit < seed.size() * 8; ++bit) {
    std::string damaged = seed;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    Feed(damaged);
  }
}

TEST(HostileFileTest, RandomDamageIsRefusedOrSound) {
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  const std::string seed = Seed();
  const auto below = [&](size_t n) { return static_cast<size_t>(random()) % n; };
  const auto end = std::chrono::steady_clock::now() + kBudget;
  int rounds = 0;
  for (; rounds < 20000 && std::chrono::steady_clock::now() < end; ++rounds) {
    std::string damaged = seed;
    for (size_t i = below(6) + 1; i > 0; --i) {
      const size_t at = below(damaged.size());
      switch (below(4)) {
        case 0:
          damaged[at] = static_cast<char>(random());
          break;
        case 1:
          damaged.erase(at, below(8) + 1);
          break;
        case 2:
          damaged.insert(at, damaged.substr(below(damaged.size()), below(16)));
          break;
        case 3:
          damaged[at] = static_cast<char>(0xff);
          break;
      }
      if (damaged.empty()) damaged = seed;
    }
    Feed(damaged);
  }
  EXPECT_GT(rounds, 100);
}

TEST(HostileFileTest, DeepNestingIsRefused) {
  onnx::ModelProto model = SmallModel();
  onnx::GraphProto* graph = model.mutable_graph();
  for (int depth = 0; depth < 200; ++depth) {
    onnx::AttributeProto& attribute = *graph->add_node()->add_attribute();
    attribute.set_type(onnx::AttributeProto::GRAPH);
    graph = attribute.mutable_g();
  }
  const auto read = Read(model);
  EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(HostileFileTest, DamagedRealModelsAreRefusedOrSound) {
  const auto models = SharedFolder("models");
  if (!models) GTEST_SKIP() << "no shared models: skipped";
  SCOPED_TRACE(kSeed);
  std::ifstream file(*models / "kws-dscnn/1/int8.onnx", std::ios::binary);
  const std::string seed{std::istreambuf_iterator<char>(file), {}};
  ASSERT_FALSE(seed.empty());
  std::mt19937 random(kSeed);
  const auto end = std::chrono::steady_clock::now() + kBudget;
  int rounds = 0;
  for (; rounds < 2000 && std::chrono::steady_clock::now() < end; ++rounds) {
    std::string damaged = seed;
    if (rounds % 4 == 0) damaged.resize(random() % seed.size());
    for (int i = 0; i < 3 && !damaged.empty(); ++i) {
      damaged[random() % damaged.size()] ^= static_cast<char>(1 << random() % 8);
    }
    Feed(damaged);
  }
  EXPECT_GT(rounds, 10);
}

}  // namespace hostile_file_test
}  // namespace octet::test

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"
#include "tests/support/source_folder.h"
#include "tests/unit/engine/onnx/model_builder.h"

namespace octet::test {
namespace onnx_writer_test {

using ::testing::HasSubstr;

// One of everything that ONNX can hold.
Graph RichGraph() {
  Graph graph;
  graph.name = "rich";
  graph.metadata = {{"octet.precision", "fp16"}, {"author", "someone"}};
  const ValueId x =
      graph.AddValue({.name = "x", .dtype = DType::kF32, .shape = Shape{kUnknownDim, 3}});
  const ValueId h = graph.AddValue({.name = "h", .dtype = DType::kF32});
  const ValueId y =
      graph.AddValue({.name = "y", .dtype = DType::kF16, .shape = Shape{kUnknownDim, 3}});
  const ValueId half = graph.AddConstant("half", Tensor::From<Half>({2}, {{0x3c00}, {0xbc00}}));
  const ValueId brain = graph.AddConstant("brain", Tensor::From<BFloat16>({}, {{0x3f80}}));
  const ValueId bits = graph.AddConstant("bits", Tensor::From<bool>({2}, {true, false}));
  const ValueId none = graph.AddConstant("none", Tensor(DType::kI64, {0}));
  Node first{.name = "first", .op = "Foo", .version = 13};
  first.inputs = {x, kNone, half, brain, bits, none};
  first.outputs = {h};
  first.attributes.Set("i", int64_t{-3});
  first.attributes.Set("f", 0.1f);
  first.attributes.Set("s", std::string("text"));
  first.attributes.Set("is", std::vector<int64_t>{1, 2});
  first.attributes.Set("fs", std::vector<float>{});
  first.attributes.Set("ss", std::vector<std::string>{"a", "b"});
  first.attributes.Set("t", Tensor::From<uint8_t>({1, 2}, {7, 8}));
  graph.AddNode(first);
  graph.AddNode({.name = "second",
                 .op = "QGemm",
                 .domain = "com.microsoft",
                 .version = 1,
                 .inputs = {h, half},
                 .outputs = {y}});
  graph.inputs = {x};
  graph.outputs = {y};
  return graph;
}

TEST(OnnxWriterTest, ReadsBackWhatWasWritten) {
  const Graph graph = RichGraph();
  const auto bytes = WriteOnnxBytes(graph);
  ASSERT_TRUE(bytes.ok()) << bytes.status().ToString();
  const auto back = ReadOnnxBytes(Bytes(*bytes), "back");
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  // Ids may differ, so the order of the constants; everything else is the same text.
  const auto lines = [](const Graph& g) {
    std::vector<std::string> sorted;
    std::istringstream text(Dump(g));
    for (std::string line; std::getline(text, line);) sorted.push_back(line);
    std::ranges::sort(sorted);
    return sorted;
  };
  EXPECT_EQ(lines(*back), lines(graph));
  EXPECT_EQ(back->metadata, graph.metadata);
  EXPECT_EQ(back->node(back->FindNode("first")).version, 13);
  EXPECT_EQ(back->node(back->FindNode("second")).version, 1);
}

// Nodes have metadata from IR version 10 on, whatever the opset.
TEST(OnnxWriterTest, KeepsWhatANodeComputesIn) {
  Graph graph = RichGraph();
  onnx::ModelProto model;
  ASSERT_TRUE(model.ParseFromString(WriteOnnxBytes(graph).value()));
  EXPECT_EQ(model.ir_version(), 8);
  EXPECT_EQ(model.graph().node(0).metadata_props_size(), 0);
  graph.mutable_node(graph.FindNode("second")).in_bf16 = true;
  const std::string bytes = WriteOnnxBytes(graph).value();
  ASSERT_TRUE(model.ParseFromString(bytes));
  EXPECT_EQ(model.ir_version(), 10);
  const auto back = ReadOnnxBytes(Bytes(bytes), "back");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_FALSE(back->node(back->FindNode("first")).in_bf16);
  EXPECT_TRUE(back->node(back->FindNode("second")).in_bf16);
}

TEST(OnnxWriterTest, WritesSixteenBitFloatsRaw) {
  onnx::ModelProto model;
  ASSERT_TRUE(model.ParseFromString(WriteOnnxBytes(RichGraph()).value()));
  for (const onnx::TensorProto& tensor : model.graph().initializer()) {
    EXPECT_EQ(tensor.int32_data_size(), 0);
    if (tensor.name() == "half") {
      EXPECT_EQ(tensor.raw_data(), std::string("\x00\x3c\x00\xbc", 4));
    }
  }
}

TEST(OnnxWriterTest, ImportsTheOpsetOfEveryDomain) {
  onnx::ModelProto model;
  ASSERT_TRUE(model.ParseFromString(WriteOnnxBytes(RichGraph()).value()));
  ASSERT_EQ(model.opset_import_size(), 2);
  EXPECT_EQ(model.opset_import(0).domain(), "");
  EXPECT_EQ(model.opset_import(0).version(), 13);
  EXPECT_EQ(model.opset_import(1).domain(), "com.microsoft");
  EXPECT_EQ(model.opset_import(1).version(), 1);
}

TEST(OnnxWriterTest, LeavesOutWhatNobodyUses) {
  Graph graph = RichGraph();
  graph.AddConstant("orphan", Tensor::Scalar(1.0f));
  onnx::ModelProto model;
  ASSERT_TRUE(model.ParseFromString(WriteOnnxBytes(graph).value()));
  for (const onnx::TensorProto& tensor : model.graph().initializer()) {
    EXPECT_NE(tensor.name(), "orphan");
  }
}

// As ONNX Runtime asks for.
TEST(OnnxWriterTest, GivesEachNodeANameOfItsOwn) {
  GraphBuilder b;
  b.Output(b.Op("Abs", {b.Op("Neg", {b.Op("Relu", {b.Op("Abs", {b.Input("x", {2})})})})}));
  Graph graph = b.Build();
  const char* const names[] = {"bn", "bn", "bn_0", "bn"};
  for (size_t i = 0; i < 4; ++i) graph.mutable_node(graph.order()[i]).name = names[i];
  onnx::ModelProto model;
  ASSERT_TRUE(model.ParseFromString(WriteOnnxBytes(graph).value()));
  std::vector<std::string> written;
  for (const onnx::NodeProto& node : model.graph().node()) written.push_back(node.name());
  EXPECT_THAT(written, ::testing::ElementsAre("bn", "bn_0", "bn_0_0", "bn_1"));
}

TEST(OnnxWriterTest, SaysThatNumberAndConditionOfALoopAreScalars) {
  Graph body;
  const ValueId number = body.AddValue({.name = "i", .dtype = DType::kI64});
  const ValueId go_on = body.AddValue({.name = "go", .dtype = DType::kBool});
  const ValueId sum = body.AddValue({.name = "sum", .dtype = DType::kI64});
  const ValueId more = body.AddValue({.name = "more", .dtype = DType::kI64});
  const ValueId goes_on = body.AddValue({.name = "goes", .dtype = DType::kBool});
  body.inputs = {number, go_on, sum};
  body.outputs = {goes_on, more};
  body.AddNode(
      {.name = "same", .op = "Identity", .version = 13, .inputs = {go_on}, .outputs = {goes_on}});
  body.AddNode(
      {.name = "add", .op = "Add", .version = 13, .inputs = {sum, number}, .outputs = {more}});
  GraphBuilder b;
  b.Output(b.Op("Loop", {b.Scalar<int64_t>(3), b.Scalar(true), b.Input("x", {}, DType::kI64)},
                {{"body", Subgraph(std::make_shared<const Graph>(std::move(body)))}}));
  onnx::ModelProto model;
  ASSERT_TRUE(model.ParseFromString(WriteOnnxBytes(b.Build()).value()));
  const onnx::GraphProto& written = model.graph().node(0).attribute(0).g();
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(written.input(i).type().tensor_type().has_shape());
    EXPECT_EQ(written.input(i).type().tensor_type().shape().dim_size(), 0);
  }
  EXPECT_FALSE(written.input(2).type().tensor_type().has_shape());
}

void ExpectRefused(const Graph& graph, const std::string& message) {
  const absl::Status status = WriteOnnxBytes(graph).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(status)), HasSubstr(message));
}

TEST(OnnxWriterTest, RefusesWhatOnnxCannotHold) {
  Graph graph = RichGraph();
  graph.mutable_node(0).domain = kOctetDomain;
  ExpectRefused(graph, "no such operator: octet:Foo 'first'");
  graph = RichGraph();
  graph.mutable_node(0).post_ops = {{.kind = PostOp::Kind::kRelu}};
  ExpectRefused(graph, "no post-ops: Foo 'first'");
  graph = RichGraph();
  graph.mutable_value(graph.FindValue("h")).quant = QuantParams::PerTensor(1, 0);
  ExpectRefused(graph, "'h' needs Q/DQ nodes");
  graph = RichGraph();
  graph.mutable_node(1).domain = "";
  ExpectRefused(graph, "two opsets of one domain");
  graph = RichGraph();
  graph.mutable_value(graph.FindValue("h")).name = "x";
  ExpectRefused(graph, "two values of one name cannot be written: 'x'");
  graph = RichGraph();
  graph.mutable_value(graph.FindValue("y")).name = "";
  ExpectRefused(graph, "without a name");
  for (const int64_t captures : {-5, 100}) {
    graph = RichGraph();
    graph.mutable_node(1).attributes.Set(std::string(kCaptures), captures);
    ExpectRefused(graph, Format("sub-graphs capture {} of ", captures));
  }
}

// Whatever the domain: this reader and passes write them.
TEST(OnnxWriterTest, ReservedAttributesAreNoneOfAFiles) {
  for (const char* domain : {"", "com.microsoft", "ai.onnx.ml"}) {
    for (const std::string& name :
         {std::string(kCaptures), std::string("dynamic_quant"), std::string("trans_b")}) {
      onnx::ModelProto model = SmallModel();
      onnx::OperatorSetIdProto& import = *model.add_opset_import();
      import.set_domain(domain);
      import.set_version(1);
      if (*domain == 0) model.mutable_opset_import()->RemoveLast();
      onnx::NodeProto& node = *model.mutable_graph()->mutable_node(1);
      node.set_domain(domain);
      onnx::AttributeProto& attribute = *node.add_attribute();
      attribute.set_name(name);
      attribute.set_type(onnx::AttributeProto::INT);
      attribute.set_i(-5);
      const auto graph = Read(model);
      EXPECT_EQ(graph.status().code(), absl::StatusCode::kInvalidArgument) << domain << name;
      EXPECT_THAT(std::string(Message(graph.status())),
                  HasSubstr("attribute is not ONNX's: '" + name + "'"));
    }
  }
}

TEST(OnnxWriterTest, ReplacesAFileAtOnce) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.onnx";
  WriteText(path, "old");
  ASSERT_TRUE(WriteOnnxFile(RichGraph(), path).ok());
  EXPECT_TRUE(ReadOnnxFile(path).ok());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1)
      << "no temporary file stays";
}

TEST(OnnxWriterTest, KeepsTheOldFileWhenTheGraphCannotBeWritten) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.onnx";
  WriteText(path, "old");
  Graph graph = RichGraph();
  graph.mutable_node(0).domain = kOctetDomain;
  EXPECT_FALSE(WriteOnnxFile(graph, path).ok());
  EXPECT_EQ(std::filesystem::file_size(path), 3u);
}

TEST(OnnxWriterTest, TakesTheNextNameWhenATemporaryFileIsLeftOver) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.onnx";
  WriteText(folder / Format(".model.onnx.{}-0.tmp", ::getpid()), "left over");
  EXPECT_TRUE(WriteOnnxFile(RichGraph(), path).ok());
  EXPECT_TRUE(ReadOnnxFile(path).ok());
}

TEST(OnnxWriterTest, NamesAFolderThatIsNotThere) {
  const TemporaryFolder folder;
  const absl::Status status = WriteOnnxFile(RichGraph(), folder / "none/model.onnx");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Message(status)), HasSubstr("none/model.onnx"));
}

// Dump does not show large constants; compare their bytes.
void ExpectSameConstants(const Graph& a, const Graph& b) {
  for (ValueId id = 0; id < a.value_count(); ++id) {
    const Value& value = a.value(id);
    if (!value.is_constant() || a.consumers(id).empty()) continue;
    const ValueId other = b.FindValue(value.name);
    ASSERT_NE(other, kNone) << value.name;
    const Tensor& copy = b.value(other).constant;
    ASSERT_EQ(copy.spec(), value.constant.spec()) << value.name;
    EXPECT_EQ(std::memcmp(copy.data(), value.constant.data(), copy.bytes()), 0) << value.name;
  }
}

TEST(OnnxWriterTest, RealModelsReadBackAsWritten) {
  const auto models = SharedFolder("models");
  if (!models) GTEST_SKIP() << "no shared models: skipped";
  int count = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(*models)) {
    if (entry.path().extension() != ".onnx") continue;
    SCOPED_TRACE(entry.path().string());
    const auto graph = ReadOnnxFile(entry.path().string());
    ASSERT_TRUE(graph.ok()) << graph.status().ToString();
    const auto bytes = WriteOnnxBytes(*graph);
    ASSERT_TRUE(bytes.ok()) << bytes.status().ToString();
    const auto back = ReadOnnxBytes(Bytes(*bytes), "back");
    ASSERT_TRUE(back.ok()) << back.status().ToString();
    ASSERT_EQ(back->order().size(), graph->order().size());
    for (size_t i = 0; i < graph->order().size(); ++i) {
      EXPECT_EQ(Describe(back->node(back->order()[i])), Describe(graph->node(graph->order()[i])));
    }
    ExpectSameConstants(*graph, *back);
    ++count;
  }
  EXPECT_GT(count, 0);
}

}  // namespace onnx_writer_test
}  // namespace octet::test

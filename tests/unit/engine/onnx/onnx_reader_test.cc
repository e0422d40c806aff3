// What a file says is what the graph holds, and what a file says wrongly is refused by name.
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "engine/tensor/status.h"
#include "tests/unit/engine/onnx/model_builder.h"

namespace octet::test {
namespace onnx_reader_test {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

void ExpectError(const absl::StatusOr<Graph>& graph, absl::StatusCode code,
                 std::string_view message) {
  ASSERT_FALSE(graph.ok()) << "expected: " << message;
  EXPECT_EQ(graph.status().code(), code) << graph.status().ToString();
  EXPECT_THAT(std::string(Message(graph.status())),
              AllOf(StartsWith("test.onnx: "), HasSubstr(std::string(message))));
}

void ExpectInvalid(const onnx::ModelProto& model, std::string_view message) {
  ExpectError(Read(model), absl::StatusCode::kInvalidArgument, message);
}

void ExpectUnimplemented(const onnx::ModelProto& model, std::string_view message) {
  ExpectError(Read(model), absl::StatusCode::kUnimplemented, message);
}

TEST(OnnxReaderTest, ReadsAModel) {
  const auto graph = Read(SmallModel());
  ASSERT_TRUE(graph.ok()) << graph.status().ToString();
  EXPECT_EQ(Dump(*graph),
            "graph 'test'\n"
            "input %x:f32[?,2]\n"
            "constant %w:f32[2,2] (1, 2, 3, 4)\n"
            "  %h:?[*] = MatMul(%x, %w)\n"
            "  %y:f32[?,2] = Relu(%h) {ints=[1,-2]}\n"
            "output %y:f32[?,2]\n");
  EXPECT_EQ(graph->node(graph->FindNode("y_node")).version, 13);
  EXPECT_EQ(graph->metadata.at("author"), "someone");
}

TEST(OnnxReaderTest, PassesOverMetadataOfNodesThatItDoesNotKnow) {
  const std::pair<const char*, const char*> entries[] = {
      {"octet.compute", "float4"}, {"somebody's", "bf16"}, {"octet.compute", "bf16"}};
  for (const auto& [key, value] : entries) {
    onnx::ModelProto model = SmallModel();
    onnx::StringStringEntryProto& entry =
        *model.mutable_graph()->mutable_node(0)->add_metadata_props();
    entry.set_key(key);
    entry.set_value(value);
    const auto graph = Read(model);
    ASSERT_TRUE(graph.ok()) << graph.status();
    EXPECT_EQ(graph->node(graph->FindNode("h_node")).in_bf16, &value == &entries[2].second);
  }
}

TEST(OnnxReaderTest, TakesAbsentInputsAndOutputs) {
  onnx::ModelProto model = SmallModel();
  AddNode(model, "Clip", {"h", "", "w", "", ""}, {"clipped", "", "extra", ""});
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok()) << graph.status().ToString();
  const Node& clip = graph->node(graph->FindNode("clipped_node"));
  EXPECT_THAT(clip.inputs, ElementsAre(graph->FindValue("h"), kNone, graph->FindValue("w")));
  EXPECT_THAT(clip.outputs,
              ElementsAre(graph->FindValue("clipped"), kNone, graph->FindValue("extra")));
}

TEST(OnnxReaderTest, NamesANodeWithoutNameByItsOutput) {
  onnx::ModelProto model = SmallModel();
  model.mutable_graph()->mutable_node(1)->clear_name();
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok());
  EXPECT_NE(graph->FindNode("y"), kNone);
}

TEST(OnnxReaderTest, AnInitializerThatIsDeclaredAsInputIsNone) {
  onnx::ModelProto model = SmallModel();
  *model.mutable_graph()->add_input() = TensorInfo("w", {2, 2});
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok());
  EXPECT_THAT(graph->inputs, ElementsAre(graph->FindValue("x")));
  *model.mutable_graph()->mutable_input(1) = TensorInfo("w", {2, 3});
  ExpectInvalid(model, "shape of 'w': declared [2,3], its initializer has [2,2]");
  *model.mutable_graph()->mutable_input(1) = TensorInfo("w", {2, 2}, onnx::TensorProto::INT8);
  ExpectInvalid(model, "type of 'w': declared INT8, its initializer has FP32");
}

TEST(OnnxReaderTest, TakesDeclaredTypesOfIntermediateValues) {
  onnx::ModelProto model = SmallModel();
  *model.mutable_graph()->add_value_info() = TensorInfo("h", {4, 2});
  *model.mutable_graph()->add_value_info() = TensorInfo("nobody", {4, 2});
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok());
  const Value& h = graph->value(graph->FindValue("h"));
  EXPECT_EQ(h.dtype, DType::kF32);
  EXPECT_EQ(h.shape, (Shape{4, 2}));
}

TEST(OnnxReaderTest, KeepsZeroExtentsAndForgetsNegativeOnes) {
  onnx::ModelProto model = SmallModel();
  *model.mutable_graph()->add_input() = TensorInfo("e", {0, -7, 3});
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok());
  EXPECT_EQ(graph->value(graph->FindValue("e")).shape, (Shape{0, kUnknownDim, 3}));
}

TEST(OnnxReaderTest, AcceptsNodesInAnyOrder) {
  onnx::ModelProto model = SmallModel();
  model.mutable_graph()->mutable_node()->SwapElements(0, 1);
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok());
  EXPECT_EQ(graph->node(graph->order()[0]).op, "MatMul");
}

TEST(OnnxReaderTest, NormalisesTheDefaultDomain) {
  onnx::ModelProto model = SmallModel();
  model.mutable_opset_import(0)->set_domain("ai.onnx");
  model.mutable_graph()->mutable_node(0)->set_domain("ai.onnx");
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok()) << graph.status().ToString();
  EXPECT_TRUE(graph->node(graph->order()[0]).is("MatMul"));
}

TEST(OnnxReaderTest, ChecksOpsets) {
  for (const int opset : {kMinOpset, kMaxOpset}) {
    onnx::ModelProto model = SmallModel();
    model.mutable_opset_import(0)->set_version(opset);
    EXPECT_TRUE(Read(model).ok()) << opset;
  }
  for (const int64_t opset : {int64_t{0}, int64_t{23}, int64_t{-1}, int64_t{1} << 40}) {
    onnx::ModelProto model = SmallModel();
    model.mutable_opset_import(0)->set_version(opset);
    ExpectUnimplemented(model, Format("unsupported opset: expected 1 to 22, got {}", opset));
  }
  onnx::ModelProto model = SmallModel();
  model.add_opset_import()->set_version(12);
  ExpectInvalid(model, "two opsets of domain '': 13 and 12");
  model.clear_opset_import();
  ExpectInvalid(model, "no opset import");
}

// Whoever raises a file's opset by hand leaves the attributes of the old one: without them a node computes something else.
TEST(OnnxReaderTest, RefusesAttributesThatBecameInputs) {
  struct Case {
    const char* op;
    const char* attribute;
    int since;
  };
  const Case cases[] = {{"Add", "axis", 7},      {"Slice", "starts", 10},    {"Clip", "min", 11},
                        {"Squeeze", "axes", 13}, {"ReduceMean", "axes", 18}, {"DFT", "axis", 20}};
  for (const Case& moved : cases) {
    onnx::ModelProto model = SmallModel();
    onnx::NodeProto& node = AddNode(model, moved.op, {"h"}, {"moved"});
    onnx::AttributeProto& attribute = *node.add_attribute();
    attribute.set_name(moved.attribute);
    attribute.set_type(onnx::AttributeProto::INT);
    model.mutable_opset_import(0)->set_version(moved.since);
    ExpectInvalid(model,
                  Format("{} 'moved_node' (opset {}): attribute '{}' is none of the operator "
                         "since opset {}, the node's is {}",
                         moved.op, moved.since, moved.attribute, moved.since, moved.since));
    model.mutable_opset_import(0)->set_version(moved.since - 1);
    EXPECT_TRUE(Read(model).ok()) << moved.op;
    node.set_domain("somebody's");
    model.add_opset_import()->set_domain("somebody's");
    model.mutable_opset_import(1)->set_version(moved.since);
    EXPECT_TRUE(Read(model).ok()) << moved.op;
  }
}

TEST(OnnxReaderTest, NamesANodeWhoseDomainIsNotImported) {
  onnx::ModelProto model = SmallModel();
  model.mutable_graph()->mutable_node(1)->set_domain("com.microsoft");
  ExpectInvalid(model, "no opset import for domain 'com.microsoft' of Relu 'y_node'");
  onnx::OperatorSetIdProto& import = *model.add_opset_import();
  import.set_domain("com.microsoft");
  import.set_version(1);
  const auto graph = Read(model);
  ASSERT_TRUE(graph.ok());
  EXPECT_EQ(graph->node(graph->FindNode("y_node")).version, 1);
}

TEST(OnnxReaderTest, RefusesACycleNamingANodeOnIt) {
  onnx::ModelProto model = SmallModel();
  model.mutable_graph()->mutable_node(0)->set_input(0, "y");
  const auto graph = Read(model);
  ExpectError(graph, absl::StatusCode::kInvalidArgument, "cyclic");
  EXPECT_THAT(std::string(Message(graph.status())), HasSubstr("(opset 13)"));
}

TEST(OnnxReaderTest, RefusesNamesThatAreDefinedTwice) {
  onnx::ModelProto model = SmallModel();
  AddNode(model, "Abs", {"x"}, {"h"});
  ExpectInvalid(model, "value is defined twice: 'h'");
  model = SmallModel();
  AddNode(model, "Abs", {"h"}, {"x"});
  ExpectInvalid(model, "value is defined twice: 'x'");
  model = SmallModel();
  AddFloats(model, "w", {1}, {0});
  ExpectInvalid(model, "value is defined twice: 'w'");
  model = SmallModel();
  AddNode(model, "Split", {"x"}, {"s", "s"});
  ExpectInvalid(model, "value is defined twice: 's'");
  model = SmallModel();
  *model.mutable_graph()->add_input() = TensorInfo("x", {1});
  ExpectInvalid(model, "input is declared twice: 'x'");
  model = SmallModel();
  *model.mutable_graph()->add_output() = TensorInfo("y", {1, 2});
  ExpectInvalid(model, "output is declared twice: 'y'");
}

TEST(OnnxReaderTest, RefusesWhatIsDefinedNowhere) {
  onnx::ModelProto model = SmallModel();
  model.mutable_graph()->mutable_node(1)->set_input(0, "ghost");
  ExpectInvalid(model, "Relu 'y_node' (opset 13): input is defined nowhere: 'ghost'");
  model = SmallModel();
  model.mutable_graph()->mutable_output(0)->set_name("ghost");
  ExpectInvalid(model, "graph output is defined nowhere: 'ghost'");
  model = SmallModel();
  model.mutable_graph()->clear_output();
  ExpectInvalid(model, "no outputs");
}

TEST(OnnxReaderTest, RefusesIncompleteParts) {
  onnx::ModelProto model = SmallModel();
  model.mutable_graph()->mutable_node(1)->clear_op_type();
  ExpectInvalid(model, "node 'y_node' has no operator");
  model = SmallModel();
  model.mutable_graph()->mutable_initializer(0)->clear_name();
  ExpectInvalid(model, "value without a name");
  model = SmallModel();
  model.mutable_graph()->mutable_input(0)->clear_type();
  ExpectInvalid(model, "input without an element type: 'x'");
  model = SmallModel();
  model.clear_graph();
  ExpectInvalid(model, "not an ONNX model");
}

TEST(OnnxReaderTest, RefusesNamesThatMessagesCannotCarry) {
  onnx::ModelProto model = SmallModel();
  model.mutable_graph()->mutable_node(1)->set_name("\xff\xfe");
  ExpectInvalid(model, "node name is not UTF-8");
  for (const char* bad : {"\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "a\x80"}) {
    model.mutable_graph()->mutable_node(1)->set_name(bad);
    ExpectInvalid(model, "node name is not UTF-8");
  }
  for (const char* good : {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xed\x9f\xbf"}) {
    model.mutable_graph()->mutable_node(1)->set_name(good);
    EXPECT_TRUE(Read(model).ok()) << good;
  }
  model = SmallModel();
  model.mutable_graph()->mutable_initializer(0)->set_name(std::string(1 << 20, 'w'));
  ExpectInvalid(model, "initializer name is too long: 1048576 bytes");
  model = SmallModel();
  model.mutable_metadata_props(0)->set_value("\x80");
  ExpectInvalid(model, "metadata value of 'author' is not UTF-8");
}

TEST(OnnxReaderTest, NamesWhatItDoesNotSupport) {
  onnx::ModelProto model = SmallModel();
  model.mutable_graph()->add_sparse_initializer();
  ExpectUnimplemented(model, "sparse initializers");

  model = SmallModel();
  model.mutable_graph()->mutable_node(1)->set_overload("fast");
  ExpectUnimplemented(
      model,
      "Relu 'y_node' (opset 13): unsupported operator, the model has no function of "
      "overload 'fast'");

  model = SmallModel();
  model.mutable_graph()->mutable_input(0)->mutable_type()->mutable_sequence_type();
  ExpectUnimplemented(model, "MatMul 'h_node' (opset 13): value 'x': unsupported type: no tensor");
  *model.mutable_graph()->mutable_input(0) = TensorInfo("x", {1}, onnx::TensorProto::INT4);
  ExpectUnimplemented(model,
                      "MatMul 'h_node' (opset 13): value 'x': unsupported element type: INT4");
}

TEST(OnnxReaderTest, RefusesImpossibleShapes) {
  onnx::ModelProto model = SmallModel();
  *model.mutable_graph()->mutable_input(0) = TensorInfo("x", {int64_t{1} << 40, int64_t{1} << 40});
  ExpectInvalid(model, "value 'x': impossible shape");
  *model.mutable_graph()->mutable_input(0) = TensorInfo("x", std::vector<int64_t>(1000, 1));
  ExpectInvalid(model, "value 'x': rank 1000 is above 32");
}

TEST(OnnxReaderTest, HoldsItsLimits) {
  const std::string bytes = SmallModel().SerializeAsString();
  const auto file = ReadOnnxBytes(Bytes(bytes), "test.onnx", {.max_file_bytes = bytes.size() - 1});
  ExpectError(file, absl::StatusCode::kResourceExhausted, "file is too large");
  const auto tensors = ReadOnnxBytes(Bytes(bytes), "test.onnx", {.max_tensor_bytes = 15});
  ExpectError(tensors, absl::StatusCode::kResourceExhausted, "tensor 'w'");
  EXPECT_TRUE(ReadOnnxBytes(Bytes(bytes), "test.onnx", {.max_tensor_bytes = 16}).ok());
}

TEST(OnnxReaderTest, TellsMissingFilesFromWrongOnes) {
  const TemporaryFolder folder;
  EXPECT_EQ(ReadOnnxFile(folder / "none.onnx").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadOnnxFile(folder.path().string()).status().code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(ReadOnnxFile(folder / "pipe").status().code(), absl::StatusCode::kInvalidArgument);
  WriteText(folder / "text.onnx", "This is no model at all.");
  const absl::Status text = ReadOnnxFile(folder / "text.onnx").status();
  EXPECT_EQ(text.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(text)), HasSubstr("text.onnx"));
  WriteText(folder / "empty.onnx", "");
  EXPECT_EQ(ReadOnnxFile(folder / "empty.onnx").status().code(),
            absl::StatusCode::kInvalidArgument);
  WriteText(folder / "good.onnx", SmallModel().SerializeAsString());
  EXPECT_TRUE(ReadOnnxFile(folder / "good.onnx").ok());
  const auto large = ReadOnnxFile(folder / "good.onnx", {.max_file_bytes = 10});
  EXPECT_EQ(large.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(OnnxReaderTest, RefusesAFileOverTwoGibibytesWithoutReadingIt) {
  const TemporaryFolder folder;
  WriteText(folder / "huge.onnx", "");
  std::filesystem::resize_file(folder / "huge.onnx", uint64_t{1} << 31);  // Sparse.
  EXPECT_EQ(ReadOnnxFile(folder / "huge.onnx").status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(ReadTensorFileTest, ReadsNameAndTensor) {
  const TemporaryFolder folder;
  onnx::ModelProto model = EmptyModel();
  WriteText(folder / "t.pb", AddFloats(model, "logits", {1, 2}, {3, 4}).SerializeAsString());
  const auto read = ReadTensorFile(folder / "t.pb");
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_EQ(read->name, "logits");
  EXPECT_EQ(read->tensor.shape(), (Shape{1, 2}));
  EXPECT_THAT(read->tensor.span<float>(), ElementsAre(3, 4));
  EXPECT_EQ(ReadTensorFile(folder / "none.pb").status().code(), absl::StatusCode::kNotFound);
  WriteText(folder / "bad.pb", "\x08");
  EXPECT_EQ(ReadTensorFile(folder / "bad.pb").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace onnx_reader_test
}  // namespace octet::test

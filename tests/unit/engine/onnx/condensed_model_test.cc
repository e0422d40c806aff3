// A model's message without the elements of its initializers.
#include "engine/onnx/condensed_model.h"

#include <string>

#include <gmock/gmock.h>
#include <google/protobuf/io/coded_stream.h>
#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include "engine/onnx/onnx_file.h"

namespace octet {
namespace condensed_model_test {

using ::testing::HasSubstr;

std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string Text(const CondensedModel& model, const ByteSource& source) {
  CondensedStream stream(model, source);
  std::string text;
  const void* data = nullptr;
  int size = 0;
  while (stream.Next(&data, &size)) text.append(static_cast<const char*>(data), size);
  EXPECT_TRUE(stream.status().ok()) << stream.status();
  EXPECT_EQ(stream.ByteCount(), static_cast<int64_t>(text.size()));
  return text;
}

void AddTensor(onnx::ModelProto& model, const std::string& name, int floats, float first) {
  onnx::TensorProto& tensor = *model.mutable_graph()->add_initializer();
  tensor.set_name(name);
  tensor.set_data_type(onnx::TensorProto::FLOAT);
  tensor.add_dims(floats);
  std::vector<float> elements(static_cast<size_t>(floats));
  for (float& element : elements) element = first++;
  tensor.set_raw_data(elements.data(), elements.size() * sizeof(float));
}

// y = x + long + short, the sum over "short" twice.
onnx::ModelProto Model() {
  onnx::ModelProto model;
  model.set_ir_version(8);
  model.add_opset_import()->set_version(17);
  model.mutable_graph()->set_name("g");
  AddTensor(model, "long", 4000, 1);
  AddTensor(model, "short", 1, 7);
  AddTensor(model, "longer", 400'000, 3);
  for (const char* name : {"x", "y"}) {
    auto& info =
        name[0] == 'x' ? *model.mutable_graph()->add_input() : *model.mutable_graph()->add_output();
    info.set_name(name);
    info.mutable_type()->mutable_tensor_type()->set_elem_type(onnx::TensorProto::FLOAT);
  }
  onnx::NodeProto& node = *model.mutable_graph()->add_node();
  node.set_op_type("Sum");
  for (const char* name : {"x", "short"}) node.add_input(name);
  node.add_output("y");
  return model;
}

TEST(CondensedModel, LeavesOutLongElementsAlone) {
  const std::string text = Model().SerializeAsString();
  const MemorySource source(Bytes(text));
  const CondensedModel condensed = Condense(source);
  ASSERT_EQ(condensed.left_out.size(), 3U);
  ASSERT_TRUE(condensed.left_out[0] && condensed.left_out[2]);
  EXPECT_FALSE(condensed.left_out[1]) << "its four bytes stay in the message";
  float first = 0;
  ASSERT_TRUE(source
                  .ReadAt(condensed.left_out[2]->offset,
                          std::as_writable_bytes(std::span(&first, size_t{1})))
                  .ok());
  EXPECT_EQ(first, 3);

  onnx::ModelProto expected = Model();
  expected.mutable_graph()->mutable_initializer(0)->clear_raw_data();
  expected.mutable_graph()->mutable_initializer(2)->clear_raw_data();
  EXPECT_EQ(Text(condensed, source), expected.SerializeAsString());
}

TEST(CondensedModel, GivesTheGraphTheElementsBack) {
  const std::string text = Model().SerializeAsString();
  const auto graph = ReadOnnxBytes(Bytes(text), "test");
  ASSERT_TRUE(graph.ok()) << graph.status();
  int found = 0;
  for (ValueId id = 0; id < graph->value_count(); ++id) {
    const Value& value = graph->value(id);
    if (value.name != "longer") continue;
    ++found;
    EXPECT_EQ(value.constant.span<float>()[399'999], 400'002);
  }
  EXPECT_EQ(found, 1);
}

TEST(CondensedModel, LeavesWhatNoSerializerWritesToTheParser) {
  const std::string model = Model().SerializeAsString();
  onnx::ModelProto second;
  AddTensor(second, "more", 2000, 9);
  onnx::TensorProto twice;
  twice.set_raw_data(std::string(5000, 'a'));
  const std::string raw = twice.SerializeAsString();
  std::string two_raws = "\x2A";  // An initializer whose raw_data comes twice.
  two_raws +=
      {static_cast<char>(0x80 | (2 * raw.size() & 0x7F)), static_cast<char>(2 * raw.size() >> 7)};
  two_raws += raw + raw;
  std::string graph = "\x3A";
  graph +=
      {static_cast<char>(0x80 | (two_raws.size() & 0x7F)), static_cast<char>(two_raws.size() >> 7)};
  graph += two_raws;
  // The tag of the graph in six bytes, of which one would do.
  const size_t at = model.find("\x3A");
  const std::string long_tag =
      model.substr(0, at) + std::string("\xBA\x80\x80\x80\x80\x00", 6) + model.substr(at + 1);
  EXPECT_FALSE(ReadOnnxBytes(Bytes(long_tag), "test").ok());

  for (const std::string& text : {model + second.SerializeAsString(),  // A graph in two parts.
                                  model.substr(0, model.size() - 1), graph, long_tag,
                                  std::string("\x3A\xFF"), std::string("\x3B"), std::string()}) {
    const MemorySource source(Bytes(text));
    const CondensedModel condensed = Condense(source);
    EXPECT_EQ(Text(condensed, source), text);
    for (const auto& range : condensed.left_out) EXPECT_FALSE(range);
  }
  const auto merged = ReadOnnxBytes(Bytes(model + second.SerializeAsString()), "test");
  EXPECT_TRUE(merged.ok()) << merged.status() << ": protobuf merges the parts";
}

TEST(CondensedModel, ChecksElementsThatWereLeftOut) {
  onnx::ModelProto model = Model();
  model.mutable_graph()->mutable_initializer(0)->set_dims(0, 4001);
  EXPECT_THAT(ReadOnnxBytes(Bytes(model.SerializeAsString()), "test").status().ToString(),
              HasSubstr("expected 16004, got 16000"));
  model = Model();
  model.mutable_graph()->mutable_initializer(0)->add_float_data(1);
  EXPECT_THAT(ReadOnnxBytes(Bytes(model.SerializeAsString()), "test").status().ToString(),
              HasSubstr("more than one encoding"));
}

TEST(CondensedStream, BacksUpAndSkips) {
  const std::string text = Model().SerializeAsString();
  const MemorySource source(Bytes(text));
  const CondensedModel whole = CondensedModel::Whole(source);
  CondensedStream stream(whole, source);
  const void* data = nullptr;
  int size = 0;
  ASSERT_TRUE(stream.Next(&data, &size));
  stream.BackUp(size - 10);
  EXPECT_EQ(stream.ByteCount(), 10);
  ASSERT_TRUE(stream.Skip(300'000));
  EXPECT_EQ(stream.ByteCount(), 300'010);
  ASSERT_TRUE(stream.Next(&data, &size));
  EXPECT_EQ(std::string_view(static_cast<const char*>(data), 20), text.substr(300'010, 20));
  EXPECT_FALSE(stream.Skip(2'000'000));
}

}  // namespace condensed_model_test
}  // namespace octet

// Small ONNX models for tests, made from protobuf so that they can also be wrong.
#pragma once

#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <format>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <onnx/onnx_pb.h>

#include "engine/onnx/onnx_file.h"

namespace octet::test {

inline onnx::ValueInfoProto TensorInfo(const std::string& name, std::vector<int64_t> dims,
                                       int type = onnx::TensorProto::FLOAT) {
  onnx::ValueInfoProto info;
  info.set_name(name);
  onnx::TypeProto::Tensor& tensor = *info.mutable_type()->mutable_tensor_type();
  tensor.set_elem_type(type);
  for (const int64_t d : dims) tensor.mutable_shape()->add_dim()->set_dim_value(d);
  if (dims.empty()) tensor.mutable_shape();
  return info;
}

inline onnx::NodeProto& AddNode(onnx::ModelProto& model, const std::string& op,
                                std::vector<std::string> inputs, std::vector<std::string> outputs) {
  onnx::NodeProto& node = *model.mutable_graph()->add_node();
  node.set_name(outputs.empty() ? op : outputs[0] + "_node");
  node.set_op_type(op);
  for (const std::string& name : inputs) node.add_input(name);
  for (const std::string& name : outputs) node.add_output(name);
  return node;
}

inline onnx::TensorProto& AddFloats(onnx::ModelProto& model, const std::string& name,
                                    std::vector<int64_t> dims, std::vector<float> values) {
  onnx::TensorProto& tensor = *model.mutable_graph()->add_initializer();
  tensor.set_name(name);
  tensor.set_data_type(onnx::TensorProto::FLOAT);
  for (const int64_t d : dims) tensor.add_dims(d);
  for (const float v : values) tensor.add_float_data(v);
  return tensor;
}

inline onnx::ModelProto EmptyModel(int opset = 13) {
  onnx::ModelProto model;
  model.set_ir_version(8);
  model.add_opset_import()->set_version(opset);
  model.mutable_graph()->set_name("test");
  return model;
}

/// x [N, 2] -> MatMul w [2, 2] -> h -> Relu -> y, with attributes of every type on the last node.
inline onnx::ModelProto SmallModel() {
  onnx::ModelProto model = EmptyModel();
  onnx::GraphProto& graph = *model.mutable_graph();
  *graph.add_input() = TensorInfo("x", {0, 2});
  graph.mutable_input(0)
      ->mutable_type()
      ->mutable_tensor_type()
      ->mutable_shape()
      ->mutable_dim(0)
      ->set_dim_param("N");
  *graph.add_output() = TensorInfo("y", {-1, 2});
  AddFloats(model, "w", {2, 2}, {1, 2, 3, 4});
  AddNode(model, "MatMul", {"x", "w"}, {"h"});
  onnx::NodeProto& relu = AddNode(model, "Relu", {"h"}, {"y"});
  onnx::AttributeProto& ints = *relu.add_attribute();
  ints.set_name("ints");
  ints.set_type(onnx::AttributeProto::INTS);
  ints.add_ints(1);
  ints.add_ints(-2);
  onnx::StringStringEntryProto& entry = *model.add_metadata_props();
  entry.set_key("author");
  entry.set_value("someone");
  return model;
}

inline std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

inline absl::StatusOr<Graph> Read(const onnx::ModelProto& model) {
  return ReadOnnxBytes(Bytes(model.SerializeAsString()), "test.onnx");
}

/// A folder that is gone with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "octet-onnx-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string operator/(std::string_view name) const { return (path_ / name).string(); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline void WriteText(const std::string& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

}  // namespace octet::test

// Changes ONNX models at random, by what protobuf knows of their fields: numbers, names, operators, lists, whole sub-messages.
#pragma once

#include <random>
#include <string>
#include <vector>

#include <onnx/onnx_pb.h>

namespace octet::fuzz {

/// Keeps models protobufs that parse, and lets everything else about them go wrong. Names and operators are drawn from
/// the names of the same model and of others, so that edges are rewired and operators meet operands of other ones.
class ModelMutator {
 public:
  explicit ModelMutator(uint32_t seed) : random_(seed) {}

  /// Between one and four changes; `other` lends nodes, attributes and names.
  void Mutate(onnx::ModelProto& model, const onnx::ModelProto& other);
  /// Flips, removes and repeats bytes.
  void MutateBytes(std::string& bytes);

 private:
  using Message = google::protobuf::Message;
  using Field = google::protobuf::FieldDescriptor;

  size_t Below(size_t n) { return n == 0 ? 0 : random_() % n; }
  int64_t Integer();
  float Real();
  std::string Text();
  void MutateOnce(onnx::ModelProto& model, const onnx::ModelProto& other);
  void MutateMessage(Message& message);
  void MutateOneOf(Message& message, const Field& field);
  void MutateElement(Message& message, const Field& field, int index);
  void MutateList(Message& message, const Field& field);
  void Collect(Message& message);
  void CollectTexts(const onnx::ModelProto& model);
  void Splice(onnx::ModelProto& model, const onnx::ModelProto& other);

  std::mt19937 random_;
  std::vector<Message*> messages_;  ///< Every message of the model that is being changed.
  std::vector<std::string> texts_;
};

}  // namespace octet::fuzz

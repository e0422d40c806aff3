#include "tests/fuzz/model_mutator.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace octet::fuzz {
namespace {

// Elements of tensors are changed like any other field, but there are so many that a walk stops here.
constexpr int kLongList = 64;

}  // namespace

int64_t ModelMutator::Integer() {
  constexpr std::array<int64_t, 22> kInteresting = {-2,
                                                    -1,
                                                    0,
                                                    1,
                                                    2,
                                                    3,
                                                    4,
                                                    5,
                                                    6,
                                                    7,
                                                    8,
                                                    16,
                                                    127,
                                                    128,
                                                    255,
                                                    256,
                                                    1 << 16,
                                                    1 << 20,
                                                    int64_t{1} << 31,
                                                    int64_t{1} << 40,
                                                    std::numeric_limits<int64_t>::min(),
                                                    std::numeric_limits<int64_t>::max()};
  return kInteresting[Below(kInteresting.size())];
}

float ModelMutator::Real() {
  constexpr std::array<float, 10> kInteresting = {0,
                                                  -0.0F,
                                                  1,
                                                  -1,
                                                  0.5F,
                                                  1e-30F,
                                                  1e30F,
                                                  -1e30F,
                                                  std::numeric_limits<float>::infinity(),
                                                  std::numeric_limits<float>::quiet_NaN()};
  return kInteresting[Below(kInteresting.size())];
}

std::string ModelMutator::Text() {
  return Below(12) == 0 || texts_.empty() ? std::string() : texts_[Below(texts_.size())];
}

void ModelMutator::Mutate(onnx::ModelProto& model, const onnx::ModelProto& other) {
  texts_.clear();
  CollectTexts(model);
  CollectTexts(other);
  for (size_t i = Below(4) + 1; i > 0; --i) MutateOnce(model, other);
}

void ModelMutator::MutateOnce(onnx::ModelProto& model, const onnx::ModelProto& other) {
  if (Below(8) == 0) return Splice(model, other);
  messages_.clear();
  Collect(model);
  // What a value is declared to be only matters for inputs: nodes and attributes are worth more.
  for (int tries = 0; tries < 4; ++tries) {
    Message& message = *messages_[Below(messages_.size())];
    const bool node = message.GetDescriptor() == onnx::NodeProto::descriptor() ||
                      message.GetDescriptor() == onnx::AttributeProto::descriptor();
    if (node || tries == 3) return MutateMessage(message);
  }
}

void ModelMutator::Collect(Message& message) {
  messages_.push_back(&message);
  std::vector<const Field*> fields;
  const auto* reflection = message.GetReflection();
  reflection->ListFields(message, &fields);
  for (const Field* field : fields) {
    if (field->cpp_type() != Field::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      Collect(*reflection->MutableMessage(&message, field));
      continue;
    }
    for (int i = 0; i < reflection->FieldSize(message, field); ++i)
      Collect(*reflection->MutableRepeatedMessage(&message, field, i));
  }
}

void ModelMutator::CollectTexts(const onnx::ModelProto& model) {
  for (const onnx::NodeProto& node : model.graph().node()) {
    texts_.push_back(node.op_type());
    texts_.insert(texts_.end(), node.input().begin(), node.input().end());
    texts_.insert(texts_.end(), node.output().begin(), node.output().end());
    for (const onnx::AttributeProto& attribute : node.attribute()) {
      texts_.push_back(attribute.name());
      if (attribute.has_s()) texts_.push_back(attribute.s());
    }
  }
}

// A few nodes of another model, with their constants: they read what they find under their names.
void ModelMutator::Splice(onnx::ModelProto& model, const onnx::ModelProto& other) {
  onnx::GraphProto& graph = *model.mutable_graph();
  const auto& from = other.graph();
  if (from.node_size() == 0) return;
  const auto first = static_cast<int>(Below(static_cast<size_t>(from.node_size())));
  const int count = 1 + static_cast<int>(Below(3));
  std::string previous = graph.node_size() > 0 ? Text() : std::string();
  for (int i = first; i < std::min(first + count, from.node_size()); ++i) {
    onnx::NodeProto node = from.node(i);
    for (const auto& constant : from.initializer()) {
      if (std::ranges::find(node.input(), constant.name()) != node.input().end())
        *graph.add_initializer() = constant;
    }
    if (node.input_size() > 0 && Below(2) == 0) node.set_input(0, previous);
    for (std::string& output : *node.mutable_output()) output += "_spliced";
    if (node.output_size() > 0) previous = node.output(0);
    *graph.add_node() = std::move(node);
  }
  if (graph.output_size() > 0 && Below(2) == 0) graph.mutable_output(0)->set_name(previous);
}

void ModelMutator::MutateMessage(Message& message) {
  std::vector<const Field*> fields;
  const auto* reflection = message.GetReflection();
  reflection->ListFields(message, &fields);
  if (fields.empty() || Below(6) == 0) {
    const auto* descriptor = message.GetDescriptor();
    if (descriptor->field_count() == 0) return;
    return MutateOneOf(message, *descriptor->field(static_cast<int>(
                                    Below(static_cast<size_t>(descriptor->field_count())))));
  }
  MutateOneOf(message, *fields[Below(fields.size())]);
}

void ModelMutator::MutateOneOf(Message& message, const Field& field) {
  const auto* reflection = message.GetReflection();
  if (field.is_repeated()) return MutateList(message, field);
  if (Below(8) == 0) return reflection->ClearField(&message, &field);
  MutateElement(message, field, -1);
}

// Sets the field, or one of its elements.
void ModelMutator::MutateElement(Message& message, const Field& field, int index) {
  const auto* reflection = message.GetReflection();
  const auto set = [&](auto setter, auto repeated, auto value) {
    if (index < 0) {
      (reflection->*setter)(&message, &field, value);
    } else {
      (reflection->*repeated)(&message, &field, index, value);
    }
  };
  using Reflection = google::protobuf::Reflection;
  switch (field.cpp_type()) {
    case Field::CPPTYPE_INT32:
      return set(&Reflection::SetInt32, &Reflection::SetRepeatedInt32,
                 static_cast<int32_t>(Integer()));
    case Field::CPPTYPE_INT64:
      return set(&Reflection::SetInt64, &Reflection::SetRepeatedInt64, Integer());
    case Field::CPPTYPE_UINT64:
      return set(&Reflection::SetUInt64, &Reflection::SetRepeatedUInt64,
                 static_cast<uint64_t>(Integer()));
    case Field::CPPTYPE_FLOAT:
      return set(&Reflection::SetFloat, &Reflection::SetRepeatedFloat, Real());
    case Field::CPPTYPE_DOUBLE:
      return set(&Reflection::SetDouble, &Reflection::SetRepeatedDouble,
                 static_cast<double>(Real()));
    case Field::CPPTYPE_ENUM:
      return set(&Reflection::SetEnumValue, &Reflection::SetRepeatedEnumValue,
                 static_cast<int>(Below(24)));
    case Field::CPPTYPE_STRING: {
      std::string text = index < 0 ? reflection->GetString(message, &field)
                                   : reflection->GetRepeatedString(message, &field, index);
      if (field.type() == Field::TYPE_BYTES && text.size() > 1 && Below(4) != 0) {
        MutateBytes(text);
      } else {
        text = Text();
      }
      return index < 0 ? reflection->SetString(&message, &field, text)
                       : reflection->SetRepeatedString(&message, &field, index, text);
    }
    case Field::CPPTYPE_MESSAGE:
      return MutateMessage(index < 0
                               ? *reflection->MutableMessage(&message, &field)
                               : *reflection->MutableRepeatedMessage(&message, &field, index));
    default:
      return;
  }
}

void ModelMutator::MutateList(Message& message, const Field& field) {
  const auto* reflection = message.GetReflection();
  const int size = reflection->FieldSize(message, &field);
  const auto pick = [&] { return static_cast<int>(Below(static_cast<size_t>(size))); };
  if (size > 0) {
    switch (Below(6)) {
      case 0:
        return reflection->RemoveLast(&message, &field);
      case 1:
        return reflection->SwapElements(&message, &field, pick(), pick());
      case 2:
      case 3:
      case 4:
        return MutateElement(message, field, pick());
      default:
        break;
    }
  }
  if (size > kLongList) return;
  switch (field.cpp_type()) {
    case Field::CPPTYPE_INT64:
      return reflection->AddInt64(&message, &field, Integer());
    case Field::CPPTYPE_FLOAT:
      return reflection->AddFloat(&message, &field, Real());
    case Field::CPPTYPE_STRING:
      return reflection->AddString(&message, &field, Text());
    case Field::CPPTYPE_MESSAGE: {
      Message* added = reflection->AddMessage(&message, &field);
      if (size > 0) added->CopyFrom(reflection->GetRepeatedMessage(message, &field, pick()));
      return MutateMessage(*added);
    }
    default:
      return;
  }
}

void ModelMutator::MutateBytes(std::string& bytes) {
  for (size_t i = Below(4) + 1; i > 0 && !bytes.empty(); --i) {
    const size_t at = Below(bytes.size());
    switch (Below(4)) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << Below(8)));
        break;
      case 1:
        bytes[at] = static_cast<char>(random_());
        break;
      case 2:
        bytes.erase(at, Below(8) + 1);
        break;
      default:
        bytes.insert(at, bytes.substr(Below(bytes.size()), Below(16)));
        break;
    }
  }
}

}  // namespace octet::fuzz

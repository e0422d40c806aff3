// What every graph of an ONNX model refers to: the opsets that it imports, and its functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <tuple>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <onnx/onnx_pb.h>

namespace octet {

/// The imported version of each domain, by its normal name.
using Opsets = std::map<std::string, int>;

/// Values of a function's attributes in one call: those of the call, else the function's defaults. What neither gives is
/// not there. The messages are the file's.
using CallAttributes = std::map<std::string, const onnx::AttributeProto*, std::less<>>;

/// A FunctionProto, and what reading its nodes once costs.
struct ModelFunction {
  const onnx::FunctionProto* proto = nullptr;
  Opsets opsets;
  int64_t nodes = 0;  ///< Those of sub-graphs among them.
  int64_t names = 0;  ///< Of nodes and values.
  uint64_t bytes = 0;
  bool read = false;  ///< The members above are there: after the first call.
  bool open = false;  ///< Its nodes are being read.
};

/// The functions that a model brings, by domain, name and overload, and bounds on what reading them makes: a few functions that
/// call each other twice would else be more nodes than any memory holds. Thread-safety: none.
/// Source: ONNX, IR.md "Model-local functions".
class ModelFunctions {
 public:
  /// Calls and sub-graphs within each other, counted together.
  static constexpr int kMaxDepth = 32;
  /// Nodes, and bytes of messages and names, that calls add to those of the file.
  static constexpr int64_t kMaxAddedNodes = int64_t{1} << 17;
  static constexpr uint64_t kMaxAddedBytes = uint64_t{1} << 28;

  /// Requires: `model` outlives the result and is not changed in its functions.
  /// Errors: INVALID_ARGUMENT for impossible opsets and for two functions of one name, UNIMPLEMENTED for opsets that Octet does not
  /// read. Functions that nobody calls are not looked at.
  static absl::StatusOr<ModelFunctions> Read(const onnx::ModelProto& model);

  /// Of the model's graph.
  const Opsets& opsets() const { return opsets_; }
  /// The function that the node calls, null when it is none of the model's.
  ModelFunction* Find(const onnx::NodeProto& node);

  /// Begins a call whose names begin with `prefix`. Errors: INVALID_ARGUMENT when the function calls itself, when calls nest too
  /// deep, for wrong opsets; RESOURCE_EXHAUSTED when calls add more than the bounds.
  absl::Status Open(ModelFunction& function, std::string_view prefix);
  void Close(ModelFunction& function);
  /// The same for a sub-graph.
  absl::Status OpenBody();
  void CloseBody() { --depth_; }

  /// The attributes of `call`; those that refer to an attribute of the function around it (`outer`, null in a graph) are its.
  /// Errors: INVALID_ARGUMENT for an attribute that the function does not have or that is given twice.
  static absl::StatusOr<CallAttributes> Bind(const ModelFunction& function,
                                             const onnx::NodeProto& call,
                                             const CallAttributes* outer);
  /// What `attribute`, which refers to an attribute of the call, stands for, under its own name.
  /// Requires: value is not null. Errors: INVALID_ARGUMENT when the types differ, UNIMPLEMENTED for a sub-graph,
  /// RESOURCE_EXHAUSTED as Open.
  absl::StatusOr<onnx::AttributeProto> Resolve(const onnx::AttributeProto& attribute,
                                               const onnx::AttributeProto& value);

 private:
  using Key = std::tuple<std::string, std::string, std::string>;  // Domain, name, overload.

  absl::Status Charge(int64_t nodes, uint64_t bytes);
  absl::Status Descend();

  Opsets opsets_;
  std::map<Key, ModelFunction> functions_;
  int depth_ = 0;
  int64_t added_nodes_ = 0;
  uint64_t added_bytes_ = 0;
};

}  // namespace octet

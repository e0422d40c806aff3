// com.microsoft's operators that ONNX Runtime's optimizer makes of several: FusedConv, FusedGemm, FusedMatMul
// (TransposeMatMul), BiasGelu, FastGelu, QuickGelu. Source: ONNX Runtime, docs/ContribOperators.md.
#include <algorithm>
#include <array>
#include <utility>

#include "engine/ops/function.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// An activation by name, and its parameters as far as it has them.
absl::StatusOr<ValueId> Activated(FunctionBody& body, ValueId x,
                                  std::span<const float> parameters) {
  OCTET_ASSIGN_OR_RETURN(const std::string name, body.attributes().String("activation", ""));
  const auto parameter = [&](size_t i, float fallback) {
    return i < parameters.size() ? parameters[i] : fallback;
  };
  if (name.empty()) return x;
  if (name == "Relu" || name == "Sigmoid" || name == "Tanh") return body.Op(name, {x});
  if (name == "LeakyRelu") return body.Op(name, {x}, {{"alpha", parameter(0, 0.01F)}});
  if (name == "HardSigmoid") {
    return body.Op(name, {x}, {{"alpha", parameter(0, 0.2F)}, {"beta", parameter(1, 0.5F)}});
  }
  if (name == "Clip" && parameters.size() == 2)
    return body.Op(name, {x, body.Scalar(parameters[0]), body.Scalar(parameters[1])});
  return Unimplemented("unsupported attribute 'activation' = '{}' with {} parameters", name,
                       parameters.size());
}

// y = activation(Conv(x, w, b) + z).
absl::Status ExpandFusedConv(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(2, 4));
  OCTET_ASSIGN_OR_RETURN(const auto parameters, body.attributes().Floats("activation_params", {}));
  ValueId y =
      body.Op("Conv", {body.input(0), body.input(1), body.input(2)},
              body.Given({"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"}));
  if (body.has(3)) y = body.Op("Add", {y, body.input(3)});
  OCTET_ASSIGN_OR_RETURN(y, Activated(body, y, parameters));
  body.Output(0, y);
  return absl::OkStatus();
}

absl::Status ExpandFusedGemm(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(2, 3));
  std::vector<float> parameters;
  for (const char* name : {"activation_alpha", "activation_beta"}) {
    if (!body.attributes().has(name)) break;
    OCTET_ASSIGN_OR_RETURN(parameters.emplace_back(), body.attributes().Float(name, 0));
  }
  const ValueId y = body.Op("Gemm", {body.input(0), body.input(1), body.input(2)},
                            body.Given({"alpha", "beta", "transA", "transB"}));
  OCTET_ASSIGN_OR_RETURN(const ValueId activated, Activated(body, y, parameters));
  body.Output(0, activated);
  return absl::OkStatus();
}

// An operand of FusedMatMul as MatMul takes it: first axis 0 behind the batch, then the last two swapped.
ValueId Turned(FunctionBody& body, ValueId x, bool batch, bool matrix) {
  const int rank = body.rank(x);
  if (rank < 2 || (!batch && !matrix)) return x;
  std::vector<int64_t> perm;
  for (int i = 0; i < rank; ++i) perm.push_back(i);
  if (batch) std::rotate(perm.begin(), perm.begin() + 1, perm.end() - 1);
  if (matrix) std::swap(perm[perm.size() - 1], perm[perm.size() - 2]);
  return body.Op("Transpose", {x}, {{"perm", std::move(perm)}});
}

// Y = alpha * A' B'.
absl::Status ExpandFusedMatMul(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(2, 2));
  OCTET_ASSIGN_OR_RETURN(const float alpha, body.attributes().Float("alpha", 1.0F));
  std::array<ValueId, 2> operands{};
  constexpr std::array<std::array<std::string_view, 2>, 2> kNames = {
      {{"transBatchA", "transA"}, {"transBatchB", "transB"}}};
  for (size_t i = 0; i < operands.size(); ++i) {
    OCTET_ASSIGN_OR_RETURN(const int64_t batch, body.attributes().Int(kNames[i][0], 0));
    OCTET_ASSIGN_OR_RETURN(const int64_t matrix, body.attributes().Int(kNames[i][1], 0));
    if ((batch != 0 || matrix != 0) && body.rank(body.input(i)) < 0)
      return body.Later(body.value(body.input(0)).dtype);
    operands[i] = Turned(body, body.input(i), batch != 0, matrix != 0);
  }
  ValueId y = body.Op("MatMul", {operands[0], operands[1]});
  if (alpha != 1.0F) y = body.Op("Mul", {y, body.Scalar(alpha)});
  body.Output(0, y);
  return absl::OkStatus();
}

absl::Status ExpandBiasGelu(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(2, 2));
  body.Output(0, body.Op("Gelu", {body.Op("Add", {body.input(0), body.input(1)})}));
  return absl::OkStatus();
}

absl::Status ExpandGelu(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 1));
  body.Output(0, body.Op("Gelu", {body.input(0)}));
  return absl::OkStatus();
}

absl::Status ExpandFastGelu(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 2));
  ValueId x = body.input(0);
  if (body.has(1)) x = body.Op("Add", {x, body.input(1)});
  body.Output(0, body.Op("Gelu", {x}, {{"approximate", std::string("tanh")}}));
  return absl::OkStatus();
}

// y = x * sigmoid(alpha * x).
absl::Status ExpandQuickGelu(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 1));
  OCTET_ASSIGN_OR_RETURN(const float alpha, body.attributes().Float("alpha", 1.702F));
  const ValueId scaled = body.Op("Mul", {body.input(0), body.Scalar(alpha)});
  body.Output(0, body.Op("Mul", {body.input(0), body.Op("Sigmoid", {scaled})}));
  return absl::OkStatus();
}

constexpr OpDef kFusedOps[] = {
    Function(kMicrosoftDomain, "FusedConv", ExpandFusedConv),
    Function(kMicrosoftDomain, "FusedGemm", ExpandFusedGemm),
    Function(kMicrosoftDomain, "FusedMatMul", ExpandFusedMatMul),
    Function(kMicrosoftDomain, "TransposeMatMul", ExpandFusedMatMul),
    Function(kMicrosoftDomain, "Gelu", ExpandGelu),
    Function(kMicrosoftDomain, "BiasGelu", ExpandBiasGelu),
    Function(kMicrosoftDomain, "FastGelu", ExpandFastGelu),
    Function(kMicrosoftDomain, "QuickGelu", ExpandQuickGelu),
};

}  // namespace

std::span<const OpDef> FusedOps() { return kFusedOps; }

}  // namespace octet

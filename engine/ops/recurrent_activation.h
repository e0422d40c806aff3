// The activation functions that recurrent cells choose from by name.
#pragma once

#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/ops/activation_math.h"

namespace octet {

/// One activation of a cell, with its parameters. Source: ONNX LSTM-22, "Equations".
struct RecurrentActivation {
  enum class Kind : uint8_t {
    kRelu,
    kTanh,
    kSigmoid,
    kAffine,           ///< alpha * x + beta
    kLeakyRelu,        ///< alpha
    kThresholdedRelu,  ///< x when x >= alpha, else 0
    kScaledTanh,       ///< alpha * tanh(beta * x)
    kHardSigmoid,      ///< alpha, beta
    kElu,              ///< alpha
    kSoftsign,
    kSoftplus,
  };
  Kind kind;
  float alpha = 0;
  float beta = 0;

  /// The name that a node knows it by, in lower case, and whether it takes the parameters.
  std::string_view name() const;
  bool takes_alpha() const;
  bool takes_beta() const;

  template <typename T>
  OCTET_INLINE T operator()(T x) const {
    const T a = static_cast<T>(alpha);
    const T b = static_cast<T>(beta);
    switch (kind) {
      case Kind::kRelu:
        return math::Relu(x);
      case Kind::kTanh:
        return math::Tanh(x);
      case Kind::kSigmoid:
        return math::Sigmoid(x);
      case Kind::kAffine:
        return a * x + b;
      case Kind::kLeakyRelu:
        return math::LeakyRelu(x, a);
      case Kind::kThresholdedRelu:
        return x >= a ? x : T{0};
      case Kind::kScaledTanh:
        return a * math::Tanh(b * x);
      case Kind::kHardSigmoid:
        return math::HardSigmoid(x, a, b);
      case Kind::kElu:
        return math::Elu(x, a);
      case Kind::kSoftsign:
        return x / (T{1} + std::abs(x));
      case Kind::kSoftplus:
        return math::Softplus(x);
    }
    return x;
  }
};

/// Reads `activations`, `activation_alpha` and `activation_beta`: one entry per direction and default, the
/// parameters in the order of the activations that take them. Names are compared without case.
/// INVALID_ARGUMENT for an unknown name or a wrong count.
absl::StatusOr<std::vector<RecurrentActivation>> ReadActivations(
    const Node& node, const std::vector<std::string>& defaults, size_t directions);

}  // namespace octet

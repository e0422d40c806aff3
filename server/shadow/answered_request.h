// What an answered request leaves behind for those that look at it afterwards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/graph/precision.h"
#include "engine/tensor/wire_tensor.h"
#include "server/scheduling/clock.h"

namespace octet {

/// An output as the model answered it.
struct AnsweredOutput {
  TensorSpec spec;
  const void* data = nullptr;  ///< Elements; of BYTES their wire form where they are no tensor's.
  size_t bytes = 0;
  Tensor tensor = {};  ///< That `data` are the elements of, if it is one's.
  std::shared_ptr<const std::string> held = nullptr;  ///< What went into shared memory.
};

/// A request of a model's version that was answered. Its tensors stay where they are.
struct AnsweredRequest {
  Precision precision = Precision::kFp32;  ///< That answered.
  TimePoint received;
  std::vector<WireTensor> inputs;  ///< In the signature's order.
  int64_t rows = 1;
  std::vector<std::optional<AnsweredOutput>> outputs;  ///< Likewise; nullopt: not asked for.
  std::vector<std::shared_ptr<const void>> kept;       ///< What inputs and outputs point into.
  size_t kept_bytes = 0;                               ///< Memory of these.
};

}  // namespace octet

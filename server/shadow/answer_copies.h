// Who gets a request beside the client: the capture of its version, and its shadow.
#pragma once

#include <memory>

#include "engine/graph/precision.h"
#include "server/repository/model_version.h"
#include "server/scheduling/dispatcher.h"
#include "server/shadow/answered_request.h"

namespace octet {

/// Drawn before a request is submitted, made when it was answered. Thread-safety: one thread at a time.
class AnswerCopies {
 public:
  AnswerCopies() = default;
  /// For a request of the version that `precision` is to answer. `captures`: its client lets its inputs be kept.
  AnswerCopies(const ModelVersion& version, Precision precision, bool captures);

  bool any() const { return shadow_ != nullptr || capture_ != nullptr; }
  /// The answer is to be compared with a shadow's.
  bool compares() const { return shadow_ != nullptr; }

  /// Lets the copies follow the answer, which must not wait for them. No error reaches anybody: they are counted.
  void Make(AnsweredRequest request, Dispatcher& dispatcher) &&;

 private:
  std::shared_ptr<ServedShadow> shadow_;     ///< Null: none.
  std::shared_ptr<RequestCapture> capture_;  ///< Null: none.
  double capture_draw_ = 0;
};

}  // namespace octet

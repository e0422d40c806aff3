// The answer of one request: which outputs it wants, and where the worker writes them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "proto/inference.pb.h"
#include "server/repository/model_version.h"
#include "server/rpc/infer_messages.h"
#include "server/rpc/shared_memory.h"
#include "server/scheduling/request.h"
#include "server/shadow/answered_request.h"

namespace octet {

/// Sharing the memory of what is smaller costs more than to copy it.
inline constexpr size_t kLeastShared = 8192;

/// Fills a ModelInferResponse. Requires: the calls in this order, with something that orders them.
///
///     Begin --Reserve, Keep or TakeStrings, by who runs it, per output--> Complete
class ResponseWriter final : public OutputSink {
 public:
  /// Lays out the response: the outputs asked for, in that order, or all of them in the signature's.
  /// INVALID_ARGUMENT for an output that does not exist or is asked for twice, or a classification
  /// of fewer than one class, or of BYTES; as FindSharedSlice (`memory` may be null) for one into shared
  /// memory. All outlive the writer.
  absl::Status Begin(const ModelVersion& version, const SharedMemory* memory,
                     InferMessages& messages);

  /// Keeps nothing from now on.
  void CopyAll() { keeps_ = false; }

  /// The bytes of an output in the response itself.
  void* Reserve(size_t index, const TensorSpec& spec) override;
  /// Keeps kLeastShared bytes or more, of an output that goes into the response as it is.
  bool Keep(size_t index, const TensorSpec& spec, std::shared_ptr<const std::byte[]> owner,
            const std::byte* elements) override;
  /// Writes BYTES into the response. RESOURCE_EXHAUSTED for more than a message holds.
  absl::Status TakeStrings(size_t index, ConstTensorView strings) override;

  /// Writes what comes beside the tensors: model, version, id, and the parameters "precision" and
  /// "route", which say who answered and why; of a pipeline, whose steps have both, neither. Moves the
  /// outputs that go into shared memory there; their raw contents stay, empty, since clients count them.
  /// INVALID_ARGUMENT naming an output that does not fit; as SharedRegion::Write.
  absl::Status Complete(const Route& route);

  /// The outputs, in the signature's order; nullopt for one that was not asked for. They point into
  /// the messages. Requires: Complete.
  std::vector<std::optional<AnsweredOutput>> Answers() const;

 private:
  struct Requested {
    int place = -1;       ///< Where in the response; -1 = not asked for.
    int64_t classes = 0;  ///< > 0: the best so many classes instead of the tensor.
    Tensor scores;        ///< What the worker writes then.
    std::optional<SharedSlice> shared = std::nullopt;  ///< Where it goes instead of the response...
    std::shared_ptr<const std::string> held = nullptr;  ///< ...and what went there.
  };

  absl::Status Request(const inference::ModelInferRequest::InferRequestedOutputTensor& wanted);
  void Add(size_t index);
  void WriteClasses(Requested& output);
  absl::Status WriteShared(Requested& output);
  void Describe(int place, std::string_view datatype, const Shape& shape);

  InferMessages* messages_ = nullptr;
  const ModelVersion* version_ = nullptr;
  const SharedMemory* memory_ = nullptr;
  inference::ModelInferResponse* response_ = nullptr;  ///< Of messages_.
  std::vector<Requested> outputs_;                     ///< In the signature's order.
  bool keeps_ = true;
};

}  // namespace octet

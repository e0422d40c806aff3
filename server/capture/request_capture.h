// Keeps inputs of answered requests, for `octet quantize --calibration`, `octet qat --data` and `octet replay`.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "config/model_config.h"
#include "engine/engine.h"
#include "engine/tensor/wire_tensor.h"
#include "server/capture/uniform_sample.h"
#include "server/metrics/registry.h"

namespace octet {

/// Why a request that was drawn is in no sample; also the label of the metric that counts it.
enum class CaptureDrop : uint8_t {
  kTooLarge,  ///< For the whole sample, or for its files.
  kAxis0,     ///< Its inputs do not have the same extent along axis 0, or 0: no sample.
  kShapes,    ///< The sample has as many shapes as it may.
  kDType,     ///< An element type that .npz files do not hold: BF16.
  kBusy,      ///< It would have replaced a request that was being written or copied.
  kMemory,    ///< There was none.
  kNul,       ///< An element of BYTES ends with a zero byte, which .npz files do not keep.
};

/// Whose requests are kept.
struct CaptureOrigin {
  std::string model;
  int64_t version = 0;
  std::string path;  ///< The folder that all captures go to.
};

/// The sample of one model version, from its load to its unload, and its files:
///
///     <path>/<model>/<version>/<shapes>.npz      shapes: "uint8-3x32x32", one part per input
///
/// A file holds one array per input, in the order and under the names of the signature, as clients sent it (a narrower wire
/// type stays what it is); axis 0 joins the rows of the requests, in an order that is random. Requests whose
/// element types or extents behind axis 0 differ go to different files. Elements of redacted inputs are zeros or empty
/// strings, and are not even copied. All files together hold at most UniformSample::kFileFactor times the rule's
/// max_bytes, in which redacted inputs have their full size and strings the length of their file's longest.
///
/// The version's folders are made with the permissions 0700 and its files with 0600, each written whole and moved into
/// place; `path` itself must exist. A file of an earlier load is replaced by the first one of the same shapes; what a process
/// that was killed had half written goes with the first write. What cannot be written is logged once, counted, and tried again.
/// Thread-safety: safe.
class RequestCapture {
 public:
  /// INVALID_ARGUMENT when the rule or the model cannot be served: a redacted input that the model does not have, an input
  /// of BF16, inputs without a common axis 0, a model's name that is no folder's.
  static absl::StatusOr<std::shared_ptr<RequestCapture>> Make(
      const CaptureOrigin& origin, const Signature& signature, const ModelConfig::Capture& rule,
      std::shared_ptr<CaptureMetrics> metrics);

  /// True when it may go on for a version with this signature and rule.
  bool Serves(const Signature& signature, const ModelConfig::Capture& rule) const;

  /// True for a request to be offered once it was answered. `draw`: uniform in [0, 1), the request's own.
  bool Draws(double draw) const { return draw < share_; }

  /// Copies the inputs when the sample takes them. Requires: Draws(draw), the same draw; the signature's order; nobody
  /// waits for the answer any more. Errors reach nobody: they are counted.
  void Offer(double draw, std::span<const WireTensor> inputs);

  /// Writes the files whose requests changed since they were written. Takes as long as the disk does.
  void Write();

  /// Writes for the last time and takes nothing any more: from its return on the files are the next one's, whoever still calls
  /// Write, and what was being copied is lost.
  void Close();

  /// True when this one keeps elements of an input that `next`, of the same version, redacts.
  bool ShowsMoreThan(const RequestCapture& next) const;
  /// Takes nothing any more, writes nothing, and removes every .npz file from the version's folder, whole or partly written: of
  /// this sample, and of those before it. Where Write would refuse a folder, a link in its place, nothing is removed, and a link
  /// or a folder named like a file stays. What cannot be removed keeps nothing else. Logged either way. Requires: the next one
  /// has not written yet.
  void Discard();

 private:
  struct Input {
    std::string name;
    DType dtype = DType::kUndefined;  ///< The model's.
    bool redacted = false;
  };

  RequestCapture(const CaptureOrigin& origin, const Signature& signature,
                 const ModelConfig::Capture& rule, std::shared_ptr<CaptureMetrics> metrics);

  void Take(double draw, std::span<const WireTensor> inputs);
  std::vector<UniformSample::Input> CopyOf(std::span<const WireTensor> inputs) const;
  size_t BytesOf(std::span<const WireTensor> inputs) const;
  UniformSample::FileShare FileShareOf(std::span<const WireTensor> inputs) const;
  void Drop(CaptureDrop why) { metrics_->dropped.Add(static_cast<size_t>(why)); }
  void ShowTotals();

  void WriteIfChanged() ABSL_EXCLUSIVE_LOCKS_REQUIRED(writing_);
  absl::Status WriteChanged(const UniformSample::Snapshot& snapshot)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(writing_);
  absl::Status WriteShape(const UniformSample::Snapshot& snapshot, size_t shape) const;
  absl::Status RemoveFiles() const;
  std::string ModelFolder() const;
  std::string Folder() const;
  std::string FileOf(const UniformSample::Snapshot& snapshot, size_t shape) const;
  void Report(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(writing_);

  const CaptureOrigin origin_;
  const ModelConfig::Capture rule_;
  const double share_;
  std::vector<Input> inputs_;  ///< In the signature's order; does not change.
  const std::shared_ptr<CaptureMetrics> metrics_;
  UniformSample sample_;
  std::atomic<bool> closed_{false};
  absl::Mutex showing_;  ///< So that the gauges end with the newest totals.

  /// Held while files are written, by nothing that serves.
  absl::Mutex writing_;
  bool ended_ ABSL_GUARDED_BY(writing_) =
      false;  ///< By Close or Discard: the files are the next one's.
  uint64_t written_changes_ ABSL_GUARDED_BY(writing_) = 0;
  std::vector<uint64_t> written_ ABSL_GUARDED_BY(writing_);  ///< By shape: changes in its file.
  bool failing_ ABSL_GUARDED_BY(writing_) = false;
};

}  // namespace octet

// The live sequences of a model with state: whose turn it is, and what the next request of each gets.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "server/metrics/registry.h"
#include "server/routing/routing.h"
#include "server/scheduling/clock.h"
#include "server/scheduling/request.h"
#include "server/sequence/growing_state.h"
#include "server/sequence/state_layout.h"

namespace octet {

struct ModelVersion;
struct Sequence;
class SequenceStore;

/// What a client calls a sequence: a number and a text are never the same one.
using SequenceId = std::variant<uint64_t, std::string>;

/// What a request says of its sequence.
struct SequenceCall {
  SequenceId id;
  bool start = false;
  bool end = false;
};

/// Why a sequence is no longer live; also the label of the metric that counts it.
enum class SequenceEnd : uint8_t {
  kEnd,          ///< The client said so.
  kRestart,      ///< Another one of its name began.
  kFailedStart,  ///< Its first request failed.
  kIdle,
  kReplaced,  ///< Its version was replaced, and the time to drain is over; or unloaded.
};

/// Why a request did not get into a sequence; also the label of the metric that counts it.
enum class SequenceRefusal : uint8_t { kNoStart, kTooMany, kTooManyWait, kReplaced };

/// Where a sequence runs, from its start to its end.
struct SequenceHome {
  std::shared_ptr<const ModelVersion> version;
  Route route;                   ///< Its precision, and why that was chosen.
  const Model* model = nullptr;  ///< Of that precision, which `version` keeps.
  std::shared_ptr<const StateLayout> layout;
  std::shared_ptr<SequenceMetrics> metrics;
};

struct SequenceLimits {
  size_t max_sequences = 1024;
  Nanoseconds idle = std::chrono::seconds(60);
  Nanoseconds drain = std::chrono::seconds(300);
  size_t max_state_bytes = size_t{1} << 30;  ///< Of states that grow, both copies.
  size_t max_waiting_requests = 256;
  size_t max_waiting_bytes = size_t{256} << 20;
};

/// A request's place in its sequence, from its arrival until this is destroyed, which lets the next one run. It stands between
/// the worker and the answer, and keeps the states that the model gives back.
///
///     Enter --> (waits behind the others) --run(OK)--> Inputs, the worker's Reserve --> Commit --> destroyed
///                        +--the sequence is over: run(error)------------------------------^
///
/// Destroyed without Commit (refused, expired, cancelled, failed) it leaves the state as it was before.
/// Thread-safety: its calls are ordered by who holds it.
class SequenceStep final : public OutputSink {
 public:
  using Run = absl::AnyInvocable<void(const absl::Status& turn) &&>;

  /// What waiting is for and what it costs.
  struct Wait {
    size_t bytes = 0;  ///< Kept in memory meanwhile.
    TimePoint deadline = kNever;
    const std::atomic<bool>* cancelled = nullptr;  ///< As InferenceRequest::cancelled.
  };

  ~SequenceStep() override;
  SequenceStep(const SequenceStep&) = delete;
  SequenceStep& operator=(const SequenceStep&) = delete;

  const SequenceHome& home() const { return home_; }

  /// Calls `run` once, without the store's lock held (who calls EndAll may hold others), perhaps before this returns, else on the
  /// thread that ends the request before, or on that of Expire, EndAll or another's Enter: with OK when it is its turn; with an
  /// error when that never comes. RESOURCE_EXHAUSTED when too much waits already; DEADLINE_EXCEEDED and CANCELLED when Expire, or
  /// who needs the room, finds that nobody waits for it any more.
  void AwaitTurn(const Wait& wait, Run run);

  /// What the model is given: what came from the client, in the order of layout->clients, and the states. `answer` gets the
  /// outputs that are no states. Requires: its turn has come.
  std::vector<WireTensor> Inputs(std::vector<WireTensor> from_client, OutputSink& answer);

  void* Reserve(size_t index, const TensorSpec& spec) override;
  absl::Status TakeStrings(size_t index, ConstTensorView strings) override;

  /// The request is answered: its states are the sequence's, which is over when it was the last one. INTERNAL when the model
  /// gave a state of another shape, RESOURCE_EXHAUSTED when states that grow need too much memory; then nothing has changed.
  absl::Status Commit();

 private:
  friend class SequenceStore;
  enum class Phase : uint8_t { kEntering, kWaiting, kRunning };

  void* ReserveState(size_t place, const TensorSpec& spec);

  SequenceStep(std::shared_ptr<SequenceStore> store, bool start, bool end)
      : store_(std::move(store)), start_(start), end_(end) {}

  const std::shared_ptr<SequenceStore> store_;
  std::shared_ptr<Sequence> sequence_;
  SequenceHome home_;
  const bool start_;
  const bool end_;
  OutputSink* answer_ = nullptr;
  size_t written_ = 0;                ///< States that the worker has asked room for.
  const std::byte* reads_ = nullptr;  ///< Null: the initial state.
  std::byte* writes_ = nullptr;
  const std::vector<GrowingState>* grown_reads_ =
      nullptr;  ///< By the state's place, as grown_writes_.
  std::vector<GrowingState>* grown_writes_ = nullptr;
  int writes_to_ = 0;  ///< Which copy that is.
  size_t max_state_bytes_ = 0;
  absl::Status refused_;  ///< Why a state got no room.

  // Protected by the store's lock.
  Phase phase_ = Phase::kEntering;
  bool committed_ = false;
  Wait wait_;
  Run run_;
};

/// The sequences of one model, of all its versions together. Requests of one sequence run one at a time in the order of their
/// arrival; those of different ones wait in their variant's queue together, and so share batches.
///
///     (none) --start--> live --end answered, idle--> (none)
///                        ^ +--start again: another sequence of the same name; what the first one still holds is answered by it
///
/// A sequence stays on the version and the precision that its start got. When the version is replaced and the new one serves
/// the same loaded model in that precision (only model.yaml changed), it goes on there; else it may go on where it is
/// for `drain`, then its requests are UNAVAILABLE and say that it must start again. An unloaded model has no sequences.
///
/// The state is kept twice: one copy is read while the other is written, and they change places when the request is answered. States
/// with open extents have memory of their own, which follows what the model gives back.
/// Of a request that fails nothing is seen. A start that got in and fails leaves no sequence, and what waits behind it is refused.
/// Thread-safety: safe; its lock is not held while `run` is called or a version is let go.
class SequenceStore : public std::enable_shared_from_this<SequenceStore> {
 public:
  /// `model` is its name, for messages. The clock outlives it.
  SequenceStore(std::string model, Clock& clock, std::shared_ptr<ModelSequenceMetrics> metrics)
      : model_(std::move(model)), clock_(clock), metrics_(std::move(metrics)) {}

  /// Of the sequences that follow, too.
  void SetLimits(const SequenceLimits& limits);

  /// Takes a request in. `home` is where a start begins, and nothing for others.
  /// INVALID_ARGUMENT for a sequence that is not live, RESOURCE_EXHAUSTED for one too many, UNAVAILABLE for one whose version
  /// has gone.
  absl::StatusOr<std::unique_ptr<SequenceStep>> Enter(const SequenceCall& call,
                                                      std::optional<SequenceHome> home);

  /// `before` was replaced by a version whose variants are `homes`, or taken out.
  void Replace(const std::shared_ptr<const ModelVersion>& before,
               const std::vector<SequenceHome>& homes);
  /// Ends what has been idle or draining for too long, and requests that wait for their turn in vain.
  void Expire();
  /// Ends every sequence, since nothing of the model is served any more, and takes none until SetLimits. What waits is refused
  /// before it returns, perhaps under locks of the caller.
  void EndAll();

  size_t live() const;

 private:
  friend class SequenceStep;
  using List = std::list<std::shared_ptr<Sequence>>;
  /// What is live no more: advanced, and let go, when no lock is held.
  using Gone = std::vector<std::shared_ptr<Sequence>>;
  /// What is run when no lock is held, and with which error.
  using Dead = std::vector<std::pair<SequenceStep::Run, absl::Status>>;

  /// Where the sequences of a replaced version go on. Does not keep that version.
  struct Successor {
    std::weak_ptr<const ModelVersion> version;
    Precision precision = Precision::kFp32;
    const Model* model = nullptr;  ///< As SequenceHome's: there as long as `version` is.
    std::shared_ptr<const StateLayout> layout;
  };
  /// A version that was replaced, and by what.
  struct Replaced {
    std::weak_ptr<const ModelVersion> version;
    std::vector<Successor> successors;
  };

  /// Lets the sequence go on in the version that serves the same model, if one does; else its time ends at `drain_until`.
  static void Move(Sequence& sequence, const std::vector<Successor>& successors,
                   TimePoint drain_until);
  absl::Status NoStart(const SequenceId& id) const;
  absl::Status MustRestart(const SequenceId& id) const;
  bool HasRoom(size_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Makes room for what waits in vain by taking it out.
  absl::Status CheckRoom(size_t bytes, Dead& dead) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Takes out who waits in vain, in sequences that are live no more, too.
  void TakeDead(TimePoint now, Dead& dead) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeDead(TimePoint now, SequenceStep& step, Dead& dead)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Finish(Dead dead);
  absl::Status Refuse(SequenceRefusal why, absl::Status status) const;
  absl::Status Add(const std::shared_ptr<Sequence>& sequence, TimePoint now, Gone& gone)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::shared_ptr<Sequence>> FindLive(const SequenceId& id, TimePoint now,
                                                     Gone& gone)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// It is live no more; what it still holds may run unless `over` is set.
  void Detach(Sequence& sequence, SequenceEnd why, Gone& gone)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Detaches it because of its version; what it holds and its next requests are refused.
  void CutOff(Sequence& sequence, TimePoint now, Gone& gone) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ExpireIdle(TimePoint now, Gone& gone) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ExpireDraining(TimePoint now, Gone& gone) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Leave(SequenceStep& step) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Brings the metric to what the states of a live sequence take. Requires: no request but the caller's may change that.
  static void CountStates(Sequence& sequence);
  /// It waits no more. Returns what it runs.
  SequenceStep::Run StopWaiting(SequenceStep& step) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Runs what may run, until nothing of the sequence may. Requires: no lock; the caller keeps both alive.
  void Advance(Sequence& sequence);
  /// The same for those that were detached: what waits in one that was cut off is refused at once.
  void AdvanceAll(const Gone& gone);
  /// The request that runs or is refused next; null when none is.
  SequenceStep* TakeNext(Sequence& sequence) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string model_;
  Clock& clock_;
  const std::shared_ptr<ModelSequenceMetrics> metrics_;
  mutable absl::Mutex mutex_;
  SequenceLimits limits_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<SequenceId, List::iterator> live_ ABSL_GUARDED_BY(mutex_);
  List busy_ ABSL_GUARDED_BY(mutex_);
  List idle_ ABSL_GUARDED_BY(mutex_);      ///< Idle the longest first.
  List detached_ ABSL_GUARDED_BY(mutex_);  ///< Live no more, and still holding requests.
  /// Those that were cut off, and when: remembered as long as an idle one.
  std::unordered_map<SequenceId, TimePoint> cut_off_ ABSL_GUARDED_BY(mutex_);
  /// Those that somebody still holds: who has found one may begin there all the same.
  std::vector<Replaced> replaced_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;  ///< Some may have a drain_until.
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;    ///< By EndAll.
  /// Bytes of states that grow, of all sequences that somebody still holds.
  const std::shared_ptr<std::atomic<size_t>> grown_bytes_ =
      std::make_shared<std::atomic<size_t>>(0);
  size_t waiting_requests_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t waiting_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace octet

#include "server/sequence/sequence_store.h"

#include <algorithm>
#include <array>
#include <deque>
#include <utility>

#include "absl/cleanup/cleanup.h"

#include "engine/tensor/status.h"
#include "server/scheduling/retry_after.h"

namespace octet {

/// A live sequence, or one that was and still holds requests. All but `id`, the bytes of `states` and `grown` belong to the store's
/// lock; these belong to the request whose turn it is.
struct Sequence {
  Sequence(SequenceId name, SequenceHome where, const std::shared_ptr<std::atomic<size_t>>& total)
      : id(std::move(name)),
        home(std::move(where)),
        states(AllocateAligned(2 * home.layout->bytes)) {
    for (std::vector<GrowingState>& copy : grown) {
      for (size_t i = 0; i < home.layout->states.size(); ++i) copy.emplace_back(total);
    }
  }

  /// Requires: no request runs that may change it.
  size_t state_bytes() const {
    size_t bytes = 2 * home.layout->bytes;
    for (const std::vector<GrowingState>& copy : grown) {
      for (const GrowingState& state : copy) bytes += state.capacity();
    }
    return bytes;
  }

  const SequenceId id;
  SequenceHome home;
  const std::shared_ptr<std::byte[]> states;       ///< Two copies.
  std::array<std::vector<GrowingState>, 2> grown;  ///< Likewise; by the state's place.
  size_t counted_bytes = 0;                        ///< What the metric has of state_bytes().
  std::optional<int> current;       ///< Which of them is the state; none = the initial.
  std::deque<SequenceStep*> steps;  ///< In order of arrival.
  bool advancing = false;           ///< A thread is in Advance, and looks again.
  bool live = false;
  bool is_idle = false;
  absl::Status over;  ///< Why what it holds will not run.
  TimePoint idle_since;
  TimePoint drain_until = kNever;
  bool is_detached = false;                              ///< Not live, and in the list of those.
  std::list<std::shared_ptr<Sequence>>::iterator place;  ///< While it is live or detached.
};

namespace {

static_assert(SequenceEndLabel::kValues.size() == static_cast<size_t>(SequenceEnd::kReplaced) + 1);
static_assert(SequenceRefusalLabel::kValues.size() ==
              static_cast<size_t>(SequenceRefusal::kReplaced) + 1);

/// Of one that may be gone.
bool IsSame(const std::weak_ptr<const ModelVersion>& a,
            const std::shared_ptr<const ModelVersion>& b) {
  return !a.owner_before(b) && !b.owner_before(a);
}

std::string NameOf(const SequenceId& id) {
  if (const auto* text = std::get_if<std::string>(&id)) return "'" + *text + "'";
  return std::to_string(std::get<uint64_t>(id));
}

}  // namespace

SequenceStep::~SequenceStep() {
  if (sequence_ == nullptr) return;  // it never got in
  // What it got before it was refused is room for others.
  if (!refused_.ok()) std::ranges::for_each(*grown_writes_, &GrowingState::Clear);
  {
    absl::MutexLock lock(&store_->mutex_);
    store_->Leave(*this);
  }
  store_->Advance(*sequence_);
}

void SequenceStep::AwaitTurn(const Wait& wait, Run run) {
  // When `run` was called this object may be gone.
  const std::shared_ptr<SequenceStore> store = store_;
  const std::shared_ptr<Sequence> sequence = sequence_;
  absl::Status room;
  Run refused;
  SequenceStore::Dead dead;
  {
    absl::MutexLock lock(&store->mutex_);
    if (sequence->steps.front() != this) room = store->CheckRoom(wait.bytes, dead);
    if (room.ok()) {
      wait_ = wait;
      run_ = std::move(run);
      phase_ = Phase::kWaiting;
      store->waiting_bytes_ += wait.bytes;
      ++store->waiting_requests_;
      store->metrics_->waiting.Add(1);
    } else {
      refused = std::move(run);
    }
  }
  SequenceStore::Finish(std::move(dead));
  if (refused) return std::move(refused)(room);
  store->Advance(*sequence);
}

std::vector<WireTensor> SequenceStep::Inputs(std::vector<WireTensor> from_client,
                                             OutputSink& answer) {
  answer_ = &answer;
  const StateLayout& layout = *home_.layout;
  std::vector<WireTensor> inputs(from_client.size() + layout.states.size());
  for (size_t i = 0; i < from_client.size(); ++i) inputs[layout.input_places[i]] = from_client[i];
  for (size_t i = 0; i < layout.states.size(); ++i) {
    const StateTensor& state = layout.states[i];
    WireTensor& input = inputs[state.input];
    input = state.initial.view();
    if (reads_ == nullptr) continue;
    if (state.grows()) {
      const GrowingState& kept = (*grown_reads_)[i];
      input = WireTensor(kept.data(), kept.spec());
    } else {
      input.data = reads_ + state.offset;
    }
  }
  return inputs;
}

void* SequenceStep::Reserve(size_t index, const TensorSpec& spec) {
  const StateLayout::OutputPlace& place = home_.layout->outputs[index];
  if (!place.is_state) return answer_->Reserve(place.index, spec);
  return ReserveState(place.index, spec);
}

// What gets no room is told by Commit.
void* SequenceStep::ReserveState(size_t place, const TensorSpec& spec) {
  const StateTensor& state = home_.layout->states[place];
  if (!refused_.ok() || !state.Takes(spec)) return nullptr;
  std::byte* room = writes_ + state.offset;
  if (state.grows()) {
    GrowingState& kept = (*grown_writes_)[place];
    if (!kept.Reserve(spec, max_state_bytes_)) {
      refused_ =
          MakeError(absl::StatusCode::kResourceExhausted,
                    "the states of all sequences need too much memory, at most {} bytes: "
                    "output '{}' of shape {}, model '{}'",
                    max_state_bytes_, state.output_name, spec.shape.ToString(), store_->model_);
      return nullptr;
    }
    room = kept.data();
  }
  ++written_;
  return room;
}

absl::Status SequenceStep::TakeStrings(size_t index, ConstTensorView strings) {
  return answer_->TakeStrings(home_.layout->outputs[index].index, strings);
}

absl::Status SequenceStep::Commit() {
  OCTET_RETURN_IF_ERROR(refused_);
  if (written_ != home_.layout->states.size()) {
    return Internal("a state came in another shape than the model's input has: model '{}'",
                    store_->model_);
  }
  SequenceStore::Gone gone;
  absl::MutexLock lock(&store_->mutex_);
  committed_ = true;
  sequence_->current = writes_to_;
  SequenceStore::CountStates(*sequence_);
  if (end_) {
    store_->Detach(*sequence_, SequenceEnd::kEnd, gone);
    sequence_->over = store_->NoStart(sequence_->id);
  }
  return absl::OkStatus();
}

void SequenceStore::SetLimits(const SequenceLimits& limits) {
  absl::MutexLock lock(&mutex_);
  limits_ = limits;
  closed_ = false;
}

absl::StatusOr<std::unique_ptr<SequenceStep>> SequenceStore::Enter(
    const SequenceCall& call, std::optional<SequenceHome> home) {
  std::unique_ptr<SequenceStep> step(new SequenceStep(shared_from_this(), call.start, call.end));
  std::shared_ptr<Sequence> sequence;
  if (call.start) {
    sequence = std::make_shared<Sequence>(call.id, *std::move(home), grown_bytes_);
    sequence->steps.push_back(step.get());
  }
  Gone gone;
  const absl::Cleanup advance = [&] { AdvanceAll(gone); };  // behind the lock
  absl::MutexLock lock(&mutex_);
  const TimePoint now = clock_.Now();
  ExpireIdle(now, gone);
  if (call.start) {
    OCTET_RETURN_IF_ERROR(Add(sequence, now, gone));
  } else {
    OCTET_ASSIGN_OR_RETURN(sequence, FindLive(call.id, now, gone));
    sequence->steps.push_back(step.get());
  }
  if (sequence->is_idle) busy_.splice(busy_.end(), idle_, sequence->place);
  sequence->is_idle = false;
  step->home_ = sequence->home;
  step->sequence_ = std::move(sequence);
  return step;
}

absl::Status SequenceStore::Add(const std::shared_ptr<Sequence>& sequence, TimePoint now,
                                Gone& gone) {
  if (closed_) return Refuse(SequenceRefusal::kReplaced, MustRestart(sequence->id));
  const auto replaced = std::ranges::find_if(replaced_, [&](const Replaced& item) {
    return IsSame(item.version, sequence->home.version);
  });
  if (replaced != replaced_.end()) {
    Move(*sequence, replaced->successors, now + limits_.drain);
    draining_ = true;
  }
  if (const auto before = live_.find(sequence->id); before != live_.end()) {
    Detach(**before->second, SequenceEnd::kRestart, gone);
  } else if (live_.size() >= limits_.max_sequences) {
    return Refuse(SequenceRefusal::kTooMany,
                  MakeError(absl::StatusCode::kResourceExhausted,
                            "too many sequences, at most {} are live: model '{}'",
                            limits_.max_sequences, model_));
  }
  List node = {sequence};
  sequence->place = node.begin();
  live_.emplace(sequence->id, node.begin());
  busy_.splice(busy_.end(), node);
  cut_off_.erase(sequence->id);
  sequence->live = true;
  SequenceMetrics& metrics = *sequence->home.metrics;
  metrics.started.Add();
  metrics.live.Add(1);
  CountStates(*sequence);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Sequence>> SequenceStore::FindLive(const SequenceId& id,
                                                                  TimePoint now, Gone& gone) {
  const auto found = live_.find(id);
  if (found != live_.end() && (*found->second)->drain_until <= now) {
    CutOff(**found->second, now, gone);
  } else if (found != live_.end()) {
    return *found->second;
  }
  if (cut_off_.contains(id)) return Refuse(SequenceRefusal::kReplaced, MustRestart(id));
  return Refuse(SequenceRefusal::kNoStart, NoStart(id));
}

void SequenceStore::Move(Sequence& sequence, const std::vector<Successor>& successors,
                         TimePoint drain_until) {
  const SequenceHome& home = sequence.home;
  for (const Successor& next : successors) {
    if (next.precision != home.route.precision || next.model != home.model) continue;
    if (!next.layout->Continues(*home.layout)) continue;
    auto version = next.version.lock();
    if (version == nullptr) continue;
    sequence.home.version = std::move(version);
    sequence.home.layout = next.layout;
    return;
  }
  sequence.drain_until = drain_until;
}

void SequenceStore::Replace(const std::shared_ptr<const ModelVersion>& before,
                            const std::vector<SequenceHome>& homes) {
  std::vector<Successor> successors;
  for (const SequenceHome& home : homes) {
    successors.push_back({home.version, home.route.precision, home.model, home.layout});
  }
  absl::MutexLock lock(&mutex_);
  std::erase_if(replaced_, [](const Replaced& item) { return item.version.expired(); });
  // Who begins on a version that `before` replaced goes on in what replaces `before`: the models tell which of them.
  for (Replaced& older : replaced_) {
    const auto is_before = [&](const Successor& next) { return IsSame(next.version, before); };
    if (std::ranges::any_of(older.successors, is_before)) older.successors = successors;
  }
  replaced_.push_back({before, successors});
  const TimePoint drain_until = clock_.Now() + limits_.drain;
  for (const auto* list : {&busy_, &idle_}) {
    for (const auto& sequence : *list) {
      if (sequence->home.version == before) Move(*sequence, successors, drain_until);
    }
  }
  draining_ = true;
}

void SequenceStore::Expire() {
  Gone gone;
  Dead dead;
  {
    absl::MutexLock lock(&mutex_);
    const TimePoint now = clock_.Now();
    ExpireIdle(now, gone);
    ExpireDraining(now, gone);
    std::erase_if(cut_off_, [&](const auto& item) { return item.second + limits_.idle <= now; });
    if (waiting_requests_ > 0) TakeDead(now, dead);
  }
  AdvanceAll(gone);
  Finish(std::move(dead));
}

void SequenceStore::ExpireDraining(TimePoint now, Gone& gone) {
  if (!draining_) return;
  draining_ = false;
  for (auto* list : {&busy_, &idle_}) {
    for (auto it = list->begin(); it != list->end();) {
      Sequence& sequence = **it++;
      draining_ |= sequence.drain_until != kNever && sequence.drain_until > now;
      if (sequence.drain_until <= now) CutOff(sequence, now, gone);
    }
  }
}

void SequenceStore::EndAll() {
  Gone gone;
  const absl::Cleanup advance = [&] { AdvanceAll(gone); };  // behind the lock
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  const TimePoint now = clock_.Now();
  while (!busy_.empty()) CutOff(*busy_.front(), now, gone);
  while (!idle_.empty()) CutOff(*idle_.front(), now, gone);
}

size_t SequenceStore::live() const {
  absl::MutexLock lock(&mutex_);
  return live_.size();
}

absl::Status SequenceStore::NoStart(const SequenceId& id) const {
  return InvalidArgument(
      "inference request for sequence {} to model '{}' must specify the START flag on the first "
      "request of the sequence",
      NameOf(id), model_);
}

absl::Status SequenceStore::MustRestart(const SequenceId& id) const {
  return MakeError(absl::StatusCode::kUnavailable,
                   "the version that the sequence ran on is gone, start it again: sequence {} of "
                   "model '{}'",
                   NameOf(id), model_);
}

bool SequenceStore::HasRoom(size_t bytes) const {
  return waiting_requests_ < limits_.max_waiting_requests &&
         (waiting_requests_ == 0 || waiting_bytes_ + bytes <= limits_.max_waiting_bytes);
}

absl::Status SequenceStore::CheckRoom(size_t bytes, Dead& dead) {
  if (HasRoom(bytes)) return absl::OkStatus();
  TakeDead(clock_.Now(), dead);
  if (HasRoom(bytes)) return absl::OkStatus();
  const absl::Status status =
      MakeError(absl::StatusCode::kResourceExhausted,
                "too many requests wait for their turn in a sequence, at most {} with {} bytes: "
                "model '{}'",
                limits_.max_waiting_requests, limits_.max_waiting_bytes, model_);
  return Refuse(SequenceRefusal::kTooManyWait, WithRetryAfter(status, kUnknownRetryAfter));
}

void SequenceStore::TakeDead(TimePoint now, Dead& dead) {
  for (const List* list : {&busy_, &detached_}) {
    for (const auto& sequence : *list) {
      for (SequenceStep* step : sequence->steps) TakeDead(now, *step, dead);
    }
  }
}

void SequenceStore::TakeDead(TimePoint now, SequenceStep& step, Dead& dead) {
  if (step.phase_ != SequenceStep::Phase::kWaiting) return;
  const SequenceStep::Wait& wait = step.wait_;
  if (wait.cancelled != nullptr && wait.cancelled->load(std::memory_order_relaxed)) {
    dead.emplace_back(StopWaiting(step), absl::CancelledError("the client has gone"));
  } else if (wait.deadline <= now) {
    dead.emplace_back(StopWaiting(step),
                      MakeError(absl::StatusCode::kDeadlineExceeded,
                                "the deadline passed while the request waited for its turn in its "
                                "sequence: model '{}'",
                                model_));
  }
}

void SequenceStore::Finish(Dead dead) {
  for (auto& [run, status] : dead) std::move(run)(status);
}

absl::Status SequenceStore::Refuse(SequenceRefusal why, absl::Status status) const {
  metrics_->refused.Add(static_cast<size_t>(why));
  return status;
}

void SequenceStore::Detach(Sequence& sequence, SequenceEnd why, Gone& gone) {
  if (!sequence.live) return;
  sequence.live = false;
  SequenceMetrics& metrics = *sequence.home.metrics;
  metrics.ended.Add(static_cast<size_t>(why));
  metrics.live.Add(-1);
  metrics.state_bytes.Add(-static_cast<double>(sequence.counted_bytes));
  live_.erase(sequence.id);
  gone.push_back(*sequence.place);
  List& from = sequence.is_idle ? idle_ : busy_;
  sequence.is_detached = !sequence.steps.empty();
  if (sequence.is_detached) {
    detached_.splice(detached_.end(), from, sequence.place);
  } else {
    from.erase(sequence.place);
  }
}

void SequenceStore::CutOff(Sequence& sequence, TimePoint now, Gone& gone) {
  cut_off_[sequence.id] = now;
  sequence.over = MustRestart(sequence.id);
  Detach(sequence, SequenceEnd::kReplaced, gone);
}

void SequenceStore::ExpireIdle(TimePoint now, Gone& gone) {
  while (!idle_.empty() && idle_.front()->idle_since + limits_.idle <= now) {
    Detach(*idle_.front(), SequenceEnd::kIdle, gone);
  }
}

void SequenceStore::CountStates(Sequence& sequence) {
  if (!sequence.live) return;
  const size_t bytes = sequence.state_bytes();
  sequence.home.metrics->state_bytes.Add(static_cast<double>(bytes) -
                                         static_cast<double>(sequence.counted_bytes));
  sequence.counted_bytes = bytes;
}

void SequenceStore::Leave(SequenceStep& step) {
  Sequence& sequence = *step.sequence_;
  // One that had its turn and failed has grown a copy, too, or given one back.
  if (step.grown_writes_ != nullptr) CountStates(sequence);
  sequence.steps.erase(std::ranges::find(sequence.steps, &step));  // nearly always the first
  if (step.start_ && !step.committed_) {
    Gone gone;  // the step holds it, too
    Detach(sequence, SequenceEnd::kFailedStart, gone);
    if (sequence.over.ok()) sequence.over = NoStart(sequence.id);
  }
  if (!sequence.steps.empty()) return;
  if (std::exchange(sequence.is_detached, false)) detached_.erase(sequence.place);
  if (!sequence.live) return;
  sequence.idle_since = clock_.Now();
  sequence.is_idle = true;
  idle_.splice(idle_.end(), busy_, sequence.place);
}

SequenceStep::Run SequenceStore::StopWaiting(SequenceStep& step) {
  step.phase_ = SequenceStep::Phase::kRunning;
  --waiting_requests_;
  metrics_->waiting.Add(-1);
  waiting_bytes_ -= step.wait_.bytes;
  return std::move(step.run_);
}

SequenceStep* SequenceStore::TakeNext(Sequence& sequence) {
  if (sequence.steps.empty()) return nullptr;
  auto next = sequence.steps.begin();
  if (!sequence.over.ok()) {
    next = std::ranges::find_if(sequence.steps, [](const SequenceStep* step) {
      return step->phase_ == SequenceStep::Phase::kWaiting;
    });
    if (next == sequence.steps.end()) return nullptr;
  }
  SequenceStep& step = **next;
  if (step.phase_ != SequenceStep::Phase::kWaiting) return nullptr;
  const size_t bytes = sequence.home.layout->bytes;
  if (sequence.current) {
    step.reads_ = sequence.states.get() + (*sequence.current == 0 ? 0 : bytes);
    step.grown_reads_ = &sequence.grown[static_cast<size_t>(*sequence.current)];
  }
  step.writes_to_ = sequence.current == 0 ? 1 : 0;
  step.writes_ = sequence.states.get() + (step.writes_to_ == 0 ? 0 : bytes);
  step.grown_writes_ = &sequence.grown[static_cast<size_t>(step.writes_to_)];
  step.max_state_bytes_ = limits_.max_state_bytes;
  return &step;
}

void SequenceStore::Advance(Sequence& sequence) {
  while (true) {
    SequenceStep::Run run;
    absl::Status turn;
    {
      absl::MutexLock lock(&mutex_);
      if (sequence.advancing) return;
      SequenceStep* next = TakeNext(sequence);
      if (next == nullptr) return;
      sequence.advancing = true;
      run = StopWaiting(*next);
      turn = sequence.over;
    }
    // What it does may end the request, whose place then asks for the next one: that is this loop's, not a deeper call's.
    std::move(run)(turn);
    absl::MutexLock lock(&mutex_);
    sequence.advancing = false;
  }
}

void SequenceStore::AdvanceAll(const Gone& gone) {
  for (const auto& sequence : gone) Advance(*sequence);
}

}  // namespace octet

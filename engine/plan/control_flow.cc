#include "engine/plan/control_flow.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/ops/int_operands.h"
#include "engine/tensor/limits.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using Inputs = std::span<const Datum* const>;
using Answers = absl::StatusOr<std::vector<Datum>>;

// ---- Scalars

absl::StatusOr<bool> Condition(const Datum& datum) {
  if (datum.is_tensor() && datum.tensor.dtype() == DType::kBool && datum.tensor.elements() == 1)
    return datum.tensor.span<bool>()[0];
  return InvalidArgument("the condition must be one BOOL, got {}",
                         datum.is_tensor() ? datum.tensor.shape().ToString() : "no tensor");
}

absl::StatusOr<int64_t> TripCount(const Datum* datum) {
  if (datum == nullptr) return INT64_MAX;
  if (datum->is_tensor() && datum->tensor.dtype() == DType::kI64 && datum->tensor.elements() == 1)
    return datum->tensor.span<int64_t>()[0];
  return InvalidArgument("the number of iterations must be one INT64, got {}",
                         datum->is_tensor() ? datum->tensor.shape().ToString() : "no tensor");
}

absl::Status TakeIteration(ProgramRun& run) {
  if (run.iterations_left-- <= 0) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     "the loops of this run have more iterations than the limit allows");
  }
  return run.limits.Check();
}

// ---- Slices and stacks

// Blocks of `inner` bytes on both sides of an axis of `extent`.
struct Blocks {
  int64_t outer = 1;
  int64_t extent = 1;
  size_t inner = 1;
};

Blocks BlocksAt(const Shape& shape, DType dtype, int axis) {
  return {shape.elements(0, axis), shape[axis],
          static_cast<size_t>(shape.elements(axis + 1, shape.rank())) * SizeOf(dtype)};
}

// Copies the characters of strings, which others own.
Tensor WithCharacters(Tensor tensor) {
  if (tensor.dtype() != DType::kString) return tensor;
  return Tensor::Strings(tensor.shape(), tensor.span<std::string_view>());
}

// Index `i` of the axis, which is gone in the result.
Tensor SliceAt(const Tensor& x, int axis, int64_t i) {
  Shape shape;
  for (int d = 0; d < x.shape().rank(); ++d) {
    if (d != axis) shape.push_back(x.shape()[d]);
  }
  Tensor slice(x.dtype(), shape);
  const Blocks blocks = BlocksAt(x.shape(), x.dtype(), axis);
  const auto* from =
      static_cast<const std::byte*>(x.data()) + static_cast<size_t>(i) * blocks.inner;
  auto* to = static_cast<std::byte*>(slice.mutable_data());
  for (int64_t block = 0; block < blocks.outer && blocks.inner > 0; ++block) {
    std::memcpy(to, from, blocks.inner);
    from += static_cast<size_t>(blocks.extent) * blocks.inner;
    to += blocks.inner;
  }
  return WithCharacters(std::move(slice));
}

// Tensors that one result of a body left, over all its runs, within the bytes that a value may have.
class Parts {
 public:
  Parts(const Value& value, uint64_t max_bytes) : value_(value), max_bytes_(max_bytes) {}

  absl::Status Add(Datum datum) {
    if (!datum.is_tensor()) return InvalidArgument("result '{}' is no tensor", value_.name);
    // A tensor of a few elements is mostly what goes with them.
    bytes_ += MemoryBytes(datum.tensor.view()) + sizeof(Tensor) + kTensorAlignment;
    if (bytes_ > max_bytes_) {
      return MakeError(absl::StatusCode::kResourceExhausted,
                       "result '{}' is too large: at most {} bytes, got {}", value_.name,
                       max_bytes_, bytes_);
    }
    tensors_.push_back(std::move(datum.tensor));
    return absl::OkStatus();
  }

  const Value& value() const { return value_; }
  uint64_t max_bytes() const { return max_bytes_; }
  std::vector<Tensor>& tensors() { return tensors_; }

 private:
  const Value& value_;
  const uint64_t max_bytes_;
  uint64_t bytes_ = 0;
  std::vector<Tensor> tensors_;
};

// One result of a body over all its runs: tensors of one shape.
class Results {
 public:
  /// `stacked`: what is known of the shape of all together.
  Results(const Value& value, uint64_t max_bytes, std::optional<Shape> stacked = std::nullopt)
      : parts_(value, max_bytes), stacked_(std::move(stacked)) {}

  absl::Status Add(Datum datum) {
    const std::vector<Tensor>& before = parts_.tensors();
    if (datum.is_tensor() && !before.empty() && datum.tensor.spec() != before.front().spec()) {
      return InvalidArgument("result '{}' changes its shape from {} to {}", parts_.value().name,
                             before.front().shape().ToString(), datum.tensor.shape().ToString());
    }
    return parts_.Add(std::move(datum));
  }

  // Stacked along a new axis, with `least` places of which the last ones are zero.
  absl::StatusOr<Tensor> Stack(const Node& node, int64_t raw_axis, bool backwards,
                               int64_t least = 0) {
    std::vector<Tensor>& parts = parts_.tensors();
    const Value& value = parts_.value();
    const Shape each = parts.empty() ? ShapeOfNone(raw_axis) : parts.front().shape();
    OCTET_ASSIGN_OR_RETURN(const int axis, NormalizeNodeAxis(node, raw_axis, each.rank() + 1));
    if (backwards) std::ranges::reverse(parts);
    Shape shape(each.dims().first(axis));
    shape.push_back(std::max(std::ssize(parts), least));
    for (int d = axis; d < each.rank(); ++d) shape.push_back(each[d]);
    // The places that no run fills are not among the bytes of those that did.
    if (!IsPossible(shape) || !FitsInto(shape, SizeOf(value.dtype), parts_.max_bytes())) {
      return MakeError(absl::StatusCode::kResourceExhausted,
                       "result '{}' of shape {} is over the limit of {} bytes", value.name,
                       shape.ToString(), parts_.max_bytes());
    }
    Tensor stacked(value.dtype, shape);
    auto* to = static_cast<std::byte*>(stacked.mutable_data());
    if (stacked.bytes() == 0) return stacked;
    if (std::ssize(parts) < least) std::memset(to, 0, stacked.bytes());
    const Blocks blocks = BlocksAt(shape, value.dtype, axis);
    for (int64_t block = 0; block < blocks.outer; ++block) {
      for (size_t i = 0; i < parts.size(); ++i) {
        const auto* from = static_cast<const std::byte*>(parts[i].data());
        std::memcpy(to + (static_cast<size_t>(block * blocks.extent) + i) * blocks.inner,
                    from + static_cast<size_t>(block) * blocks.inner, blocks.inner);
      }
    }
    return WithCharacters(std::move(stacked));
  }

 private:
  // Of a loop that has not run: what is known of one run's, or else of all together; 0 for the rest.
  Shape ShapeOfNone(int64_t raw_axis) const {
    const std::optional<Shape> declared = OneOfStacked(raw_axis);
    Shape shape = parts_.value().shape ? *parts_.value().shape : declared.value_or(Shape{});
    const bool agrees = declared && declared->rank() == shape.rank();
    for (int d = 0; d < shape.rank(); ++d) {
      if (shape[d] == kUnknownDim && agrees) shape[d] = (*declared)[d];
      shape[d] = std::max<int64_t>(shape[d], 0);
    }
    return shape;
  }

  // stacked_ without the axis of the runs.
  std::optional<Shape> OneOfStacked(int64_t raw_axis) const {
    const std::optional<int> axis =
        stacked_ ? NormalizeAxis(raw_axis, stacked_->rank()) : std::nullopt;
    if (!axis) return std::nullopt;
    Shape one;
    for (int d = 0; d < stacked_->rank(); ++d) {
      if (d != *axis) one.push_back((*stacked_)[d]);
    }
    return one;
  }

  Parts parts_;
  const std::optional<Shape> stacked_;
};

template <typename T = Results>
std::vector<T> ResultsOf(const Program& body, size_t first, const ProgramRun& run) {
  std::vector<T> results;
  const Graph& graph = body.graph();
  for (size_t i = first; i < graph.outputs.size(); ++i)
    results.emplace_back(graph.value(graph.outputs[i]), run.max_bytes);
  return results;
}

// A node whose outputs from `first` on are the stacked results of its body.
struct StackingNode {
  const Graph& graph;
  const Node& node;

  std::vector<Results> ResultsOf(const Program& body, size_t first_in_body, size_t first,
                                 const ProgramRun& run) const {
    std::vector<Results> results;
    const Graph& inner = body.graph();
    for (size_t i = first_in_body; i < inner.outputs.size(); ++i, ++first) {
      const ValueId output = node.output(first);
      results.emplace_back(inner.value(inner.outputs[i]), run.max_bytes,
                           output == kNone ? std::nullopt : graph.value(output).shape);
    }
    return results;
  }
};

void AppendCaptures(const ControlSlots& slots, Inputs inputs, std::vector<Datum>& into) {
  for (const Datum* capture : inputs.last(slots.captures)) into.push_back(*capture);
}

// ---- If

Answers RunIf(const ControlSlots& slots, const ProgramOrError& yes, const ProgramOrError& no,
              Inputs inputs, ProgramRun& run) {
  OCTET_ASSIGN_OR_RETURN(const bool condition, Condition(*inputs[0]));
  const ProgramOrError& taken = condition ? yes : no;
  OCTET_RETURN_IF_ERROR(taken.status());
  std::vector<Datum> captures;
  AppendCaptures(slots, inputs, captures);
  return (*taken)->Run(run, std::move(captures));
}

// ---- Loop

// for (i = 0; i < M && cond; ++i) cond, state, result[i] = body(i, cond, state). Source: ONNX Loop-21.
Answers RunLoop(const StackingNode& loop, const ControlSlots& slots, const Program& body,
                Inputs inputs, ProgramRun& run) {
  OCTET_ASSIGN_OR_RETURN(const int64_t trips, TripCount(inputs[0]));
  Datum condition = inputs[1] == nullptr ? Datum::Of(Tensor::Scalar<bool>(true)) : *inputs[1];
  OCTET_ASSIGN_OR_RETURN(bool go_on, Condition(condition));
  std::vector<Datum> state;
  for (size_t i = 0; i < slots.states; ++i)
    state.push_back(inputs[2 + i] == nullptr ? Datum() : *inputs[2 + i]);
  std::vector<Results> results = loop.ResultsOf(body, 1 + slots.states, slots.states, run);
  for (int64_t i = 0; i < trips && go_on; ++i) {
    OCTET_RETURN_IF_ERROR(TakeIteration(run));
    std::vector<Datum> given;
    given.reserve(slots.own + slots.captures);
    given.push_back(Datum::Of(Tensor::Scalar<int64_t>(i)));
    given.push_back(std::move(condition));
    std::ranges::move(state, std::back_inserter(given));
    AppendCaptures(slots, inputs, given);
    OCTET_ASSIGN_OR_RETURN(std::vector<Datum> answers, body.Run(run, std::move(given)));
    condition = std::move(answers[0]);
    OCTET_ASSIGN_OR_RETURN(go_on, Condition(condition));
    for (size_t s = 0; s < slots.states; ++s) state[s] = std::move(answers[1 + s]);
    for (size_t k = 0; k < slots.results; ++k)
      OCTET_RETURN_IF_ERROR(results[k].Add(std::move(answers[1 + slots.states + k])));
  }
  for (Results& result : results) {
    OCTET_ASSIGN_OR_RETURN(Tensor stacked, result.Stack(loop.node, 0, false));
    state.push_back(Datum::Of(std::move(stacked)));
  }
  return state;
}

// ---- Scan

// What the attributes of a Scan say of one scanned input or one result.
struct Scanned {
  int64_t axis = 0;
  bool backwards = false;
};

absl::StatusOr<std::vector<Scanned>> ReadScanned(const Node& node, std::string_view axes_name,
                                                 std::string_view directions_name, size_t count) {
  OCTET_ASSIGN_OR_RETURN(const auto axes, node.attributes.Ints(axes_name, {}));
  OCTET_ASSIGN_OR_RETURN(const auto directions, node.attributes.Ints(directions_name, {}));
  if ((!axes.empty() && axes.size() != count) ||
      (!directions.empty() && directions.size() != count))
    return InvalidArgument("'{}' or '{}' does not have {} elements", axes_name, directions_name,
                           count);
  std::vector<Scanned> scanned(count);
  for (size_t i = 0; i < count; ++i) {
    if (!axes.empty()) scanned[i].axis = axes[i];
    if (!directions.empty()) scanned[i].backwards = directions[i] != 0;
  }
  return scanned;
}

// One scan over tensors whose axis is normal: `length` slices, then states and results.
struct ScanRun {
  const Program& body;
  const ControlSlots& slots;
  std::span<const Scanned> scanned;
  Inputs captures;
};

absl::Status RunSlices(const ScanRun& scan, std::span<const Tensor> scanned, int64_t length,
                       ProgramRun& run, std::vector<Datum>& state, std::vector<Results>& results) {
  for (int64_t i = 0; i < length; ++i) {
    OCTET_RETURN_IF_ERROR(TakeIteration(run));
    std::vector<Datum> given = std::move(state);
    for (size_t m = 0; m < scanned.size(); ++m) {
      const int64_t at = scan.scanned[m].backwards ? length - 1 - i : i;
      given.push_back(Datum::Of(SliceAt(scanned[m], static_cast<int>(scan.scanned[m].axis), at)));
    }
    AppendCaptures(scan.slots, scan.captures, given);
    OCTET_ASSIGN_OR_RETURN(std::vector<Datum> answers, scan.body.Run(run, std::move(given)));
    state.clear();
    for (size_t s = 0; s < scan.slots.states; ++s) state.push_back(std::move(answers[s]));
    for (size_t k = 0; k < scan.slots.results; ++k)
      OCTET_RETURN_IF_ERROR(results[k].Add(std::move(answers[scan.slots.states + k])));
  }
  return absl::OkStatus();
}

absl::StatusOr<const Tensor*> TensorOf(const Datum* datum) {
  if (datum != nullptr && datum->is_tensor()) return &datum->tensor;
  return InvalidArgument("an input that is scanned is no tensor");
}

// Source: ONNX Scan-9.
Answers RunScan(const StackingNode& scan, const ControlSlots& slots, const Program& body,
                Inputs inputs, ProgramRun& run) {
  const Node& node = scan.node;
  OCTET_ASSIGN_OR_RETURN(
      std::vector<Scanned> scanned,
      ReadScanned(node, "scan_input_axes", "scan_input_directions", slots.scanned));
  OCTET_ASSIGN_OR_RETURN(
      const std::vector<Scanned> stacked,
      ReadScanned(node, "scan_output_axes", "scan_output_directions", slots.results));
  std::vector<Tensor> tensors;
  int64_t length = 0;
  for (size_t m = 0; m < slots.scanned; ++m) {
    OCTET_ASSIGN_OR_RETURN(const Tensor* tensor, TensorOf(inputs[slots.states + m]));
    OCTET_ASSIGN_OR_RETURN(scanned[m].axis,
                           NormalizeNodeAxis(node, scanned[m].axis, tensor->shape().rank()));
    const int64_t extent = tensor->shape()[static_cast<int>(scanned[m].axis)];
    if (m > 0 && extent != length)
      return InvalidArgument("scanned inputs differ in length: {} and {}", length, extent);
    length = extent;
    tensors.push_back(*tensor);
  }
  std::vector<Datum> state;
  for (size_t i = 0; i < slots.states; ++i)
    state.push_back(inputs[i] == nullptr ? Datum() : *inputs[i]);
  std::vector<Results> results = scan.ResultsOf(body, slots.states, slots.states, run);
  OCTET_RETURN_IF_ERROR(
      RunSlices({body, slots, scanned, inputs}, tensors, length, run, state, results));
  for (size_t k = 0; k < results.size(); ++k) {
    OCTET_ASSIGN_OR_RETURN(Tensor all,
                           results[k].Stack(node, stacked[k].axis, stacked[k].backwards));
    state.push_back(Datum::Of(std::move(all)));
  }
  return state;
}

// The lengths of a batch: all of the axis where they are not given.
absl::StatusOr<std::vector<int64_t>> LengthsOf(const Datum* datum, int64_t batch, int64_t most) {
  std::vector<int64_t> lengths(static_cast<size_t>(batch), most);
  if (datum == nullptr) return lengths;
  OCTET_ASSIGN_OR_RETURN(const Tensor* tensor, TensorOf(datum));
  if (tensor->dtype() != DType::kI64 || tensor->elements() != batch)
    return InvalidArgument("'sequence_lens' must have {} INT64", batch);
  lengths.assign(tensor->span<int64_t>().begin(), tensor->span<int64_t>().end());
  for (const int64_t length : lengths) {
    if (length < 0 || length > most)
      return InvalidArgument("'sequence_lens': expected 0 to {}, got {}", most, length);
  }
  return lengths;
}

// Every sample of the batch is scanned for itself; what a shorter one does not reach is zero. Source: ONNX Scan-8.
class BatchedScan {
 public:
  BatchedScan(const Node& node, const ControlSlots& slots, const Program& body, Inputs inputs,
              ProgramRun& run)
      : node_(node), slots_(slots), body_(body), inputs_(inputs), run_(run) {}

  Answers Run() {
    OCTET_ASSIGN_OR_RETURN(scanned_, ReadScanned(node_, "", "directions", slots_.scanned));
    OCTET_RETURN_IF_ERROR(ReadExtents());
    OCTET_ASSIGN_OR_RETURN(const std::vector<int64_t> lengths,
                           LengthsOf(inputs_[0], batch_, length_));
    std::vector<Results> of_batch = ResultsOf(body_, 0, run_);
    for (int64_t b = 0; b < batch_; ++b) {
      OCTET_ASSIGN_OR_RETURN(std::vector<Datum> sample, Sample(b, lengths[b]));
      for (size_t i = 0; i < sample.size(); ++i)
        OCTET_RETURN_IF_ERROR(of_batch[i].Add(std::move(sample[i])));
    }
    std::vector<Datum> outputs;
    for (Results& results : of_batch) {
      OCTET_ASSIGN_OR_RETURN(Tensor stacked, results.Stack(node_, 0, false));
      outputs.push_back(Datum::Of(std::move(stacked)));
    }
    return outputs;
  }

 private:
  absl::Status ReadExtents() {
    for (size_t i = 1; i < slots_.own; ++i) {
      OCTET_ASSIGN_OR_RETURN(const Tensor* tensor, TensorOf(inputs_[i]));
      const Shape& shape = tensor->shape();
      const bool is_scanned = i > slots_.states;
      if (shape.rank() < (is_scanned ? 2 : 1) || (i > 1 && shape[0] != batch_) ||
          (i > slots_.states + 1 && shape[1] != length_)) {
        return InvalidArgument("input {} of shape {} does not fit the others", i, shape.ToString());
      }
      batch_ = shape[0];
      if (is_scanned) length_ = shape[1];
    }
    return absl::OkStatus();
  }

  Answers Sample(int64_t b, int64_t length) {
    std::vector<Datum> state;
    for (size_t i = 0; i < slots_.states; ++i)
      state.push_back(Datum::Of(SliceAt(inputs_[1 + i]->tensor, 0, b)));
    std::vector<Tensor> tensors;
    for (size_t m = 0; m < slots_.scanned; ++m)
      tensors.push_back(SliceAt(inputs_[1 + slots_.states + m]->tensor, 0, b));
    std::vector<Results> results = ResultsOf(body_, slots_.states, run_);
    OCTET_RETURN_IF_ERROR(
        RunSlices({body_, slots_, scanned_, inputs_}, tensors, length, run_, state, results));
    for (Results& result : results) {
      OCTET_ASSIGN_OR_RETURN(Tensor stacked, result.Stack(node_, 0, false, length_));
      state.push_back(Datum::Of(std::move(stacked)));
    }
    return state;
  }

  const Node& node_;
  const ControlSlots& slots_;
  const Program& body_;
  const Inputs inputs_;
  ProgramRun& run_;
  std::vector<Scanned> scanned_;
  int64_t batch_ = 0;
  int64_t length_ = 0;
};

// ---- SequenceMap

// Runs the body on the elements of all sequences at each place; other inputs are handed to every run.
// Source: ONNX SequenceMap-17.
Answers RunSequenceMap(const ControlSlots& slots, const Program& body, Inputs inputs,
                       ProgramRun& run) {
  if (inputs[0] == nullptr || !inputs[0]->is_sequence())
    return InvalidArgument("input 0 is no sequence");
  const size_t length = inputs[0]->sequence.size();
  std::vector<Parts> results = ResultsOf<Parts>(body, 0, run);
  for (size_t i = 0; i < length; ++i) {
    OCTET_RETURN_IF_ERROR(TakeIteration(run));
    std::vector<Datum> given;
    for (const Datum* input : inputs.first(slots.own)) {
      if (!input->is_sequence()) {
        given.push_back(*input);
      } else if (input->sequence.size() == length) {
        given.push_back(Datum::Of(input->sequence[i]));
      } else {
        return InvalidArgument("sequences differ in length: {} and {}", length,
                               input->sequence.size());
      }
    }
    AppendCaptures(slots, inputs, given);
    OCTET_ASSIGN_OR_RETURN(std::vector<Datum> answers, body.Run(run, std::move(given)));
    for (size_t k = 0; k < slots.results; ++k)
      OCTET_RETURN_IF_ERROR(results[k].Add(std::move(answers[k])));
  }
  std::vector<Datum> outputs;
  for (size_t k = 0; k < slots.results; ++k)
    outputs.push_back(Datum::Sequence(std::move(results[k].tensors())));
  return outputs;
}

}  // namespace

absl::StatusOr<std::vector<Datum>> RunControl(const Graph& graph, const Node& node,
                                              const ControlSlots& slots,
                                              std::span<const ProgramOrError> bodies,
                                              std::span<const Datum* const> inputs,
                                              ProgramRun& run) {
  if (node.op == "If") return RunIf(slots, bodies[0], bodies[1], inputs, run);
  const Program& body = **bodies.front();
  if (node.op == "Loop") return RunLoop({graph, node}, slots, body, inputs, run);
  if (node.op == "SequenceMap") return RunSequenceMap(slots, body, inputs, run);
  if (node.version >= 9) return RunScan({graph, node}, slots, body, inputs, run);
  return BatchedScan(node, slots, body, inputs, run).Run();
}

}  // namespace octet

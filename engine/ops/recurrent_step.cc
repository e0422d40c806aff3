#include "engine/ops/recurrent_step.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/ops/dynamic_quant.h"
#include "engine/ops/recurrent_cell.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/quantize.h"

namespace octet {
namespace {

using recurrent::kBias, recurrent::kInitialC, recurrent::kInitialH, recurrent::kLengths,
    recurrent::kPeepholes, recurrent::kR, recurrent::kW, recurrent::kX;

/// Elements of X that a thread encodes at least, and multiply-adds that it makes.
constexpr int64_t kEncodeGrain = int64_t{64} * 1024;
constexpr int64_t kProductGrain = int64_t{1} << 20;

/// Bytes from one encoded row to the next.
int64_t RowStride(ProductType type, int64_t depth) {
  return PaddedDepth(type, depth) * static_cast<int64_t>(SizeOf(ElementOf(type)));
}

/// Writes `depth` reals as a product of `type` reads them; `params` are those of kInt8.
void EncodeRow(ProductType type, const float* reals, int64_t depth, const QuantParams& params,
               std::byte* to) {
  const ConstTensorView from{reals, {DType::kF32, Shape{depth}}};
  const TensorView elements{to, {ElementOf(type), Shape{depth}}};
  if (type == ProductType::kInt8) {
    QuantizeTensor(from, params, elements);
  } else {
    ConvertTensor(from, elements);
  }
  const int64_t used = depth * static_cast<int64_t>(SizeOf(ElementOf(type)));
  std::memset(to + used, 0, static_cast<size_t>(RowStride(type, depth) - used));
}

}  // namespace

/// Parameters that are found while a step runs: made once per worker, so that Run allocates nothing.
struct RecurrentStep::State : StepState {
  QuantParams x = QuantParams::PerTensor(1.0F, 0);
  std::vector<QuantParams> h;  ///< Per part and group.
};

RecurrentStep::RecurrentStep(RecurrentLayer layer, ProductType type, RecurrentFormats formats,
                             std::vector<RecurrentPart> parts, int64_t groups, int threads)
    : layer_(std::move(layer)),
      type_(type),
      formats_(std::move(formats)),
      parts_(std::move(parts)),
      groups_(groups),
      threads_(std::max(threads, 1)),
      reset_first_(layer_.kind == CellKind::kGru && !layer_.linear_before_reset),
      x_in_place_(type == ProductType::kF32 && formats_.x.plain()) {
  LayOut();
}

template <typename T>
size_t RecurrentStep::Reserve(int64_t count) {
  const size_t bytes = static_cast<size_t>(count) * sizeof(T);
  const size_t offset = scratch_bytes_;
  scratch_bytes_ += AlignUp(bytes);
  return offset;
}

void RecurrentStep::LayOut() {
  const int64_t rows = layer_.time * layer_.batch;
  const int64_t states = layer_.batch * layer_.hidden;
  const bool int8 = type_ == ProductType::kInt8;
  if (!x_in_place_) {
    x_encoded_ = Reserve<std::byte>(rows * RowStride(type_, layer_.inputs));
    x_scales_ = Reserve<float>(int8 ? rows : 0);
    x_zero_points_ = Reserve<int32_t>(int8 ? rows : 0);
    x_reals_ = Reserve<float>(formats_.x.plain() ? 0 : threads_ * layer_.inputs);
  }
  for (const RecurrentPart& part : parts_) {
    const int64_t encoded = type_ == ProductType::kF32 ? 0 : RowStride(type_, layer_.hidden);
    part_scratch_.push_back(
        {.from_x = Reserve<float>(rows * PaddedColumns(part.w.columns)),
         .from_h = Reserve<float>(layer_.batch * PaddedColumns(part.r.columns)),
         .candidate = Reserve<float>(layer_.batch * PaddedColumns(part.candidate.columns)),
         .encoded = Reserve<std::byte>(layer_.batch * encoded),
         .scales = Reserve<float>(layer_.batch),
         .zero_points = Reserve<int32_t>(layer_.batch)});
  }
  for (int64_t d = 0; d < layer_.directions(); ++d) {
    state_scratch_.push_back({.h = {Reserve<float>(states), Reserve<float>(states)},
                              .c = Reserve<float>(layer_.kind == CellKind::kLstm ? states : 0),
                              .reset = Reserve<float>(reset_first_ ? states : 0)});
  }
}

absl::StatusOr<std::unique_ptr<StepState>> RecurrentStep::NewState() const {
  auto state = std::make_unique<State>();
  state->h.assign(parts_.size() * static_cast<size_t>(groups_), QuantParams::PerTensor(1.0F, 0));
  return state;
}

bool RecurrentStep::reads_input(int i) const {
  const auto slot = static_cast<size_t>(i);
  return slot != kW && slot != kR && slot != kBias;
}

/// One run. Every method that takes a part touches what is that part's, and reads the state before the time step.
class RecurrentStep::Execution {
 public:
  Execution(const RecurrentStep& step, const StepArgs& args)
      : step_(step),
        layer_(step.layer_),
        args_(args),
        state_(static_cast<State&>(*args.state)),
        lengths_(static_cast<const int32_t*>(Input(kLengths))) {}

  void Run() {
    if (!step_.x_in_place_) EncodeX();
    if (!TwoDirectionsAlone()) {
      for (size_t p = 0; p < step_.parts_.size(); ++p) ProjectX(p);
    }
    for (int64_t d = 0; d < layer_.directions(); ++d) LoadStates(d);
    RunParts();
    for (int64_t d = 0; d < layer_.directions(); ++d) StoreStates(d);
  }

 private:
  const void* Input(size_t slot) const {
    return slot < args_.inputs.size() ? args_.inputs[slot] : nullptr;
  }
  void* Output(size_t slot) const {
    return slot < args_.outputs.size() ? args_.outputs[slot] : nullptr;
  }
  template <typename T = float>
  T* At(size_t offset) const {
    return reinterpret_cast<T*>(args_.scratch + offset);
  }
  bool int8() const { return step_.type_ == ProductType::kInt8; }
  float* H(int64_t d, int64_t step) const {
    return At(step_.state_scratch_[static_cast<size_t>(d)].h[static_cast<size_t>(step & 1)]);
  }
  float* C(int64_t d) const { return At(step_.state_scratch_[static_cast<size_t>(d)].c); }
  float* Reset(int64_t d) const { return At(step_.state_scratch_[static_cast<size_t>(d)].reset); }

  // The parameters of X: its own where it is stored in 8 bits (I8 as U8: 128 more), else those of its range.
  void FindScaleOfX() {
    const auto& stored = step_.formats_.x;
    if (stored.quant) {
      state_.x.scales[0] = stored.quant->scales[0];
      state_.x.zero_points[0] =
          stored.quant->zero_points[0] + (stored.stored == DType::kI8 ? 128 : 0);
      return;
    }
    const Shape all{layer_.time * layer_.batch * layer_.inputs};
    const DynamicScale found = DynamicScaleOf(FindMinMax({Input(kX), {DType::kF32, all}}));
    state_.x.scales[0] = found.scale;
    state_.x.zero_points[0] = found.zero_point;
  }

  void EncodeX() {
    const int64_t rows = layer_.time * layer_.batch;
    const int64_t stride = RowStride(step_.type_, layer_.inputs);
    if (int8()) {
      FindScaleOfX();
      std::fill_n(At(step_.x_scales_), rows, state_.x.scales[0]);
      std::fill_n(At<int32_t>(step_.x_zero_points_), rows, state_.x.zero_points[0]);
    }
    const int64_t parts =
        std::clamp<int64_t>(rows * layer_.inputs / kEncodeGrain, 1, step_.threads_);
    ParallelFor(parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        float* reals = At(step_.x_reals_) + part * layer_.inputs;
        for (int64_t row = rows * part / parts; row < rows * (part + 1) / parts; ++row) {
          const float* x =
              step_.formats_.x.Read(Input(kX), row * layer_.inputs, layer_.inputs, reals);
          EncodeRow(step_.type_, x, layer_.inputs, state_.x,
                    At<std::byte>(step_.x_encoded_) + row * stride);
        }
      }
    });
  }

  void ProjectX(size_t p) {
    const RecurrentPart& part = step_.parts_[p];
    const int64_t columns = PaddedColumns(part.w.columns);
    const int64_t stride = RowStride(step_.type_, layer_.inputs);
    const auto* rows = step_.x_in_place_ ? static_cast<const std::byte*>(Input(kX))
                                         : At<const std::byte>(step_.x_encoded_);
    const int64_t grain = 1 + kProductGrain / (columns * layer_.inputs);
    ParallelFor(layer_.time * layer_.batch, grain, [&](int64_t begin, int64_t end) {
      ProductRows x{rows + begin * stride, stride};
      if (int8()) {
        x.scales = At(step_.x_scales_) + begin;
        x.zero_points = At<int32_t>(step_.x_zero_points_) + begin;
      }
      MultiplyPacked(part.w, x, end - begin, part.bias.data(),
                     At(step_.part_scratch_[p].from_x) + begin * columns, columns);
    });
  }

  void LoadStates(int64_t d) {
    Load(kInitialH, step_.formats_.initial_h, d, H(d, 0));
    if (layer_.kind == CellKind::kLstm) Load(kInitialC, step_.formats_.initial_c, d, C(d));
  }
  void Load(size_t slot, const RealFormat& format, int64_t d, float* to) {
    const void* from = Input(slot);
    const int64_t n = layer_.hidden;
    for (int64_t b = 0; b < layer_.batch; ++b, to += n) {
      if (from == nullptr) {
        std::fill_n(to, n, 0.0F);
        continue;
      }
      const float* reals = format.Read(from, layer_.StateAt(d, b), n, to);
      if (reals != to) std::copy_n(reals, n, to);
    }
  }

  // A sequence's state is where its last step left it.
  void StoreStates(int64_t d) {
    for (int64_t b = 0; b < layer_.batch; ++b) {
      const int64_t length = layer_.LengthOf(lengths_, b);
      const int64_t at = layer_.StateAt(d, b);
      const int64_t row = b * layer_.hidden;
      Store(1, H(d, length) + row, at, layer_.hidden);
      if (layer_.kind == CellKind::kLstm) Store(2, C(d) + row, at, layer_.hidden);
    }
  }
  void Store(size_t slot, const float* reals, int64_t at, int64_t n) {
    if (Output(slot) != nullptr) step_.formats_.outputs[slot].Write(reals, Output(slot), at, n);
  }

  /// Sequences [first, last), and where their states' parameters are found.
  struct Group {
    int64_t first, last;
    size_t index;
  };

  // Each direction is one thread's, the product with X too: threads meet once.
  bool TwoDirectionsAlone() const {
    return layer_.directions() == 2 && step_.parts_.size() == 2 && step_.groups_ == 1;
  }

  void RunParts() {
    const auto count = static_cast<int>(step_.parts_.size());
    if (count == layer_.directions()) {
      const int64_t groups = step_.groups_;
      const int64_t macs =
          layer_.time * layer_.batch * layer_.gates() * layer_.hidden * layer_.hidden / groups;
      ParallelFor(count * groups, 1 + kProductGrain / macs, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t g = i % groups;
          const Group group{layer_.batch * g / groups, layer_.batch * (g + 1) / groups,
                            static_cast<size_t>(g)};
          const int64_t p = i / groups;
          if (TwoDirectionsAlone()) ProjectX(static_cast<size_t>(p));
          RunSteps(group, static_cast<int>(p), count, false);
        }
      });
      return;
    }
    const Group all{0, layer_.batch, 0};
    if (step_.threads_ == 1 || omp_in_parallel()) return RunSteps(all, 0, 1, false);
#pragma omp parallel num_threads(std::min(count, step_.threads_))
    RunSteps(all, omp_get_thread_num(), omp_get_num_threads(), true);
  }

  // All time steps of parts first, first + stride, ... Where others run the rest, they wait for each other.
  void RunSteps(const Group& group, int first, int stride, bool wait) {
    const int count = static_cast<int>(step_.parts_.size());
    const auto for_mine = [&](const auto& fn) {
      for (int p = first; p < count; p += stride) fn(static_cast<size_t>(p));
      if (!wait) return;
#pragma omp barrier
    };
    int64_t longest = 0;
    for (int64_t b = group.first; b < group.last; ++b)
      longest = std::max(longest, layer_.LengthOf(lengths_, b));
    for (int64_t s = 0; s < longest; ++s) {
      for_mine([&](size_t p) { Advance(group, p, s); });
      if (step_.reset_first_) for_mine([&](size_t p) { AdvanceBehindReset(group, p, s); });
    }
    for (int p = first; p < count; p += stride) ClearBehind(group, static_cast<size_t>(p));
  }

  // Calls fn(first, last) for runs of adjacent sequences that have a step s.
  template <typename Fn>
  void ForEachRun(const Group& group, int64_t s, const Fn& fn) const {
    for (int64_t b = group.first; b < group.last;) {
      int64_t last = b;
      while (last < group.last && s < layer_.LengthOf(lengths_, last)) ++last;
      if (last > b) fn(b, last);
      b = last + 1;
    }
  }

  // Rows [first, last) of [B, H] states as the products of this part read them.
  ProductRows Encoded(const Group& group, size_t p, const float* states, int64_t first,
                      int64_t last) {
    const int64_t n = layer_.hidden;
    if (step_.type_ == ProductType::kF32) {
      return {states + first * n, n * static_cast<int64_t>(sizeof(float))};
    }
    const PartScratch& scratch = step_.part_scratch_[p];
    const int64_t stride = RowStride(step_.type_, n);
    QuantParams& params = state_.h[p * static_cast<size_t>(step_.groups_) + group.index];
    for (int64_t b = first; b < last; ++b) {
      const float* reals = states + b * n;
      if (int8()) {
        const DynamicScale found = DynamicScaleOf(FindMinMax({reals, {DType::kF32, Shape{n}}}));
        At(scratch.scales)[b] = params.scales[0] = found.scale;
        At<int32_t>(scratch.zero_points)[b] = params.zero_points[0] = found.zero_point;
      }
      EncodeRow(step_.type_, reals, n, params, At<std::byte>(scratch.encoded) + b * stride);
    }
    return {At<std::byte>(scratch.encoded) + first * stride, stride, At(scratch.scales) + first,
            At<int32_t>(scratch.zero_points) + first};
  }

  CellRow RowOf(size_t p, int64_t s, int64_t b) const {
    const RecurrentPart& part = step_.parts_[p];
    const int64_t d = part.direction;
    const int64_t t = layer_.TimeOf(d, s, layer_.LengthOf(lengths_, b));
    const int64_t at = b * layer_.hidden + part.first;
    const PartScratch& scratch = step_.part_scratch_[p];
    const auto* peepholes =
        static_cast<const float*>(layer_.kind == CellKind::kLstm ? Input(kPeepholes) : nullptr);
    return {.units = part.units,
            .from_x = At(scratch.from_x) + layer_.XRow(t, b) * PaddedColumns(part.w.columns),
            .from_h = At(scratch.from_h) + b * PaddedColumns(part.r.columns),
            .peepholes =
                peepholes == nullptr ? nullptr : peepholes + d * 3 * layer_.hidden + part.first,
            .peephole_stride = layer_.hidden,
            .h = H(d, s) + at,
            .c = layer_.kind == CellKind::kLstm ? C(d) + at : nullptr,
            .next_h = H(d, s + 1) + at};
  }

  void StoreY(const RecurrentPart& part, int64_t t, int64_t b, const float* reals) {
    Store(0, reals, layer_.YAt(t, part.direction, b) + part.first, part.units);
  }
  void StoreStep(const RecurrentPart& part, int64_t s, int64_t b, const float* reals) {
    StoreY(part, layer_.TimeOf(part.direction, s, layer_.LengthOf(lengths_, b)), b, reals);
  }

  // Step s, or what of it comes before a product with r H.
  void Advance(const Group& group, size_t p, int64_t s) {
    const RecurrentPart& part = step_.parts_[p];
    const auto activations = layer_.ActivationsOf(part.direction);
    const int64_t columns = PaddedColumns(part.r.columns);
    ForEachRun(group, s, [&](int64_t first, int64_t last) {
      MultiplyPacked(part.r, Encoded(group, p, H(part.direction, s), first, last), last - first,
                     part.state_bias.empty() ? nullptr : part.state_bias.data(),
                     At(step_.part_scratch_[p].from_h) + first * columns, columns);
      for (int64_t b = first; b < last; ++b) {
        const CellRow row = RowOf(p, s, b);
        switch (layer_.kind) {
          case CellKind::kLstm:
            LstmCell(layer_, activations, row);
            break;
          case CellKind::kGru:
            GruGates(layer_, activations, row);
            if (step_.reset_first_) {
              GruReset(row, Reset(part.direction) + b * layer_.hidden + part.first);
              continue;
            }
            GruCell(layer_, activations, row, row.from_h + 2 * part.units);
            break;
          case CellKind::kRnn:
            RnnCell(layer_, activations, row);
            break;
        }
        StoreStep(part, s, b, row.next_h);
      }
    });
  }

  void AdvanceBehindReset(const Group& group, size_t p, int64_t s) {
    const RecurrentPart& part = step_.parts_[p];
    const int64_t columns = PaddedColumns(part.candidate.columns);
    float* candidates = At(step_.part_scratch_[p].candidate);
    ForEachRun(group, s, [&](int64_t first, int64_t last) {
      MultiplyPacked(part.candidate, Encoded(group, p, Reset(part.direction), first, last),
                     last - first, nullptr, candidates + first * columns, columns);
      for (int64_t b = first; b < last; ++b) {
        const CellRow row = RowOf(p, s, b);
        GruCell(layer_, layer_.ActivationsOf(part.direction), row, candidates + b * columns);
        StoreStep(part, s, b, row.next_h);
      }
    });
  }

  // Y is 0 behind the end of a sequence.
  void ClearBehind(const Group& group, size_t p) {
    if (lengths_ == nullptr || Output(0) == nullptr) return;
    const RecurrentPart& part = step_.parts_[p];
    float* zeros = At(step_.part_scratch_[p].from_h) + group.first * PaddedColumns(part.r.columns);
    std::fill_n(zeros, part.units, 0.0F);
    for (int64_t b = group.first; b < group.last; ++b) {
      for (int64_t t = layer_.LengthOf(lengths_, b); t < layer_.time; ++t)
        StoreY(part, t, b, zeros);
    }
  }

  const RecurrentStep& step_;
  const RecurrentLayer& layer_;
  const StepArgs& args_;
  State& state_;
  const int32_t* lengths_;
};

absl::Status RecurrentStep::Run(const StepArgs& args) const {
  Execution(*this, args).Run();
  return absl::OkStatus();
}

}  // namespace octet

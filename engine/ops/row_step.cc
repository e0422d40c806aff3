#include "engine/ops/row_step.h"

#include <algorithm>
#include <utility>

#include "engine/tensor/parallel.h"
#include "engine/tensor/tensor.h"

namespace octet {
namespace {

/// Elements that one thread gets at least.
constexpr int64_t kRowGrain = int64_t{1} << 13;

}  // namespace

RowStep::RowStep(const LowerContext& context, int64_t rows, int64_t width, Fn fn, int64_t spare)
    : input_(RealFormatOf(context.input(0))),
      output_(RealFormatOf(context.output())),
      rows_(rows),
      width_(width),
      spare_(spare),
      threads_(std::max(context.target.threads, 1)),
      fn_(std::move(fn)) {
  const bool same_size = SizeOf(input_.stored) == SizeOf(output_.stored);
  const bool read_once = std::ranges::count(context.node.inputs, context.node.inputs[0]) == 1;
  overwrites_ = same_size && read_once && context.MayOverwrite(0) ? 0 : kNone;
}

int64_t RowStep::ThreadFloats() const {
  const int64_t row = AlignUpFloats(width_);
  return (input_.plain() ? 0 : row) + (output_.plain() ? 0 : row) + AlignUpFloats(spare_);
}

size_t RowStep::scratch_bytes() const {
  return static_cast<size_t>(threads_ * ThreadFloats()) * sizeof(float);
}

void RowStep::RunRow(const StepArgs& args, int64_t row, float* scratch) const {
  float* x_row = scratch;
  float* y_row = x_row + (input_.plain() ? 0 : AlignUpFloats(width_));
  float* spare = y_row + (output_.plain() ? 0 : AlignUpFloats(width_));
  const float* x = input_.Read(args.inputs[0], row * width_, width_, x_row);
  float* y = output_.plain() ? static_cast<float*>(args.outputs[0]) + row * width_ : y_row;
  fn_(args, x, y, spare);
  if (!output_.plain()) output_.Write(y, args.outputs[0], row * width_, width_);
}

absl::Status RowStep::Run(const StepArgs& args) const {
  const int64_t grain = 1 + kRowGrain / std::max<int64_t>(width_, 1);
  ParallelParts(rows_, grain, threads_, [&](int64_t part, int64_t first, int64_t last) {
    float* scratch = reinterpret_cast<float*>(args.scratch) + part * ThreadFloats();
    for (int64_t row = first; row < last; ++row) RunRow(args, row, scratch);
  });
  return absl::OkStatus();
}

}  // namespace octet

#include "engine/ops/gemv_step.h"

#include <algorithm>
#include <utility>

#include "engine/ops/post_ops.h"
#include "engine/tensor/parallel.h"

namespace octet {
namespace {

/// Weights that a thread reads at least.
constexpr int64_t kGemvGrain = int64_t{1} << 16;

class GemvStep final : public Step {
 public:
  GemvStep(const LowerContext& context, PackedMatrix matrix,
           std::shared_ptr<const std::byte[]> weights, Tensor bias)
      : post_ops_(context.node.post_ops),
        matrix_(matrix),
        weights_(std::move(weights)),
        bias_(std::move(bias)) {
    matrix_.panels = reinterpret_cast<const float*>(weights_.get());
  }

  absl::Status Run(const StepArgs& args) const override {
    const auto* x = static_cast<const float*>(args.inputs[0]);
    auto* y = static_cast<float*>(args.outputs[0]);
    const float* bias = bias_.empty_handle() ? nullptr : bias_.span<float>().data();
    ParallelFor(matrix_.panel_count(), 1 + kGemvGrain / matrix_.pitch,
                [&](int64_t first, int64_t last) {
                  Gemv(matrix_, x, bias, y, first, last);
                  const int64_t begin = first * matrix_.width;
                  const int64_t end = std::min(last * matrix_.width, matrix_.n);
                  for (const PostOp& op : post_ops_) ApplyUnaryPostOp(op, y + begin, end - begin);
                });
    return absl::OkStatus();
  }

  bool reads_input(int i) const override { return i == 0; }
  bool is_primitive() const override { return true; }

 private:
  std::vector<PostOp> post_ops_;
  PackedMatrix matrix_;
  std::shared_ptr<const std::byte[]> weights_;
  Tensor bias_;
};

}  // namespace

std::optional<PackedMatrix> GemvLayout(const dnnl::memory::desc& weights) {
  if (weights.get_data_type() != dnnl::memory::data_type::f32 || weights.get_ndims() != 2 ||
      weights.get_format_kind() != dnnl::memory::format_kind::blocked)
    return std::nullopt;
  const auto blocks = weights.get_inner_blks();
  const auto axes = weights.get_inner_idxs();
  // Blocks of rows inside blocks of columns, those of one panel behind each other: K rows of `width` columns.
  if (weights.get_inner_nblks() != 2 || axes[0] != 0 || axes[1] != 1 || blocks[1] % 8 != 0 ||
      blocks[1] > 64 || weights.get_strides()[0] != blocks[0] * blocks[1] ||
      weights.get_submemory_offset() != 0)
    return std::nullopt;
  return PackedMatrix{.k = weights.get_dims()[0],
                      .n = weights.get_dims()[1],
                      .width = blocks[1],
                      .pitch = weights.get_strides()[1]};
}

std::unique_ptr<Step> MakeGemvStep(const LowerContext& context, PackedMatrix layout,
                                   std::shared_ptr<const std::byte[]> weights, Tensor bias) {
  return std::make_unique<GemvStep>(context, layout, std::move(weights), std::move(bias));
}

}  // namespace octet

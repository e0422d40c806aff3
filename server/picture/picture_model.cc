#include "server/picture/picture_model.h"

#include <array>
#include <cstddef>
#include <map>
#include <new>
#include <string>
#include <utility>

#include "engine/tensor/status.h"

namespace octet {
namespace {

class PicturePlan final : public Plan {
 public:
  PicturePlan(std::shared_ptr<const PictureRecipe> recipe, TensorSpec input, TensorSpec output)
      : recipe_(std::move(recipe)), input_{std::move(input)}, output_{std::move(output)} {}

  std::span<const TensorSpec> inputs() const override { return input_; }
  std::span<const TensorSpec> outputs() const override { return output_; }
  const Certificate& certificate() const override { return certificate_; }
  PlanMemory memory() const override { return {}; }
  std::chrono::nanoseconds compile_time() const override { return {}; }
  const std::vector<PassTrace>& pass_trace() const override { return passes_; }
  absl::StatusOr<std::vector<LayerTime>> LayerTimes(Workspace&, int) const override {
    return std::vector<LayerTime>();
  }

  /// Such runs alone have limits.
  bool has_static_outputs() const override { return false; }
  absl::Status Run(Workspace&, std::span<const void* const>,
                   std::span<void* const>) const override {
    return Internal("pictures were decoded without limits");
  }

  absl::StatusOr<std::vector<Datum>> RunDynamic(Workspace&, std::span<const Datum> inputs,
                                                const RunLimits& limits) const override {
    const auto files = inputs[0].tensor.span<std::string_view>();
    Tensor answer(output_[0].dtype, output_[0].shape);
    auto* const rows = static_cast<std::byte*>(answer.mutable_data());
    const auto count = std::ssize(files);
    std::vector<absl::Status> statuses(files.size());
    PixelBudget budget = recipe_->Budget();
#pragma omp parallel for schedule(dynamic)
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      const auto at = static_cast<size_t>(i);
      statuses[at] = WriteRow(files[at], budget, limits, rows + at * recipe_->row_bytes());
    }
    for (size_t i = 0; i < statuses.size(); ++i) {
      OCTET_RETURN_IF_ERROR(Annotate(statuses[i], Format("picture {}", i)));
    }
    return std::vector<Datum>{Datum::Of(std::move(answer))};
  }

 private:
  /// No exception may leave a thread of the team.
  absl::Status WriteRow(std::string_view file, PixelBudget& budget, const RunLimits& limits,
                        std::byte* row) const {
    try {
      OCTET_RETURN_IF_ERROR(limits.Check());
      return recipe_->Write(file, budget, limits, row);
    } catch (const std::bad_alloc&) {
      return absl::ResourceExhaustedError("out of memory for a picture");
    }
  }

  const std::shared_ptr<const PictureRecipe> recipe_;
  const std::array<TensorSpec, 1> input_;
  const std::array<TensorSpec, 1> output_;
  const Certificate certificate_;
  const std::vector<PassTrace> passes_;
};

class PictureModel final : public Model {
 public:
  PictureModel(PictureRecipe recipe, const TensorInfo& input)
      : recipe_(std::make_shared<const PictureRecipe>(std::move(recipe))) {
    signature_.inputs = {{kPictureInput, DType::kString, {input.shape[0], 1}}};
    signature_.outputs = {{kPictureOutput, input.dtype, input.shape}};
  }

  const Signature& signature() const override { return signature_; }
  Precision precision() const override { return Precision::kFp32; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }
  size_t resident_weight_bytes() const override { return 0; }
  const std::vector<PassTrace>& pass_trace() const override { return passes_; }
  std::string DumpGraph() const override { return "picture -> tensor"; }

  absl::StatusOr<std::shared_ptr<const Plan>> PlanFor(
      std::span<const Shape> shapes) const override {
    Shape rows = signature_.outputs[0].shape;
    rows[0] = shapes[0][0];
    return std::make_shared<PicturePlan>(recipe_, TensorSpec{DType::kString, shapes[0]},
                                         TensorSpec{signature_.outputs[0].dtype, rows});
  }

 private:
  const std::shared_ptr<const PictureRecipe> recipe_;
  Signature signature_;
  const std::map<std::string, std::string> metadata_;
  const std::vector<PassTrace> passes_;
};

}  // namespace

std::shared_ptr<const Model> MakePictureModel(PictureRecipe recipe, const TensorInfo& input) {
  return std::make_shared<PictureModel>(std::move(recipe), input);
}

}  // namespace octet

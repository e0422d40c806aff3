#include "server/repository/golden.h"

#include <memory>
#include <utility>
#include <vector>

#include "engine/tensor/output_agreement.h"
#include "engine/tensor/status.h"
#include "server/scheduling/input_recipe.h"

namespace octet {
namespace {

/// What all samples and outputs have shown.
struct Sums {
  NoiseSums noise;
  ClassAgreement classes;
  int64_t unequal = 0;  ///< Elements of outputs that have no noise.
};

/// The arrays of the archive in the model's order. A sample is a row of each, or each as a whole.
class GoldenArrays {
 public:
  static absl::StatusOr<GoldenArrays> Read(const std::string& file, const Signature& signature) {
    OCTET_ASSIGN_OR_RETURN(NpzArrays arrays, ReadNpz(file));
    GoldenArrays golden;
    golden.batches_ = signature.batches;
    for (const auto* tensors : {&signature.inputs, &signature.outputs}) {
      for (const TensorInfo& info : *tensors) {
        OCTET_RETURN_IF_ERROR(golden.Take(arrays, info));
      }
    }
    return golden;
  }

  int64_t samples() const { return batches_ ? tensors_[0].shape()[0] : 1; }
  /// Tensor `i` of the inputs and then the outputs, of one sample.
  ConstTensorView At(size_t i, int64_t sample) const {
    const Tensor& tensor = tensors_[i];
    if (!batches_) return tensor.view();
    TensorSpec spec = tensor.spec();
    spec.shape[0] = 1;
    const auto* bytes = static_cast<const std::byte*>(tensor.data());
    return {bytes + static_cast<size_t>(sample) * spec.bytes(), spec};
  }

 private:
  absl::Status Take(NpzArrays& arrays, const TensorInfo& info) {
    const auto found = arrays.find(info.name);
    if (found == arrays.end()) return InvalidArgument("array '{}' is missing", info.name);
    Tensor& tensor = found->second;
    bool fits = tensor.dtype() == info.dtype &&
                (!info.rank_known || tensor.shape().rank() == info.shape.rank());
    for (int axis = 0; fits && axis < info.shape.rank(); ++axis) {
      fits = info.shape[axis] == kUnknownDim || info.shape[axis] == tensor.shape()[axis];
    }
    if (!fits) {
      return InvalidArgument("array '{}': expected {} {}, got {} {}", info.name,
                             DTypeName(info.dtype), info.shape.ToString(),
                             DTypeName(tensor.dtype()), tensor.shape().ToString());
    }
    if (batches_ && !tensors_.empty() && tensor.shape()[0] != samples()) {
      return InvalidArgument("array '{}': expected {} samples as the first one, got {}", info.name,
                             samples(), tensor.shape()[0]);
    }
    if (batches_ && tensor.shape()[0] == 0) {
      return InvalidArgument("array '{}': expected at least one sample, got none", info.name);
    }
    tensors_.push_back(std::move(tensor));
    return absl::OkStatus();
  }

  bool batches_ = false;
  std::vector<Tensor> tensors_;
};

/// The elements as plans read them.
absl::StatusOr<Tensor> CopyOf(ConstTensorView view, const TensorInfo& info) {
  if (view.dtype() == DType::kString) {
    return Tensor::Strings(view.shape(), view.span<std::string_view>());
  }
  OCTET_ASSIGN_OR_RETURN(const InputRecipe recipe, InputRecipe::Make(info, nullptr));
  Tensor tensor(info.narrow ? info.narrow->stored : info.dtype, view.shape());
  recipe.Convert(view, tensor.mutable_data());
  return tensor;
}

absl::Status Compare(ConstTensorView got, ConstTensorView expected, std::string_view name,
                     Sums& sums) {
  const OutputComparison comparison = CompareOutputs(got, expected);
  if (!comparison.same_shape) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     "output '{}': expected shape {}, got {}", name, expected.shape().ToString(),
                     got.shape().ToString());
  }
  sums.unequal += comparison.elements - comparison.equal;
  if (comparison.noise) sums.noise.Merge(*comparison.noise);
  if (!comparison.classes) return absl::OkStatus();
  sums.classes.rows += comparison.classes->rows;
  sums.classes.top1 += comparison.classes->top1;
  return absl::OkStatus();
}

absl::Status RunSample(const Model& model, const GoldenArrays& golden, int64_t sample,
                       Workspace& workspace, Sums& sums) {
  const Signature& signature = model.signature();
  std::vector<Shape> shapes;
  std::vector<Datum> data;
  for (size_t i = 0; i < signature.inputs.size(); ++i) {
    const ConstTensorView view = golden.At(i, sample);
    shapes.push_back(view.shape());
    OCTET_ASSIGN_OR_RETURN(Tensor tensor, CopyOf(view, signature.inputs[i]));
    data.push_back(Datum::Of(std::move(tensor)));
  }
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> plan, model.PlanFor(shapes));
  OCTET_ASSIGN_OR_RETURN(const std::vector<Datum> answers, plan->RunDynamic(workspace, data, {}));
  for (size_t i = 0; i < answers.size(); ++i) {
    OCTET_RETURN_IF_ERROR(Compare(answers[i].tensor.view(),
                                  golden.At(signature.inputs.size() + i, sample),
                                  signature.outputs[i].name, sums));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckGolden(const std::string& file, const Model& model,
                         const ModelConfig::Golden& floor) {
  auto golden = GoldenArrays::Read(file, model.signature());
  if (!golden.ok()) return Annotate(golden.status(), file);
  Sums sums;
  Workspace workspace;
  for (int64_t sample = 0; sample < golden->samples(); ++sample) {
    if (const auto ran = RunSample(model, *golden, sample, workspace, sums); !ran.ok()) {
      return Annotate(ran, Format("{}: sample {}", file, sample));
    }
  }
  const double agreement = sums.classes.rows == 0 ? 100
                                                  : 100 * static_cast<double>(sums.classes.top1) /
                                                        static_cast<double>(sums.classes.rows);
  const double sqnr = sums.noise.SqnrDb();
  if (sqnr >= floor.sqnr_db && agreement >= floor.agreement_percent && sums.unequal == 0 &&
      sums.noise.non_finite == 0) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      "the answers on this CPU are not those of {}: SQNR {:.1f} dB, expected at least "
      "{}; agreement {:.2f} %, expected at least {}; {} elements without a difference, {} unequal",
      file, sqnr, floor.sqnr_db, agreement, floor.agreement_percent, sums.noise.non_finite,
      sums.unequal);
}

}  // namespace octet

// ai.onnx.ml ZipMap: rows of scores to a map each, from the classes' labels to their scores. No tensor is a map: the answer is the
// rows themselves under the map's name, as if the model had been exported without its ZipMap (skl2onnx's zipmap=False). The
// reader lets a ZipMap stand only where a model ends (onnx/graph_reader.cc). Source: ONNX ZipMap-1.
#include <cstring>

#include "engine/ops/class_scores.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/ops/reference_step.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

absl::Status InferZipMap(InferContext& context) {
  OCTET_ASSIGN_OR_RETURN(
      const Tensor labels,
      ReadClassLabels(context.attributes(), "classlabels_strings", "classlabels_int64s"));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 1, 2));
  if (context.has_input(0) && context.shape(0)) {
    const Shape& x = *context.shape(0);
    const int64_t columns = x[x.rank() - 1];
    if (columns != kUnknownDim && columns != labels.elements()) {
      return context.Error(Format("rows of {} scores for {} labels", columns, labels.elements()));
    }
  }
  return InferSameAsInput(context, {DType::kF16, DType::kBF16, DType::kF32});
}

absl::StatusOr<Kernel> MakeZipMap(const KernelContext& /*context*/) {
  return Kernel([](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    if (inputs[0].bytes() != 0) std::memcpy(outputs[0].data, inputs[0].data, inputs[0].bytes());
    return absl::OkStatus();
  });
}

// The certificate says what became of the map.
absl::StatusOr<std::unique_ptr<Step>> LowerZipMap(const LowerContext& context) {
  OCTET_ASSIGN_OR_RETURN(std::unique_ptr<Step> step, MakeReferenceStep(context));
  context.layer.impl = "octet:scores_for_map";
  return step;
}

}  // namespace

std::span<const OpDef> ZipMapOps() {
  static constexpr OpDef kOps[] = {
      {.domain = kMlDomain,
       .name = "ZipMap",
       .infer = InferZipMap,
       .kernel = MakeZipMap,
       .lower = LowerZipMap,
       .traits = {.data_movement = true}},
  };
  return kOps;
}

}  // namespace octet

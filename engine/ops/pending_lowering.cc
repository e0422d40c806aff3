#include "engine/ops/lowerings.h"
#include "engine/tensor/status.h"
namespace octet {
#define P(N) \
  absl::StatusOr<std::unique_ptr<Step>> N(const LowerContext&) { return Unimplemented("pending"); }
P(LowerConv)
P(LowerMatMul) P(LowerPool) P(LowerSoftmax) P(LowerLayerNorm) P(LowerLstm) P(LowerBatchNorm)
}  // namespace octet

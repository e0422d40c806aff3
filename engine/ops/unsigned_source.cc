#include "engine/ops/unsigned_source.h"

#include "engine/onednn/memory_desc.h"
#include "engine/onednn/runtime.h"
#include "engine/ops/primitive_attributes.h"
#include "engine/ops/weight_layout.h"
#include "engine/tensor/status.h"

namespace octet {

absl::StatusOr<size_t> AddUnsignedSource(const LowerContext& context, PrimitiveStep& step) {
  const int64_t count = context.input(0).shape->elements();
  const auto from = onednn::VectorDesc(DType::kI8, count);
  const auto to = onednn::VectorDesc(DType::kU8, count);
  PrimitiveAttributes attributes(context);
  constexpr int32_t kShift = -kUnsignedZero;
  attributes.AddZeroPoint(DNNL_ARG_SRC, {&kShift, 1});
  std::vector<onednn::ExecArg> args = attributes.TakeArgs();
  const dnnl::primitive_attr attr = attributes.TakeAttributes();
  OCTET_ASSIGN_OR_RETURN(const auto pd, onednn::Catch([&] {
                           return dnnl::reorder::primitive_desc(onednn::CpuEngine(), from,
                                                                onednn::CpuEngine(), to, attr);
                         }));
  const size_t offset = step.ReserveScratch(static_cast<size_t>(count));
  args.push_back(onednn::ExecArg::Input(DNNL_ARG_FROM, from, 0));
  args.push_back(onednn::ExecArg::Scratch(DNNL_ARG_TO, to, offset));
  OCTET_RETURN_IF_ERROR(step.Add(pd, std::move(args)));
  return offset;
}

}  // namespace octet

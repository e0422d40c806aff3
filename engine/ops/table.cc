// octet:Table (engine/README.md): an 8-bit value through 256 results.
#include <cstring>

#include "engine/ops/elementwise.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/ops/reference_step.h"
#include "engine/tensor/byte_lookup.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Bytes of the table's input that one thread takes: a look-up costs a small part of what kElementwiseGrain assumes.
constexpr int64_t kGrain = 8 * kElementwiseGrain;

absl::Status InferTable(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  const Tensor* table = context.constant(1);
  if (table == nullptr || table->spec() != TensorSpec{DType::kU8, Shape{256}})
    return context.Error("expected 256 constant bytes as input 1");
  const DType stored = context.output(0).quant ? DType::kF32 : context.output(0).dtype;
  if (stored == DType::kUndefined) return context.Error("the output has no element type");
  return context.SetOutput(0, stored, context.shape(0));
}

ByteTable TableOf(const void* bytes) {
  ByteTable table;
  std::memcpy(table.data(), bytes, table.size());
  return table;
}

absl::StatusOr<Kernel> MakeTableKernel(const KernelContext& context) {
  if (SizeOf(context.inputs[0].spec.dtype) != 1 || SizeOf(context.outputs[0].dtype) != 1)
    return Internal("{}: a table is for values of one byte", Describe(context.node));
  return Kernel([table = TableOf(context.inputs[1].data)](std::span<const ConstTensorView> inputs,
                                                          std::span<const TensorView> outputs) {
    const auto* x = static_cast<const uint8_t*>(inputs[0].data);
    auto* y = static_cast<uint8_t*>(outputs[0].data);
    for (int64_t i = 0; i < inputs[0].spec.shape.elements(); ++i) y[i] = table[x[i]];
    return absl::OkStatus();
  });
}

class TableStep final : public Step {
 public:
  explicit TableStep(const LowerContext& context)
      : table_(TableOf(context.input(1).constant.data())),
        elements_(context.output().shape->elements()),
        overwrites_(context.MayOverwrite(0) ? 0 : kNone) {}

  absl::Status Run(const StepArgs& args) const override {
    const auto* x = static_cast<const uint8_t*>(args.inputs[0]);
    auto* y = static_cast<uint8_t*>(args.outputs[0]);
    ParallelFor(elements_, kGrain, [&](int64_t begin, int64_t end) {
      LookUpBytes(table_, x + begin, y + begin, end - begin);
    });
    return absl::OkStatus();
  }

  int overwrites_input() const override { return overwrites_; }
  bool reads_input(int i) const override { return i == 0; }

 private:
  ByteTable table_;
  int64_t elements_;
  int overwrites_;
};

absl::StatusOr<std::unique_ptr<Step>> LowerTable(const LowerContext& context) {
  context.layer.runs = "int8";
  context.layer.impl = "octet:table";
  context.layer.isa = context.target.isa;
  return std::make_unique<TableStep>(context);
}

constexpr OpDef kTableOps[] = {
    {.domain = kOctetDomain,
     .name = "Table",
     .infer = InferTable,
     .kernel = MakeTableKernel,
     .lower = LowerTable,
     .traits = {.elementwise_unary = true, .stored_integers = true}},
};

}  // namespace

std::span<const OpDef> TableOps() { return kTableOps; }

}  // namespace octet

// Det: determinants of square matrices, by elimination with pivots.
//   Source: ONNX Det-11, -22.
#include <cmath>
#include <utility>
#include <vector>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"

namespace octet {
namespace {

absl::Status InferDet(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 2, INT_MAX));
  if (!context.shape(0)) return context.SetOutput(0, context.dtype(0), std::nullopt);
  const Shape& in = *context.shape(0);
  const int64_t rows = in[in.rank() - 2];
  if (rows != in.back() && rows != kUnknownDim && in.back() != kUnknownDim)
    return context.Error(Format("matrices of {} are not square", in.ToString()));
  return context.SetOutput(0, context.dtype(0), Shape(in.dims().first(in.dims().size() - 2)));
}

/// Of the n x n matrix `m`, which it takes apart.
double Determinant(std::vector<double>& m, size_t n) {
  double product = 1;
  for (size_t column = 0; column < n; ++column) {
    size_t pivot = column;
    for (size_t row = column + 1; row < n; ++row) {
      if (std::abs(m[row * n + column]) > std::abs(m[pivot * n + column])) pivot = row;
    }
    if (m[pivot * n + column] == 0) return 0;
    if (pivot != column) {
      for (size_t k = 0; k < n; ++k) std::swap(m[pivot * n + k], m[column * n + k]);
      product = -product;
    }
    product *= m[column * n + column];
    for (size_t row = column + 1; row < n; ++row) {
      const double factor = m[row * n + column] / m[column * n + column];
      for (size_t k = column; k < n; ++k) m[row * n + k] -= factor * m[column * n + k];
    }
  }
  return product;
}

absl::StatusOr<Kernel> MakeDet(const KernelContext& context) {
  const int64_t n = context.inputs[0].shape().back();
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [n](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          for (int64_t i = 0; i < outputs[0].elements(); ++i) {
            const T* from = inputs[0].as<T>() + i * n * n;
            std::vector<double> matrix(from, from + n * n);
            outputs[0].as<T>()[i] = static_cast<T>(Determinant(matrix, static_cast<size_t>(n)));
          }
          return absl::OkStatus();
        };
      });
}

}  // namespace

std::span<const OpDef> DeterminantOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "Det", 11, INT_MAX, InferDet, MakeDet},
  };
  return kOps;
}

}  // namespace octet

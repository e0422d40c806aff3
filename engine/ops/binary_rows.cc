#include "engine/ops/binary_rows.h"

#include <array>

#include "engine/ops/binary_math.h"
#include "engine/ops/elementwise.h"

namespace octet {
namespace {

template <typename Fn>
void Row(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* y, int64_t n) {
  rows::BinaryFloat(a, a_stride, b, b_stride, y, n, Fn{});
}

// A square is the commonest power by far: the variance of a normalization, the power of a spectrum.
void PowRow(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* y,
            int64_t n) {
  if (b_stride == 0 && n > 0 && *b == 2.0F) {
    Row<math::Mul>(a, a_stride, a, a_stride, y, n);
  } else {
    Row<math::Pow>(a, a_stride, b, b_stride, y, n);
  }
}

struct NamedRow {
  std::string_view op;
  BinaryRow row;
};

constexpr std::array kRows = std::to_array<NamedRow>({
    {"Add", Row<math::Add>},
    {"Div", Row<math::Div>},
    {"Max", Row<math::Max>},
    {"Min", Row<math::Min>},
    {"Mul", Row<math::Mul>},
    {"PRelu", Row<math::PRelu>},
    {"Pow", PowRow},
    {"Sub", Row<math::Sub>},
    {"Sum", Row<math::Add>},
});

}  // namespace

BinaryRow FindBinaryRow(std::string_view op) {
  for (const NamedRow& named : kRows) {
    if (named.op == op) return named.row;
  }
  return nullptr;
}

}  // namespace octet

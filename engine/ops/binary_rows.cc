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
    {"Pow", Row<math::Pow>},
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

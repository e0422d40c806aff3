// A product as a number and its other factors, however the model has written it.
#pragma once

#include <vector>

#include "engine/graph/graph.h"

namespace octet {

/// constant * factors[0] * factors[1] * ... Factors that are no products themselves, in no particular order.
struct Product {
  float constant = 1.0F;
  std::vector<ValueId> factors;

  /// Takes out one occurrence of `value`; false when it is no factor.
  bool Remove(ValueId value);
};

/// Takes `value` apart through Mul, Div by a constant, and Pow with exponent 2 or 3. The value itself is the only factor
/// when it is none of these.
Product Factorize(const Graph& graph, ValueId value);

/// `value` = `other` + a scalar constant, through Add or Sub, in any order. kNone and 0 when it is no such sum.
struct Shifted {
  ValueId other = kNone;
  float constant = 0;
};
Shifted AsShifted(const Graph& graph, ValueId value);

}  // namespace octet

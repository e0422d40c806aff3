// GatherElements and ScatterElements along every axis, beside their definition, where index and data share all, some or no extents.
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/one_node.h"

namespace octet {
namespace index_rows_test {

using testing::Elements;
using testing::Iota;
using testing::OneNode;

struct Case {
  Shape data;
  Shape index;
  int axis;
};

const Case kCases[] = {
    {{3, 4, 5}, {2, 4, 5}, 0},
    {{3, 4, 5}, {9, 4, 5}, 0},
    {{3, 4, 5}, {3, 7, 5}, 1},
    {{3, 4, 5}, {3, 4, 2}, 2},
    {{3, 4, 5}, {2, 3, 8}, 2},
    {{2, 3, 2, 3}, {1, 2, 2, 2}, 1},
    {{2, 3, 2, 3}, {2, 3, 1, 3}, 2},
    {{7}, {11}, 0},
    {{3, 4}, {0, 4}, 0},
};

// Some of them count from the end.
Tensor Indices(const Case& c) {
  Tensor indices(DType::kI64, c.index);
  int64_t next = 1;
  for (int64_t& index : indices.mutable_span<int64_t>()) {
    next = next * 5 % 23;
    index = next % (2 * c.data[c.axis]) - c.data[c.axis];
  }
  return indices;
}

// The place in the data of the element that index k names.
int64_t PlaceOf(const Case& c, const Tensor& indices, int64_t k) {
  const auto strides = c.data.strides();
  const int64_t index = indices.span<int64_t>()[static_cast<size_t>(k)];
  int64_t place = (index < 0 ? index + c.data[c.axis] : index) * strides[c.axis];
  for (int i = c.index.rank(); i-- > 0; k /= c.index[i]) {
    if (i != c.axis) place += k % c.index[i] * strides[i];
  }
  return place;
}

TEST(IndexRows, GatherTakesWhatEachIndexNames) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(Format("{} by {} along {}", c.data.ToString(), c.index.ToString(), c.axis));
    const Tensor data = Iota<float>(c.data);
    const Tensor indices = Indices(c);
    const auto got =
        OneNode("GatherElements", 13).Input(data).Input(indices).Set("axis", int64_t{c.axis}).Run();
    ASSERT_TRUE(got.ok()) << got.status();
    std::vector<float> expected;
    for (int64_t k = 0; k < c.index.elements(); ++k)
      expected.push_back(static_cast<float>(PlaceOf(c, indices, k)));
    EXPECT_EQ(Elements<float>((*got)[0]), expected);
  }
}

TEST(IndexRows, ScatterWritesWhatEachIndexNames) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(Format("{} by {} along {}", c.data.ToString(), c.index.ToString(), c.axis));
    const Tensor indices = Indices(c);
    const Tensor updates = Iota<float>(c.index);
    std::vector<float> expected(static_cast<size_t>(c.data.elements()), -1);
    const auto got = OneNode("ScatterElements", 18)
                         .Input(Tensor::From<float>(c.data, std::span<const float>(expected)))
                         .Input(indices)
                         .Input(updates)
                         .Set("axis", int64_t{c.axis})
                         .Run();
    ASSERT_TRUE(got.ok()) << got.status();
    for (int64_t k = 0; k < c.index.elements(); ++k)
      expected[static_cast<size_t>(PlaceOf(c, indices, k))] = static_cast<float>(k);
    EXPECT_EQ(Elements<float>((*got)[0]), expected);
  }
}

}  // namespace index_rows_test
}  // namespace octet

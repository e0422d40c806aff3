// Einsum: what its equation may say. ONNX's own data cover the usual ones.
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/one_node.h"

namespace octet::testing {
namespace einsum_test {

using ::testing::ElementsAre;

OneNode Einsum(std::string equation, std::vector<Shape> shapes) {
  OneNode node("Einsum", 12);
  for (Shape& shape : shapes) node.Input(Iota<float>(std::move(shape)));
  return node.Set("equation", std::move(equation));
}

std::vector<float> Answer(const OneNode& node) {
  const auto outputs = node.Run();
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? Elements<float>(outputs->front()) : std::vector<float>{};
}

TEST(Einsum, MultipliesTransposesAndSums) {
  EXPECT_THAT(Answer(Einsum("ij,jk->ik", {{2, 2}, {2, 2}})), ElementsAre(2, 3, 6, 11));
  EXPECT_THAT(Answer(Einsum("ij->ji", {{2, 3}})), ElementsAre(0, 3, 1, 4, 2, 5));
  EXPECT_THAT(Answer(Einsum("ij->", {{2, 3}})), ElementsAre(15));
  EXPECT_THAT(Answer(Einsum("i,j->ij", {{2}, {3}})), ElementsAre(0, 0, 0, 0, 1, 2));
}

TEST(Einsum, WritesItsOwnRightSide) {
  EXPECT_THAT(Answer(Einsum("ba", {{2, 3}})), ElementsAre(0, 3, 1, 4, 2, 5))
      << "what occurs once, in alphabetical order";
  EXPECT_THAT(Answer(Einsum("ij,jk", {{2, 2}, {2, 2}})), ElementsAre(2, 3, 6, 11));
}

TEST(Einsum, RepeatedLettersTakeTheDiagonal) {
  EXPECT_THAT(Answer(Einsum("ii->i", {{3, 3}})), ElementsAre(0, 4, 8));
  EXPECT_THAT(Answer(Einsum("ii->", {{3, 3}})), ElementsAre(12));
}

TEST(Einsum, DotsStandForTheOtherAxes) {
  EXPECT_EQ(Einsum("...ij,...jk->...ik", {{5, 1, 2, 3}, {4, 3, 6}}).InferredShape(), "[5,4,2,6]");
  EXPECT_THAT(Answer(Einsum("...i->i...", {{2, 2}})), ElementsAre(0, 2, 1, 3));
}

TEST(Einsum, RefusesWhatIsNoEquation) {
  for (const auto& node : {Einsum("ij,jk->il", {{2, 2}, {2, 2}}), Einsum("ij", {{2}}),
                           Einsum("ij->", {{2, 2}, {2, 2}}), Einsum("i,i->i", {{2}, {3}}),
                           Einsum("i->ii", {{2}}), Einsum("i1->i", {{2, 2}}), Einsum("", {{2}})}) {
    EXPECT_EQ(node.Infer().status().code(), absl::StatusCode::kInvalidArgument)
        << node.InferredShape();
  }
}

}  // namespace einsum_test
}  // namespace octet::testing

#include "config/did_you_mean.h"

#include <vector>

#include <gtest/gtest.h>

namespace octet {
namespace did_you_mean_test {

TEST(DidYouMeanTest, CountsEdits) {
  EXPECT_EQ(EditDistance("", ""), 0);
  EXPECT_EQ(EditDistance("abc", ""), 3);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
  EXPECT_EQ(EditDistance("grcp", "grpc"), 1) << "a swap of neighbours is one edit";
}

TEST(DidYouMeanTest, SuggestsTheNearestOrNothing) {
  const std::vector<std::string> known = {"grpc_port", "http_port", "metrics_port"};
  EXPECT_EQ(DidYouMean("http_prot", known), "http_port");
  EXPECT_EQ(DidYouMean("metric_port", known), "metrics_port");
  EXPECT_EQ(DidYouMean("colour", known), "");
}

}  // namespace did_you_mean_test
}  // namespace octet

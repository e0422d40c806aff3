// The registry: one definition for each operator of each opset.
#include <gtest/gtest.h>

#include "engine/ops/op.h"

namespace octet {
namespace registry_test {

TEST(RegistryTest, AnOperatorHasOneDefinitionPerOpset) {
  for (const OpDef* a : AllOps()) {
    EXPECT_LE(a->since, a->until) << a->name;
    for (const OpDef* b : AllOps()) {
      if (a == b || a->domain != b->domain || a->name != b->name) continue;
      EXPECT_TRUE(a->until < b->since || b->until < a->since)
          << a->domain << ":" << a->name << " from opset " << a->since << " and from opset "
          << b->since;
    }
  }
}

TEST(RegistryTest, FindsTheDefinitionOfTheOpset) {
  for (const OpDef* def : AllOps()) {
    EXPECT_EQ(FindOp(def->domain, def->name, def->since), def) << def->name;
  }
  EXPECT_EQ(FindOp(kOnnxDomain, "NoSuchOperator", 13), nullptr);
}

}  // namespace registry_test
}  // namespace octet

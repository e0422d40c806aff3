#include "server/repository/variant_loader.h"

#include <stdexcept>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/model_folder.h"

namespace octet {
namespace variant_loader_test {

TEST(LoadVariant, WhateverIsThrownIsAnErrorOfTheFile) {
  ModelFolder folder;
  folder.Write("net/1/fp32.onnx", ScalingModel(2, {1, 4}));
  const std::string file = folder.path("net/1/fp32.onnx");
  EXPECT_TRUE(LoadVariant(file, {}, {}).ok());
  LoadOptions options;
  options.on_compile = [](auto) { throw std::runtime_error("out of luck"); };
  const auto loaded = LoadVariant(file, options, {});
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInternal) << loaded.status();
  EXPECT_THAT(std::string(loaded.status().message()), ::testing::HasSubstr("out of luck"));
}

}  // namespace variant_loader_test
}  // namespace octet

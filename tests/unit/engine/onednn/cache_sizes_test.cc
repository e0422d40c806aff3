#include "engine/onednn/cache_sizes.h"

#include <gtest/gtest.h>

#include "engine/onednn/bound_primitive.h"
#include "engine/onednn/memory_desc.h"
#include "engine/onednn/runtime.h"

namespace dnnl::impl::cpu::platform {
unsigned get_per_core_cache_size(int level);
}  // namespace dnnl::impl::cpu::platform

namespace octet::onednn {
namespace cache_sizes_test {

TEST(CacheSizesTest, WhatCanBeTrueIsBelieved) {
  EXPECT_EQ(PerCoreCacheBytes(1, 48 << 10), 48 << 10);
  EXPECT_EQ(PerCoreCacheBytes(2, 2 << 20), 2 << 20);
  EXPECT_EQ(PerCoreCacheBytes(3, 32 << 20), 32 << 20);
  EXPECT_EQ(PerCoreCacheBytes(4, 7), 7);
}

TEST(CacheSizesTest, WhatCannotBeTrueIsReplaced) {
  for (const size_t told : {0, 1, 64}) {
    EXPECT_GE(PerCoreCacheBytes(1, told), 8 << 10);
    EXPECT_LE(PerCoreCacheBytes(1, told), 256 << 10);
    EXPECT_GE(PerCoreCacheBytes(2, told), 64 << 10);
    EXPECT_GE(PerCoreCacheBytes(3, told), 256 << 10);
  }
}

TEST(CacheSizesTest, OneDnnAsksHere) {
  for (const int level : {1, 2, 3}) {
    const unsigned answer = dnnl::impl::cpu::platform::get_per_core_cache_size(level);
    EXPECT_EQ(answer, PerCoreCacheBytes(level, answer));
    EXPECT_GE(answer, 8u << 10);
  }
}

// Ended the process where CPUID says nothing about caches.
TEST(CacheSizesTest, ProductsOfManyColumnsHavePrimitives) {
  const auto a = DenseDesc(DType::kF32, Shape{196, 256}.dims());
  const auto b = AnyDesc(DType::kF32, Shape{256, 1024}.dims());
  const auto y = DenseDesc(DType::kF32, Shape{196, 1024}.dims());
  const auto made =
      Catch([&] { return dnnl::matmul::primitive_desc(CpuEngine(), a, b, y, UserScratchpad()); });
  EXPECT_TRUE(made.ok()) << made.status();
}

}  // namespace cache_sizes_test
}  // namespace octet::onednn

#include "engine/onednn/panels.h"

#include <cstring>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "engine/onednn/isa.h"
#include "engine/onednn/runtime.h"
#include "engine/tensor/format.h"

namespace octet::onednn {
namespace panels_test {

using Tag = dnnl::memory::format_tag;
using Type = dnnl::memory::data_type;

// Every byte is another one than its neighbours.
std::vector<std::byte> Elements(size_t bytes) {
  std::vector<std::byte> elements(bytes);
  for (size_t i = 0; i < bytes; ++i) elements[i] = static_cast<std::byte>(i % 251 + i / 251 % 3);
  return elements;
}

std::vector<std::byte> ByOneDnn(std::vector<std::byte> elements, const dnnl::memory::desc& from,
                                const dnnl::memory::desc& to) {
  std::vector<std::byte> out(to.get_size());
  dnnl::memory src(from, CpuEngine(), elements.data());
  dnnl::memory dst(to, CpuEngine(), out.data());
  dnnl::stream stream(CpuEngine());
  dnnl::reorder(src, dst).execute(stream, src, dst);
  stream.wait();
  return out;
}

void ExpectPacked(const dnnl::memory::desc& from, const dnnl::memory::desc& to) {
  const std::vector<std::byte> elements = Elements(from.get_size());
  const std::vector<std::byte> expected = ByOneDnn(elements, from, to);
  const std::optional<Panels> panels = PanelsOf(from, to);
  ASSERT_TRUE(panels);
  std::vector<std::byte> out(to.get_size());
  PackPanels(*panels, elements.data(), out.data());
  EXPECT_EQ(out, expected);
  std::vector<std::byte> matrix = elements;
  matrix.resize(to.get_size());
  PackPanelsInPlace(*panels, matrix.data());
  EXPECT_EQ(matrix, expected) << "in place";
}

TEST(PanelsTest, AreWhatOneDnnPacks) {
  struct Case {
    Type type;
    Tag tag;
    int64_t k, n;
  };
  // Rows of one panel and of several; tiles of one block, of several, of all of them.
  for (const Case& c : {Case{Type::f32, Tag::BA16a64b, 16, 64},
                        {Type::f32, Tag::BA16a64b, 1040, 1024},
                        {Type::f32, Tag::BA16a48b, 624, 960},
                        {Type::f32, Tag::BA16a16b, 48, 40960},
                        {Type::bf16, Tag::BA16a64b2a, 1056, 2048},
                        {Type::bf16, Tag::BA16a32b2a, 1984, 1024},
                        {Type::s8, Tag::BA16a64b4a, 64, 64},
                        {Type::s8, Tag::BA16a64b4a, 3200, 2048},
                        {Type::s8, Tag::BA16a48b4a, 1472, 4080}}) {
    for (const Tag from : {Tag::ab, Tag::ba}) {
      SCOPED_TRACE(Format("tag {} from {}, {} x {}", static_cast<int>(c.tag),
                          static_cast<int>(from), c.k, c.n));
      ExpectPacked({{c.k, c.n}, c.type, from}, {{c.k, c.n}, c.type, c.tag});
    }
  }
}

// Zero points make oneDNN put sums behind the weights, of unsigned sources, and others of signed ones.
TEST(PanelsTest, EndWithTheSumsThatOneDnnTakesZeroPointsOutWith) {
  constexpr int64_t kDepth = 1216, kColumns = 2048;
  for (const Type source : {Type::u8, Type::s8}) {
    for (const bool zero_point : {false, true}) {
      SCOPED_TRACE(Format("source {}, zero point: {}", static_cast<int>(source), zero_point));
      dnnl::primitive_attr attributes;
      if (zero_point) attributes.set_zero_points_mask(DNNL_ARG_SRC, 0);
      const dnnl::matmul::primitive_desc product(CpuEngine(), {{4, kDepth}, source, Tag::ab},
                                                 {{kDepth, kColumns}, Type::s8, Tag::any},
                                                 {{4, kColumns}, Type::f32, Tag::ab}, attributes);
      const Target target = DetectTarget(1);
      if (!target.int8_exact || !target.isa.starts_with("avx512")) continue;  // Other layouts.
      for (const Tag from : {Tag::ab, Tag::ba})
        ExpectPacked({{kDepth, kColumns}, Type::s8, from}, product.weights_desc());
    }
  }
}

TEST(PanelsTest, AreNotSeenInOtherLayouts) {
  const dnnl::memory::desc rows({128, 256}, Type::f32, Tag::ab);
  const dnnl::memory::desc columns({128, 256}, Type::f32, Tag::ba);
  const dnnl::memory::desc apart({128, 256}, Type::f32, dnnl::memory::dims{300, 1});
  const dnnl::memory::desc panels({128, 256}, Type::f32, Tag::BA16a64b);
  EXPECT_TRUE(PanelsOf(rows, panels));
  EXPECT_TRUE(PanelsOf(columns, panels));
  EXPECT_FALSE(PanelsOf(apart, panels)) << "rows of a wider matrix";
  EXPECT_FALSE(PanelsOf(rows, columns));
  EXPECT_FALSE(PanelsOf(rows, {{128, 256}, Type::f32, Tag::any}));
  EXPECT_FALSE(PanelsOf(rows, {{128, 256}, Type::f32, Tag::AB16b16a})) << "panels of rows";
  EXPECT_FALSE(PanelsOf(rows, {{128, 256}, Type::bf16, Tag::BA16a64b2a})) << "converts";
  EXPECT_FALSE(PanelsOf(rows, panels.submemory_desc({64, 64}, {0, 0}))) << "a part of a layout";
  for (const Type narrow : {Type::bf16, Type::s8}) {
    const dnnl::memory::desc of_narrow({128, 256}, narrow, Tag::ab);
    EXPECT_FALSE(PanelsOf(of_narrow, {{128, 256}, narrow, Tag::BA16a64b})) << "groups are no words";
  }
  const dnnl::memory::desc odd({100, 200}, Type::f32, Tag::ab);
  EXPECT_FALSE(PanelsOf(odd, {{100, 200}, Type::f32, Tag::BA16a64b})) << "padding";
}

TEST(PanelLayoutTest, SaysWhereElementsAre) {
  const auto layout = PanelLayoutOf({{100, 200}, Type::bf16, Tag::BA16a64b2a});
  ASSERT_TRUE(layout);
  EXPECT_EQ(layout->k, 100);
  EXPECT_EQ(layout->n, 200);
  EXPECT_EQ(layout->width, 64);
  EXPECT_EQ(layout->group, 2);
  EXPECT_EQ(layout->pitch, 128 * 64) << "rows of whole blocks";
  EXPECT_EQ(layout->panel_count(), 4);
  EXPECT_FALSE(PanelLayoutOf({{128, 256}, Type::f32, Tag::BA8a8b})) << "narrower than kernels read";
  EXPECT_FALSE(PanelLayoutOf({{128, 256}, Type::u8, Tag::BA16a64b4a}));
  EXPECT_FALSE(PanelLayoutOf({{128, 256}, Type::f32, Tag::ab}));
}

}  // namespace panels_test
}  // namespace octet::onednn

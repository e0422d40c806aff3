#include "engine/onednn/weight_cache.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <span>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "engine/onednn/isa.h"
#include "engine/onednn/memory_desc.h"
#include "engine/onednn/runtime.h"
#include "engine/tensor/status.h"

namespace octet::onednn {
namespace weight_cache_test {

Tensor Matrix(float first) {
  Tensor tensor(DType::kF32, {4, 8});
  for (int64_t i = 0; i < tensor.elements(); ++i)
    tensor.mutable_span<float>()[i] = first + static_cast<float>(i);
  return tensor;
}

TEST(WeightCacheTest, SharesOneCopyOfEqualConstants) {
  WeightCache cache;
  const Tensor first = cache.Intern(Matrix(1));
  const Tensor second = cache.Intern(Matrix(1));
  EXPECT_EQ(first.data(), second.data());
  EXPECT_EQ(cache.resident_bytes(), sizeof(float) * 4 * 8);
  const Tensor other = cache.Intern(Matrix(2));
  EXPECT_NE(other.data(), first.data());
}

TEST(WeightCacheTest, ReadsConstantsAnewThatLieWhereAnotherLay) {
  WeightCache cache;
  std::array<float, 4> place = {1, 2, 3, 4};
  const auto constant = [&] {
    return Tensor(DType::kF32, {4}, std::make_shared<int>(), place.data());
  };
  const Tensor first = cache.Intern(constant());
  place[2] = 7;
  const Tensor second = cache.Intern(constant());
  EXPECT_EQ(first.span<float>()[2], 3);
  EXPECT_EQ(second.span<float>()[2], 7);
}

TEST(WeightCacheTest, KnowsEqualBytesOfOtherShapesAndTypesApart) {
  WeightCache cache;
  Tensor floats(DType::kF32, {4});
  Tensor ints(DType::kI32, {4});
  Tensor square(DType::kF32, {2, 2});
  for (Tensor* tensor : {&floats, &ints, &square})
    std::memset(tensor->mutable_data(), 0, tensor->bytes());
  const Tensor a = cache.Intern(floats), b = cache.Intern(ints), c = cache.Intern(square);
  EXPECT_NE(a.data(), b.data());
  EXPECT_NE(a.data(), c.data());
}

TEST(WeightCacheTest, KnowsConstantsOfTheSameWordsInAnotherOrderApart) {
  // Indices, labels, orders of axes: one model has several of them, of one type and shape.
  std::vector<int64_t> words = {0, 1, 2, 3, 5};
  WeightCache cache;
  for (size_t count = 2; count <= words.size(); ++count) {
    const std::span<int64_t> order = std::span(words).first(count);
    std::ranges::sort(order);
    std::vector<Tensor> held;
    do {
      const Tensor tensor =
          Tensor::From<int64_t>(Shape{std::ssize(order)}, std::span<const int64_t>(order));
      held.push_back(cache.Intern(tensor));
      EXPECT_TRUE(std::ranges::equal(held.back().span<int64_t>(), order))
          << "permutation " << held.size() << " of " << count;
    } while (std::ranges::next_permutation(order).found);
  }
}

TEST(WeightCacheTest, ReleasesAFormWithItsLastUser) {
  WeightCache cache;
  {
    const Tensor held = cache.Intern(Matrix(1));
    EXPECT_GT(cache.resident_bytes(), 0u);
  }
  EXPECT_EQ(cache.resident_bytes(), 0u);
  Tensor outlives;
  {
    WeightCache short_lived;
    outlives = short_lived.Intern(Matrix(3));
  }
  EXPECT_EQ(outlives.span<float>()[0], 3);
}

TEST(WeightCacheTest, ReordersOnceAndRemembersTheLayout) {
  WeightCache cache;
  const Tensor source = Matrix(0);
  const auto plain = DenseDesc(source.spec());
  const auto columns =
      dnnl::memory::desc({4, 8}, dnnl::memory::data_type::f32, dnnl::memory::dims{1, 4});
  const auto packed = cache.Reordered(source, plain, columns);
  ASSERT_TRUE(packed.ok()) << packed.status();
  const auto* elements = reinterpret_cast<const float*>(packed->get());
  EXPECT_EQ(elements[1], 8) << "the second element of the first column";
  const auto again = cache.Reordered(Matrix(0), plain, columns);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->get(), packed->get());
  const auto layouts = cache.LayoutsOf(Matrix(0));
  ASSERT_EQ(layouts.size(), 1u);
  EXPECT_EQ(layouts[0], columns);
  EXPECT_TRUE(cache.LayoutsOf(Matrix(1)).empty());
}

TEST(WeightCacheTest, SharesAFormBetweenDescriptorsThatAreEqualButForUnusedBytes) {
  WeightCache cache;
  const Tensor source = Matrix(1);
  const auto plain = DenseDesc(source.spec());
  auto turned = PermutedDesc(DType::kF32, Shape{8, 4}.dims(), std::array{1, 0});
  // A descriptor has room for more axes than two, and gaps between its members.
  std::vector<uint8_t> blob = turned.get_blob();
  const auto differs = [&](uint8_t& byte) {
    byte ^= 0xFF;
    if (dnnl::memory::desc(blob) == turned) return false;
    byte ^= 0xFF;
    return true;
  };
  ASSERT_FALSE(std::ranges::all_of(blob, differs)) << "no byte is unused";
  const dnnl::memory::desc same(blob);
  const auto first = cache.Reordered(source, plain, turned);
  const auto second = cache.Reordered(source, plain, same);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->get(), second->get());
  EXPECT_EQ(cache.LayoutsOf(source).size(), 1u);
}

TEST(WeightCacheTest, KeepsFormsApartThatSeeTheSameBytesTurned) {
  WeightCache cache;
  Tensor square(DType::kF32, {2, 2});
  for (int i = 0; i < 4; ++i) square.mutable_span<float>()[i] = static_cast<float>(i);
  const auto rows = DenseDesc(square.spec());
  const auto columns = PermutedDesc(DType::kF32, square.shape().dims(), std::array{1, 0});
  const auto plain = cache.Reordered(square, rows, rows);
  const auto turned = cache.Reordered(square, columns, rows);
  ASSERT_TRUE(plain.ok() && turned.ok());
  EXPECT_EQ(reinterpret_cast<const float*>(plain->get())[1], 1);
  EXPECT_EQ(reinterpret_cast<const float*>(turned->get())[1], 2);
}

// Of several pieces, and the last of another length. Every element is another number.
Tensor Large(int64_t rows, int64_t columns) {
  Tensor tensor(DType::kF32, {rows, columns});
  const std::span<float> elements = tensor.mutable_span<float>();
  std::iota(elements.begin(), elements.end(), 1.0F);
  return tensor;
}

TEST(WeightCacheTest, PacksTheSameInPiecesAndGivesTheSourceBack) {
  using Tag = dnnl::memory::format_tag;
  constexpr int64_t kDepth = 2048;
  for (const bool turned : {false, true}) {
    for (const int64_t columns : {2560, 2600}) {  // Whole blocks, and padding.
      for (const Tag tag : {Tag::BA16a64b, Tag::BA16a48b, Tag::ab, Tag::ba}) {
        SCOPED_TRACE(
            Format("{} columns, turned: {}, tag {}", columns, turned, static_cast<int>(tag)));
        const auto make = [&] { return turned ? Large(columns, kDepth) : Large(kDepth, columns); };
        const Tensor source = make();
        const auto from = PermutedDesc(DType::kF32, source.shape().dims(),
                                       turned ? std::array{1, 0} : std::array{0, 1});
        const dnnl::memory::desc to({kDepth, columns}, dnnl::memory::data_type::f32, tag);
        WeightCache whole;
        WeightCache pieces;
        const auto expected = whole.Reordered(make(), from, to);
        const auto packed = pieces.Reordered(source, from, to, SourceUse::kDiscard);
        ASSERT_TRUE(expected.ok() && packed.ok()) << packed.status();
        EXPECT_EQ(std::memcmp(packed->get(), expected->get(), to.get_size()), 0);
        EXPECT_EQ(pieces.LayoutsOf(make()).size(), 1u);
        const bool in_panels = tag == Tag::BA16a64b || tag == Tag::BA16a48b;
        if (in_panels && to.get_dims() == to.get_padded_dims()) {
          EXPECT_EQ(static_cast<const void*>(packed->get()), source.data()) << "it lies there";
          continue;
        }
        const std::span<const float> left = source.span<float>();
        EXPECT_EQ(left.front(), 0);
        EXPECT_EQ(left[left.size() / 2], 0);
      }
    }
  }
}

TEST(WeightCacheTest, PacksBytesTheSameInPieces) {
  Tensor source(DType::kI8, {2560, 4096});
  for (size_t i = 0; i < source.bytes(); ++i)
    source.mutable_span<int8_t>()[i] = static_cast<int8_t>(static_cast<int>(i % 251) - 125);
  const auto from = PermutedDesc(DType::kI8, source.shape().dims(), std::array{1, 0});
  const dnnl::memory::desc to({4096, 2560}, dnnl::memory::data_type::s8,
                              dnnl::memory::format_tag::BA16a64b4a);
  WeightCache whole;
  WeightCache pieces;
  const auto expected = whole.Reordered(source, from, to);
  const auto packed = pieces.Reordered(source, from, to, SourceUse::kDiscard);
  ASSERT_TRUE(expected.ok() && packed.ok()) << packed.status();
  EXPECT_EQ(std::memcmp(packed->get(), expected->get(), to.get_size()), 0);
  EXPECT_EQ(static_cast<const void*>(packed->get()), source.data());
}

// Zero points make oneDNN put sums behind the weights, whose rows and columns fill no blocks here.
TEST(WeightCacheTest, PacksPaddedBytesAndTheirSumsTheSameInPieces) {
  using Type = dnnl::memory::data_type;
  using Tag = dnnl::memory::format_tag;
  constexpr int64_t kDepth = 3014, kColumns = 3050;
  const Target target = DetectTarget(1);
  if (!target.int8_exact || !target.isa.starts_with("avx512")) return;  // Other layouts.
  for (const Type source_type : {Type::u8, Type::s8}) {
    dnnl::primitive_attr attributes;
    attributes.set_zero_points_mask(DNNL_ARG_SRC, 0);
    const dnnl::matmul::primitive_desc product(CpuEngine(), {{4, kDepth}, source_type, Tag::ab},
                                               {{kDepth, kColumns}, Type::s8, Tag::any},
                                               {{4, kColumns}, Type::f32, Tag::ab}, attributes);
    const dnnl::memory::desc to = product.weights_desc();
    ASSERT_NE(to.get_dims(), to.get_padded_dims());
    const dnnl::memory::dims padded = to.get_padded_dims();
    ASSERT_GT(to.get_size(), static_cast<size_t>(padded[0] * padded[1])) << "sums";
    for (const bool turned : {false, true}) {
      SCOPED_TRACE(Format("source {}, turned: {}", static_cast<int>(source_type), turned));
      const auto make = [&] {
        Tensor source(DType::kI8, turned ? Shape{kColumns, kDepth} : Shape{kDepth, kColumns});
        for (size_t i = 0; i < source.bytes(); ++i)
          source.mutable_span<int8_t>()[i] = static_cast<int8_t>(static_cast<int>(i % 251) - 125);
        return source;
      };
      const Tensor source = make();
      const auto from = PermutedDesc(DType::kI8, source.shape().dims(),
                                     turned ? std::array{1, 0} : std::array{0, 1});
      WeightCache whole;
      WeightCache pieces;
      const auto expected = whole.Reordered(make(), from, to);
      const auto packed = pieces.Reordered(source, from, to, SourceUse::kDiscard);
      ASSERT_TRUE(expected.ok() && packed.ok()) << packed.status();
      EXPECT_EQ(std::memcmp(packed->get(), expected->get(), to.get_size()), 0);
      EXPECT_EQ(source.span<int8_t>()[0], 0) << "given back";
      EXPECT_EQ(source.span<int8_t>()[source.bytes() / 4], 0);
    }
  }
}

TEST(WeightCacheTest, AFormWhereItsSourceLayOutlivesIt) {
  WeightCache cache;
  const dnnl::memory::desc to({2048, 2560}, dnnl::memory::data_type::f32,
                              dnnl::memory::format_tag::BA16a64b);
  const auto plain = DenseDesc(DType::kF32, Shape{2048, 2560}.dims());
  std::shared_ptr<const std::byte[]> form;
  {
    const Tensor source = Large(2048, 2560);
    const auto packed = cache.Reordered(source, plain, to, SourceUse::kDiscard);
    ASSERT_TRUE(packed.ok()) << packed.status();
    form = *packed;
    EXPECT_EQ(static_cast<const void*>(form.get()), source.data());
    EXPECT_TRUE(cache.LayoutsOf(source).empty()) << "it has other elements by now";
  }
  EXPECT_EQ(cache.resident_bytes(), to.get_size());
  auto again = cache.Reordered(Large(2048, 2560), plain, to);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, form) << "found by what the source held";
  form.reset();
  *again = nullptr;
  EXPECT_EQ(cache.resident_bytes(), 0u);
}

TEST(WeightCacheTest, ElementsOfMemoryThatIsNotItsOwnAreNotWrittenOver) {
  Tensor source = Large(2048, 2560);
  const Tensor seen(DType::kF32, source.shape(), std::make_shared<Tensor>(source), source.data());
  const dnnl::memory::desc to({2048, 2560}, dnnl::memory::data_type::f32,
                              dnnl::memory::format_tag::BA16a64b);
  WeightCache cache;
  const auto packed = cache.Reordered(seen, DenseDesc(seen.spec()), to, SourceUse::kDiscard);
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_EQ(source.span<float>()[64], 65) << "the first of the second panel";
  EXPECT_EQ(reinterpret_cast<const float*>(packed->get())[64], 2561) << "the second row's first";
}

TEST(WeightCacheTest, NamesLongConstantsByEachOfTheirWords) {
  std::vector<uint64_t> words(256);
  for (size_t i = 0; i < words.size(); ++i) words[i] = i / 2;  // Pairs of equal ones.
  const auto hash = [&] { return HashBytes(words.data(), words.size() * sizeof(uint64_t)); };
  const ContentHash all = hash();
  for (size_t i = 0; i < words.size(); ++i) {
    words[i] ^= 1;
    EXPECT_FALSE(hash() == all) << "word " << i;
    words[i] ^= 1;
    for (const size_t step : {2, 4, 8}) {
      const size_t other = (i + step) % words.size();
      std::swap(words[i], words[other]);
      EXPECT_FALSE(hash() == all) << "words " << i << " and " << other;
      std::swap(words[i], words[other]);
    }
  }
  EXPECT_TRUE(hash() == all);
}

TEST(WeightCacheTest, WhereTheSourceIsGoneNoErrorSendsAnybodyBackToIt) {
  const absl::Status none = BehindDiscard(Unimplemented("no such kernel"));
  EXPECT_EQ(none.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(Message(none), "no such kernel");
  const absl::Status memory = BehindDiscard(absl::ResourceExhaustedError("out of memory"));
  EXPECT_EQ(memory.code(), absl::StatusCode::kResourceExhausted) << "try again";
  EXPECT_TRUE(BehindDiscard(absl::OkStatus()).ok());
}

TEST(WeightCacheTest, KeepsTheSourceWhenNotAskedToDiscardIt) {
  const Tensor source = Large(2048, 2560);
  const auto rows = DenseDesc(source.spec());
  const auto columns = PermutedDesc(DType::kF32, Shape{2560, 2048}.dims(), std::array{1, 0});
  WeightCache cache;
  ASSERT_TRUE(cache.Reordered(source, rows, columns).ok());
  EXPECT_NE(source.span<float>().front(), 0);
}

TEST(WeightCacheTest, ForgetsAFormThatCouldNotBeFilled) {
  WeightCache cache;
  const auto failed =
      cache.GetOrMake(Matrix(1), "form", 16, [](std::byte*) { return Unimplemented("no"); });
  EXPECT_EQ(failed.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(cache.resident_bytes(), 0u);
  const auto made = cache.GetOrMake(Matrix(1), "form", 16, [](std::byte* out) {
    std::memset(out, 7, 16);
    return absl::OkStatus();
  });
  ASSERT_TRUE(made.ok());
  EXPECT_EQ((*made)[15], std::byte{7});
}

TEST(WeightCacheTest, GivesConcurrentPlansOneForm) {
  WeightCache cache;
  std::vector<Tensor> tensors(8);
  {
    std::vector<std::jthread> threads;
    for (Tensor& tensor : tensors) threads.emplace_back([&] { tensor = cache.Intern(Matrix(5)); });
  }
  for (const Tensor& tensor : tensors) EXPECT_EQ(tensor.data(), tensors[0].data());
  EXPECT_EQ(cache.resident_bytes(), sizeof(float) * 4 * 8);
}

TEST(IsaTest, ReadsTheInstructionSetFromImplementationNames) {
  EXPECT_EQ(IsaOf("brg_conv_fwd:avx512_core_vnni"), "avx512_core_vnni");
  EXPECT_EQ(IsaOf("brgconv_1x1:avx512_core_bf16 x2 (split weights)"), "avx512_core_bf16");
  EXPECT_EQ(IsaOf("gemm:any"), "");
  EXPECT_EQ(IsaOf("reference"), "");
}

}  // namespace weight_cache_test
}  // namespace octet::onednn

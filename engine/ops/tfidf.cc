// TfIdfVectorizer on integers or strings: how often each n-gram of a pool occurs in a row, weighted.
// Source: ONNX TfIdfVectorizer-9.
#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/ops/index_reader.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

struct NGram {
  size_t position = 0;  ///< In the output.
  float weight = 1;
};

struct Vectorizer {
  std::map<std::vector<int64_t>, NGram> pool;
  std::map<std::string, int64_t, std::less<>>
      words;  ///< The numbers by which the pool knows strings.
  int64_t shortest = 1, longest = 1, most_skips = 0, width = 0;
  bool counts = true;   ///< TF, TFIDF: the weight times the count; IDF: the weight.
  bool weighs = false;  ///< IDF, TFIDF.
};

// The pool's elements; strings by number, equal ones by the same.
absl::StatusOr<std::vector<int64_t>> PoolElements(const Node& node, Vectorizer& v) {
  if (!node.attributes.has("pool_strings")) return node.attributes.Ints("pool_int64s", {});
  OCTET_ASSIGN_OR_RETURN(const auto strings, node.attributes.Strings("pool_strings", {}));
  std::vector<int64_t> pool;
  for (const std::string& word : strings)
    pool.push_back(v.words.try_emplace(word, std::ssize(v.words)).first->second);
  return pool;
}

absl::Status ReadPool(const Node& node, Vectorizer& v) {
  OCTET_ASSIGN_OR_RETURN(const auto counts, node.attributes.Ints("ngram_counts", {}));
  OCTET_ASSIGN_OR_RETURN(const auto indexes, node.attributes.Ints("ngram_indexes", {}));
  OCTET_ASSIGN_OR_RETURN(const auto pool, PoolElements(node, v));
  OCTET_ASSIGN_OR_RETURN(const auto weights, node.attributes.Floats("weights", {}));
  const auto size = std::ssize(pool);
  if (!weights.empty() && weights.size() != indexes.size())
    return InvalidArgument("'weights' and 'ngram_indexes' differ in length");
  for (const int64_t index : indexes) {
    if (index < 0 || index >= (int64_t{1} << 31))
      return InvalidArgument("'ngram_indexes' holds {}", index);
    v.width = std::max(v.width, index + 1);
  }
  size_t next = 0;
  for (size_t n = 0; n < counts.size(); ++n) {
    const int64_t end = n + 1 < counts.size() ? counts[n + 1] : size;
    const auto length = static_cast<int64_t>(n + 1);
    if (counts[n] < 0 || end < counts[n] || end > size || (end - counts[n]) % length != 0)
      return InvalidArgument("'ngram_counts' does not cut the pool into n-grams of {}", length);
    for (int64_t at = counts[n]; at < end; at += length, ++next) {
      if (next == indexes.size())
        return InvalidArgument("'ngram_indexes' is shorter than the pool");
      std::vector<int64_t> gram(pool.begin() + at, pool.begin() + at + length);
      v.pool[std::move(gram)] = {static_cast<size_t>(indexes[next]),
                                 weights.empty() ? 1.0F : weights[next]};
    }
  }
  if (next != indexes.size()) return InvalidArgument("'ngram_indexes' is longer than the pool");
  return absl::OkStatus();
}

absl::StatusOr<Vectorizer> ReadVectorizer(const Node& node) {
  Vectorizer v;
  OCTET_ASSIGN_OR_RETURN(v.shortest, node.attributes.Int("min_gram_length", 0));
  OCTET_ASSIGN_OR_RETURN(v.longest, node.attributes.Int("max_gram_length", 0));
  OCTET_ASSIGN_OR_RETURN(v.most_skips, node.attributes.Int("max_skip_count", 0));
  OCTET_ASSIGN_OR_RETURN(const std::string mode, node.attributes.String("mode", ""));
  if (v.shortest < 1 || v.longest < v.shortest || v.most_skips < 0)
    return InvalidArgument("gram lengths [{}, {}] and {} skips", v.shortest, v.longest,
                           v.most_skips);
  v.counts = mode != "IDF";
  v.weighs = mode != "TF";
  if (mode != "TF" && mode != "IDF" && mode != "TFIDF")
    return InvalidArgument("'mode' must be TF, IDF or TFIDF, not '{}'", mode);
  if (node.attributes.has("pool_strings") && node.attributes.has("pool_int64s"))
    return InvalidArgument("expected one of 'pool_strings' and 'pool_int64s', got both");
  OCTET_RETURN_IF_ERROR(ReadPool(node, v));
  return v;
}

absl::Status InferTfIdf(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  const bool strings = context.attributes().has("pool_strings");
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, strings ? kStrings : kIndexTypes));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 1, 2));
  OCTET_ASSIGN_OR_RETURN(const Vectorizer v, ReadVectorizer(context.node()));
  if (!context.shape(0)) return context.SetOutput(0, DType::kF32, std::nullopt);
  Shape out = *context.shape(0);
  out[out.rank() - 1] = v.width;
  return context.SetOutput(0, DType::kF32, out);
}

// Elements of an n-gram lie 1 + skips apart; one element has no distance, and counts once.
void CountRow(const Vectorizer& v, std::span<const int64_t> x, float* y) {
  const auto length = std::ssize(x);
  std::vector<int64_t> gram;
  for (int64_t n = v.shortest; n <= std::min(v.longest, length); ++n) {
    const int64_t most = n == 1 ? 0 : std::min(v.most_skips, (length - 1) / (n - 1) - 1);
    for (int64_t step = 1; step <= most + 1; ++step) {
      for (int64_t first = 0; first + (n - 1) * step < length; ++first) {
        gram.clear();
        for (int64_t i = 0; i < n; ++i) gram.push_back(x[first + i * step]);
        const auto found = v.pool.find(gram);
        if (found == v.pool.end()) continue;
        const float weight = v.weighs ? found->second.weight : 1.0F;
        float& at = y[found->second.position];
        at = v.counts ? at + weight : weight;
      }
    }
  }
}

// A row's elements as the pool has them; -1 for a string that is not in it.
std::vector<int64_t> RowOf(const Vectorizer& v, const ConstTensorView& x, int64_t begin,
                           int64_t length) {
  std::vector<int64_t> row;
  for (int64_t i = begin; i < begin + length; ++i) {
    if (x.dtype() == DType::kString) {
      const auto word = v.words.find(x.as<std::string_view>()[i]);
      row.push_back(word == v.words.end() ? -1 : word->second);
    } else {
      row.push_back(IndexReader(x).Raw(i));
    }
  }
  return row;
}

absl::StatusOr<Kernel> MakeTfIdf(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(Vectorizer v, ReadVectorizer(context.node));
  return Kernel([v = std::move(v)](std::span<const ConstTensorView> inputs,
                                   std::span<const TensorView> outputs) {
    const Shape& shape = inputs[0].shape();
    const int64_t length = shape.back();
    std::ranges::fill(outputs[0].span<float>(), 0.0F);
    const int64_t rows = shape.rank() == 1 ? 1 : shape[0];
    ParallelFor(rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        CountRow(v, RowOf(v, inputs[0], row * length, length),
                 outputs[0].as<float>() + row * v.width);
      }
    });
    return absl::OkStatus();
  });
}

}  // namespace

std::span<const OpDef> TfIdfOps() {
  static constexpr OpDef kOps[] = {
      {.domain = kOnnxDomain,
       .name = "TfIdfVectorizer",
       .since = 9,
       .infer = InferTfIdf,
       .kernel = MakeTfIdf,
       .traits = {.strings = true}},
  };
  return kOps;
}

}  // namespace octet

// TfIdfVectorizer on integers: how often each n-gram of a pool occurs in a row, weighted.
// Source: ONNX TfIdfVectorizer-9.
#include <algorithm>
#include <map>
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
  int64_t shortest = 1, longest = 1, most_skips = 0, width = 0;
  bool counts = true;   ///< TF, TFIDF: the weight times the count; IDF: the weight.
  bool weighs = false;  ///< IDF, TFIDF.
};

absl::Status ReadPool(const Node& node, Vectorizer& v) {
  OCTET_ASSIGN_OR_RETURN(const auto counts, node.attributes.Ints("ngram_counts", {}));
  OCTET_ASSIGN_OR_RETURN(const auto indexes, node.attributes.Ints("ngram_indexes", {}));
  OCTET_ASSIGN_OR_RETURN(const auto pool, node.attributes.Ints("pool_int64s", {}));
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
  if (node.attributes.has("pool_strings"))
    return Unimplemented("unsupported attribute 'pool_strings'");
  OCTET_RETURN_IF_ERROR(ReadPool(node, v));
  return v;
}

absl::Status InferTfIdf(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kIndexTypes));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 1, 2));
  OCTET_ASSIGN_OR_RETURN(const Vectorizer v, ReadVectorizer(context.node()));
  if (!context.shape(0)) return context.SetOutput(0, DType::kF32, std::nullopt);
  Shape out = *context.shape(0);
  out[out.rank() - 1] = v.width;
  return context.SetOutput(0, DType::kF32, out);
}

// Elements of an n-gram lie 1 + skips apart; one element has no distance, and counts once.
void CountRow(const Vectorizer& v, const IndexReader& x, int64_t begin, int64_t length, float* y) {
  std::vector<int64_t> gram;
  for (int64_t n = v.shortest; n <= std::min(v.longest, length); ++n) {
    const int64_t most = n == 1 ? 0 : std::min(v.most_skips, (length - 1) / (n - 1) - 1);
    for (int64_t step = 1; step <= most + 1; ++step) {
      for (int64_t first = 0; first + (n - 1) * step < length; ++first) {
        gram.clear();
        for (int64_t i = 0; i < n; ++i) gram.push_back(x.Raw(begin + first + i * step));
        const auto found = v.pool.find(gram);
        if (found == v.pool.end()) continue;
        const float weight = v.weighs ? found->second.weight : 1.0F;
        float& at = y[found->second.position];
        at = v.counts ? at + weight : weight;
      }
    }
  }
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
        CountRow(v, IndexReader(inputs[0]), row * length, length,
                 outputs[0].as<float>() + row * v.width);
      }
    });
    return absl::OkStatus();
  });
}

}  // namespace

std::span<const OpDef> TfIdfOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "TfIdfVectorizer", 9, INT_MAX, InferTfIdf, MakeTfIdf},
  };
  return kOps;
}

}  // namespace octet

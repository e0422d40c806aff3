// Operators on text: StringConcat, StringNormalizer, StringSplit, RegexFullMatch.
#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <re2/re2.h>

#include "engine/ops/broadcast.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/letter_case.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/limits.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using Text = std::string_view;

/// RESOURCE_EXHAUSTED when strings that are about to be made take more than any answer carries.
absl::Status CheckTextBytes(int64_t elements, uint64_t characters) {
  const uint64_t bytes = static_cast<uint64_t>(elements) * sizeof(Text) + characters;
  if (bytes <= kMaxTextBytes) return absl::OkStatus();
  return MakeError(absl::StatusCode::kResourceExhausted,
                   "the strings are too large: at most {} bytes, got {}", kMaxTextBytes, bytes);
}

// ---- StringConcat

absl::Status InferStringConcat(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  return InferBroadcast(context, 0, 2, kStrings);
}

/// z = x y, with broadcasting. Source: ONNX StringConcat-20.
absl::StatusOr<std::vector<Datum>> StringConcat(const Node& /*node*/,
                                                std::span<const Datum* const> inputs) {
  const Tensor& x = inputs[0]->tensor;
  const Tensor& y = inputs[1]->tensor;
  const std::optional<Shape> shape = Broadcast(x.shape(), y.shape());
  if (!shape) {
    return InvalidArgument("shapes {} and {} do not broadcast", x.shape().ToString(),
                           y.shape().ToString());
  }
  if (!IsPossible(*shape)) return InvalidArgument("impossible shape: {}", shape->ToString());
  OCTET_RETURN_IF_ERROR(CheckTextBytes(shape->elements(), 0));
  const Shape shapes[] = {x.shape(), y.shape()};
  const BroadcastPlan plan(*shape, shapes);
  const auto for_each = [&](const auto& fn) {
    plan.ForEachRow(0, plan.elements(), [&](int64_t, std::span<const int64_t> in, int64_t n) {
      const Text* a = x.span<Text>().data() + in[0];
      const Text* b = y.span<Text>().data() + in[1];
      for (int64_t i = 0; i < n; ++i) fn(a[i * plan.stride(0)], b[i * plan.stride(1)]);
    });
  };
  uint64_t characters = 0;
  for_each([&](Text a, Text b) { characters += a.size() + b.size(); });
  OCTET_RETURN_IF_ERROR(CheckTextBytes(shape->elements(), characters));
  std::string joined;
  joined.reserve(characters);  // Views of it stay where they are.
  std::vector<Text> elements;
  for_each([&](Text a, Text b) {
    elements.emplace_back(joined.data() + joined.size(), a.size() + b.size());
    joined.append(a).append(b);
  });
  return std::vector<Datum>{Datum::Of(Tensor::Strings(*shape, elements))};
}

// ---- StringNormalizer

struct Normalizer {
  std::optional<LetterCase> change;
  bool case_sensitive = false;
  std::set<std::string, std::less<>> stopwords;  ///< In the case in which they are compared.

  LetterCase compared() const { return change.value_or(LetterCase::kLower); }
};

absl::StatusOr<Normalizer> ReadNormalizer(const Node& node) {
  Normalizer n;
  OCTET_ASSIGN_OR_RETURN(const std::string change,
                         node.attributes.String("case_change_action", "NONE"));
  OCTET_ASSIGN_OR_RETURN(const int64_t sensitive, node.attributes.Int("is_case_sensitive", 0));
  OCTET_ASSIGN_OR_RETURN(const std::string locale, node.attributes.String("locale", ""));
  OCTET_ASSIGN_OR_RETURN(const auto stopwords, node.attributes.Strings("stopwords", {}));
  if (change != "NONE" && change != "LOWER" && change != "UPPER")
    return InvalidArgument("'case_change_action' must be NONE, LOWER or UPPER, not '{}'", change);
  // The languages with rules of their own for single letters. Source: Unicode, SpecialCasing.txt.
  for (const std::string_view language : {"az", "lt", "tr"}) {
    if (locale == language || locale.starts_with(Format("{}_", language)))
      return Unimplemented("{}: unsupported 'locale': '{}'", Describe(node), locale);
  }
  if (change == "LOWER") n.change = LetterCase::kLower;
  if (change == "UPPER") n.change = LetterCase::kUpper;
  n.case_sensitive = sensitive != 0;
  const bool compares = !n.case_sensitive && !stopwords.empty();
  if (n.change || compares) OCTET_RETURN_IF_ERROR(Annotate(CheckLetterCase(), Describe(node)));
  for (const std::string& word : stopwords)
    n.stopwords.insert(n.case_sensitive ? word : InCase(n.compared(), word));
  return n;
}

/// [C] or [1, C]; what stopwords leave of C, the data decide.
absl::Status InferStringNormalizer(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kStrings));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 1, 2));
  OCTET_ASSIGN_OR_RETURN(const Normalizer n, ReadNormalizer(context.node()));
  std::optional<Shape> shape = context.shape(0);
  if (!shape) return context.SetOutput(0, DType::kString, std::nullopt);
  if (shape->rank() == 2) {
    if ((*shape)[0] != kUnknownDim && (*shape)[0] != 1)
      return context.Error(Format("input of shape {}, expected [C] or [1,C]", shape->ToString()));
    (*shape)[0] = 1;
  }
  // An input without elements has one that is empty in its answer.
  int64_t& extent = (*shape)[shape->rank() - 1];
  if (!n.stopwords.empty() || extent == 0) extent = kUnknownDim;
  return context.SetOutput(0, DType::kString, std::move(shape));
}

/// Elements that are stopwords go; the case of the others is changed. Source: ONNX StringNormalizer-10.
absl::StatusOr<std::vector<Datum>> StringNormalizer(const Node& node,
                                                    std::span<const Datum* const> inputs) {
  const Tensor& x = inputs[0]->tensor;
  OCTET_ASSIGN_OR_RETURN(const Normalizer n, ReadNormalizer(node));
  const int rank = x.shape().rank();
  if (rank < 1 || rank > 2 || (rank == 2 && x.shape()[0] != 1))
    return InvalidArgument("input of shape {}, expected [C] or [1,C]", x.shape().ToString());
  std::vector<std::string> kept;
  for (const Text text : x.span<Text>()) {
    const bool stops =
        n.case_sensitive ? n.stopwords.contains(text)
                         : !n.stopwords.empty() && n.stopwords.contains(InCase(n.compared(), text));
    if (!stops) kept.push_back(n.change ? InCase(*n.change, text) : std::string(text));
  }
  if (kept.empty()) kept.emplace_back();
  Shape shape = x.shape();
  shape[rank - 1] = std::ssize(kept);
  const std::vector<Text> texts(kept.begin(), kept.end());
  return std::vector<Datum>{Datum::Of(Tensor::Strings(shape, texts))};
}

// ---- StringSplit

absl::Status InferStringSplit(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kStrings));
  OCTET_RETURN_IF_ERROR(context.attributes().String("delimiter", "").status());
  OCTET_RETURN_IF_ERROR(context.attributes().Int("maxsplit", 0).status());
  std::optional<Shape> parts = context.shape(0);
  if (parts) parts->push_back(kUnknownDim);
  OCTET_RETURN_IF_ERROR(context.SetOutput(0, DType::kString, std::move(parts)));
  return context.SetOutput(1, DType::kI64, context.shape(0));
}

/// Where a string is cut, at most `most` times.
struct Cuts {
  std::string delimiter;  ///< Empty: runs of white space.
  int64_t most = INT64_MAX;
};

/// Appends the parts of `text`; RESOURCE_EXHAUSTED when there are too many.
absl::Status AppendParts(const Cuts& cuts, Text text, std::vector<Text>& parts) {
  constexpr Text kSpace = " \t\n\v\f\r";
  const bool space = cuts.delimiter.empty();
  const auto skip_space = [&] {
    text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
  };
  if (space) {
    skip_space();
    text = text.substr(0, text.find_last_not_of(kSpace) + 1);
    if (text.empty()) return absl::OkStatus();
  }
  for (int64_t cut = 0; cut < cuts.most; ++cut) {
    const size_t at = space ? text.find_first_of(kSpace) : text.find(cuts.delimiter);
    if (at == Text::npos) break;
    parts.push_back(text.substr(0, at));
    OCTET_RETURN_IF_ERROR(CheckTextBytes(std::ssize(parts), 0));
    text.remove_prefix(at + (space ? 1 : cuts.delimiter.size()));
    if (space) skip_space();
  }
  parts.push_back(text);
  return absl::OkStatus();
}

/// y [..., most parts]: the parts of each string, empty ones behind them; z [...]: how many. An empty string has one part,
/// itself, but none between white space. Source: ONNX StringSplit-20, and its reference implementation.
absl::StatusOr<std::vector<Datum>> StringSplit(const Node& node,
                                               std::span<const Datum* const> inputs) {
  const Tensor& x = inputs[0]->tensor;
  Cuts cuts;
  OCTET_ASSIGN_OR_RETURN(cuts.delimiter, node.attributes.String("delimiter", ""));
  OCTET_ASSIGN_OR_RETURN(const int64_t most, node.attributes.Int("maxsplit", -1));
  if (most >= 0) cuts.most = most;
  Tensor counts(DType::kI64, x.shape());
  int64_t* count = counts.mutable_span<int64_t>().data();
  std::vector<Text> parts;
  int64_t widest = 0;
  for (const Text text : x.span<Text>()) {
    const auto before = std::ssize(parts);
    OCTET_RETURN_IF_ERROR(AppendParts(cuts, text, parts));
    *count = std::ssize(parts) - before;
    widest = std::max(widest, *count++);
  }
  Shape shape = x.shape();
  shape.push_back(widest);
  if (!IsPossible(shape)) return InvalidArgument("impossible shape: {}", shape.ToString());
  OCTET_RETURN_IF_ERROR(CheckTextBytes(shape.elements(), 0));
  Tensor y(DType::kString, shape);
  auto from = parts.begin();
  auto to = y.mutable_span<Text>().begin();
  for (const int64_t n : counts.span<int64_t>()) {
    std::copy_n(from, n, to);
    from += n;
    to += widest;
  }
  return std::vector<Datum>{Datum::Of(std::move(y)), Datum::Of(std::move(counts))};
}

// ---- RegexFullMatch

absl::StatusOr<std::shared_ptr<const re2::RE2>> ReadPattern(const Node& node) {
  if (!node.attributes.has("pattern")) return InvalidArgument("lacks its attribute 'pattern'");
  OCTET_ASSIGN_OR_RETURN(const std::string pattern, node.attributes.String("pattern", ""));
  re2::RE2::Options options;
  options.set_log_errors(false);
  auto regex = std::make_shared<const re2::RE2>(pattern, options);
  if (!regex->ok())
    return InvalidArgument("'pattern' is no regular expression: {}", regex->error());
  return regex;
}

absl::Status InferRegexFullMatch(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kStrings));
  OCTET_RETURN_IF_ERROR(ReadPattern(context.node()).status());
  return context.SetOutput(0, DType::kBool, context.shape(0));
}

/// True where all of the string matches. Source: ONNX RegexFullMatch-20, whose syntax is RE2's.
absl::StatusOr<Kernel> MakeRegexFullMatch(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const auto regex, ReadPattern(context.node));
  return Kernel(
      [regex](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
        bool* matches = outputs[0].as<bool>();
        for (const Text text : inputs[0].span<Text>())
          *matches++ = re2::RE2::FullMatch({text.data(), text.size()}, *regex);
        return absl::OkStatus();
      });
}

}  // namespace

std::span<const OpDef> StringOps() {
  static constexpr OpTraits kTraits = {.strings = true};
  static constexpr OpDef kOps[] = {
      {.domain = kOnnxDomain,
       .name = "StringConcat",
       .since = 20,
       .infer = InferStringConcat,
       .traits = kTraits,
       .evaluate = StringConcat},
      {.domain = kOnnxDomain,
       .name = "StringNormalizer",
       .since = 10,
       .infer = InferStringNormalizer,
       .traits = kTraits,
       .evaluate = StringNormalizer},
      {.domain = kOnnxDomain,
       .name = "StringSplit",
       .since = 20,
       .infer = InferStringSplit,
       .traits = kTraits,
       .evaluate = StringSplit},
      {.domain = kOnnxDomain,
       .name = "RegexFullMatch",
       .since = 20,
       .infer = InferRegexFullMatch,
       .kernel = MakeRegexFullMatch,
       .traits = kTraits},
  };
  return kOps;
}

}  // namespace octet

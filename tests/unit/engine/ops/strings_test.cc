// Operators on text.
#include "tests/support/strings.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/ops/letter_case.h"

namespace octet::testing {
namespace strings_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Words = std::vector<std::string>;

Tensor Only(const OneNode& node, size_t output = 0) {
  const auto outputs = RunAsModel(node);
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? (*outputs)[output] : Tensor(DType::kString, Shape{0});
}

std::string Refusal(const OneNode& node) { return std::string(Message(RunAsModel(node).status())); }

TEST(StringConcat, Broadcasts) {
  OneNode node("StringConcat", 20);
  node.Input(Strings({2, 1}, {"a", ""})).Input(Strings({3}, {"x", "y", "\xff"}));
  EXPECT_EQ(node.InferredShape(), "[2,3]");
  const Tensor z = Only(node);
  EXPECT_EQ(z.shape(), (Shape{2, 3}));
  EXPECT_THAT(Texts(z), ElementsAre("ax", "ay", "a\xff", "x", "y", "\xff"));
}

TEST(StringConcat, TakesStringsAlone) {
  OneNode node("StringConcat", 20);
  node.Input(Strings({1}, {"a"})).Input(Tensor::From<float>(Shape{1}, {1}));
  EXPECT_THAT(node.InferredShape(), HasSubstr("expected one of BYTES"));
}

OneNode Normalizer(const Tensor& words) {
  OneNode node("StringNormalizer", 10);
  node.Input(words);
  return node;
}

TEST(StringNormalizer, DropsStopwordsInAnyCase) {
  OneNode node = Normalizer(Strings({1, 4}, {"Monday", "tuesday", "ÄRGER", "monday"}));
  node.Set("stopwords", Words{"MONDAY", "ärger"});
  EXPECT_EQ(node.InferredShape(), "[1,?]");
  const Tensor y = Only(node);
  EXPECT_EQ(y.shape(), (Shape{1, 1}));
  EXPECT_THAT(Texts(y), ElementsAre("tuesday"));
}

TEST(StringNormalizer, ComparesBytesWhenCaseMatters) {
  const Tensor words = Strings({3}, {"Monday", "monday", "MONDAY"});
  OneNode node = Normalizer(words);
  node.Set("stopwords", Words{"monday"})
      .Set("is_case_sensitive", int64_t{1})
      .Set("case_change_action", std::string("LOWER"));
  // What is left is changed behind the comparison.
  EXPECT_THAT(Texts(Only(node)), ElementsAre("monday", "monday"));
}

TEST(StringNormalizer, AnAnswerWithoutWordsIsOneEmptyWord) {
  OneNode node = Normalizer(Strings({2}, {"a", "A"}));
  node.Set("stopwords", Words{"a"});
  const Tensor y = Only(node);
  EXPECT_EQ(y.shape(), (Shape{1}));
  EXPECT_THAT(Texts(y), ElementsAre(""));
  EXPECT_THAT(Texts(Only(Normalizer(Strings({1, 0}, {})))), ElementsAre(""));
}

TEST(StringNormalizer, RefusesWhatItDoesNotKnow) {
  const Tensor words = Strings({1}, {"a"});
  EXPECT_THAT(Normalizer(words).Set("case_change_action", std::string("TITLE")).InferredShape(),
              HasSubstr("not 'TITLE'"));
  EXPECT_THAT(Normalizer(words).Set("locale", std::string("tr_TR.UTF-8")).InferredShape(),
              HasSubstr("unsupported 'locale': 'tr_TR.UTF-8'"));
  EXPECT_THAT(Normalizer(Strings({2, 1}, {"a", "b"})).InferredShape(),
              HasSubstr("expected [C] or [1,C]"));
}

TEST(LetterCase, MapsLettersOfManyScriptsAndLeavesTheRest) {
  ASSERT_TRUE(CheckLetterCase().ok());
  EXPECT_EQ(InCase(LetterCase::kUpper, "straße éλж 1\t"), "STRAßE ÉΛЖ 1\t");
  EXPECT_EQ(InCase(LetterCase::kLower, "ÉΛЖ𐐀"), "éλж𐐨");
  EXPECT_EQ(InCase(LetterCase::kUpper, "a\xff\xc3z\xed\xa0\x80"), "A\xff\xc3Z\xed\xa0\x80");
}

OneNode Split(const Tensor& texts) {
  OneNode node("StringSplit", 20);
  node.Input(texts).Outputs(2);
  return node;
}

TEST(StringSplit, CutsAtTheDelimiterAndPads) {
  OneNode node = Split(Strings({2, 1}, {"a--b--", "c"}));
  node.Set("delimiter", std::string("--"));
  EXPECT_EQ(node.InferredShape(), "[2,1,?]");
  EXPECT_EQ(Only(node).shape(), (Shape{2, 1, 3}));
  EXPECT_THAT(Texts(Only(node)), ElementsAre("a", "b", "", "c", "", ""));
  EXPECT_THAT(Elements<int64_t>(Only(node, 1)), ElementsAre(3, 1));
}

TEST(StringSplit, RunsOfWhiteSpaceAreOneDelimiter) {
  const OneNode node = Split(Strings({3}, {"  a \t b\n", "", " \t"}));
  EXPECT_THAT(Texts(Only(node)), ElementsAre("a", "b", "", "", "", ""));
  EXPECT_THAT(Elements<int64_t>(Only(node, 1)), ElementsAre(2, 0, 0));
}

TEST(StringSplit, TheRestStaysBehindTheLastCut) {
  OneNode at_commas = Split(Strings({2}, {"a,b,c", ","}));
  at_commas.Set("delimiter", std::string(",")).Set("maxsplit", int64_t{1});
  EXPECT_THAT(Texts(Only(at_commas)), ElementsAre("a", "b,c", "", ""));
  OneNode at_space = Split(Strings({1}, {" a  b  c "}));
  at_space.Set("maxsplit", int64_t{1});
  EXPECT_THAT(Texts(Only(at_space)), ElementsAre("a", "b  c"));
}

TEST(StringSplit, OfNoStringsIsEmpty) {
  const Tensor y = Only(Split(Strings({0, 2}, {})));
  EXPECT_EQ(y.shape(), (Shape{0, 2, 0}));
}

TEST(StringSplit, RefusesMorePartsThanAnyMemoryHolds) {
  // One string of many parts makes a row of as many for all the others.
  const std::string commas(1 << 16, ',');
  std::vector<std::string_view> texts(1 << 13, "a");
  texts[0] = commas;
  OneNode node = Split(Strings({1 << 13}, texts));
  node.Set("delimiter", std::string(","));
  EXPECT_THAT(Refusal(node), HasSubstr("the strings are too large"));
}

TEST(RegexFullMatch, AsksForTheWholeString) {
  OneNode node("RegexFullMatch", 20);
  node.Input(Strings({4}, {"www.a.com", "www.a.comx", "", "www.é.com"}))
      .Set("pattern", std::string(R"(www\.[\w\pL]+\.com)"));
  EXPECT_EQ(node.InferredShape(), "[4]");
  EXPECT_THAT(Elements<bool>(Only(node)), ElementsAre(true, false, false, true));
}

TEST(RegexFullMatch, RefusesABrokenPattern) {
  OneNode node("RegexFullMatch", 20);
  node.Input(Strings({1}, {"a"}));
  EXPECT_THAT(node.InferredShape(), HasSubstr("lacks its attribute 'pattern'"));
  node.Set("pattern", std::string("(a"));
  EXPECT_THAT(node.InferredShape(), HasSubstr("'pattern' is no regular expression"));
}

// ---- Operators that are not of strings alone

TEST(Movement, TakesStrings) {
  const Tensor x = Strings({2, 2}, {"a", "bb", "", "dddd"});
  OneNode gather("Gather", 13);
  gather.Input(x).Ints({1, 1, -2}).Set("axis", int64_t{1});
  EXPECT_THAT(Texts(Only(gather)), ElementsAre("bb", "bb", "a", "dddd", "dddd", ""));
  OneNode concat("Concat", 13);
  concat.Input(x).Input(Strings({1, 2}, {"x", "y"})).Set("axis", int64_t{0});
  EXPECT_THAT(Texts(Only(concat)), ElementsAre("a", "bb", "", "dddd", "x", "y"));
  OneNode transpose("Transpose", 13);
  transpose.Input(x);
  EXPECT_THAT(Texts(Only(transpose)), ElementsAre("a", "", "bb", "dddd"));
  OneNode reshape("Reshape", 14);
  reshape.Input(x).Ints({4});
  EXPECT_EQ(Only(reshape).shape(), (Shape{4}));
  OneNode tile("Tile", 13);
  tile.Input(Strings({2}, {"a", "b"})).Ints({2});
  EXPECT_THAT(Texts(Only(tile)), ElementsAre("a", "b", "a", "b"));
  OneNode slice("Slice", 13);
  slice.Input(x).Ints({1}).Ints({2}).Ints({1});
  EXPECT_THAT(Texts(Only(slice)), ElementsAre("bb", "dddd"));
}

TEST(Transpose, OfManyStringsIsCopiedInBlocks) {
  std::vector<std::string> words;
  for (int i = 0; i < 3 * 50; ++i) words.push_back(std::to_string(i));
  OneNode node("Transpose", 13);
  node.Input(Strings({3, 50}, {words.begin(), words.end()}));
  const std::vector<std::string> y = Texts(Only(node));
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], words[i % 3 * 50 + i / 3]);
}

TEST(Equal, ComparesStrings) {
  OneNode node("Equal", 19);
  node.Input(Strings({2, 2}, {"a", "b", "", "a"})).Input(Strings({}, {"a"}));
  EXPECT_THAT(Elements<bool>(Only(node)), ElementsAre(true, false, false, true));
}

TEST(Where, ChoosesStrings) {
  OneNode node("Where", 16);
  node.Input(Tensor::From<bool>(Shape{3}, {true, false, true}))
      .Input(Strings({3}, {"a", "b", "c"}))
      .Input(Strings({1}, {"else"}));
  EXPECT_THAT(Texts(Only(node)), ElementsAre("a", "else", "c"));
}

TEST(Unique, SortsStrings) {
  OneNode node("Unique", 11);
  node.Input(Strings({4}, {"b", "a", "b", ""})).Outputs(4);
  EXPECT_THAT(Texts(Only(node)), ElementsAre("", "a", "b"));
  EXPECT_THAT(Elements<int64_t>(Only(node, 3)), ElementsAre(1, 1, 2));
}

TEST(Constant, HoldsStrings) {
  OneNode one("Constant", 13);
  one.Set("value_string", std::string("a"));
  EXPECT_EQ(Only(one).shape(), Shape{});
  EXPECT_THAT(Texts(Only(one)), ElementsAre("a"));
  OneNode list("Constant", 13);
  list.Set("value_strings", Words{"a", "b"});
  EXPECT_THAT(Texts(Only(list)), ElementsAre("a", "b"));
}

TEST(TfIdf, CountsWords) {
  OneNode node("TfIdfVectorizer", 9);
  node.Input(Strings({2, 3}, {"be", "or", "be", "not", "to", "be"}))
      .Set("mode", std::string("TF"))
      .Set("min_gram_length", int64_t{1})
      .Set("max_gram_length", int64_t{2})
      .Set("max_skip_count", int64_t{0})
      .Set("ngram_counts", std::vector<int64_t>{0, 2})
      .Set("ngram_indexes", std::vector<int64_t>{0, 1, 2})
      .Set("pool_strings", Words{"be", "to", "to", "be"});
  EXPECT_THAT(Elements<float>(Only(node)), ElementsAre(2, 0, 0, 1, 1, 1));
}

TEST(Strings, GoToNoOperatorThatDoesNotKnowThem) {
  OneNode node("Relu", 14);
  node.Input(Strings({1}, {"a"}));
  EXPECT_THAT(node.InferredShape(),
              HasSubstr("Relu 'tested' (opset 14): unsupported element type BYTES"));
  OneNode eye("EyeLike", 9);
  eye.Input(Tensor::From<float>(Shape{1, 1}, {1})).Set("dtype", int64_t{8});
  EXPECT_THAT(eye.InferredShape(), HasSubstr("unsupported element type BYTES"));
}

}  // namespace strings_test
}  // namespace octet::testing

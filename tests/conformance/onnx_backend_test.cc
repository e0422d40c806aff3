// ONNX's own backend tests: one operator each, and small models. Every case is in one of two lists beside this file: those
// that pass, and those that are refused because Octet does not have the operator. (A third one names cases whose data contradict what ONNX
// specifies; it is written by hand.) The two lists are written anew, for review, by
//   ./dev run -- env OCTET_WRITE_LISTS=1 build/release/tests/conformance/onnx_backend_test
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "engine/tensor/status.h"
#include "tests/conformance/onnx_case.h"
#include "tests/support/source_folder.h"

namespace octet::conformance {
namespace {

const std::filesystem::path kLists = SourceFolder() / "tests/conformance";

// A list of cases, and where a tab follows the name what is said about it. `#` starts a comment.
struct List {
  std::string comment;
  std::map<std::string, std::string> cases;
};

List ReadList(const std::string& name) {
  List list;
  std::ifstream file(kLists / name);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) {
      list.comment += line + '\n';
    } else if (!line.empty()) {
      const size_t tab = std::min(line.find('\t'), line.size());
      list.cases.emplace(line.substr(0, tab), line.substr(std::min(tab + 1, line.size())));
    }
  }
  return list;
}

void WriteList(const std::string& name, const std::map<std::string, std::string>& cases) {
  const std::string comment = ReadList(name).comment;
  std::ofstream file(kLists / name);
  file << comment;
  for (const auto& [test, text] : cases) file << test << (text.empty() ? "" : "\t") << text << '\n';
}

// "unsupported <what>, node 'name', Loop (opset 11)" in any order: what it is, the node, the operator, the opset.
bool NamesUnsupported(const absl::Status& status) {
  static const std::regex kOperator(R"(\w+ ?('[^']*' )?\(opset \d+\))");
  const std::string message(Message(status));
  // A model of an opset that Octet does not read at all.
  if (message.starts_with("unsupported opset: ")) return absl::IsUnimplemented(status);
  return absl::IsUnimplemented(status) && message.find("unsupported") != std::string::npos &&
         std::regex_search(message, kOperator) && std::ranges::count(message, '\'') >= 2;
}

class OnnxBackendTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!std::filesystem::exists(DataFolder())) return;
    for (const char* suite : {"node", "simple", "pytorch-converted", "pytorch-operator"}) {
      for (const std::string& name : CaseNames(suite)) outcomes_[name] = RunCase(name);
    }
    if (std::getenv("OCTET_WRITE_LISTS") != nullptr) WriteLists();
    passing_ = ReadList("passing.list").cases;
    unsupported_ = ReadList("unsupported.list").cases;
    contradicting_ = ReadList("contradicting.list").cases;
  }

  void SetUp() override {
    if (outcomes_.empty()) GTEST_SKIP() << "skipped: libonnx-testdata is not installed";
  }

  static void WriteLists() {
    std::map<std::string, std::string> passing;
    std::map<std::string, std::string> unsupported;
    for (const auto& [name, status] : outcomes_) {
      if (status.ok()) passing[name];
      if (NamesUnsupported(status)) unsupported[name] = Message(status);
    }
    WriteList("passing.list", passing);
    WriteList("unsupported.list", unsupported);
  }

  static inline std::map<std::string, absl::Status> outcomes_;
  static inline std::map<std::string, std::string> passing_;
  static inline std::map<std::string, std::string> unsupported_;
  static inline std::map<std::string, std::string> contradicting_;
};

TEST_F(OnnxBackendTest, ListedCasesPass) {
  for (const auto& [name, unused] : passing_) {
    const auto found = outcomes_.find(name);
    if (found == outcomes_.end()) {
      ADD_FAILURE() << name << ": listed, but not in the suite";
    } else {
      EXPECT_TRUE(found->second.ok()) << name << ": " << found->second;
    }
  }
  EXPECT_GT(passing_.size(), 900);
}

TEST_F(OnnxBackendTest, OtherCasesNameWhatIsUnsupported) {
  for (const auto& [name, status] : outcomes_) {
    if (passing_.contains(name)) continue;
    if (contradicting_.contains(name)) {
      EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << name << ": " << status;
      continue;
    }
    EXPECT_FALSE(status.ok()) << name << " passes, but is not in passing.list";
    if (status.ok()) continue;
    EXPECT_TRUE(NamesUnsupported(status)) << name << ": " << status;
    const auto found = unsupported_.find(name);
    EXPECT_TRUE(found != unsupported_.end()) << name << " is not in unsupported.list: " << status;
    if (found == unsupported_.end()) continue;
    EXPECT_EQ(found->second, Message(status)) << name;
  }
}

TEST_F(OnnxBackendTest, LightNetworksAnswer) {
  const std::vector<std::string> names = LightNames();
  EXPECT_EQ(names.size(), 9);
  for (const std::string& name : names) EXPECT_EQ(RunLight(name), absl::OkStatus()) << name;
}

TEST_F(OnnxBackendTest, ListsHaveNothingElse) {
  for (const auto& [name, unused] : unsupported_) {
    EXPECT_TRUE(outcomes_.contains(name)) << name << ": listed, but not in the suite";
    EXPECT_FALSE(passing_.contains(name)) << name << " is in both lists";
  }
}

}  // namespace
}  // namespace octet::conformance

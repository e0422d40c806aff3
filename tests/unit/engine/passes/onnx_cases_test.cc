// ONNX's own operator tests as graphs to rewrite: whatever the passes make of them, the answers stay.
#include <cstdlib>
#include <filesystem>

#include "gtest/gtest.h"

#include "engine/onnx/onnx_file.h"
#include "engine/ops/op.h"
#include "engine/ops/reference_step.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace onnx_cases_test {

namespace fs = std::filesystem;

// Debian's libonnx-testdata.
fs::path CasesFolder() {
  const char* set = std::getenv("OCTET_ONNX_TESTDATA");
  return set != nullptr ? set : "/usr/share/libonnx-testdata/data/node";
}

// A case of the suite, with every input but the first one turned into a constant: as models have it.
struct Case {
  Graph graph;
  std::vector<Tensor> inputs;
};

std::optional<Case> ReadCase(const fs::path& folder) {
  auto graph = ReadOnnxFile((folder / "model.onnx").string());
  if (!graph.ok() || graph->inputs.empty()) return std::nullopt;
  Case read{*std::move(graph), {}};
  const std::vector<ValueId> inputs = read.graph.inputs;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto file = folder / "test_data_set_0" / ("input_" + std::to_string(i) + ".pb");
    const auto tensor = ReadTensorFile(file.string());
    if (!tensor.ok()) return std::nullopt;
    Value& value = read.graph.mutable_value(inputs[i]);
    value.shape = tensor->tensor.shape();
    value.dtype = tensor->tensor.dtype();
    if (i == 0) read.inputs.push_back(tensor->tensor);
    if (i > 0) value.constant = tensor->tensor;
  }
  read.graph.inputs = {inputs[0]};
  // Operators that Octet does not have, and cases that need more than reference kernels take, are not this test's.
  if (!InferShapes(read.graph).ok() || !Evaluate(read.graph, read.inputs).ok()) return std::nullopt;
  return read;
}

// Runs every case under `context`; returns how many there were.
int CheckAll(const PassContext& context, const Tolerance& tolerance) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(CasesFolder())) {
    const auto read = ReadCase(entry.path());
    if (!read) continue;
    ++count;
    // Noise has no answer to keep.
    if (CountOps(read->graph, "RandomUniformLike") + CountOps(read->graph, "Bernoulli") > 0)
      continue;
    Graph after = read->graph;
    const auto trace = RunPasses(after, context);
    EXPECT_TRUE(trace.ok()) << entry.path().filename() << ": " << trace.status();
    if (!trace.ok()) continue;
    EXPECT_TRUE(SameAnswers(read->graph, after, read->inputs, tolerance))
        << entry.path().filename();
  }
  return count;
}

TEST(OnnxCases, AnswerTheSameAfterThePasses) {
  if (!fs::exists(CasesFolder())) GTEST_SKIP() << "skipped: libonnx-testdata is not installed";
  EXPECT_GT(CheckAll({}, {.steps = 1}), 500);
}

TEST(OnnxCases, AnswerAlmostTheSameInBf16) {
  if (!fs::exists(CasesFolder())) GTEST_SKIP() << "skipped: libonnx-testdata is not installed";
  PassContext context;
  context.precision = Precision::kBf16;
  context.target.bf16 = true;
  EXPECT_GT(CheckAll(context, {.rtol = 0.05F, .atol = 0.05F, .steps = 1}), 500);
}

}  // namespace onnx_cases_test
}  // namespace octet

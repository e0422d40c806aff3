// Shipped int8 models answer as ONNX Runtime did: bit for bit up to their last Softmax, but for one tie.
#include <string>

#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/tensor/status.h"
#include "tests/support/source_folder.h"

namespace octet {
namespace golden_test {

struct Golden {
  const char* model;
  float
      tolerance;  ///< Of the output; a tie of an average moves a share of ic-resnet8-large by 0.00015.
};
void PrintTo(const Golden& golden, std::ostream* out) { *out << golden.model; }

class GoldenTest : public ::testing::TestWithParam<Golden> {};

TEST_P(GoldenTest, AnswersAsOnnxRuntimeDid) {
  const auto folder = SharedFolder("models");
  if (!folder) GTEST_SKIP() << "skipped: the shared models are not here";
  const std::string base = (*folder / GetParam().model).string();
  const std::string set = base + "/golden/int8/test_data_set_0/";
  const auto input = ReadTensorFile(set + "input_0.pb");
  const auto expected = ReadTensorFile(set + "output_0.pb");
  ASSERT_TRUE(input.ok() && expected.ok()) << input.status() << expected.status();
  const auto model = Model::Load(base + "/1/int8.onnx", {});
  ASSERT_TRUE(model.ok()) << model.status();
  const Shape shape = input->tensor.shape();
  const auto plan = (*model)->PlanFor({&shape, 1});
  ASSERT_TRUE(plan.ok()) << plan.status();
  ConfigureWorkerThread(1);
  Tensor got(expected->tensor.dtype(), expected->tensor.shape());
  const void* in = input->tensor.data();
  void* out = got.mutable_data();
  Workspace workspace;
  const absl::Status status = (*plan)->Run(workspace, {&in, 1}, {&out, 1});
  ASSERT_TRUE(status.ok()) << status;
  for (int64_t i = 0; i < got.elements(); ++i) {
    ASSERT_NEAR(got.span<float>()[i], expected->tensor.span<float>()[i], GetParam().tolerance)
        << "element " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Shared, GoldenTest,
                         ::testing::Values(Golden{"ic-resnet8-large", 2e-4f},
                                           Golden{"vww-mobilenetv1", 1e-6f},
                                           Golden{"kws-dscnn", 1e-6f}, Golden{"mobilenetv2", 1e-6f},
                                           Golden{"shufflenetv2", 1e-6f}));

}  // namespace golden_test
}  // namespace octet

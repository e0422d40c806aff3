// Plans for new shapes of a model whose files are no longer what they were when it was loaded.
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "engine/engine.h"
#include "engine/tensor/status.h"
#include "tests/unit/engine/onnx/model_builder.h"

namespace octet {
namespace changed_files_test {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// y = x w, x [N, 2], with w in a file beside the model's.
class ChangedFilesTest : public ::testing::Test {
 protected:
  ChangedFilesTest() {
    onnx::ModelProto proto = test::EmptyModel();
    onnx::GraphProto& graph = *proto.mutable_graph();
    *graph.add_input() = test::TensorInfo("x", {0, 2});
    onnx::TypeProto& type = *graph.mutable_input(0)->mutable_type();
    type.mutable_tensor_type()->mutable_shape()->mutable_dim(0)->set_dim_param("N");
    *graph.add_output() = test::TensorInfo("y", {0, 2});
    *graph.mutable_output(0)->mutable_type() = type;
    onnx::TensorProto& w = test::AddFloats(proto, "w", {2, 2}, {});
    w.set_data_location(onnx::TensorProto::EXTERNAL);
    onnx::StringStringEntryProto& location = *w.add_external_data();
    location.set_key("location");
    location.set_value("w.bin");
    test::AddNode(proto, "MatMul", {"x", "w"}, {"y"});
    std::ofstream(model_file_, std::ios::binary) << proto.SerializeAsString();
    WriteWeights({1, 2, 3, 4});
    auto loaded = Model::Load(model_file_, {});
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    if (loaded.ok()) model_ = *loaded;
  }

  void WriteWeights(const std::vector<float>& values) {
    const auto bytes = std::as_bytes(std::span(values));
    std::ofstream(weights_file_, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
  }

  // Of the row (1, 1), stacked with zeros to a batch.
  std::vector<float> Answer(int64_t batch) {
    const auto plan = model_->PlanForBatch(batch);
    EXPECT_TRUE(plan.ok()) << plan.status();
    if (!plan.ok()) return {};
    std::vector<float> x(static_cast<size_t>(2 * batch), 0.0F);
    x[0] = x[1] = 1;
    std::vector<float> y(x.size());
    const void* in = x.data();
    void* out = y.data();
    Workspace workspace;
    EXPECT_EQ((*plan)->Run(workspace, {&in, 1}, {&out, 1}), absl::OkStatus());
    return {y[0], y[1]};
  }

  void ExpectRefused(int64_t batch, std::string_view file) {
    const absl::Status status = model_->PlanForBatch(batch).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_THAT(std::string(Message(status)), HasSubstr(file));
  }

  const test::TemporaryFolder folder_;
  const std::string model_file_ = folder_ / "model.onnx";
  const std::string weights_file_ = folder_ / "w.bin";
  std::shared_ptr<const Model> model_;
};

TEST_F(ChangedFilesTest, AnswerAlikeForEveryShape) {
  ASSERT_NE(model_, nullptr);
  EXPECT_THAT(Answer(1), ElementsAre(4, 6));
  EXPECT_THAT(Answer(3), ElementsAre(4, 6));
}

// A batch of 3 would have other weights than a batch of 1.
TEST_F(ChangedFilesTest, AreNotReadAgainWhereTheWeightsBesideTheModelAreOthers) {
  ASSERT_NE(model_, nullptr);
  const fs::file_time_type written = fs::last_write_time(weights_file_);
  WriteWeights({5, 6, 7, 8});
  fs::last_write_time(weights_file_, written + std::chrono::seconds(1));
  ExpectRefused(3, "w.bin");
  EXPECT_THAT(Answer(1), ElementsAre(4, 6)) << "compiled at load";
}

TEST_F(ChangedFilesTest, AreNotReadAgainWhereTheModelIsAnother) {
  ASSERT_NE(model_, nullptr);
  fs::last_write_time(model_file_, fs::last_write_time(model_file_) + std::chrono::seconds(1));
  ExpectRefused(3, "model.onnx");
}

// As tools do that keep or normalise times.
TEST_F(ChangedFilesTest, AreNotReadAgainWhereAnotherFileHasTheSameTimesAndBytes) {
  ASSERT_NE(model_, nullptr);
  const fs::file_time_type written = fs::last_write_time(weights_file_);
  fs::copy_file(weights_file_, weights_file_ + ".new");
  fs::rename(weights_file_ + ".new", weights_file_);
  fs::last_write_time(weights_file_, written);
  ExpectRefused(3, "w.bin");
}

// It is no matter of the files that there is no room for one more in the process: whoever asks may ask again.
TEST_F(ChangedFilesTest, AreReadWhenTheProcessMayOpenFilesAgain) {
  ASSERT_NE(model_, nullptr);
  rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const int free = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(free, 0);
  ::close(free);
  const rlimit none = {static_cast<rlim_t>(free), before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const absl::Status status = model_->PlanForBatch(3).status();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(Answer(3), ElementsAre(4, 6));
}

// Whoever asks for a shape is not told that there is no such model.
TEST_F(ChangedFilesTest, AreTheServersMatterWhereTheyAreGoneAndMayComeBack) {
  ASSERT_NE(model_, nullptr);
  for (const std::string& file : {weights_file_, model_file_}) {
    fs::rename(file, file + ".away");
    ExpectRefused(3, file);
    fs::rename(file + ".away", file);
  }
  EXPECT_THAT(Answer(3), ElementsAre(4, 6));
}

}  // namespace changed_files_test
}  // namespace octet

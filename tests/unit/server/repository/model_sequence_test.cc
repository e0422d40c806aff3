// What becomes of live sequences when a repository's files change.
#include <unistd.h>

#include <fstream>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "engine/tensor/status.h"
#include "server/repository/model_repository.h"
#include "tests/support/accumulating_model.h"
#include "tests/support/fake_clock.h"
#include "tests/support/model_folder.h"
#include "tests/support/sanitizer.h"

namespace octet {
namespace model_sequence_test {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::string_view kState =
    "state: {before: {output: total}}\nsequences: {drain_seconds: 20, idle_seconds: 1000}\n";

class ModelSequenceTest : public ::testing::Test {
 protected:
  void Open() {
    ServerConfig config;
    config.repository.path = folder_.path();
    auto opened = ModelRepository::Open(config, 1, metrics_, clock_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    repository_ = *std::move(opened);
  }
  std::shared_ptr<const ModelVersion> Find(std::string_view version = "") {
    return *repository_->Find("net", version);
  }

  /// Enters a sequence as a request that finds the version now; where it runs, or why not.
  absl::StatusOr<SequenceHome> Enter(uint64_t id, bool start = false, std::string_view in = "") {
    const auto version = Find(in);
    std::optional<SequenceHome> home;
    if (start) home = HomeOf(version, {.precision = Precision::kFp32});
    auto step = version->sequences->store->Enter({id, start}, home);
    if (!step.ok()) return step.status();
    // Answered: an empty layout's worth of states is written.
    (*step)->AwaitTurn({}, [](const absl::Status& turn) { EXPECT_TRUE(turn.ok()); });
    for (const StateTensor& state : (*step)->home().layout->states) {
      EXPECT_NE((*step)->Reserve(1, state.spec), nullptr);
    }
    EXPECT_TRUE((*step)->Commit().ok());
    return (*step)->home();
  }

  ModelFolder folder_;
  FakeClock clock_;
  MetricsRegistry metrics_{{}};
  std::unique_ptr<ModelRepository> repository_;
};

TEST_F(ModelSequenceTest, AChangedModelYamlMovesSequencesToWhatServesTheSameModel) {
  folder_.Write("net/model.yaml", kState);
  folder_.Write("net/1/fp32.onnx", AccumulatingGraph(1));
  Open();
  ASSERT_TRUE(Enter(1, true).ok());
  const auto before = Find();
  folder_.Write("net/model.yaml", std::string(kState) + "batching: {max_queue_requests: 9}\n");
  ASSERT_TRUE(repository_->Load("net").ok());
  ASSERT_NE(Find(), before);
  clock_.Advance(std::chrono::seconds(100));
  Find()->sequences->store->Expire();
  const auto home = Enter(1);
  ASSERT_TRUE(home.ok()) << home.status();
  EXPECT_EQ(home->version, Find());
}

TEST_F(ModelSequenceTest, ANewVersionLetsSequencesDrainOnTheOldOne) {
  folder_.Write("net/model.yaml", kState);
  folder_.Write("net/1/fp32.onnx", AccumulatingGraph(1));
  Open();
  ASSERT_TRUE(Enter(1, true).ok());
  folder_.Write("net/2/fp32.onnx", AccumulatingGraph(2));
  ASSERT_TRUE(repository_->Load("net").ok());
  ASSERT_EQ(Find()->number, 2);
  EXPECT_EQ(Enter(1)->version->number, 1);
  EXPECT_EQ(Enter(2, true)->version->number, 2);
  EXPECT_EQ(repository_->Index(true).size(), 1U);
  clock_.Advance(std::chrono::seconds(20));
  const absl::Status over = Enter(1).status();
  EXPECT_TRUE(absl::IsUnavailable(over)) << over;
  EXPECT_THAT(std::string(Message(over)), HasSubstr("start it again: sequence 1 of model 'net'"));
  EXPECT_TRUE(Enter(2).ok());
  EXPECT_EQ(Enter(1, true)->version->number, 2);
  EXPECT_THAT(metrics_.Text(),
              HasSubstr("octet_live_sequences{model=\"net\",version=\"2\",precision=\"fp32\"} 2"));
  EXPECT_THAT(metrics_.Text(), Not(HasSubstr("octet_live_sequences{model=\"net\",version=\"1\"")))
      << "nobody holds the old version any more";
}

TEST_F(ModelSequenceTest, AVersionThatDrainsIsNoVariantThatIsNotReady) {
  folder_.Write("net/model.yaml", kState);
  folder_.Write("net/1/fp32.onnx", AccumulatingGraph(1));
  Open();
  ASSERT_TRUE(Enter(1, true).ok());
  Find()->Find(Precision::kFp32)->metrics->guard_tripped.Set(1);
  folder_.Write("net/2/fp32.onnx", AccumulatingGraph(2));
  ASSERT_TRUE(repository_->Load("net").ok());
  const auto series = [](std::string_view name, int version) {
    return Format("octet_{}{{model=\"net\",version=\"{}\",precision=\"fp32\"}} ", name, version);
  };
  const std::string text = metrics_.Text();
  EXPECT_THAT(text, HasSubstr(series("variant_ready", 2) + "1\n"));
  EXPECT_THAT(text, Not(HasSubstr(series("variant_ready", 1)))) << "an alert asks for zeros";
  EXPECT_THAT(text, HasSubstr(series("guard_tripped", 1) + "0\n")) << "nobody looks at it";
  EXPECT_THAT(text, HasSubstr(series("resident_weight_bytes", 1))) << "they are there";
  EXPECT_THAT(text, Not(HasSubstr(series("resident_weight_bytes", 1) + "0\n")));
  clock_.Advance(std::chrono::seconds(20));
  Find()->sequences->store->Expire();
  EXPECT_THAT(metrics_.Text(), Not(HasSubstr("version=\"1\"")));
}

TEST_F(ModelSequenceTest, AnUnloadedModelHasNoSequencesAndKeepsNoMemory) {
  folder_.Write("net/model.yaml", kState);
  folder_.Write("net/1/fp32.onnx", AccumulatingGraph(1));
  Open();
  ASSERT_TRUE(Enter(1, true).ok());
  const std::weak_ptr<const ModelVersion> served = Find();
  ASSERT_TRUE(repository_->Unload("net").ok());
  EXPECT_TRUE(served.expired());
  ASSERT_TRUE(repository_->Load("net").ok());
  EXPECT_TRUE(absl::IsUnavailable(Enter(1).status()));
  EXPECT_TRUE(Enter(1, true).ok());
}

TEST_F(ModelSequenceTest, AModelThatLosesItsStateLosesItsSequences) {
  folder_.Write("net/model.yaml", kState);
  folder_.Write("net/1/fp32.onnx", AccumulatingGraph(1));
  Open();
  ASSERT_TRUE(Enter(1, true).ok());
  const std::weak_ptr<const ModelVersion> served = Find();
  folder_.Write("net/model.yaml", "");
  ASSERT_TRUE(repository_->Load("net").ok());
  EXPECT_EQ(Find()->sequences, nullptr);
  EXPECT_EQ(Find()->signature.inputs.size(), 2U);
  EXPECT_TRUE(served.expired());
}

constexpr std::string_view kBytes = ": {wire: {datatype: UINT8, scale: 1, zero_point: 0}}}\n";

TEST_F(ModelSequenceTest, WhileAVersionGoesOnWithItsStateSoDoItsSequences) {
  folder_.Write("net/model.yaml", kState);
  folder_.Write("net/1/fp32.onnx", AccumulatingGraph(1));
  Open();
  ASSERT_TRUE(Enter(1, true).ok());
  // Without a state, and with an input that is not there: the version before answers.
  folder_.Write("net/model.yaml", "inputs: {none" + std::string(kBytes));
  EXPECT_FALSE(repository_->Load("net").ok());
  ASSERT_NE(Find()->sequences, nullptr);
  EXPECT_TRUE(Enter(1).ok());
  EXPECT_TRUE(Enter(2, true).ok());
  folder_.Write("net/model.yaml", kState);
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_TRUE(Enter(1).ok()) << "it never ended";
  folder_.Write("net/model.yaml", "");
  const std::weak_ptr<SequenceStore> store = Find()->sequences->store;
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_TRUE(store.expired()) << "nothing is served that has a state";
}

TEST_F(ModelSequenceTest, OneOfTwoVersionsThatGoesOnWithItsStateKeepsItsSequences) {
  GraphBuilder b;
  const Shape shape = {kUnknownDim, 2};
  const ValueId total = b.Op("Add", {b.Input("z", shape), b.Input("before", shape)});
  b.Output(b.Op("Relu", {total}), "y");
  b.Output(total, "total");
  folder_.Write("net/model.yaml", "versions: {all: true}\n" + std::string(kState));
  folder_.Write("net/1/fp32.onnx", AccumulatingGraph(1));
  folder_.Write("net/2/fp32.onnx", b.Build());
  Open();
  ASSERT_TRUE(Enter(1, true, "1").ok());
  folder_.Write("net/model.yaml", "versions: {all: true}\ninputs: {z" + std::string(kBytes));
  EXPECT_FALSE(repository_->Load("net").ok()) << "version 1 has no input z";
  EXPECT_EQ(Find("2")->sequences, nullptr);
  ASSERT_NE(Find("1")->sequences, nullptr);
  EXPECT_TRUE(Enter(1, false, "1").ok());
  EXPECT_TRUE(Enter(2, true, "1").ok());
  const std::weak_ptr<SequenceStore> store = Find("1")->sequences->store;
  folder_.Remove("net/1");
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_TRUE(store.expired());
}

/// What `load` answers while the process gets no more than 16 MiB.
absl::Status WithoutMemory(const std::function<absl::Status()>& load) {
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit before = {};
  EXPECT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  const rlim_t most = static_cast<rlim_t>(pages * sysconf(_SC_PAGESIZE)) + (rlim_t{16} << 20);
  const rlimit little = {.rlim_cur = most, .rlim_max = before.rlim_max};
  EXPECT_EQ(setrlimit(RLIMIT_AS, &little), 0);
  const absl::Status status = load();
  EXPECT_EQ(setrlimit(RLIMIT_AS, &before), 0);
  return status;
}

TEST_F(ModelSequenceTest, AStateThatThereIsNoMemoryForIsNotTaken) {
  if (IsSanitized()) GTEST_SKIP() << "the sanitizer ends a process that finds no memory";
  GraphBuilder b;
  b.Output(b.Op("Relu", {b.Input("x", {4})}), "y");
  b.Output(b.Op("Relu", {b.Input("before", {int64_t{16} << 20})}), "total");
  folder_.Write("net/1/fp32.onnx", b.Build());
  Open();
  const auto before = Find();
  folder_.Write("net/model.yaml", kState);
  const absl::Status status = WithoutMemory([this] { return repository_->Load("net"); });
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(Message(status)), HasSubstr("out of memory to make version 1"));
  EXPECT_EQ(Find(), before);
  EXPECT_TRUE(repository_->Load("net").ok());
  EXPECT_NE(Find()->sequences, nullptr);
}

TEST_F(ModelSequenceTest, AStateThatTheModelDoesNotHaveIsNamed) {
  folder_.Write("net/model.yaml", "state: {before: {output: sum}}\n");
  folder_.Write("net/1/fp32.onnx", AccumulatingGraph(1));
  Open();
  EXPECT_THAT(repository_->Index(false)[0].reason,
              HasSubstr("net/model.yaml: state.before: the model has no output 'sum', it has y, "
                        "total"));
}

}  // namespace model_sequence_test
}  // namespace octet

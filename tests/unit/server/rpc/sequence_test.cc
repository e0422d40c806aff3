// Sequences through a server in this process, on a real model that adds up what it is given.
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/rpc/inference.h"
#include "server/sequence/sequence_store.h"
#include "tests/support/accumulating_model.h"
#include "tests/support/rpc_test.h"

namespace octet {
namespace sequence_test {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Model "sum", fp32: y = the sum of its sequence's x; int8: ten times that.
class SequenceTest : public RpcTest {
 protected:
  void SetUp() override {
    repository_.Put(Make(1));
    StartServer();
  }
  void TearDown() override {
    RpcTest::TearDown();
    store_->EndAll();
  }

  std::shared_ptr<const ModelVersion> Make(int64_t number, ModelConfig::Routing routing = {}) {
    auto version = repository_.Make(
        "sum", number, {{Precision::kFp32, fp32_sum_}, {Precision::kInt8, int8_sum_}}, {}, routing);
    const absl::Status added = AddSequences(AccumulatingConfig(), store_, metrics_, *version);
    EXPECT_TRUE(added.ok()) << added;
    return version;
  }

  enum Flags { kNone = 0, kStart = 1, kEnd = 2 };
  static Request Step(int64_t id, float x, int flags = kNone) {
    Request request = Row({x, -x});
    request.set_model_name("sum");
    auto& parameters = *request.mutable_parameters();
    parameters["sequence_id"].set_int64_param(id);
    if (flags & kStart) parameters["sequence_start"].set_bool_param(true);
    if (flags & kEnd) parameters["sequence_end"].set_bool_param(true);
    return request;
  }
  float Ask(const Request& request) {
    Response response;
    const grpc::Status status = Infer(request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    if (!status.ok()) return NAN;
    EXPECT_EQ(response.outputs_size(), 1);
    EXPECT_EQ(response.outputs(0).name(), "y");
    return Floats(response.raw_output_contents(0))[0];
  }
  void ExpectRefused(const Request& request, const std::string& text,
                     grpc::StatusCode code = grpc::StatusCode::INVALID_ARGUMENT) {
    const grpc::Status status = Infer(request);
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(text));
  }

  const std::shared_ptr<const Model> fp32_sum_ = AccumulatingModel(1);
  const std::shared_ptr<const Model> int8_sum_ = AccumulatingModel(10);
  const std::shared_ptr<ModelSequenceMetrics> counts_ = metrics_.ForSequences(ModelLabels{"sum"});
  const std::shared_ptr<SequenceStore> store_ =
      std::make_shared<SequenceStore>("sum", Clock::Real(), counts_);
};

TEST_F(SequenceTest, AnswersFollowFromWhatCameBefore) {
  EXPECT_EQ(Ask(Step(1, 1, kStart)), 1);
  EXPECT_EQ(Ask(Step(2, 10, kStart)), 10);
  EXPECT_EQ(Ask(Step(1, 2)), 3);
  EXPECT_EQ(Ask(Step(2, 20, kEnd)), 30);
  EXPECT_EQ(Ask(Step(1, 3)), 6);
  EXPECT_EQ(Ask(Step(1, 1, kStart)), 1) << "begun again";
  ExpectRefused(Step(2, 1), "must specify the START flag on the first request of the sequence");
  EXPECT_EQ(Ask(Step(3, 4, kStart | kEnd)), 4);
  EXPECT_EQ(store_->live(), 1U);
}

TEST_F(SequenceTest, AnIdIsANumberAboveZeroOrAText) {
  Request text = Step(1, 1, kStart);
  (*text.mutable_parameters())["sequence_id"].set_string_param("a call");
  EXPECT_EQ(Ask(text), 1);
  Request wide = Step(1, 1, kStart);
  (*wide.mutable_parameters())["sequence_id"].set_uint64_param(UINT64_MAX);
  EXPECT_EQ(Ask(wide), 1);
  EXPECT_EQ(Ask(Step(-1, 2)), 3) << "the same id, as clients without unsigned parameters send it";
  const std::string none = "must specify a non-zero or non-empty correlation ID";
  ExpectRefused(Step(0, 1, kStart), none);
  (*text.mutable_parameters())["sequence_id"].set_string_param("");
  ExpectRefused(text, none);
  (*text.mutable_parameters())["sequence_id"].set_string_param(std::string(129, 'x'));
  ExpectRefused(text, "expected at most 128 bytes, got 129");
  (*text.mutable_parameters())["sequence_id"].set_double_param(1);
  ExpectRefused(text, "parameter \"sequence_id\": expected a whole number, got a fraction");
  Request without = Row({1, 1});
  without.set_model_name("sum");
  ExpectRefused(without, none);
  Request flag = Step(1, 1);
  (*flag.mutable_parameters())["sequence_start"].set_int64_param(1);
  ExpectRefused(flag, "parameter \"sequence_start\": expected a truth value");
}

TEST_F(SequenceTest, StatesAreTheServersAlone) {
  Request sends = Step(1, 1, kStart);
  *sends.add_inputs() = sends.inputs(0);
  sends.mutable_inputs(1)->set_name("before");
  sends.add_raw_input_contents(sends.raw_input_contents(0));
  ExpectRefused(sends, "input \"before\" is a state, which the server keeps");
  Request asks = Step(1, 1, kStart);
  asks.add_outputs()->set_name("total");
  ExpectRefused(asks, "output \"total\" is a state, which the server keeps");
  Request two = Step(1, 1, kStart);
  two.mutable_inputs(0)->set_shape(0, 2);
  two.set_raw_input_contents(0, two.raw_input_contents(0) + two.raw_input_contents(0));
  ExpectRefused(two, "must specify batch-size 1");
  EXPECT_EQ(store_->live(), 0U) << "what was refused began nothing";
}

TEST_F(SequenceTest, ClientsAreToldOfTheModelWithoutItsStates) {
  inference::ModelMetadataRequest ask;
  ask.set_name("sum");
  inference::ModelMetadataResponse metadata;
  ASSERT_TRUE(stub_->ModelMetadata(Context().get(), ask, &metadata).ok());
  ASSERT_EQ(metadata.inputs_size(), 1);
  EXPECT_EQ(metadata.inputs(0).name(), "x");
  ASSERT_EQ(metadata.outputs_size(), 1);
  EXPECT_EQ(metadata.outputs(0).name(), "y");
  inference::ModelConfigRequest ask_config;
  ask_config.set_name("sum");
  inference::ModelConfigResponse answer;
  ASSERT_TRUE(stub_->ModelConfig(Context().get(), ask_config, &answer).ok());
  const inference::ModelConfig& config = answer.config();
  EXPECT_EQ(config.input_size(), 1);
  EXPECT_EQ(config.output_size(), 1);
  EXPECT_FALSE(config.has_dynamic_batching());
  const inference::ModelSequenceBatching& batching = config.sequence_batching();
  EXPECT_EQ(batching.max_sequence_idle_microseconds(), 60'000'000U);
  EXPECT_EQ(batching.oldest().max_candidate_sequences(), 1024);
  ASSERT_EQ(batching.state_size(), 1);
  EXPECT_EQ(batching.state(0).input_name(), "before");
  EXPECT_EQ(batching.state(0).output_name(), "total");
  EXPECT_EQ(batching.state(0).data_type(), inference::TYPE_FP32);
  EXPECT_THAT(batching.state(0).dims(), ElementsAre(2));
  EXPECT_TRUE(batching.state(0).initial_state(0).zero_data());
  inference::ServerMetadataResponse server;
  ASSERT_TRUE(stub_->ServerMetadata(Context().get(), {}, &server).ok());
  EXPECT_THAT(server.extensions(), Contains("sequence"));
}

TEST_F(SequenceTest, ASequenceStaysOnThePrecisionAndTheVersionOfItsStart) {
  Request start = Step(1, 1, kStart);
  (*start.mutable_parameters())["precision"].set_string_param("int8");
  EXPECT_EQ(Ask(start), 10);
  EXPECT_EQ(Ask(Step(1, 1)), 20) << "asks for none, and the default is fp32";
  repository_.Put(Make(2));
  EXPECT_EQ(Ask(Step(1, 1)), 30);
  Response response;
  ASSERT_TRUE(Infer(Step(1, 1), &response).ok());
  EXPECT_EQ(response.model_version(), "1");
  EXPECT_EQ(response.parameters().at("precision").string_param(), "int8");
  Request other = Step(1, 1);
  (*other.mutable_parameters())["precision"].set_string_param("fp32");
  ExpectRefused(other, "the sequence began in another precision and stays there: int8, got fp32");
  Request version = Step(1, 1);
  version.set_model_version("2");
  ExpectRefused(version, "the sequence began on another version and stays there: 1, got 2");
  EXPECT_EQ(Ask(Step(1, 1)), 50) << "what was refused changed nothing";
  ASSERT_TRUE(Infer(Step(2, 1, kStart), &response).ok());
  EXPECT_EQ(response.model_version(), "2");
}

TEST_F(SequenceTest, ASplitIsDrawnOnceForASequence) {
  ModelConfig::Routing routing;
  routing.split = {{Precision::kFp32, 1}, {Precision::kInt8, 1}};
  repository_.Put(Make(1, routing));
  std::map<std::string, int> drawn;
  for (int64_t id = 1; id <= 40; ++id) {
    Response first;
    ASSERT_TRUE(Infer(Step(id, 1, kStart), &first).ok());
    const std::string precision = first.parameters().at("precision").string_param();
    ++drawn[precision];
    EXPECT_EQ(Ask(Step(id, 1)), precision == "int8" ? 20 : 2);
    EXPECT_EQ(Ask(Step(id, 1, kEnd)), precision == "int8" ? 30 : 3);
  }
  EXPECT_EQ(drawn.size(), 2U) << "40 draws of one half all fell on one side";
}

TEST_F(SequenceTest, WhatFollowsAStartIsNoDrawOfTheSplit) {
  ModelConfig::Routing routing;
  routing.split = {{Precision::kFp32, 1}, {Precision::kInt8, 1}};
  const auto version = Make(1, routing);
  repository_.Put(version);
  constexpr int kSteps = 500;
  for (int step = 0; step < kSteps; ++step) {
    for (int64_t id = 1; id <= 2; ++id) Ask(Step(id, 1, step == 0 ? kStart : kNone));
  }
  const ExperimentFacts facts = version->experiment->Read(*version);
  uint64_t drawn = 0;
  uint64_t sticky = 0;
  for (const ExperimentArm& arm : facts.arms) {
    drawn += arm.drawn;
    sticky += arm.sticky;
  }
  EXPECT_EQ(drawn, 2U);
  EXPECT_EQ(sticky, 2U * (kSteps - 1));
  EXPECT_FALSE(facts.sample_ratio) << "two draws say nothing";
}

TEST_F(SequenceTest, ManySequencesShareABatchAndEachKeepsItsOrder) {
  // A run of another model holds the only worker, so that everything else waits together.
  repository_.Put(repository_.Make("net", 1, {{Precision::kFp32, fp32_}}));
  auto blocked = Block();
  constexpr int64_t kSequences = 4;
  constexpr int kSteps = 3;
  grpc::ClientContext context;
  auto stream = stub_->ModelStreamInfer(&context);
  for (int step = 0; step < kSteps; ++step) {
    for (int64_t id = 1; id <= kSequences; ++id) {
      const Request request =
          Step(id, static_cast<float>(id * (step + 1)), step == 0 ? kStart : kNone);
      ASSERT_TRUE(stream->Write(request));
    }
  }
  constexpr double kBehind = kSequences * (kSteps - 1);
  while (dispatcher_.queued() < kSequences || counts_->waiting.value() < kBehind) {
    std::this_thread::yield();
  }
  const int64_t before = repository_.observer()->batches;
  Release();
  for (int step = 0; step < kSteps; ++step) {
    for (int64_t id = 1; id <= kSequences; ++id) {
      inference::ModelStreamInferResponse response;
      ASSERT_TRUE(stream->Read(&response));
      ASSERT_EQ(response.error_message(), "");
      const int64_t weight = (step + 1) * (step + 2) / 2;
      EXPECT_EQ(Floats(response.infer_response().raw_output_contents(0))[0],
                static_cast<float>(id * weight));
    }
  }
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
  blocked->done.WaitForNotification();
  // How later steps share batches follows from what the first one took.
  EXPECT_LE(repository_.observer()->batches - before, 2 + kSequences * (kSteps - 1))
      << "one for the first step of all of them, behind the one that was held";
}

TEST_F(SequenceTest, AStreamsRequestsStartInTheOrderInWhichTheyCame) {
  // The answers come on other threads, and every one of them makes room for a request that waits to be read.
  constexpr int kSteps = 2000;
  const auto context = Context();
  const auto stream = stub_->ModelStreamInfer(context.get());
  std::jthread writer([&] {
    for (int step = 1; step <= kSteps; ++step) {
      ASSERT_TRUE(stream->Write(Step(1, static_cast<float>(step), step == 1 ? kStart : kNone)));
    }
    stream->WritesDone();
  });
  const absl::Cleanup stop = [&] {
    context->TryCancel();
  };  // A writer that nobody reads from any more waits.
  inference::ModelStreamInferResponse response;
  for (int step = 1; step <= kSteps; ++step) {
    ASSERT_TRUE(stream->Read(&response)) << step;
    ASSERT_EQ(response.error_message(), "") << step;
    ASSERT_EQ(Floats(response.infer_response().raw_output_contents(0))[0],
              static_cast<float>(step) * static_cast<float>(step + 1) / 2)
        << step;
  }
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(SequenceTest, ARequestThatFailsLeavesTheStateAsItWas) {
  EXPECT_EQ(Ask(Step(1, 1, kStart)), 1);
  Request late = Step(1, 100);
  (*late.mutable_parameters())["timeout"].set_int64_param(1);
  ExpectRefused(late, "deadline passed", grpc::StatusCode::DEADLINE_EXCEEDED);
  Request wrong = Step(1, 100);
  wrong.mutable_inputs(0)->set_datatype("INT32");
  ExpectRefused(wrong, "datatype");
  (*wrong.mutable_parameters())["sequence_start"].set_bool_param(true);
  ExpectRefused(wrong, "datatype");
  EXPECT_EQ(Ask(Step(1, 1)), 2);
}

/// Another model, which calls `before_run` when a worker begins.
class WatchedModel final : public Model {
 public:
  WatchedModel(std::shared_ptr<const Model> model, std::function<void()> before_run)
      : model_(std::move(model)), before_run_(std::move(before_run)) {}

  const Signature& signature() const override { return model_->signature(); }
  Precision precision() const override { return model_->precision(); }
  const std::map<std::string, std::string>& metadata() const override { return model_->metadata(); }
  size_t resident_weight_bytes() const override { return model_->resident_weight_bytes(); }
  const std::vector<PassTrace>& pass_trace() const override { return model_->pass_trace(); }
  std::string DumpGraph() const override { return model_->DumpGraph(); }
  absl::StatusOr<std::shared_ptr<const Plan>> PlanFor(
      std::span<const Shape> shapes) const override {
    before_run_();
    return model_->PlanFor(shapes);
  }

 private:
  const std::shared_ptr<const Model> model_;
  const std::function<void()> before_run_;
};

TEST_F(SequenceTest, AStepWhoseClientHasGoneWhileItRanIsNone) {
  Inference* running = nullptr;
  const auto cancel = [&running] {
    if (running != nullptr) running->Cancel();
  };
  const auto version = repository_.Make(
      "sum", 1, {{Precision::kFp32, std::make_shared<WatchedModel>(fp32_sum_, cancel)}});
  ASSERT_TRUE(AddSequences(AccumulatingConfig(), store_, metrics_, *version).ok());
  repository_.Put(version);
  EXPECT_EQ(Ask(Step(1, 1, kStart)), 1);

  const auto messages = std::make_shared<InferMessages>();
  messages->request = Step(1, 100);
  messages->request.clear_raw_input_contents();
  auto& contents = *messages->request.mutable_inputs(0)->mutable_contents();
  for (const float x : {100.0F, -100.0F}) contents.add_fp32_contents(x);
  const ServingParts parts = Parts();
  Inference inference(parts, false, messages);
  running = &inference;
  absl::Notification done;
  absl::Status status;
  inference.Start({.metadata = [](std::string_view) { return std::optional<std::string_view>(); }},
                  [&](const absl::Status& outcome) {
                    status = outcome;
                    done.Notify();
                  });
  done.WaitForNotification();
  running = nullptr;
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  EXPECT_EQ(Ask(Step(1, 2)), 3) << "the state is as it was";
}

TEST_F(SequenceTest, StatesCountInNoQueue) {
  // Of 256 KiB, more than may wait, beside inputs of four bytes.
  constexpr int64_t kColumns = 65'536;
  constexpr int64_t kMostBytes = 100'000;
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 1});
  b.Output(b.Op("Relu", {x}), "y");
  b.Output(b.Op("Add", {x, b.Input("before", {kUnknownDim, kColumns})}), "total");
  LoadOptions options;
  options.max_batch = 8;
  const auto wide = Model::FromGraph(b.Build(), options);
  ASSERT_TRUE(wide.ok()) << wide.status();
  repository_.max_queue_bytes = kMostBytes;
  const auto version = repository_.Make("sum", 1, {{Precision::kFp32, *wide}});
  ASSERT_TRUE(AddSequences(AccumulatingConfig(), store_, metrics_, *version).ok());
  repository_.Put(version);
  repository_.Put(repository_.Make("net", 1, {{Precision::kFp32, fp32_}}));
  const auto blocked = Block();
  constexpr size_t kSequences = 3;
  std::vector<std::unique_ptr<Blocked>> calls;
  for (size_t id = 1; id <= kSequences; ++id) {
    Request request = Step(static_cast<int64_t>(id), 1, kStart);
    request.mutable_inputs(0)->set_shape(1, 1);
    request.mutable_raw_input_contents(0)->resize(sizeof(float));
    calls.push_back(Start(request));
  }
  const CountingObserver& waiting = *repository_.observer();
  const auto& full = waiting.refused[static_cast<size_t>(Refusal::kQueueFull)];
  while (dispatcher_.queued() < kSequences && full == 0) std::this_thread::yield();
  EXPECT_EQ(full, 0);
  EXPECT_LT(waiting.waiting_bytes, kMostBytes);
  Release();
  blocked->done.WaitForNotification();
  for (const auto& call : calls) {
    call->done.WaitForNotification();
    EXPECT_TRUE(call->status.ok()) << call->status.error_message();
  }
  EXPECT_EQ(waiting.waiting_bytes, 0);
}

TEST_F(SequenceTest, ADrainAnswersWhatWaitsForItsTurn) {
  repository_.Put(repository_.Make("net", 1, {{Precision::kFp32, fp32_}}));
  auto blocked = Block();
  auto first = Start(Step(1, 1, kStart));
  while (dispatcher_.queued() < 1) std::this_thread::yield();
  auto second = Start(Step(1, 2));
  while (counts_->waiting.value() < 1) std::this_thread::yield();
  gate_.Close();
  dispatcher_.Flush();
  Release();
  blocked->done.WaitForNotification();
  first->done.WaitForNotification();
  second->done.WaitForNotification();
  ASSERT_TRUE(second->status.ok()) << second->status.error_message();
  EXPECT_EQ(Floats(second->response.raw_output_contents(0))[0], 3);
  EXPECT_EQ(counts_->waiting.value(), 0);
}

}  // namespace sequence_test
}  // namespace octet

// Every call but ModelInfer, through a server in this process.
#include "server/rpc/grpc_server.h"

#include <system_error>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/rpc_test.h"

namespace octet {
namespace grpc_server_test {

using grpc::health::v1::HealthCheckResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class GrpcServerTest : public RpcTest {
 protected:
  HealthCheckResponse::ServingStatus Health(const std::string& service, grpc::StatusCode code) {
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    HealthCheckResponse response;
    EXPECT_EQ(health_->Check(Context().get(), request, &response).error_code(), code);
    return response.status();
  }
  bool Ready() {
    inference::ServerReadyResponse response;
    EXPECT_TRUE(stub_->ServerReady(Context().get(), {}, &response).ok());
    return response.ready();
  }
  bool ModelIsReady(const std::string& name, const std::string& version = "") {
    inference::ModelReadyRequest request;
    request.set_name(name);
    request.set_version(version);
    inference::ModelReadyResponse response;
    EXPECT_TRUE(stub_->ModelReady(Context().get(), request, &response).ok());
    return response.ready();
  }
  inference::ModelConfig Config(const std::string& name) {
    inference::ModelConfigRequest request;
    request.set_name(name);
    inference::ModelConfigResponse response;
    EXPECT_TRUE(stub_->ModelConfig(Context().get(), request, &response).ok());
    return response.config();
  }
};

TEST_F(GrpcServerTest, IsLiveAndReady) {
  inference::ServerLiveResponse live;
  ASSERT_TRUE(stub_->ServerLive(Context().get(), {}, &live).ok());
  EXPECT_TRUE(live.live());
  EXPECT_TRUE(Ready());
  EXPECT_TRUE(ModelIsReady("net"));
  EXPECT_FALSE(ModelIsReady("no_such_model"));
  repository_.Break("other", "broken");
  EXPECT_FALSE(ModelIsReady("other"));
  EXPECT_TRUE(Ready()) << "the others serve";
  repository_.ready = false;
  EXPECT_FALSE(Ready());
}

TEST_F(GrpcServerTest, APrecisionIsReadyWhereItIsThere) {
  const auto single = std::make_shared<FakeModel>(Shape{2, 4});
  repository_.Put(repository_.Make("single", 1, {{Precision::kFp32, single}}));
  EXPECT_TRUE(ModelIsReady("net", "int8"));
  EXPECT_TRUE(ModelIsReady("single", "fp32"));
  EXPECT_FALSE(ModelIsReady("single", "int8"));
  inference::ModelMetadataRequest metadata;
  metadata.set_name("single");
  metadata.set_version("int8");
  inference::ModelMetadataResponse described;
  const grpc::Status refused = stub_->ModelMetadata(Context().get(), metadata, &described);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(refused.error_message(), HasSubstr("no such precision, it has fp32: int8"));
  inference::ModelConfigRequest config;
  config.set_name("single");
  config.set_version("int8");
  inference::ModelConfigResponse configured;
  EXPECT_EQ(stub_->ModelConfig(Context().get(), config, &configured).error_code(),
            grpc::StatusCode::NOT_FOUND);
  config.set_version("fp32");
  EXPECT_TRUE(stub_->ModelConfig(Context().get(), config, &configured).ok());
  auto half = repository_.Make("half", 1, {{Precision::kFp32, single}, {Precision::kInt8, single}});
  half->variants[1].queue = nullptr;
  half->routes.candidates[1].ready = false;
  repository_.Put(half);
  EXPECT_FALSE(ModelIsReady("half", "int8"));
  EXPECT_TRUE(ModelIsReady("half", "fp32"));
}

/// Some clients compress whatever they send.
TEST_F(GrpcServerTest, EveryCallMayBeCompressed) {
  const auto packed = [] {
    auto context = Context();
    context->set_compression_algorithm(GRPC_COMPRESS_GZIP);
    return context;
  };
  const std::string name(200, 'n');  // A shorter one would be sent as it is.
  repository_.Put(repository_.Make(name, 1, {{Precision::kFp32, fp32_}}));
  inference::ModelReadyRequest request;
  request.set_name(name);
  inference::ModelReadyResponse response;
  const grpc::Status ready = stub_->ModelReady(packed().get(), request, &response);
  EXPECT_TRUE(ready.ok()) << ready.error_message();
  EXPECT_TRUE(response.ready());
  grpc::health::v1::HealthCheckRequest check;
  check.set_service(name);
  HealthCheckResponse health;
  EXPECT_TRUE(health_->Check(packed().get(), check, &health).ok());
  EXPECT_EQ(health.status(), HealthCheckResponse::SERVING);
  const auto context = packed();
  const auto watch = health_->Watch(context.get(), check);
  ASSERT_TRUE(watch->Read(&health));
  EXPECT_EQ(health.status(), HealthCheckResponse::SERVING);
  inference::RepositoryModelUnloadRequest unload;
  unload.set_model_name(name);
  inference::RepositoryModelUnloadResponse unloaded;
  EXPECT_TRUE(stub_->RepositoryModelUnload(packed().get(), unload, &unloaded).ok());
  EXPECT_TRUE(Ready());
}

TEST_F(GrpcServerTest, WhatIsNoInferenceIsShort) {
  inference::LogSettingsRequest settings;
  for (int i = 0; i < 10'000; ++i) (*settings.mutable_settings())[std::to_string(i)];
  ASSERT_GT(settings.ByteSizeLong(), kMaxControlBytes);
  inference::LogSettingsResponse response;
  for (const auto algorithm : {GRPC_COMPRESS_NONE, GRPC_COMPRESS_GZIP}) {
    const auto context = Context();
    context->set_compression_algorithm(algorithm);
    EXPECT_EQ(stub_->LogSettings(context.get(), settings, &response).error_code(),
              grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
  grpc::health::v1::HealthCheckRequest check;
  check.set_service(std::string(kMaxControlBytes, 's'));
  HealthCheckResponse health;
  EXPECT_EQ(health_->Check(Context().get(), check, &health).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  const auto context = Context();
  const auto watch = health_->Watch(context.get(), check);
  EXPECT_FALSE(watch->Read(&health));
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Ready());
}

TEST_F(GrpcServerTest, TellsItsNameAndWhatWorks) {
  options_.identity.name = "triton";
  StartServer();
  inference::ServerMetadataResponse response;
  ASSERT_TRUE(stub_->ServerMetadata(Context().get(), {}, &response).ok());
  EXPECT_EQ(response.name(), "triton");
  EXPECT_EQ(response.version(), "1.2.3");
  EXPECT_THAT(response.extensions(),
              ElementsAre("binary_tensor_data", "classification", "logging", "model_repository",
                          "model_configuration", "parameters", "schedule_policy", "sequence",
                          "statistics"));
}

TEST_F(GrpcServerTest, DescribesAModel) {
  inference::ModelMetadataRequest request;
  request.set_name("net");
  inference::ModelMetadataResponse response;
  ASSERT_TRUE(stub_->ModelMetadata(Context().get(), request, &response).ok());
  EXPECT_EQ(response.name(), "net");
  EXPECT_THAT(response.versions(), ElementsAre("1"));
  ASSERT_EQ(response.inputs_size(), 1);
  EXPECT_EQ(response.inputs(0).datatype(), "FP32");
  EXPECT_THAT(response.inputs(0).shape(), ElementsAre(-1, 4));
  EXPECT_EQ(response.outputs(0).name(), "y");
  EXPECT_EQ(response.properties().at("precisions"), "fp32,int8");
  request.set_name("nets");
  EXPECT_EQ(stub_->ModelMetadata(Context().get(), request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(GrpcServerTest, TheConfigurationLeavesTheBatchOut) {
  inference::ModelConfigRequest request;
  request.set_name("net");
  inference::ModelConfigResponse response;
  ASSERT_TRUE(stub_->ModelConfig(Context().get(), request, &response).ok());
  EXPECT_EQ(response.config().max_batch_size(), 8);
  EXPECT_THAT(response.config().input(0).dims(), ElementsAre(4));
  EXPECT_EQ(response.config().input(0).data_type(), inference::TYPE_FP32);
  EXPECT_TRUE(response.config().has_dynamic_batching());
  const auto single = std::make_shared<FakeModel>(Shape{2, 4});
  repository_.Put(repository_.Make("single", 1, {{Precision::kFp32, single}}));
  request.set_name("single");
  response.Clear();
  ASSERT_TRUE(stub_->ModelConfig(Context().get(), request, &response).ok());
  EXPECT_EQ(response.config().max_batch_size(), 0);
  EXPECT_THAT(response.config().input(0).dims(), ElementsAre(2, 4));
  EXPECT_FALSE(response.config().has_dynamic_batching());
}

TEST_F(GrpcServerTest, TheConfigurationTellsTheLevelsOfPriority) {
  EXPECT_EQ(Config("net").dynamic_batching().priority_levels(), 0U);
  EXPECT_EQ(Config("net").dynamic_batching().default_priority_level(), 0U);
  auto version = repository_.Make("levelled", 1, {{Precision::kFp32, fp32_}});
  version->batching.priority_levels = 5;
  repository_.Put(version);
  EXPECT_EQ(Config("levelled").dynamic_batching().priority_levels(), 5U);
  EXPECT_EQ(Config("levelled").dynamic_batching().default_priority_level(), 5U);
  version->batching.default_priority = 2;
  EXPECT_EQ(Config("levelled").dynamic_batching().default_priority_level(), 2U);
  const auto single = std::make_shared<FakeModel>(Shape{2, 4});
  version = repository_.Make("single", 1, {{Precision::kFp32, single}});
  version->batching.priority_levels = 3;
  repository_.Put(version);
  EXPECT_EQ(Config("single").dynamic_batching().priority_levels(), 3U) << "it has a queue, too";
}

TEST_F(GrpcServerTest, TheConfigurationTellsWhichVersionsLoad) {
  auto version = repository_.Make("net", 1, {{Precision::kFp32, fp32_}});
  repository_.Put(version);
  EXPECT_EQ(Config("net").version_policy().latest().num_versions(), 1U);
  version->policy = {.latest = 3};
  EXPECT_EQ(Config("net").version_policy().latest().num_versions(), 3U);
  version->policy = {.all = true};
  EXPECT_TRUE(Config("net").version_policy().has_all());
  version->policy = {.specific = {3, 1}};
  EXPECT_THAT(Config("net").version_policy().specific().versions(), ElementsAre(3, 1));
}

TEST_F(GrpcServerTest, TheConfigurationTellsThatNoAnswerIsKept) {
  EXPECT_TRUE(Config("net").has_response_cache());
  EXPECT_FALSE(Config("net").response_cache().enable());
}

TEST_F(GrpcServerTest, ReportsStatisticsOfOneOrAllModels) {
  auto version = repository_.Make("counted", 3, {{Precision::kFp32, fp32_}});
  const std::vector<Nanoseconds> queue_times = {Nanoseconds(10), Nanoseconds(20)};
  version->statistics->OnBatch(
      {.rows = 2, .plan_rows = 2, .compute_infer = Nanoseconds(500), .queue_times = queue_times});
  version->statistics->OnFinished(absl::StatusCode::kOk, 2, {.total = Nanoseconds(900)});
  version->statistics->OnFinished(absl::StatusCode::kDeadlineExceeded, 1,
                                  {.total = Nanoseconds(7)});
  repository_.Put(version);
  inference::ModelStatisticsRequest request;
  request.set_name("counted");
  inference::ModelStatisticsResponse response;
  ASSERT_TRUE(stub_->ModelStatistics(Context().get(), request, &response).ok());
  ASSERT_EQ(response.model_stats_size(), 1);
  const auto& statistics = response.model_stats(0);
  EXPECT_EQ(statistics.version(), "3");
  EXPECT_EQ(statistics.inference_count(), 2U);
  EXPECT_EQ(statistics.execution_count(), 1U);
  EXPECT_EQ(statistics.inference_stats().success().count(), 1U);
  EXPECT_EQ(statistics.inference_stats().success().ns(), 900U);
  EXPECT_EQ(statistics.inference_stats().fail().count(), 1U);
  ASSERT_EQ(statistics.batch_stats_size(), 1);
  EXPECT_EQ(statistics.batch_stats(0).batch_size(), 2U);
  EXPECT_EQ(statistics.batch_stats(0).compute_infer().ns(), 500U);
  EXPECT_EQ(statistics.memory_usage(0).byte_size(), 1000U);
  request.clear_name();
  response.Clear();
  ASSERT_TRUE(stub_->ModelStatistics(Context().get(), request, &response).ok());
  EXPECT_EQ(response.model_stats_size(), 2);
}

TEST_F(GrpcServerTest, ListsModelsWithStateAndReason) {
  repository_.Break("other", "not an ONNX file");
  inference::RepositoryIndexResponse response;
  ASSERT_TRUE(stub_->RepositoryIndex(Context().get(), {}, &response).ok());
  ASSERT_EQ(response.models_size(), 2);
  EXPECT_EQ(response.models(0).name(), "net");
  EXPECT_EQ(response.models(0).state(), "READY");
  EXPECT_EQ(response.models(1).state(), "UNAVAILABLE");
  EXPECT_EQ(response.models(1).reason(), "not an ONNX file");
  inference::RepositoryIndexRequest request;
  request.set_ready(true);
  response.Clear();
  ASSERT_TRUE(stub_->RepositoryIndex(Context().get(), request, &response).ok());
  EXPECT_EQ(response.models_size(), 1);
  request.set_repository_name("another");
  EXPECT_EQ(stub_->RepositoryIndex(Context().get(), request, &response).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

/// As a model.yaml in another encoding leads to one, or a string in an ONNX file.
TEST_F(GrpcServerTest, AReasonThatIsNoUtf8HidesNoOtherModel) {
  repository_.Break("other", "expected one of fp32, int8; got \"caf\xE9\"");
  inference::RepositoryIndexResponse response;
  ASSERT_TRUE(stub_->RepositoryIndex(Context().get(), {}, &response).ok());
  ASSERT_EQ(response.models_size(), 2);
  EXPECT_EQ(response.models(1).reason(), "expected one of fp32, int8; got \"caf\uFFFD\"");
}

TEST_F(GrpcServerTest, ALoadDoesNotKeepOthersWaiting) {
  absl::Notification loading;
  absl::Notification go_on;
  repository_.on_load = [&](std::string_view model) {
    loading.Notify();
    go_on.WaitForNotification();
    return NotFound("no folder of that name: {}", model);
  };
  inference::RepositoryModelLoadRequest request;
  request.set_model_name("net");
  inference::RepositoryModelLoadResponse response;
  const auto context = Context();
  absl::Notification done;
  grpc::Status status;
  stub_->async()->RepositoryModelLoad(context.get(), &request, &response, [&](grpc::Status s) {
    status = std::move(s);
    done.Notify();
  });
  loading.WaitForNotification();
  for (int i = 0; i < 32; ++i) ASSERT_TRUE(Infer(Row()).ok());
  go_on.Notify();
  done.WaitForNotification();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "no folder of that name: net");
}

TEST_F(GrpcServerTest, ALoadThatFindsNoMemoryIsAnswered) {
  repository_.on_load = [](std::string_view) -> absl::Status { throw std::bad_alloc(); };
  inference::RepositoryModelLoadRequest request;
  request.set_model_name("net");
  inference::RepositoryModelLoadResponse response;
  EXPECT_EQ(stub_->RepositoryModelLoad(Context().get(), request, &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(GrpcServerTest, ALoadThatThrowsIsAnswered) {
  repository_.on_load = [](std::string_view) -> absl::Status {
    throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
  };
  inference::RepositoryModelLoadRequest request;
  request.set_model_name("net");
  inference::RepositoryModelLoadResponse response;
  EXPECT_EQ(stub_->RepositoryModelLoad(Context().get(), request, &response).error_code(),
            grpc::StatusCode::INTERNAL);
}

TEST_F(GrpcServerTest, UnloadsAndRefusesParametersThatItDoesNotKnow) {
  inference::RepositoryModelLoadRequest load;
  load.set_model_name("net");
  (*load.mutable_parameters())["config"].set_string_param("{}");
  inference::RepositoryModelLoadResponse loaded;
  const grpc::Status refused = stub_->RepositoryModelLoad(Context().get(), load, &loaded);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("\"config\""));
  inference::RepositoryModelUnloadRequest unload;
  unload.set_model_name("net");
  (*unload.mutable_parameters())["unload_dependents"].set_bool_param(false);
  inference::RepositoryModelUnloadResponse unloaded;
  ASSERT_TRUE(stub_->RepositoryModelUnload(Context().get(), unload, &unloaded).ok());
  EXPECT_EQ(Infer(Row()).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GrpcServerTest, SharedMemoryTracesAndLogsSayThatTheyAreNotThere) {
  inference::SystemSharedMemoryStatusResponse system;
  EXPECT_TRUE(stub_->SystemSharedMemoryStatus(Context().get(), {}, &system).ok());
  EXPECT_TRUE(system.regions().empty());
  inference::CudaSharedMemoryStatusResponse cuda;
  EXPECT_TRUE(stub_->CudaSharedMemoryStatus(Context().get(), {}, &cuda).ok());
  inference::SystemSharedMemoryUnregisterResponse system_unregistered;
  EXPECT_TRUE(stub_->SystemSharedMemoryUnregister(Context().get(), {}, &system_unregistered).ok());
  inference::CudaSharedMemoryUnregisterResponse cuda_unregistered;
  EXPECT_TRUE(stub_->CudaSharedMemoryUnregister(Context().get(), {}, &cuda_unregistered).ok());
  inference::SystemSharedMemoryRegisterResponse system_registered;
  EXPECT_EQ(stub_->SystemSharedMemoryRegister(Context().get(), {}, &system_registered).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
  inference::CudaSharedMemoryRegisterResponse cuda_registered;
  EXPECT_EQ(stub_->CudaSharedMemoryRegister(Context().get(), {}, &cuda_registered).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
  inference::TraceSettingResponse trace;
  EXPECT_TRUE(stub_->TraceSetting(Context().get(), {}, &trace).ok());
  EXPECT_EQ(trace.settings().at("trace_level").value(0), "OFF");
  inference::LogSettingsResponse logs;
  EXPECT_TRUE(stub_->LogSettings(Context().get(), {}, &logs).ok());
  EXPECT_EQ(logs.settings_size(), 6);
}

TEST_F(GrpcServerTest, APortInUseIsAnErrorThatNamesIt) {
  GrpcServerOptions options = options_;
  options.port = server_->port();
  const auto second =
      GrpcServer::Start(options, {repository_, dispatcher_, metrics_, gate_, Clock::Real()});
  ASSERT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(Message(second.status())),
              HasSubstr("127.0.0.1:" + std::to_string(options.port)));
}

TEST_F(GrpcServerTest, HealthKnowsTheProcessTheServiceAndModels) {
  EXPECT_EQ(Health("", grpc::StatusCode::OK), HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("net", grpc::StatusCode::OK), HealthCheckResponse::SERVING);
  repository_.Break("other", "broken");
  EXPECT_EQ(Health("other", grpc::StatusCode::OK), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Health("inference.GRPCInferenceService", grpc::StatusCode::OK),
            HealthCheckResponse::SERVING);
  repository_.ready = false;
  EXPECT_EQ(Health("", grpc::StatusCode::OK), HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("inference.GRPCInferenceService", grpc::StatusCode::OK),
            HealthCheckResponse::NOT_SERVING);
  Health("nobody", grpc::StatusCode::NOT_FOUND);
}

TEST_F(GrpcServerTest, AWatchHearsOfChangesAndOfTheEnd) {
  const auto context = Context();
  grpc::health::v1::HealthCheckRequest request;
  request.set_service("late");
  const auto reader = health_->Watch(context.get(), request);
  HealthCheckResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  repository_.Put(repository_.Make("late", 1, {{Precision::kFp32, fp32_}}));
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  gate_.Close();
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  server_->Shutdown(Clock::Real().Now() + std::chrono::seconds(20));
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GrpcServerTest, OneWatchTooManyIsRefusedUntilAnotherEnds) {
  options_.max_long_calls = 2;
  StartServer();
  const auto first = Context();
  const auto second = Context();
  HealthCheckResponse response;
  const auto one = health_->Watch(first.get(), {});
  ASSERT_TRUE(one->Read(&response));
  const auto two = health_->Watch(second.get(), {});
  ASSERT_TRUE(two->Read(&response));
  const auto more = [&](grpc::ClientContext& context) {
    const auto reader = health_->Watch(&context, {});
    const bool taken = reader->Read(&response);
    if (taken) context.TryCancel();  // Else the end is the server's.
    const grpc::Status end = reader->Finish();
    return taken ? grpc::Status::OK : end;
  };
  const grpc::Status refused = more(*Context());
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(refused.error_message(), "too many such calls are open on this server, at most 2");
  EXPECT_EQ(Health("", grpc::StatusCode::OK), HealthCheckResponse::SERVING);
  first->TryCancel();
  EXPECT_EQ(one->Finish().error_code(), grpc::StatusCode::CANCELLED);
  const TimePoint give_up = Clock::Real().Now() + std::chrono::seconds(20);
  while (!more(*Context()).ok()) ASSERT_LT(Clock::Real().Now(), give_up);
}

TEST_F(GrpcServerTest, AWatchWhoseClientGoesIsForgotten) {
  auto context = Context();
  const auto reader = health_->Watch(context.get(), {});
  HealthCheckResponse response;
  ASSERT_TRUE(reader->Read(&response));
  context->TryCancel();
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  const TimePoint start = Clock::Real().Now();
  server_->Shutdown(start + std::chrono::seconds(20));
  EXPECT_LT(Clock::Real().Now(), start + std::chrono::seconds(20));
}

TEST_F(GrpcServerTest, OneThatIsAboutToEndSaysSoAndAnswers) {
  gate_.Announce();
  EXPECT_FALSE(Ready());
  EXPECT_FALSE(ModelIsReady("net"));
  EXPECT_EQ(Health("", grpc::StatusCode::OK), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Health("net", grpc::StatusCode::OK), HealthCheckResponse::NOT_SERVING);
  EXPECT_TRUE(Infer(Row()).ok());
  gate_.Close();
  EXPECT_EQ(Infer(Row()).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GrpcServerTest, DrainingAnswersWhatWasAcceptedAndRefusesTheRest) {
  const auto accepted = Block();
  gate_.Close();
  const grpc::Status refused = Infer(Row());
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_FALSE(Ready());
  EXPECT_FALSE(ModelIsReady("net"));
  EXPECT_EQ(Health("", grpc::StatusCode::OK), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(gate_.inside(), 1);
  Release();
  EXPECT_TRUE(gate_.WaitUntilEmpty(Clock::Real().Now() + std::chrono::seconds(30)));
  server_->Shutdown(Clock::Real().Now());
  accepted->done.WaitForNotification();
  EXPECT_TRUE(accepted->status.ok()) << accepted->status.error_message();
}

}  // namespace grpc_server_test
}  // namespace octet

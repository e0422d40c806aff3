#include "server/http/http_server.h"

#include <pthread.h>

#include <thread>

#include "absl/cleanup/cleanup.h"
#include "httplib.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/tensor/status.h"
#include "server/repository/pipeline.h"
#include "tests/support/http_test.h"
#include "tests/support/shared_object.h"

namespace octet {
namespace http_server_test {

using nlohmann::json;
using ::testing::HasSubstr;

TEST_F(HttpServerTest, SaysWhetherItIsReady) {
  repository_.ready = false;
  EXPECT_EQ(Get("/v2/health/live"), "200 {\"live\":true}");
  EXPECT_EQ(Get("/v2/health/ready"), "503 {\"ready\":false}");
  repository_.ready = true;
  EXPECT_EQ(Get("/v2/health/ready"), "200 {\"ready\":true}");
  gate_.Close();
  EXPECT_EQ(Get("/v2/health/ready"), "503 {\"ready\":false}");
  EXPECT_EQ(Get("/v2/models/net/ready"), "503 {\"name\":\"net\",\"ready\":false}");
  const httplib::Result refused = client_->Post(kInfer, RowJson(), kJson);
  EXPECT_THAT(Told(refused), HasSubstr("503 {\"error\":\"the server is shutting down"));
  EXPECT_EQ(refused->get_header_value("Retry-After"), "1");
}

TEST_F(HttpServerTest, ShowsThePageAndWhatItAsksFor) {
  const httplib::Result page = client_->Get("/");
  ASSERT_TRUE(page);
  EXPECT_EQ(page->status, 200);
  EXPECT_EQ(page->get_header_value("Content-Type"), "text/html; charset=utf-8");
  EXPECT_THAT(page->get_header_value("Content-Security-Policy"), HasSubstr("default-src 'none'"));
  EXPECT_THAT(page->body, HasSubstr("<script src=\"chart.js\">"));
  EXPECT_GT(client_->Get("/chart.js")->body.size(), 100'000U);
  ASSERT_THAT(Post(kInfer, RowJson()), HasSubstr("200 "));
  const json experiments = Parsed(Get("/v2/experiments"))["experiments"];
  EXPECT_EQ(experiments, Parsed(Get("/v2/models/net/experiments"))["experiments"]);
  ASSERT_EQ(experiments.size(), 1U);
  EXPECT_EQ(experiments[0]["model"], "net");
  uint64_t routed = 0;
  for (const json& arm : experiments[0]["precisions"]) {
    routed +=
        arm["drawn"].get<uint64_t>() + arm["sticky"].get<uint64_t>() + arm["asked"].get<uint64_t>();
    EXPECT_EQ(arm["histogram_us"]["counts"].size(), arm["histogram_us"]["bounds"].size() + 1);
  }
  EXPECT_EQ(routed, 1U);
  const json certificates = Parsed(Get("/v2/models/net/certificates"))["certificates"];
  EXPECT_EQ(certificates.size(), experiments[0]["precisions"].size());
  auto pipeline = std::make_shared<ModelVersion>();
  pipeline->model = "pipe";
  auto parts = std::make_shared<Pipeline>();
  const auto metrics = std::make_shared<VariantMetrics>();
  parts->metrics = metrics;
  pipeline->pipeline = parts;
  pipeline->events = std::make_shared<TrafficEvents>();
  pipeline->experiment = std::make_shared<const Experiment>(*pipeline);
  repository_.Put(pipeline);
  metrics->request_duration.Observe(0.002);
  metrics->refused.Add(static_cast<size_t>(Refusal::kDeadline));
  EXPECT_EQ(Parsed(Get("/v2/experiments"))["experiments"].size(), 2U);
  const json pipe = Parsed(Get("/v2/models/pipe/experiments"))["experiments"][0];
  EXPECT_TRUE(pipe["precisions"].empty());
  EXPECT_EQ(pipe["pipeline"]["latency_us"]["count"], 1);
  EXPECT_EQ(pipe["pipeline"]["refused"]["deadline"], 1);
  EXPECT_TRUE(experiments[0]["pipeline"].is_null());
  EXPECT_THAT(Get("/v2/models/other/experiments"),
              HasSubstr("404 {\"error\":\"Request for unknown"));
  EXPECT_THAT(Get("/v2/models/net/versions/9/certificates"), HasSubstr("404 {\"error\":"));
}

TEST_F(HttpServerTest, ExperimentsListWhatIsNotReadyAndHowVersionsShare) {
  repository_.Break("broken", "fp32: not an ONNX model");
  repository_.splits = {{.model = "net", .baseline = 3}};
  repository_.splits[0].arms = {{.number = 3, .weight = 80, .drawn = 7}, {.number = 4}};
  repository_.splits[0].sample_ratio = SampleRatio{.p_value = 1e-5, .alarm = true};
  const json answer = Parsed(Get("/v2/experiments"));
  ASSERT_EQ(answer["index"].size(), 1U) << "what is ready says nothing";
  EXPECT_EQ(answer["index"][0]["model"], "broken");
  EXPECT_EQ(answer["index"][0]["state"], "UNAVAILABLE");
  EXPECT_EQ(answer["index"][0]["reason"], "fp32: not an ONNX model");
  EXPECT_TRUE(Parsed(Get("/v2/models/net/experiments"))["index"].empty()) << "another model's";
  const json& split = answer["version_splits"][0];
  EXPECT_EQ(split["baseline"], "3");
  EXPECT_EQ(split["versions"][0]["drawn"], 7);
  EXPECT_TRUE(split["versions"][1]["over_baseline_us"].is_null());
  EXPECT_EQ(split["sample_ratio"]["alarm"], true);
}

TEST_F(HttpServerTest, AVersionWithoutEventsHasAnEmptyListOfThem) {
  const auto quiet =
      repository_.Make("quiet", 1, {{Precision::kFp32, std::make_shared<FakeModel>()}});
  quiet->events = nullptr;
  repository_.Put(quiet);
  const json experiments = Parsed(Get("/v2/models/quiet/experiments"))["experiments"];
  ASSERT_EQ(experiments.size(), 1U);
  EXPECT_EQ(experiments[0]["events"], json::array());
}

TEST_F(HttpServerTest, AnythingElseIsNotFound) {
  EXPECT_THAT(Get("/x"), HasSubstr("404 {\"error\":"));
  EXPECT_THAT(Get("/v2/health/ready/x"), HasSubstr("404 {\"error\":"));
  EXPECT_THAT(Post("/v2/health/live", "x"), HasSubstr("404 {\"error\":\"no such resource: POST"));
  EXPECT_THAT(Post("/a%0Ab", "x"), HasSubstr("404"));
  EXPECT_THAT(Post("/v2/models/net/infer/", std::string(700'000, 'x')),
              HasSubstr("404 {\"error\":\"no such resource: POST /v2/models/net/infer/\"}"));
  EXPECT_THAT(Post("/v2/models/net/versions/1/infers", ""), HasSubstr("404"));
  EXPECT_THAT(Told(client_->Put("/v2", "x", kJson)), HasSubstr("405"));
  EXPECT_EQ(Get("/v2/health/live"), "200 {\"live\":true}");
}

/// On threads with a stack of a megabyte, which is less than any system's.
TEST_F(HttpServerTest, ALongPathTakesNoStack) {
  pthread_attr_t before;
  pthread_attr_t small;
  pthread_getattr_default_np(&before);
  pthread_getattr_default_np(&small);
  pthread_attr_setstacksize(&small, size_t{1} << 20);
  pthread_setattr_default_np(&small);
  const absl::Cleanup restore = [&] { pthread_setattr_default_np(&before); };
  StartHttp();
  const std::string name(8000, 'a');
  EXPECT_THAT(Post("/" + name, ""), HasSubstr("404 {\"error\":\"no such resource: POST /aaa"));
  EXPECT_THAT(Post("/" + name, "body"), HasSubstr("404"));
  EXPECT_THAT(Get("/" + name), HasSubstr("404"));
  EXPECT_THAT(Post("/v2/models/" + name + "/infer", RowJson()), HasSubstr("404"));
  EXPECT_THAT(Get("/v2/models/" + name), HasSubstr("404"));
  EXPECT_EQ(Get("/v2/health/live"), "200 {\"live\":true}");
}

TEST_F(HttpServerTest, WhatIsPostedToNobodyIsNotRead) {
  RawClient client(http_->port());
  client.Say("POST /v2/models/net/infers HTTP/1.1\r\nContent-Length: 10000000000\r\n\r\n{");
  EXPECT_THAT(client.Hear("}"), HasSubstr("404 Not Found"));
  EXPECT_TRUE(client.HearsTheEnd());
  RawClient open(http_->port());
  open.Say("POST /v2/models/net/infers HTTP/1.1\r\n\r\n");
  EXPECT_THAT(open.Hear("}"), HasSubstr("404 Not Found"));
  open.Say("GET /v2/health/live HTTP/1.1\r\n\r\n");
  EXPECT_THAT(open.Hear("}"), HasSubstr("200 OK")) << "there was no body";
}

TEST_F(HttpServerTest, APortIsTakenByOneServerAlone) {
  HttpServerOptions options = http_options_;
  options.port = http_->port();
  const auto second = HttpServer::Start(options, Parts());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(Message(second.status())),
              HasSubstr(Format("127.0.0.1:{}", http_->port())));
}

TEST_F(HttpServerTest, APortIsFreeAgainAfterTheServer) {
  EXPECT_EQ(Get("/v2/health/live"), "200 {\"live\":true}");
  http_options_.port = http_->port();
  StartHttp();
  EXPECT_EQ(Get("/v2/health/live"), "200 {\"live\":true}");
}

TEST_F(HttpServerTest, AnAddressThatIsNotOursIsNamed) {
  HttpServerOptions options = http_options_;
  options.address = "192.0.2.1";
  const auto refused = HttpServer::Start(options, Parts());
  EXPECT_THAT(std::string(Message(refused.status())), HasSubstr("192.0.2.1"));
}

TEST_F(HttpServerTest, DescribesItselfAndItsModels) {
  EXPECT_THAT(Get("/v2"), HasSubstr(R"(200 {"name":"octet","version":"1.2.3","extensions":[)"));
  const json metadata = Parsed(Get("/v2/models/net"));
  EXPECT_EQ(metadata["versions"], json({"1"}));
  EXPECT_EQ(metadata["inputs"], json::parse(R"([{"name":"x","datatype":"FP32","shape":[-1,4]}])"));
  EXPECT_EQ(metadata, Parsed(Get("/v2/models/net/versions/1")));
  const json config = Parsed(Get("/v2/models/net/config"));
  EXPECT_EQ(config["input"][0]["data_type"], "TYPE_FP32");
  EXPECT_EQ(config["input"][0]["dims"], json({4}));
  EXPECT_EQ(config["parameters"]["precisions"]["string_value"], "fp32,int8");
  EXPECT_THAT(Get("/v2/models/nobody"), HasSubstr("404 {\"error\":\"Request for unknown model"));
  EXPECT_THAT(Get("/v2/models/net/versions/7/config"), HasSubstr("404"));
  EXPECT_EQ(Get("/v2/models/net/versions/1/ready"), "200 {\"name\":\"net\",\"ready\":true}");
  EXPECT_THAT(Get("/v2/models/nobody/ready"), HasSubstr("404"));
  EXPECT_EQ(Get("/v2/models/net/versions/int8/ready"), "200 {\"name\":\"net\",\"ready\":true}");
  for (const char* what : {"", "/ready", "/config"}) {
    EXPECT_THAT(Get(std::string("/v2/models/net/versions/bf16") + what),
                HasSubstr("404 {\"error\":\"model"));
  }
}

TEST_F(HttpServerTest, StatisticsAreNumbers) {
  const json stats = Parsed(Get("/v2/models/net/stats"))["model_stats"][0];
  EXPECT_EQ(stats["name"], "net");
  EXPECT_TRUE(stats["inference_count"].is_number_unsigned());
  EXPECT_TRUE(stats["inference_stats"]["success"]["ns"].is_number_unsigned());
  for (const char* member : {"success", "fail", "queue", "compute_input", "compute_infer",
                             "compute_output", "cache_hit", "cache_miss"}) {
    EXPECT_TRUE(stats["inference_stats"][member]["count"].is_number_unsigned()) << member;
  }
  EXPECT_EQ(stats["memory_usage"][0]["byte_size"], 2000);
  EXPECT_EQ(Parsed(Get("/v2/models/stats"))["model_stats"].size(), 1U);
}

TEST_F(HttpServerTest, TheRepositoryIsIndexedLoadedAndUnloaded) {
  EXPECT_EQ(Post("/v2/repository/index", ""),
            R"(200 [{"name":"net","version":"1","state":"READY","reason":""}])");
  EXPECT_EQ(Parsed(Post("/v2/repository/index", R"({"ready":true})")).size(), 1U);
  EXPECT_THAT(Post("/v2/repository/index", R"({"ready":1})"), HasSubstr("400"));
  EXPECT_THAT(Post("/v2/repository/index", R"({"repository_name":"a"})"), HasSubstr("501"));
  std::string loaded;
  repository_.on_load = [&](std::string_view model) {
    loaded = model;
    return absl::OkStatus();
  };
  EXPECT_EQ(Post("/v2/repository/models/net/load", "{}"), "200 {}");
  EXPECT_EQ(loaded, "net");
  EXPECT_THAT(Post("/v2/repository/models/net/load", R"({"parameters":{"config":"{}"}})"),
              HasSubstr("501 {\"error\":\"load parameter \\\"config\\\""));
  EXPECT_EQ(
      Post("/v2/repository/models/net/unload", R"({"parameters":{"unload_dependents":false}})"),
      "200 {}");
  EXPECT_THAT(Post(kInfer, RowJson()), HasSubstr("503"));
}

TEST_F(HttpServerTest, AnInferenceAnswersInJson) {
  const json answer = Parsed(Post(kInfer, RowJson(R"("parameters":{"precision":"fp32"},)")));
  EXPECT_EQ(answer, json::parse(R"({"id":"r1","model_name":"net","model_version":"1",
      "parameters":{"precision":"fp32","route":"explicit"},
      "outputs":[{"name":"y","datatype":"FP32","shape":[1,4],"data":[2.0,4.0,6.0,8.0]}]})"));
}

TEST_F(HttpServerTest, TensorsAreBinaryWhereAskedFor) {
  const std::string head =
      R"({"parameters":{"binary_data_output":true},"inputs":[{"name":"x","datatype":"FP32",)"
      R"("shape":[1,4],"parameters":{"binary_data_size":16}}]})";
  const std::vector<float> row = {1, 2, 3, 4};
  const std::string body = head + std::string(reinterpret_cast<const char*>(row.data()), 16);
  httplib::Headers headers = {{"Inference-Header-Content-Length", std::to_string(head.size())},
                              {"X-Octet-Precision", "int8"}};
  for (const char* range : {"", "bytes=0-9", "bytes=0-1,4-5"}) {
    if (*range != 0) headers.emplace("Range", range);  // answers have no parts
    const httplib::Result result =
        client_->Post("/v2/models/net/versions/1/infer", headers, body, "application/octet-stream");
    ASSERT_TRUE(result) << range;
    ASSERT_EQ(result->status, 200) << result->body;
    const size_t length = result->get_header_value_u64("Inference-Header-Content-Length");
    const json answer = json::parse(result->body.substr(0, length));
    EXPECT_EQ(answer["parameters"]["precision"], "int8") << "by the header";
    EXPECT_EQ(answer["outputs"][0]["parameters"]["binary_data_size"], 16);
    EXPECT_FALSE(answer["outputs"][0].contains("data"));
    EXPECT_EQ(Floats(result->body.substr(length)), (std::vector<float>{3, 6, 9, 12}));
    headers.erase("Range");
  }
}

TEST_F(HttpServerTest, ABodyOfRawBytesIsTheOneInput) {
  const auto post = [&](std::vector<float> row) {
    const std::string body(reinterpret_cast<const char*>(row.data()), row.size() * sizeof(float));
    const httplib::Headers headers = {{"Inference-Header-Content-Length", "0"},
                                      {"X-Octet-Precision", "int8"}};
    return client_->Post(kInfer, headers, body, "application/octet-stream");
  };
  const httplib::Result result = post({1, 2, 3, 4});
  ASSERT_TRUE(result);
  ASSERT_EQ(result->status, 200) << result->body;
  const size_t length = result->get_header_value_u64("Inference-Header-Content-Length");
  const json answer = json::parse(result->body.substr(0, length));
  EXPECT_EQ(answer["outputs"][0]["shape"], json::parse("[1,4]"));
  EXPECT_EQ(answer["outputs"][0]["parameters"]["binary_data_size"], 16);
  EXPECT_EQ(answer["parameters"]["precision"], "int8");
  EXPECT_EQ(Floats(result->body.substr(length)), (std::vector<float>{3, 6, 9, 12}));
  EXPECT_EQ(Told(post({1, 2, 3})),
            R"(400 {"error":"input \"x\": bytes, expected 16 for FP32 [1,4], got 12"})");
}

TEST_F(HttpServerTest, BothProtocolsRefuseAlike) {
  const auto grpc = [&](Request request) { return Infer(request).error_message(); };
  const auto http = [&](const std::string& body, const std::string& path = kInfer) {
    const httplib::Result result = client_->Post(path, body, kJson);
    return result ? json::parse(result->body)["error"].get<std::string>() : "no answer";
  };
  const auto input = [](const std::string& members) { return R"({"inputs":[{)" + members + "}]}"; };
  Request request = Row();
  request.mutable_inputs(0)->set_name("z");
  EXPECT_EQ(http(input(R"("name":"z","datatype":"FP32","shape":[1,4],"data":[1,2,3,4])")),
            grpc(request));
  request = Row();
  request.mutable_inputs(0)->set_datatype("FP33");
  EXPECT_EQ(http(input(R"("name":"x","datatype":"FP33","shape":[1,4],"data":[1,2,3,4])")),
            grpc(request));
  request = Row();
  request.mutable_inputs(0)->set_shape(1, 5);
  EXPECT_EQ(http(input(R"("name":"x","datatype":"FP32","shape":[1,5],"data":[1,2,3,4])")),
            grpc(request));
  request = Row({1, 2, 3});
  request.mutable_inputs(0)->set_shape(1, 4);
  EXPECT_EQ(http(input(R"("name":"x","datatype":"FP32","shape":[1,4],"data":[1,2,3])")),
            grpc(request));
  request = Row();
  request.set_model_name("nobody");
  EXPECT_EQ(http(RowJson(), "/v2/models/nobody/infer"), grpc(request));
  request = Row();
  (*request.mutable_parameters())["triton_x"].set_bool_param(true);
  EXPECT_EQ(http(RowJson(R"("parameters":{"triton_x":true},)")), grpc(request));
  EXPECT_EQ(http(R"({"inputs":[]})"), grpc([] {
              Request none;
              none.set_model_name("net");
              return none;
            }()));
}

/// Loads that wait for release_.
class HttpLoadsTest : public HttpServerTest {
 protected:
  static constexpr const char* kLoad = "/v2/repository/models/net/load";

  void TearDown() override {
    if (!release_.HasBeenNotified()) release_.Notify();
    HttpServerTest::TearDown();
  }
  void SetUp() override {
    HttpServerTest::SetUp();
    repository_.on_load = [this](std::string_view) {
      if (++loads_ == 1) begun_.Notify();
      release_.WaitForNotification();
      return absl::OkStatus();
    };
  }
  std::unique_ptr<RawClient> AskToLoad() {
    auto client = std::make_unique<RawClient>(http_->port());
    client->Say(Format("POST {} HTTP/1.1\r\nContent-Length: 0\r\n\r\n", kLoad));
    return client;
  }
  /// Begins the first load.
  void BeginLoad() {
    first_ = AskToLoad();
    begun_.WaitForNotification();
  }
  /// Leaves room for two loads, of which one runs. Of two more the later one is refused: the other one waits then.
  void LetALoadWait() {
    http_options_.threads = 3;
    StartHttp();
    BeginLoad();
    waiting_ = AskToLoad();
    refused_ = AskToLoad();
    const absl::Time until = absl::Now() + absl::Seconds(30);
    while (!waiting_->IsAnswered(1) && !refused_->IsAnswered(1)) ASSERT_LT(absl::Now(), until);
    if (waiting_->IsAnswered(0)) std::swap(waiting_, refused_);
  }

  std::atomic<int> loads_{0};
  absl::Notification begun_;
  absl::Notification release_;
  std::unique_ptr<RawClient> first_, waiting_, refused_;
};

/// Of two threads loads get one.
TEST_F(HttpLoadsTest, LeaveThreadsToInferences) {
  BeginLoad();
  EXPECT_THAT(Post(kLoad, ""), HasSubstr("429"));
  EXPECT_THAT(Post(kInfer, RowJson()), HasSubstr("200 "));
  release_.Notify();
  EXPECT_THAT(first_->Hear("}"), HasSubstr("200 OK"));
  EXPECT_THAT(Post(kLoad, ""), HasSubstr("200 "));
  EXPECT_EQ(loads_, 2);
}

TEST_F(HttpLoadsTest, OneWhoseClientHasGoneIsNotBegun) {
  ASSERT_NO_FATAL_FAILURE(LetALoadWait());
  waiting_->Close();
  release_.Notify();
  EXPECT_THAT(first_->Hear("}"), HasSubstr("200 OK"));
  EXPECT_THAT(Post(kLoad, ""), HasSubstr("200 "));
  EXPECT_EQ(loads_, 2);
}

TEST_F(HttpLoadsTest, OneThatWaitsWhenTheServerStopsIsNotBegun) {
  ASSERT_NO_FATAL_FAILURE(LetALoadWait());
  gate_.Close();
  release_.Notify();
  EXPECT_THAT(first_->Hear("}"), HasSubstr("200 OK"));
  EXPECT_THAT(waiting_->Hear("}"), HasSubstr("503 Service Unavailable"));
  EXPECT_EQ(loads_, 1);
}

TEST_F(HttpServerTest, WhatCannotBeReadIsCounted) {
  const auto& unrouted = metrics_.server().unrouted;
  const auto invalid = static_cast<size_t>(absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Post(kInfer, "{"), HasSubstr("400"));
  EXPECT_EQ(unrouted.value(invalid), 1U);
  EXPECT_THAT(Post(kInfer, RowJson(), {{"Inference-Header-Content-Length", "x"}}),
              HasSubstr("400"));
  EXPECT_EQ(unrouted.value(invalid), 2U);
  EXPECT_THAT(Post(kInfer, RowJson(), {{"Content-Encoding", "gzip"}}), HasSubstr("400"));
  EXPECT_EQ(unrouted.value(invalid), 3U);
  EXPECT_THAT(Post(kInfer, RowJson(), {{"Content-Encoding", "br"}}), HasSubstr("415"));
  EXPECT_EQ(unrouted.value(static_cast<size_t>(absl::StatusCode::kUnimplemented)), 1U);
}

/// The queue has one place. Whoever takes it next shows that the one before has left, without having run.
TEST_F(HttpServerTest, AClientThatHasGoneHasCancelled) {
  repository_.Put(repository_.Make("small", 1, {{Precision::kFp32, fp32_}}, {}, {}, 1));
  const auto blocked = Block();
  const std::string body = RowJson();
  RawClient client(http_->port());
  client.Say(Format("POST /v2/models/small/infer HTTP/1.1\r\nContent-Length: {}\r\n\r\n{}",
                    body.size(), body));
  while (dispatcher_.queued() < 1) std::this_thread::yield();
  client.Close();
  Request request = Row();
  request.set_model_name("small");
  const auto next = StartInPlaceOf(request);
  Release();
  blocked->done.WaitForNotification();
  next->done.WaitForNotification();
  EXPECT_TRUE(next->status.ok());
  EXPECT_EQ(fp32_->runs().size(), 2U);
}

TEST_F(HttpServerTest, AFullQueueAndALateAnswerHaveTheirCodes) {
  repository_.Put(repository_.Make("small", 1, {{Precision::kFp32, fp32_}}, {}, {}, 1));
  const auto blocked = Block();
  Request request = Row();
  request.set_model_name("small");
  const auto waiting = Start(request);
  while (dispatcher_.queued() < 1) std::this_thread::yield();
  const httplib::Result full = client_->Post("/v2/models/small/infer", RowJson(), kJson);
  EXPECT_TRUE(full);
  if (full) {
    EXPECT_EQ(full->status, 429) << full->body;
    EXPECT_EQ(full->get_header_value("Retry-After"), "1");
  }
  Release();
  blocked->done.WaitForNotification();
  waiting->done.WaitForNotification();
  EXPECT_THAT(Post(kInfer, RowJson(R"("parameters":{"timeout":1},)")), HasSubstr("504"));
}

TEST_F(HttpServerTest, SharedMemoryIsRegisteredToldAndForgotten) {
  const std::string base = "/v2/systemsharedmemory";
  EXPECT_EQ(Get(base + "/status"), "200 []");
  EXPECT_THAT(Post(base + "/region/r/register", R"({"key":"/k","byte_size":8})"), HasSubstr("501"));
  shared_memory_.emplace(1 << 20);
  StartHttp();
  const SharedObject object(64);
  const std::string body = Format(R"({{"key":"{}","offset":8,"byte_size":48}})", object.key());
  EXPECT_EQ(Post(base + "/region/r/register", body), "200 {}");
  EXPECT_THAT(Post(base + "/region/r/register", body), HasSubstr("409"));
  EXPECT_THAT(Post(base + "/region/q/register", R"({"key":"/no_such","byte_size":8})"),
              HasSubstr("404"));
  EXPECT_THAT(Post(base + "/region/q/register", R"({"key":"/k","byte_size":-8})"),
              HasSubstr("400 {\"error\":\"byte_size: expected a whole number"));
  EXPECT_EQ(Get(base + "/region/r/status"),
            Format(R"(200 [{{"name":"r","key":"{}","offset":8,"byte_size":48}}])", object.key()));
  EXPECT_THAT(Get(base + "/region/q/status"), HasSubstr("404"));
  const std::vector<float> row = {1, 2, 3, 4};
  object.Write(8, std::as_bytes(std::span(row)));
  const json answer = Parsed(Post(
      kInfer,
      R"({"parameters":{"precision":"fp32"},"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],)"
      R"("parameters":{"shared_memory_region":"r","shared_memory_byte_size":16}}],"outputs":[{"name":"y",)"
      R"("parameters":{"shared_memory_region":"r","shared_memory_byte_size":16,"shared_memory_offset":16}}]})"));
  EXPECT_EQ(answer["outputs"][0],
            json::parse(R"({"name":"y","datatype":"FP32","shape":[1,4],"parameters":{
                "shared_memory_region":"r","shared_memory_byte_size":16,"shared_memory_offset":16}})"));
  EXPECT_EQ(Floats(object.Read(24, 16)), (std::vector<float>{2, 4, 6, 8}));
  // Clients that use the one forget all of the other first.
  EXPECT_EQ(Get("/v2/cudasharedmemory/status"), "200 []");
  EXPECT_EQ(Post("/v2/cudasharedmemory/unregister", ""), "200 {}");
  EXPECT_THAT(Post("/v2/cudasharedmemory/region/c/register", R"({"raw_handle":{"b64":""}})"),
              HasSubstr("501"));
  EXPECT_THAT(Post(base + "/region//unregister", ""), HasSubstr("404"))
      << "which is not all of them";
  EXPECT_THAT(Get(base + "/region//status"), HasSubstr("404"));
  EXPECT_THAT(Get(base + "/status"), HasSubstr("\"name\":\"r\""));
  EXPECT_EQ(Post(base + "/region/r/unregister", ""), "200 {}");
  EXPECT_EQ(Get(base + "/status"), "200 []");
}

}  // namespace http_server_test
}  // namespace octet

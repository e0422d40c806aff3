#include "server/server.h"

#include <pthread.h>

#include <array>
#include <atomic>
#include <new>
#include <string>
#include <string_view>
#include <thread>

#include "httplib.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/support/accumulating_model.h"
#include "tests/support/as_nobody.h"
#include "tests/support/fake_clock.h"
#include "tests/support/model_folder.h"
#include "tests/support/tls_identity.h"

namespace octet {
namespace server_test {

using ::testing::HasSubstr;

class ServerTest : public ::testing::Test {
 protected:
  ServerConfig Config() const {
    ServerConfig config;
    config.repository.path = folder_.path();
    config.listen = {.address = "127.0.0.1", .grpc_port = 0, .http_port = 0, .metrics_port = 0};
    config.workers = {.count = 1, .threads = 1};
    return config;
  }
  static int Status(int port, const std::string& path) {
    httplib::Client client("127.0.0.1", port);
    const httplib::Result result = client.Get(path);
    return result ? result->status : 0;
  }

  ModelFolder folder_;
};

TEST_F(ServerTest, IsAliveFirstReadyOnceLoadedAndGoneAfterTheDrain) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  const auto server = Server::Start(Config(), "1.2.3");
  ASSERT_TRUE(server.ok()) << server.status();
  const ServerPorts ports = (*server)->ports();
  EXPECT_GT(ports.grpc, 0);
  EXPECT_EQ(Status(ports.http, "/v2/health/live"), 200);
  EXPECT_EQ(Status(ports.http, "/v2/health/ready"), 503);
  EXPECT_EQ(Status(ports.metrics, "/metrics"), 200);
  EXPECT_TRUE((*server)->Load({}).ok());
  EXPECT_EQ(Status(ports.http, "/v2/health/ready"), 200);
  EXPECT_TRUE((*server)->Drain(Clock::Real().Now() + std::chrono::seconds(10)));
  EXPECT_EQ(Status(ports.http, "/v2/health/ready"), 0);
  EXPECT_TRUE((*server)->Drain(Clock::Real().Now())) << "a second time there is nothing to do";
}

TEST_F(ServerTest, OneThatRetiresIsNotReadyAndAnswersUntilItDrains) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  FakeClock clock;
  const auto server = Server::Start(Config(), "1", clock);
  ASSERT_TRUE(server.ok()) << server.status();
  const ServerPorts ports = (*server)->ports();
  const auto metrics = [&] {
    return httplib::Client("127.0.0.1", ports.metrics).Get("/metrics")->body;
  };
  const auto infer = [&] {
    const httplib::Result result =
        httplib::Client("127.0.0.1", ports.http)
            .Post("/v2/models/net/infer",
                  R"({"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]})",
                  "application/json");
    return result ? result->status : 0;
  };
  EXPECT_THAT(metrics(), HasSubstr("\noctet_server_ready 0\n"));
  EXPECT_TRUE((*server)->Load({}).ok());
  EXPECT_THAT(metrics(), HasSubstr("\noctet_server_ready 1\n"));
  const TimePoint until = clock.Now() + std::chrono::seconds(5);
  std::atomic<bool> retired = false;
  std::jthread retiring([&] {
    (*server)->Retire(until);
    retired = true;
  });
  while (Status(ports.http, "/v2/health/ready") == 200) std::this_thread::yield();
  EXPECT_EQ(Status(ports.http, "/v2/health/ready"), 503);
  EXPECT_EQ(Status(ports.http, "/v2/models/net/ready"), 503);
  EXPECT_EQ(Status(ports.http, "/v2/health/live"), 200);
  while (metrics().find("\noctet_server_ready 0\n") == std::string::npos) {
    std::this_thread::yield();
  }
  EXPECT_EQ(infer(), 200);
  EXPECT_FALSE(retired);
  while (!retired) {
    clock.Advance(std::chrono::milliseconds(100));
    std::this_thread::yield();
  }
  EXPECT_GE(clock.Now(), until);
  EXPECT_EQ(infer(), 200) << "until it drains";
}

TEST_F(ServerTest, TheWorkersAreTheInstancesOfEveryModel) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  ServerConfig config = Config();
  config.workers.count = 3;
  const auto server = Server::Start(config, "1");
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_TRUE((*server)->Load({}).ok());
  const httplib::Result result =
      httplib::Client("127.0.0.1", (*server)->ports().http).Get("/v2/models/net/config");
  ASSERT_TRUE(result);
  EXPECT_THAT(result->body,
              HasSubstr(R"("instance_group":[{"name":"net","count":3,"kind":"KIND_CPU"}])"));
}

TEST_F(ServerTest, ATakenPortIsNamed) {
  const auto first = Server::Start(Config(), "1");
  ASSERT_TRUE(first.ok()) << first.status();
  const ServerPorts ports = (*first)->ports();
  const auto expect_refused = [](const ServerConfig& config, int port) {
    const auto second = Server::Start(config, "1");
    EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(Message(second.status())),
                HasSubstr(std::format("127.0.0.1:{}", port)));
  };
  ServerConfig config = Config();
  config.listen.grpc_port = ports.grpc;
  expect_refused(config, ports.grpc);
  config = Config();
  config.listen.http_port = ports.http;
  expect_refused(config, ports.http);
  config = Config();
  config.listen.metrics_port = ports.metrics;
  expect_refused(config, ports.metrics);
}

TEST_F(ServerTest, AConfigurationThatCannotRunIsRefusedBeforeAPortIsOpened) {
  ServerConfig config = Config();
  config.repository.path = folder_.path("nowhere");
  EXPECT_EQ(Server::Start(config, "1").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(CheckServerConfig(config).code(), absl::StatusCode::kNotFound);
  config = Config();
  config.engine.disabled_passes = {"no_such_pass"};
  EXPECT_THAT(std::string(Message(Server::Start(config, "1").status())), HasSubstr("no_such_pass"));
  EXPECT_THAT(std::string(Message(CheckServerConfig(config))), HasSubstr("no_such_pass"));
}

TEST_F(ServerTest, EachPortHasItsAddress) {
  ServerConfig config = Config();
  config.listen.http_address = "127.0.0.2";
  config.listen.metrics_address = "127.0.0.3";
  const auto server = Server::Start(config, "1");
  ASSERT_TRUE(server.ok()) << server.status();
  const ServerPorts ports = (*server)->ports();
  const auto answers = [](const std::string& address, int port, const std::string& path) {
    const httplib::Result result = httplib::Client(address, port).Get(path);
    return result && result->status == 200;
  };
  EXPECT_TRUE(answers("127.0.0.2", ports.http, "/v2/health/live"));
  EXPECT_FALSE(answers("127.0.0.1", ports.http, "/v2/health/live"));
  EXPECT_TRUE(answers("127.0.0.3", ports.metrics, "/metrics"));
  EXPECT_FALSE(answers("127.0.0.1", ports.metrics, "/metrics"));
}

TEST_F(ServerTest, TlsFilesThatCannotBeUsedAreToldBeforeAPortIsOpened) {
  const TlsFolder tls;
  ServerConfig config = Config();
  config.listen.grpc_tls = {.certificate = tls.path("tls.crt"), .key = tls.path("tls.key")};
  const std::string missing =
      "listen.grpc_tls: cannot open " + tls.path("tls.crt") + ": No such file or directory";
  EXPECT_EQ(Message(Server::Start(config, "1").status()), missing);
  EXPECT_EQ(Message(CheckServerConfig(config)), missing);
  tls.Write(TlsIdentity::Make());
  tls.Write("tls.key", TlsIdentity::Make().key);
  EXPECT_THAT(std::string(Message(Server::Start(config, "1").status())),
              HasSubstr("is not that of the certificate in " + tls.path("tls.crt")));
  tls.Write(TlsIdentity::Make());
  EXPECT_TRUE(CheckServerConfig(config).ok());
  EXPECT_TRUE(Server::Start(config, "1").ok());
}

TEST_F(ServerTest, StrictIsTheLoadsError) {
  folder_.Write("bad/1/fp32.onnx", "no model");
  ServerConfig config = Config();
  config.repository.strict = true;
  const auto server = Server::Start(config, "1");
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ((*server)->Load({}).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ServerTest, AFolderThatCannotBeReadIsTriedAgainUnlessStrict) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Show("", false);
  ServerConfig config = Config();
  FakeClock clock;
  const auto server = Server::Start(config, "1", clock);
  config.repository.strict = true;
  const auto strict = Server::Start(config, "1");
  ASSERT_TRUE(server.ok() && strict.ok());
  {
    const AsNobody nobody;
    EXPECT_TRUE((*server)->Load({}).ok());
    EXPECT_EQ((*strict)->Load({}).code(), absl::StatusCode::kUnavailable);
  }
  const int port = (*server)->ports().http;
  EXPECT_EQ(Status(port, "/v2/health/ready"), 503);
  folder_.Show("", true);
  const TimePoint begin = clock.Now();
  while (Status(port, "/v2/health/ready") != 200) clock.Advance(std::chrono::milliseconds(100));
  EXPECT_GE(clock.Now(), begin + std::chrono::seconds(5));
}

TEST_F(ServerTest, AModelThatCannotBeReadIsUnavailableAndTriedAgainWithoutPolling) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  folder_.Write("other/1/fp32.onnx", ScalingModel(2));
  folder_.Show("", true);
  folder_.Show("net", false);
  FakeClock clock;
  const auto server = Server::Start(Config(), "1", clock);
  ASSERT_TRUE(server.ok()) << server.status();
  {
    const AsNobody nobody;
    EXPECT_TRUE((*server)->Load({}).ok());
  }
  const int port = (*server)->ports().http;
  EXPECT_EQ(Status(port, "/v2/health/ready"), 200);
  EXPECT_EQ(Status(port, "/v2/models/other/ready"), 200);
  EXPECT_EQ(Status(port, "/v2/models/net"), 503) << "it is there, and nobody knows what it is";
  folder_.Show("net", true);
  const TimePoint begin = clock.Now();
  const TimePoint give_up = Clock::Real().Now() + std::chrono::seconds(30);
  while (Status(port, "/v2/models/net/ready") != 200) {
    ASSERT_LT(Clock::Real().Now(), give_up);
    clock.Advance(std::chrono::milliseconds(100));
  }
  EXPECT_GE(clock.Now(), begin + std::chrono::seconds(5));
}

TEST_F(ServerTest, AReloadLooksAtModelsAndCertificatesNow) {
  folder_.Write("net/1/fp32.onnx", ScalingModel(2));
  const TlsFolder tls;
  tls.Write(TlsIdentity::Make(3600));
  ServerConfig config = Config();
  config.listen.grpc_tls = {.certificate = tls.path("tls.crt"), .key = tls.path("tls.key")};
  FakeClock clock;  // which stands still: nothing is looked at by itself
  const auto server = Server::Start(config, "1", clock);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_TRUE((*server)->Load({}).ok());
  const ServerPorts ports = (*server)->ports();
  const auto not_after = [&] {
    const std::string name = "\noctet_tls_certificate_not_after_seconds ";
    const std::string page = httplib::Client("127.0.0.1", ports.metrics).Get("/metrics")->body;
    return std::stod(page.substr(page.find(name) + name.size()));
  };
  const double before = not_after();
  for (const std::string name : {"one", "two"}) {
    folder_.Write(name + "/1/fp32.onnx", ScalingModel(3));
    tls.Write(TlsIdentity::Make(name == "one" ? 7200 : 10800));
    EXPECT_EQ(Status(ports.http, "/v2/models/" + name + "/ready"), 404);
    (*server)->Reload();
    const TimePoint give_up = Clock::Real().Now() + std::chrono::seconds(30);
    while (Status(ports.http, "/v2/models/" + name + "/ready") != 200) {
      ASSERT_LT(Clock::Real().Now(), give_up);
    }
    EXPECT_NEAR(not_after(), before + (name == "one" ? 3600 : 7200), 60);
  }
}

/// A FakeClock that throws once, when it is armed and the poller asks for the time.
class ThrowingClock final : public Clock {
 public:
  TimePoint Now() const override {
    if (IsPoller() && armed.exchange(false)) throw std::bad_alloc();
    return fake.Now();
  }
  void WaitUntil(absl::CondVar& signal, absl::Mutex& mutex, TimePoint time) override {
    if (IsPoller()) poller_waits = true;
    fake.WaitUntil(signal, mutex, time);
  }
  FakeClock fake;
  mutable std::atomic<bool> armed{false};
  std::atomic<bool> poller_waits{false};

 private:
  static bool IsPoller() {
    std::array<char, 16> name = {};
    pthread_getname_np(pthread_self(), name.data(), name.size());
    return std::string_view(name.data()) == "poller";
  }
};

TEST_F(ServerTest, AReloadThatAnExceptionCutsShortIsMadeAgain) {
  folder_.Write("net/model.yaml", "state: {before: {output: total}}\n");
  folder_.Write("net/1/fp32.onnx", AccumulatingGraph(1));
  ThrowingClock clock;
  const auto server = Server::Start(Config(), "1", clock);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_TRUE((*server)->Load({}).ok());
  const auto answers = [&](std::string_view expected) {
    const httplib::Result result =
        httplib::Client("127.0.0.1", (*server)->ports().http)
            .Post("/v2/models/net/infer",
                  R"({"parameters":{"sequence_id":1,"sequence_start":true,"sequence_end":true},)"
                  R"("inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,1]}]})",
                  "application/json");
    return result && result->body.find(expected) != std::string::npos;
  };
  EXPECT_TRUE(answers("[1,1]"));
  folder_.Write("net/1/fp32.onnx", AccumulatingGraph(2));
  while (!clock.poller_waits) std::this_thread::yield();
  clock.armed = true;  // when sequences are to move
  (*server)->Reload();
  const TimePoint give_up = Clock::Real().Now() + std::chrono::seconds(30);
  while (clock.armed) ASSERT_LT(Clock::Real().Now(), give_up);
  EXPECT_TRUE(answers("[1,1]"));
  while (!answers("[2,2]")) {
    ASSERT_LT(Clock::Real().Now(), give_up);
    clock.fake.Advance(std::chrono::milliseconds(100));
  }
}

TEST_F(ServerTest, EveryMistakeOfEveryModelYamlIsListed) {
  folder_.Write("a/1/fp32.onnx", ScalingModel(2));
  folder_.Write("a/model.yaml", "colour: red\n");
  folder_.Write("b/1/fp32.onnx", ScalingModel(2));
  folder_.Write("b/model.yaml", "routing: {default: int8}\n");
  folder_.Write("c/1/fp32.onnx", ScalingModel(2));
  folder_.Write("c/model.yaml", "batching: {max_batch: 4}\n");
  const std::string mistakes(Message(CheckServerConfig(Config())));
  EXPECT_THAT(mistakes, HasSubstr("a/model.yaml:1:1: colour"));
  EXPECT_THAT(mistakes, HasSubstr("b/1/int8.onnx"));
  EXPECT_EQ(std::ranges::count(mistakes, '\n'), 1) << mistakes;
}

TEST(HostPortTest, AnIpv6AddressIsBracketed) {
  EXPECT_EQ(HostPort("127.0.0.1", 80), "127.0.0.1:80");
  EXPECT_EQ(HostPort("::1", 80), "[::1]:80");
  EXPECT_EQ(HostPort("[::1]", 80), "[::1]:80");
}

}  // namespace server_test
}  // namespace octet

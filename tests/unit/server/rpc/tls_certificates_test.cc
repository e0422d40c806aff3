#include "server/rpc/tls_certificates.h"

#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "absl/functional/function_ref.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "engine/tensor/status.h"
#include "tests/support/rpc_test.h"
#include "tests/support/tls_identity.h"

namespace octet {
namespace tls_certificates_test {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(MemoryFileTest, AnotherContentHasThePathAndALaterTime) {
  MemoryFile file;
  ASSERT_TRUE(file.Put("one").ok());
  const std::string path = file.path();
  const auto read = [&] {
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  };
  struct stat before = {};
  ASSERT_EQ(stat(path.c_str(), &before), 0);
  EXPECT_GT(before.st_mtim.tv_sec, 0);
  std::ifstream first(path);
  EXPECT_EQ(read(), "one");
  ASSERT_TRUE(file.Put("another").ok());
  EXPECT_EQ(file.path(), path);
  EXPECT_EQ(read(), "another");
  struct stat after = {};
  ASSERT_EQ(stat(path.c_str(), &after), 0);
  EXPECT_GT(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
  std::string begun;
  first >> begun;
  EXPECT_EQ(begun, "one") << "who began to read goes on with what it was";
}

class TlsCertificatesTest : public RpcTest {
 protected:
  /// For a client that is to be refused.
  static constexpr std::chrono::seconds kBriefly{1};

  /// Serves with the folder's files.
  void ServeTls(const TlsPaths& paths) {
    auto loaded = TlsCertificates::Load(paths, not_after_);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    certificates_ = *std::move(loaded);
    options_.tls = certificates_.get();
    StartServer();
  }
  void TearDown() override {
    RpcTest::TearDown();
    server_.reset();  // before the certificates
  }

  /// Until when the gauge says that the certificate in use is valid, seen from now, in seconds.
  double SecondsLeft() const {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return not_after_.value() - std::chrono::duration<double>(now).count();
  }

  /// Whether a client is answered that trusts the authority of this certificate and shows the other, if there is one.
  bool Answered(const TlsIdentity& trusted, const TlsIdentity& own = {},
                std::chrono::seconds patience = std::chrono::seconds(20)) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
    const auto channel = grpc::CreateCustomChannel(
        "127.0.0.1:" + std::to_string(server_->port()),
        grpc::SslCredentials({trusted.certificate, own.key, own.certificate}), arguments);
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    context.set_deadline(std::chrono::system_clock::now() + patience);
    inference::ServerLiveResponse response;
    return inference::GRPCInferenceService::NewStub(channel)
        ->ServerLive(&context, {}, &response)
        .ok();
  }

  /// What is logged by so many looks; gRPC's own lines, of clients that it refuses, are left out.
  std::string Looked(int times) {
    return Logged([&] {
      for (int i = 0; i < times; ++i) certificates_->Look();
    });
  }
  std::string Reloaded() {
    return Logged([&] { certificates_->Reload(); });
  }
  static std::string Logged(absl::FunctionRef<void()> task) {
    ::testing::internal::CaptureStderr();
    task();
    std::istringstream lines(::testing::internal::GetCapturedStderr());
    std::string events;
    for (std::string line; std::getline(lines, line);) {
      if (line.find(" event=tls_") != std::string::npos) events += line + "\n";
    }
    return events;
  }

  const TlsFolder folder_;
  const TlsIdentity first_ = TlsIdentity::Make();
  const TlsIdentity second_ = TlsIdentity::Make();
  OptionalGauge not_after_;
  std::unique_ptr<TlsCertificates> certificates_;
};

TEST_F(TlsCertificatesTest, AClientThatTrustsTheCertificateIsAnswered) {
  folder_.Write(first_);
  ServeTls(folder_.paths());
  EXPECT_TRUE(Answered(first_));
  EXPECT_FALSE(Answered(second_, {}, kBriefly));
  EXPECT_TRUE(Answered(first_)) << "who was refused is nobody else's matter";
  EXPECT_EQ(Looked(3), "") << "nothing has changed";
}

TEST_F(TlsCertificatesTest, WithAuthoritiesClientsMustShowACertificate) {
  folder_.Write(first_);
  folder_.Write("ca.crt", second_.certificate);
  TlsPaths paths = folder_.paths();
  paths.authorities = folder_.path("ca.crt");
  ServeTls(paths);
  EXPECT_TRUE(Answered(first_, second_));
  EXPECT_FALSE(Answered(first_, {}, kBriefly));
  EXPECT_FALSE(Answered(first_, TlsIdentity::Make(), kBriefly));
  // Another authority takes its place.
  const TlsIdentity third = TlsIdentity::Make();
  folder_.Write("ca.crt", third.certificate);
  EXPECT_THAT(Looked(2), HasSubstr("event=tls_loaded"));
  EXPECT_TRUE(Answered(first_, third));
  EXPECT_FALSE(Answered(first_, second_, kBriefly));
}

TEST_F(TlsCertificatesTest, ReplacedFilesAreUsedOnceTheyAreWhole) {
  folder_.Write(first_);
  ServeTls(folder_.paths());
  folder_.Write("tls.crt", second_.certificate);
  EXPECT_EQ(Looked(1), "") << "the key may be under way";
  folder_.Write("tls.key", second_.key);
  EXPECT_EQ(Looked(1), "");
  EXPECT_THAT(Looked(1), HasSubstr("level=info event=tls_loaded certificate=" +
                                   folder_.path("tls.crt") + " not_after="));
  EXPECT_TRUE(Answered(second_));
  EXPECT_FALSE(Answered(first_, {}, kBriefly));
}

TEST_F(TlsCertificatesTest, WhatCannotBeUsedIsLoggedOnceAndChangesNothing) {
  folder_.Write(first_);
  ServeTls(folder_.paths());
  folder_.Write("tls.crt", second_.certificate);
  EXPECT_THAT(Looked(2), AllOf(HasSubstr("level=warn event=tls_refused"),
                               HasSubstr("is not that of the certificate in")));
  EXPECT_EQ(Looked(3), "");
  std::filesystem::remove(folder_.path("tls.key"));
  EXPECT_THAT(Looked(2), AllOf(HasSubstr("event=tls_refused"), HasSubstr("cannot open")));
  // Longer than gRPC's watcher takes to see what changes.
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  EXPECT_TRUE(Answered(first_));
  folder_.Write(first_);
  EXPECT_THAT(Looked(2), HasSubstr("event=tls_loaded"));
  EXPECT_TRUE(Answered(first_));
}

TEST_F(TlsCertificatesTest, AReloadUsesFilesAtOnceAndTellsOfWrongOnesAgain) {
  folder_.Write(first_);
  ServeTls(folder_.paths());
  EXPECT_EQ(Reloaded(), "") << "nothing has changed";
  folder_.Write(second_);
  EXPECT_THAT(Reloaded(), HasSubstr("event=tls_loaded"));
  EXPECT_EQ(Reloaded(), "");
  EXPECT_TRUE(Answered(second_));
  folder_.Write("tls.key", first_.key);
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(Reloaded(), HasSubstr("event=tls_refused"));
    EXPECT_EQ(Looked(2), "") << "it was told";
  }
  folder_.Write(second_);
  EXPECT_THAT(Reloaded(), HasSubstr("event=tls_loaded"));
}

TEST_F(TlsCertificatesTest, WhatFindsNoRoomIsTriedAgain) {
  folder_.Write(first_);
  ServeTls(folder_.paths());
  folder_.Write(second_);
  EXPECT_EQ(Looked(1), "");
  rlimit most = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &most), 0);
  // Which holds for files in memory, too.
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit little = {.rlim_cur = 64, .rlim_max = most.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &little), 0);
  certificates_->Look();
  certificates_->Look();
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &most), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_TRUE(Answered(first_));
  EXPECT_THAT(Looked(1), HasSubstr("event=tls_loaded"));
  EXPECT_TRUE(Answered(second_));
}

TEST_F(TlsCertificatesTest, AnExpiredCertificateIsAWarning) {
  folder_.Write(first_);
  ServeTls(folder_.paths());
  folder_.Write(TlsIdentity::Make(-60));
  EXPECT_THAT(Looked(2), HasSubstr("level=warn event=tls_expired"));
  EXPECT_LT(SecondsLeft(), 0);
}

TEST_F(TlsCertificatesTest, AnExpiredCertificateKeepsNoServerFromStarting) {
  folder_.Write(TlsIdentity::Make(-60));
  ::testing::internal::CaptureStderr();
  ServeTls(folder_.paths());
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr("level=warn event=tls_expired certificate=" + folder_.path("tls.crt")));
  EXPECT_LT(SecondsLeft(), 0);
}

TEST_F(TlsCertificatesTest, TheGaugeIsOfTheCertificateInUse) {
  EXPECT_TRUE(std::isnan(not_after_.value()));
  folder_.Write(first_);  // of an hour
  ServeTls(folder_.paths());
  EXPECT_NEAR(SecondsLeft(), 3600, 100);
  const TlsIdentity renewed = TlsIdentity::Make(7200);
  folder_.Write("tls.crt", renewed.certificate);
  Looked(2);
  EXPECT_NEAR(SecondsLeft(), 3600, 100) << "the key is another one's: refused";
  folder_.Write(renewed);
  Looked(2);
  EXPECT_NEAR(SecondsLeft(), 7200, 100);
}

TEST(TlsCertificatesLoadTest, FilesThatCannotBeUsedAreAnError) {
  const TlsFolder folder;
  OptionalGauge not_after;
  const auto missing = TlsCertificates::Load(folder.paths(), not_after);
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  folder.Write(TlsIdentity::Make());
  folder.Write("tls.key", TlsIdentity::Make().key);
  const auto other = TlsCertificates::Load(folder.paths(), not_after);
  EXPECT_EQ(other.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(other.status())), HasSubstr(folder.path("tls.key")));
}

}  // namespace tls_certificates_test
}  // namespace octet

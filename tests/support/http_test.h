// A server in this process that is asked over HTTP.
#pragma once

#include <poll.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "httplib.h"
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <nlohmann/json.hpp>
#include <sys/socket.h>

#include "engine/tensor/status.h"
#include "server/http/http_server.h"
#include "tests/support/rpc_test.h"

namespace octet {

/// A client that says what it likes, when it likes.
class RawClient {
 public:
  /// `buffer`: bytes that the client's system takes unread; 0 = its default.
  explicit RawClient(int port, int buffer = 0) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    if (buffer > 0) setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    const timeval patience = {.tv_sec = 20, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  }
  ~RawClient() { Close(); }
  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }
  /// Says it again and again, until the server takes no more of it for `patience` or closes. True when it has closed.
  bool SayForEver(std::string_view text, int patience_ms) {
    while (true) {
      if (send(fd_, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) continue;
      if (errno != EAGAIN) return true;
      pollfd writable = {.fd = fd_, .events = POLLOUT, .revents = 0};
      if (poll(&writable, 1, patience_ms) == 0) return false;
    }
  }
  void Say(std::string_view text) { (void)Says(text); }
  /// False when the server has cut it off.
  bool Says(std::string_view text) {
    return send(fd_, text.data(), text.size(), MSG_NOSIGNAL) >= 0;
  }
  /// Everything up to `end`, or until the server closes.
  std::string Hear(std::string_view end) {
    std::string heard;
    std::array<char, 4096> chunk;
    while (heard.find(end) == std::string::npos) {
      const ssize_t got = recv(fd_, chunk.data(), chunk.size(), 0);
      if (got <= 0) break;
      heard.append(chunk.data(), static_cast<size_t>(got));
    }
    return heard;
  }
  /// Waits until there is something to hear; false when there is not.
  bool IsAnswered(int patience_ms) {
    pollfd readable = {.fd = fd_, .events = POLLIN, .revents = 0};
    return poll(&readable, 1, patience_ms) == 1;
  }
  /// True when the server has closed in order: nothing was lost.
  bool HearsTheEnd() {
    char more = 0;
    return recv(fd_, &more, 1, 0) == 0;
  }

 private:
  int fd_;
};

class HttpServerTest : public RpcTest {
 protected:
  static constexpr const char* kInfer = "/v2/models/net/infer";
  static constexpr const char* kJson = "application/json";

  void SetUp() override {
    RpcTest::SetUp();
    StartHttp();
  }
  void TearDown() override {
    RpcTest::TearDown();
    http_.reset();
  }
  void StartHttp() {
    http_.reset();
    auto started = HttpServer::Start(
        http_options_, {repository_, dispatcher_, metrics_, gate_, *clock_, Parts().shared_memory});
    ASSERT_TRUE(started.ok()) << started.status();
    http_ = *std::move(started);
    client_ = std::make_unique<httplib::Client>("127.0.0.1", http_->port());
    client_->set_read_timeout(std::chrono::seconds(60));
    client_->set_keep_alive(true);
    client_->set_tcp_nodelay(true);
  }
  /// "200 {...}".
  static std::string Told(const httplib::Result& result) {
    return result ? Format("{} {}", result->status, result->body) : "no answer";
  }
  std::string Get(const std::string& path) { return Told(client_->Get(path)); }
  std::string Post(const std::string& path, const std::string& body,
                   const httplib::Headers& headers = {}) {
    return Told(client_->Post(path, headers, body, "application/json"));
  }
  static std::string RowJson(const std::string& more = "") {
    return R"({"id":"r1",)" + more +
           R"("inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]})";
  }
  static nlohmann::json Parsed(const std::string& told) {
    EXPECT_TRUE(told.starts_with("200 ")) << told;
    return nlohmann::json::parse(told.substr(4), nullptr, false);
  }

  HttpServerOptions http_options_ = {.address = "127.0.0.1",
                                     .max_body_bytes = 100'000,
                                     .threads = 2,
                                     .connections = 8,
                                     .identity = {.name = "octet", .version = "1.2.3"}};
  Clock* clock_ = &Clock::Real();  ///< Of connections.
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<httplib::Client> client_;
};

}  // namespace octet

#include "server/http/http_server.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <new>
#include <ranges>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/synchronization/mutex.h"
#include <nlohmann/json.hpp>
#include <sys/socket.h>

#include "engine/tensor/status.h"
#include "server/http/connection_server.h"
#include "server/http/http_answer.h"
#include "server/http/infer_handler.h"
#include "server/http/json_reader.h"
#include "server/http/json_writer.h"
#include "server/http/page/page.h"
#include "server/http/settings_codec.h"
#include "server/scheduling/retry_after.h"

namespace octet {
namespace {

using httplib::ContentReader;
using httplib::Request;
using httplib::Response;

/// Loads and unloads under way or waiting.
constexpr int kMaxLoads = 4;

/// True when a path is of a pattern's form, where ":name" stands for any text without a slash, as for the library. (Which would
/// match a pattern without names by std::regex, whose recursion a long path drives through the stack's end.)
bool HasForm(std::string_view path, std::string_view pattern) {
  return std::ranges::equal(
      std::views::split(path, '/'), std::views::split(pattern, '/'), [](auto part, auto form) {
        const std::string_view expected(form);
        return expected.starts_with(':') || std::string_view(part) == expected;
      });
}

/// Lets a restarted server have its port back at once. Not SO_REUSEPORT, which the library would
/// set: two servers on one port would share the requests, and nobody would be told.
void SetSocketOptions(int socket) {
  const int on = 1;
  (void)setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
}

/// The path's parameter; "" when its pattern has none.
std::string PathParameter(const Request& request, const char* name) {
  const auto found = request.path_params.find(name);
  return found == request.path_params.end() ? std::string() : found->second;
}

/// A message that names a model.
template <typename T>
T ModelRequest(const Request& request) {
  T message;
  message.set_name(PathParameter(request, "model"));
  message.set_version(PathParameter(request, "version"));
  return message;
}

void AnswerUnknown(const Request& request, Response& response) {
  AnswerError(404, Format("no such resource: {} {}", request.method, request.path), response);
}

void AnswerMessage(const google::protobuf::Message& message, Response& response) {
  std::string json;
  AppendJsonMessage(message, json);
  AnswerJson(std::move(json), response);
}

/// The parameters of a load or unload: their names decide, so their values are only passed over.
template <typename T>
absl::Status ReadRepositoryCall(std::string_view body, T& message) {
  return ReadObject(body, [&](JsonReader& json, const std::string& key) {
    if (key != "parameters") return json.Skip().status();
    return json.Object([&](const std::string& name) -> absl::Status {
      OCTET_ASSIGN_OR_RETURN(const std::string_view value, json.Skip());
      (*message.mutable_parameters())[name].set_string_param(std::string(value));
      return absl::OkStatus();
    });
  });
}

/// A body that says nothing.
template <typename T>
absl::Status PassOver(std::string_view, T&) {
  return absl::OkStatus();
}

absl::Status ReadRegisterCall(std::string_view body,
                              inference::SystemSharedMemoryRegisterRequest& message) {
  return ReadObject(body, [&](JsonReader& json, const std::string& key) -> absl::Status {
    if (key == "key") return json.Text(*message.mutable_key());
    if (key != "offset" && key != "byte_size") return json.Skip().status();
    OCTET_ASSIGN_OR_RETURN(const std::string_view number, json.Number());
    const absl::StatusOr<uint64_t> value = ConvertNumber<uint64_t>(number);
    if (!value.ok()) return Annotate(value.status(), key);
    if (key == "offset") {
      message.set_offset(*value);
    } else {
      message.set_byte_size(*value);
    }
    return absl::OkStatus();
  });
}

absl::Status ReadIndexCall(std::string_view body, inference::RepositoryIndexRequest& message) {
  return ReadObject(body, [&](JsonReader& json, const std::string& key) -> absl::Status {
    if (key == "repository_name") return json.Text(*message.mutable_repository_name());
    if (key != "ready") return json.Skip().status();
    OCTET_ASSIGN_OR_RETURN(const bool ready, json.Truth());
    message.set_ready(ready);
    return absl::OkStatus();
  });
}

class HttpEndpoint final : public HttpServer {
 public:
  HttpEndpoint(const HttpServerOptions& options, const ServingParts& parts)
      : options_(options),
        parts_(parts),
        calls_(options.identity, parts_),
        server_({.threads = static_cast<size_t>(options.threads),
                 .connections = static_cast<size_t>(options.connections)},
                parts.gate, parts.clock) {
    server_.set_socket_options(SetSocketOptions);
    server_.set_tcp_nodelay(true);
    server_.set_keep_alive_timeout(ConnectionServer::kIdleTime.count());
    server_.set_payload_max_length(static_cast<size_t>(options.max_body_bytes));
    RefuseEarly();
    AddHealth();
    AddModels();
    AddRepository();
    AddSharedMemory();
    AddSettings();
    AddExperiments();
    AddPage();
    AddRest();
  }
  ~HttpEndpoint() override { server_.Stop(parts_.clock.Now() + kLastAnswers); }
  bool Stop(TimePoint deadline) override { return server_.Stop(deadline); }

  absl::Status Listen();
  int port() const override { return port_; }

 private:
  using PostHandler = std::function<void(const Request&, Response&, const std::string& body)>;

  /// Refuses other methods than those here and POSTs to nobody: their bodies would be read before they are looked at. And paths
  /// with an empty name.
  void RefuseEarly();
  void AddHealth();
  void AddModels();
  void AddRepository();
  void AddSharedMemory();
  template <typename Ask, typename Reply>
  void AddRegionStatus(const std::string& pattern);
  template <typename Ask, typename Reply>
  void AddRegionChange(const std::string& pattern,
                       absl::Status (*read)(std::string_view body, Ask& ask));
  /// Of the log and of traces.
  void AddSettings();
  void AddExperiments();
  void AddPage();
  /// What is nobody's, and what went wrong.
  void AddRest();
  /// Answers a POST whose body it reads itself. Every POST comes in by this.
  void AddReader(const std::string& pattern, httplib::Server::HandlerWithContentReader handler);
  /// Answers a POST with a small body.
  void AddPost(const std::string& pattern, PostHandler handler);

  /// Makes the call and hands its answer on.
  template <typename Reply, typename Ask>
  void Call(const Ask& ask, Response& response,
            absl::FunctionRef<void(const Reply&, Response&)> answer = AnswerMessage) {
    Reply reply;
    const absl::Status status = calls_.Call(ask, reply);
    if (!status.ok()) return AnswerError(status, response);
    answer(reply, response);
  }
  void AnswerReady(const Request& request, Response& response);

  /// The same for calls that take seconds, one after the other. They leave threads to inferences: what finds kMaxLoads,
  /// or all threads but one, at it is refused; whose client has gone meanwhile, or whose server stops, is not begun.
  template <typename Reply, typename Ask>
  void CallWhenFirst(const Ask& ask, Response& response) {
    const int most = std::clamp(options_.threads - 1, 1, kMaxLoads);
    const absl::Cleanup leave = [this] { --loads_; };
    if (++loads_ > most) {
      return AnswerError(MakeError(absl::StatusCode::kResourceExhausted,
                                   "{} loads and unloads are under way or wait already", most),
                         response);
    }
    absl::MutexLock lock(&loading_);
    // It may have waited for long. A server that stops reads no more of its clients: they all seem to have gone.
    if (parts_.gate.closed()) return AnswerError(ShuttingDown(), response);
    if (ConnectionServer::current().gone()) {
      return AnswerError(absl::CancelledError("the client has gone"), response);
    }
    Call<Reply>(ask, response);
  }

  const HttpServerOptions options_;
  const ServingParts parts_;
  ProtocolCalls calls_;
  ConnectionServer server_;
  std::vector<std::string> posts_;  ///< The patterns of POSTs.
  int port_ = 0;
  std::atomic<int> loads_{0};  ///< Under way or waiting.
  absl::Mutex loading_;
};

void HttpEndpoint::RefuseEarly() {
  using Handled = httplib::Server::HandlerResponse;
  server_.set_pre_routing_handler([this](const Request& request, Response& response) {
    const bool reads = request.method == "GET" || request.method == "HEAD";
    // The library takes nothing between two slashes for a name; to the calls it would be all models, or all regions.
    const bool nameless = request.path.find("//") != std::string::npos;
    if (reads && !nameless) return Handled::Unhandled;
    if (!reads && request.method != "POST") {
      AnswerError(405, Format("the method is none of this server's: {}", request.method), response);
      response.set_header("Allow", "GET, HEAD, POST");
      return Handled::Handled;
    }
    const bool known = !nameless && std::ranges::any_of(posts_, [&](const std::string& pattern) {
      return HasForm(request.path, pattern);
    });
    if (known) return Handled::Unhandled;
    AnswerUnknown(request, response);
    if (ConnectionServer::BodyIsUnread()) response.set_header("Connection", "close");
    return Handled::Handled;
  });
  server_.set_expect_100_continue_handler([this](const Request& request, Response& response) {
    const auto most = static_cast<uint64_t>(options_.max_body_bytes);
    if (request.get_header_value_u64("Content-Length") <= most) return 100;
    if (request.path.ends_with("/infer")) CountUnread(parts_.metrics, 413);
    AnswerError(413, Format("the body is too large: at most {} bytes", most), response);
    return 413;
  });
}

void HttpEndpoint::AddHealth() {
  server_.Get("/v2/health/live", [this](const Request&, Response& response) {
    Call<inference::ServerLiveResponse>(inference::ServerLiveRequest(), response);
  });
  server_.Get("/v2/health/ready", [this](const Request&, Response& response) {
    Call<inference::ServerReadyResponse>(
        inference::ServerReadyRequest(), response,
        [](const inference::ServerReadyResponse& reply, Response& out) {
          AnswerMessage(reply, out);
          out.status = reply.ready() ? 200 : 503;
        });
  });
  server_.Get("/v2", [this](const Request&, Response& response) {
    Call<inference::ServerMetadataResponse>(inference::ServerMetadataRequest(), response);
  });
}

void HttpEndpoint::AnswerReady(const Request& request, Response& response) {
  const std::string model = PathParameter(request, "model");
  const absl::Status found = calls_.Find(model, PathParameter(request, "version")).status();
  if (!found.ok()) return AnswerError(found, response);
  Call<inference::ModelReadyResponse>(
      ModelRequest<inference::ModelReadyRequest>(request), response,
      [&](const inference::ModelReadyResponse& reply, Response& out) {
        std::string json = "{\"name\":";
        AppendJsonText(model, json);
        json += Format(",\"ready\":{}}}", reply.ready());
        AnswerJson(std::move(json), out, reply.ready() ? 200 : 503);
      });
}

void HttpEndpoint::AddModels() {
  server_.Get("/v2/models/stats", [this](const Request&, Response& response) {
    Call<inference::ModelStatisticsResponse>(inference::ModelStatisticsRequest(), response);
  });
  for (const std::string base : {"/v2/models/:model", "/v2/models/:model/versions/:version"}) {
    server_.Get(base, [this](const Request& request, Response& response) {
      Call<inference::ModelMetadataResponse>(ModelRequest<inference::ModelMetadataRequest>(request),
                                             response);
    });
    server_.Get(base + "/ready", [this](const Request& request, Response& response) {
      AnswerReady(request, response);
    });
    server_.Get(base + "/config", [this](const Request& request, Response& response) {
      Call<inference::ModelConfigResponse>(
          ModelRequest<inference::ModelConfigRequest>(request), response,
          [](const inference::ModelConfigResponse& reply, Response& out) {
            AnswerMessage(reply.config(), out);
          });
    });
    server_.Get(base + "/stats", [this](const Request& request, Response& response) {
      Call<inference::ModelStatisticsResponse>(
          ModelRequest<inference::ModelStatisticsRequest>(request), response);
    });
    AddReader(base + "/infer", [this](const Request& request, Response& response,
                                      const ContentReader& reader) {
      AnswerInference(parts_, options_.access_log, static_cast<size_t>(options_.max_body_bytes),
                      request, response, reader);
    });
  }
}

void HttpEndpoint::AddReader(const std::string& pattern,
                             httplib::Server::HandlerWithContentReader handler) {
  posts_.push_back(pattern);
  server_.Post(pattern, std::move(handler));
}

void HttpEndpoint::AddPost(const std::string& pattern, PostHandler handler) {
  AddReader(pattern, [handler = std::move(handler)](const Request& request, Response& response,
                                                    const ContentReader& reader) {
    const std::optional<std::string> body = ReadBody(request, response, reader, kMaxControlBytes);
    if (body) handler(request, response, *body);
  });
}

void HttpEndpoint::AddRepository() {
  AddPost("/v2/repository/index",
          [this](const Request&, Response& response, const std::string& body) {
            inference::RepositoryIndexRequest ask;
            const absl::Status read = ReadIndexCall(body, ask);
            if (!read.ok()) return AnswerError(read, response);
            Call<inference::RepositoryIndexResponse>(
                ask, response, [](const inference::RepositoryIndexResponse& reply, Response& out) {
                  std::string json;
                  AppendJsonArray(reply, "models", json);
                  AnswerJson(std::move(json), out);
                });
          });
  const auto add = [this]<typename Ask, typename Reply>(const char* verb, Ask*, Reply*) {
    AddPost(Format("/v2/repository/models/:model/{}", verb),
            [this](const Request& request, Response& response, const std::string& body) {
              Ask ask;
              ask.set_model_name(PathParameter(request, "model"));
              const absl::Status read = ReadRepositoryCall(body, ask);
              if (!read.ok()) return AnswerError(read, response);
              if (parts_.gate.closed()) {
                return AnswerError(ShuttingDown(), response);
              }
              CallWhenFirst<Reply>(ask, response);
            });
  };
  add("load", static_cast<inference::RepositoryModelLoadRequest*>(nullptr),
      static_cast<inference::RepositoryModelLoadResponse*>(nullptr));
  add("unload", static_cast<inference::RepositoryModelUnloadRequest*>(nullptr),
      static_cast<inference::RepositoryModelUnloadResponse*>(nullptr));
}

template <typename Ask, typename Reply>
void HttpEndpoint::AddRegionStatus(const std::string& pattern) {
  server_.Get(pattern, [this](const Request& request, Response& response) {
    Ask ask;
    ask.set_name(PathParameter(request, "region"));
    Call<Reply>(ask, response, [](const Reply& reply, Response& out) {
      std::string json = "[";
      for (const auto& [name, region] : reply.regions()) {
        if (json.size() > 1) json += ',';
        AppendJsonMessage(region, json);
      }
      AnswerJson(json + "]", out);
    });
  });
}

template <typename Ask, typename Reply>
void HttpEndpoint::AddRegionChange(const std::string& pattern,
                                   absl::Status (*read)(std::string_view body, Ask& ask)) {
  AddPost(pattern,
          [this, read](const Request& request, Response& response, const std::string& body) {
            Ask ask;
            ask.set_name(PathParameter(request, "region"));
            const absl::Status status = read(body, ask);
            if (!status.ok()) return AnswerError(status, response);
            Call<Reply>(ask, response);
          });
}

void HttpEndpoint::AddSharedMemory() {
  for (const std::string region : {"", "/region/:region"}) {
    const std::string system = "/v2/systemsharedmemory" + region;
    const std::string cuda = "/v2/cudasharedmemory" + region;
    AddRegionStatus<inference::SystemSharedMemoryStatusRequest,
                    inference::SystemSharedMemoryStatusResponse>(system + "/status");
    AddRegionStatus<inference::CudaSharedMemoryStatusRequest,
                    inference::CudaSharedMemoryStatusResponse>(cuda + "/status");
    AddRegionChange<inference::SystemSharedMemoryUnregisterRequest,
                    inference::SystemSharedMemoryUnregisterResponse>(system + "/unregister",
                                                                     PassOver);
    AddRegionChange<inference::CudaSharedMemoryUnregisterRequest,
                    inference::CudaSharedMemoryUnregisterResponse>(cuda + "/unregister", PassOver);
  }
  AddRegionChange<inference::SystemSharedMemoryRegisterRequest,
                  inference::SystemSharedMemoryRegisterResponse>(
      "/v2/systemsharedmemory/region/:region/register", ReadRegisterCall);
  AddRegionChange<inference::CudaSharedMemoryRegisterRequest,
                  inference::CudaSharedMemoryRegisterResponse>(
      "/v2/cudasharedmemory/region/:region/register", PassOver);
}

void HttpEndpoint::AddSettings() {
  const auto log = [this](const Request&, Response& response, const std::string& body) {
    inference::LogSettingsRequest ask;
    const absl::Status read = ReadLogSettings(body, ask);
    if (!read.ok()) return AnswerError(read, response);
    Call<inference::LogSettingsResponse>(
        ask, response, [](const inference::LogSettingsResponse& reply, Response& out) {
          AnswerJson(LogSettingsJson(reply), out);
        });
  };
  const auto trace = [this](const Request& request, Response& response, const std::string& body) {
    inference::TraceSettingRequest ask;
    ask.set_model_name(PathParameter(request, "model"));
    const absl::Status read = ReadTraceSettings(body, ask);
    if (!read.ok()) return AnswerError(read, response);
    Call<inference::TraceSettingResponse>(
        ask, response, [](const inference::TraceSettingResponse& reply, Response& out) {
          AnswerJson(TraceSettingsJson(reply), out);
        });
  };
  const auto add = [this](const std::string& path, const PostHandler& handler) {
    server_.Get(path, [handler](const Request& request, Response& response) {
      handler(request, response, "");
    });
    AddPost(path, handler);
  };
  add("/v2/logging", log);
  add("/v2/trace/setting", trace);
  add("/v2/models/:model/trace/setting", trace);
}

void HttpEndpoint::AddExperiments() {
  const auto answer = [](const absl::StatusOr<nlohmann::ordered_json>& json, Response& response) {
    if (!json.ok()) return AnswerError(json.status(), response);
    AnswerJson(json->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), response);
  };
  server_.Get("/v2/experiments", [this, answer](const Request&, Response& response) {
    // Before the first model is there, too, there are none.
    answer(DescribeExperiments(parts_.repository, options_.process, ""), response);
  });
  server_.Get("/v2/models/:model/experiments",
              [this, answer](const Request& request, Response& response) {
                answer(DescribeExperiments(parts_.repository, options_.process,
                                           PathParameter(request, "model")),
                       response);
              });
  for (const std::string base : {"/v2/models/:model", "/v2/models/:model/versions/:version"}) {
    server_.Get(base + "/certificates", [this, answer](const Request& request, Response& response) {
      answer(DescribeCertificates(parts_.repository, PathParameter(request, "model"),
                                  PathParameter(request, "version")),
             response);
    });
  }
}

void HttpEndpoint::AddPage() {
  const auto add = [this](const char* path, std::string_view text, const char* type) {
    server_.Get(path, [text, type](const Request&, Response& response) {
      // Nothing of another server, and nobody's frame.
      response.set_header(
          "Content-Security-Policy",
          "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src "
          "'unsafe-inline'; img-src data:; connect-src 'self'; frame-ancestors 'none'");
      response.set_header("X-Content-Type-Options", "nosniff");
      response.set_content(text.data(), text.size(), type);
    });
  };
  add("/", kStatusPage, "text/html; charset=utf-8");
  add("/chart.js", kChartJs, "text/javascript; charset=utf-8");
}

void HttpEndpoint::AddRest() {
  server_.set_error_handler([](const Request& request, Response& response) {
    // Called for every status of 400 and above, those with an answer included.
    if (!response.body.empty()) return;
    if (response.status == 404) return AnswerUnknown(request, response);
    AnswerError(response.status, httplib::status_message(response.status), response);
  });
  server_.set_exception_handler(
      [](const Request&, Response& response, const std::exception_ptr& exception) {
        try {
          std::rethrow_exception(exception);
        } catch (const std::bad_alloc&) {
          AnswerError(absl::ResourceExhaustedError("out of memory for a request"), response);
        } catch (const std::exception& e) {
          AnswerError(absl::InternalError(e.what()), response);
        }
      });
}

absl::Status HttpEndpoint::Listen() {
  const std::string& address = options_.address;
  errno = 0;
  port_ = options_.port == 0 ? server_.bind_to_any_port(address)
                             : (server_.bind_to_port(address, options_.port) ? options_.port : -1);
  if (port_ <= 0) {
    const std::string reason =
        errno == 0 ? "unknown reason" : std::generic_category().message(errno);
    return MakeError(absl::StatusCode::kUnavailable, "cannot serve HTTP ({}): {}:{}", reason,
                     address, options_.port);
  }
  server_.Run();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpServerOptions& options,
                                                              ServingParts parts) {
  auto server = std::make_unique<HttpEndpoint>(options, parts);
  OCTET_RETURN_IF_ERROR(server->Listen());
  return server;
}

}  // namespace octet

// octet top: what a running server does, once a second.
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "cli/finite_range.h"
#include "cli/model_options.h"
#include "cli/server_client.h"
#include "cli/top_screen.h"
#include "cli/verb.h"
#include <nlohmann/json.hpp>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

struct TopOptions {
  std::string server;
  double seconds = 1;
  int64_t count = 0;
};

/// What the screen shows: of one look, or of why there is none.
class Watch {
 public:
  explicit Watch(ServerClient server)
      : server_(std::move(server)),
        screen_([this](const std::string& model, const std::string& version) {
          const auto answer = server_.Get(Format("/v2/models/{}/versions/{}/certificates",
                                                 UrlSegment(model), UrlSegment(version)));
          return answer.ok() ? *answer : nlohmann::json();
        }) {}

  absl::StatusOr<std::string> Look() {
    const auto now = std::chrono::steady_clock::now();
    OCTET_ASSIGN_OR_RETURN(const nlohmann::json answer, server_.Get("/v2/experiments"));
    const double passed = before_ ? std::chrono::duration<double>(now - *before_).count() : 0;
    auto text = ShowAnswer("/v2/experiments", [&] { return screen_.Draw(answer, passed); });
    if (text.ok()) before_ = now;
    return text;
  }

 private:
  const ServerClient server_;
  TopScreen screen_;
  std::optional<std::chrono::steady_clock::time_point>
      before_;  ///< The last look that was answered.
};

absl::Status Top(const TopOptions& options) {
  OCTET_ASSIGN_OR_RETURN(ServerClient server, ServerClient::For(options.server));
  const auto interval = std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      std::chrono::duration<double>(options.seconds));
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  Watch watch(std::move(server));
  absl::Status last;
  for (int64_t look = 0; options.count == 0 || look < options.count; ++look) {
    const auto now = std::chrono::steady_clock::now();
    const absl::StatusOr<std::string> text = watch.Look();
    last = text.status();
    if (!last.ok() && look == 0) return last;  // an address that nobody answers at
    // Home, and clear: what was longer before would stay.
    std::cout << (terminal ? "\x1b[H\x1b[2J" : "")
              << (last.ok() ? *text : Format("no answer: {}\n", Message(last))) << std::flush;
    if (!std::cout) break;  // whoever read it has gone
    if (look + 1 != options.count) std::this_thread::sleep_until(now + interval);
  }
  return last;
}

}  // namespace

void AddTop(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<TopOptions>();
  CLI::App* verb =
      app.add_subcommand("top", "Watch a running server: rates, latency and guards by precision");
  verb->add_option("--server", options->server, "host:port of the HTTP endpoint")->required();
  verb->add_option("--seconds", options->seconds, "Between two looks")
      ->check(FiniteRange(0.1, 3600.0))
      ->capture_default_str();
  verb->add_option("--count", options->count, "Looks; 0 = until Ctrl-C")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->callback([options, &outcome] {
    if (const absl::Status status = Top(*options); !status.ok()) outcome.exit_code = Fail(status);
  });
}

}  // namespace octet::cli

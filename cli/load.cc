// octet load: closed-loop load on a server, as many requests under way as asked for.
#include <chrono>
#include <iostream>
#include <map>
#include <memory>

#include "cli/closed_loop.h"
#include "cli/latencies.h"
#include "cli/load_requests.h"
#include "cli/model_options.h"
#include "cli/progress.h"
#include "cli/verb.h"
#include <grpcpp/grpcpp.h>
#include <nlohmann/json.hpp>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct LoadVerbOptions {
  std::string target;
  RequestSource source;
  std::vector<int> concurrency = {1};
  double seconds = 5;
  bool json = false;
};

// What one slot, or all of them, have seen.
struct Counts {
  Latencies latencies;
  std::map<std::string, Latencies> by_precision;
  std::map<std::string, int64_t> errors;  ///< By gRPC code and message.

  void Merge(const Counts& other) {
    latencies.Merge(other.latencies);
    for (const auto& [name, values] : other.by_precision) by_precision[name].Merge(values);
    for (const auto& [name, count] : other.errors) errors[name] += count;
  }
};

// Sends the requests in turn until the time is over.
class LoadSlot final : public LoopSlot {
 public:
  LoadSlot(InferStub& stub, const std::vector<inference::ModelInferRequest>& requests, size_t first,
           Clock::time_point until)
      : stub_(stub), requests_(requests), next_(first), until_(until) {}

  Call Next() override {
    if (Clock::now() >= until_) return {};
    return {&stub_, &requests_[next_++ % requests_.size()]};
  }

  void Answered(const grpc::Status& status, inference::ModelInferResponse& response,
                std::chrono::nanoseconds latency) override {
    if (!status.ok()) {
      ++counts_.errors[Format("{}: {}", static_cast<int>(status.error_code()),
                              status.error_message())];
      return;
    }
    counts_.latencies.Add(latency);
    const auto precision = response.parameters().find("precision");
    if (precision != response.parameters().end()) {
      counts_.by_precision[precision->second.string_param()].Add(latency);
    }
  }

  const Counts& counts() const { return counts_; }

 private:
  InferStub& stub_;
  const std::vector<inference::ModelInferRequest>& requests_;
  size_t next_;
  const Clock::time_point until_;
  Counts counts_;
};

struct Run {
  int concurrency;
  double seconds;
  Counts counts;
};

Run RunLoad(InferStub& stub, const std::vector<inference::ModelInferRequest>& requests,
            int concurrency, double seconds) {
  const auto started = Clock::now();
  const auto until =
      started + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  std::vector<std::unique_ptr<LoadSlot>> slots;
  std::vector<LoopSlot*> running;
  for (int i = 0; i < concurrency; ++i) {
    slots.push_back(std::make_unique<LoadSlot>(stub, requests, static_cast<size_t>(i), until));
    running.push_back(slots.back().get());
  }
  RunClosedLoop(running);
  Run run{concurrency, std::chrono::duration<double>(Clock::now() - started).count(), {}};
  for (const auto& slot : slots) run.counts.Merge(slot->counts());
  return run;
}

nlohmann::ordered_json ToJson(Run& run) {
  Counts& counts = run.counts;
  nlohmann::ordered_json by_precision = nlohmann::json::object();
  for (auto& [name, latencies] : counts.by_precision) {
    by_precision[name] = {{"count", latencies.count()},
                          {"p50_us", latencies.MicrosecondsAt(50)},
                          {"p99_us", latencies.MicrosecondsAt(99)}};
  }
  int64_t errors = 0;
  for (const auto& [unused, count] : counts.errors) errors += count;
  return {{"concurrency", run.concurrency},
          {"throughput", static_cast<double>(counts.latencies.count()) / run.seconds},
          {"p50_us", counts.latencies.MicrosecondsAt(50)},
          {"p99_us", counts.latencies.MicrosecondsAt(99)},
          {"errors", errors},
          {"errors_by_code", counts.errors},
          {"by_precision", std::move(by_precision)}};
}

absl::Status Load(const LoadVerbOptions& options) {
  const std::unique_ptr<InferStub> stub = Connect(options.target);
  OCTET_ASSIGN_OR_RETURN(const auto requests, MakeRequests(*stub, options.source));

  nlohmann::ordered_json rows = nlohmann::json::array();
  ProgressBar progress("loading", static_cast<int64_t>(options.concurrency.size()));
  for (const int concurrency : options.concurrency) {
    Run run = RunLoad(*stub, requests, concurrency, options.seconds);
    rows.push_back(ToJson(run));
    progress.Update(static_cast<int64_t>(rows.size()));
  }
  if (options.json) {
    std::cout << rows.dump(2) << '\n';
    return absl::OkStatus();
  }
  std::cout << Format("{:>11} {:>12} {:>10} {:>10} {:>7}\n", "concurrency", "requests/s", "p50 us",
                      "p99 us", "errors");
  for (const auto& row : rows) {
    std::cout << Format("{:>11} {:>12.1f} {:>10.0f} {:>10.0f} {:>7}\n",
                        row["concurrency"].get<int>(), row["throughput"].get<double>(),
                        row["p50_us"].get<double>(), row["p99_us"].get<double>(),
                        row["errors"].get<int64_t>());
    for (const auto& [error, count] : row["errors_by_code"].items()) {
      std::cout << Format("            {} x {}\n", count.get<int64_t>(), error);
    }
  }
  return absl::OkStatus();
}

}  // namespace

void AddLoad(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<LoadVerbOptions>();
  CLI::App* verb = app.add_subcommand("load", "Put load on a server and measure it");
  verb->add_option("--target", options->target, "host:port of the gRPC endpoint")->required();
  verb->add_option("--model", options->source.model, "Model to ask")->required();
  verb->add_option("--model-version", options->source.version,
                   "Version to ask; default the highest ready one");
  verb->add_option("--precision", options->source.precision,
                   "Precision to ask for; default what the server chooses");
  verb->add_option("--data", options->source.data, ".npz with samples; default random elements");
  verb->add_option("--map", options->source.map,
                   "model.yaml: convert samples to the model's own element type before sending; "
                   "default as stored");
  verb->add_option("--rows", options->source.rows, "Samples per request")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--concurrency", options->concurrency, "Requests under way, one run each")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--seconds", options->seconds, "Length of each run")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
  verb->add_flag("--json", options->json, "Print JSON");
  verb->callback([options, &outcome] {
    if (const absl::Status status = Load(*options); !status.ok()) outcome.exit_code = Fail(status);
  });
}

}  // namespace octet::cli

// octet load: puts load on a server, and says what it did to it.
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>

#include "cli/closed_loop.h"
#include "cli/finite_range.h"
#include "cli/interrupt.h"
#include "cli/json_text.h"
#include "cli/load/load_driver.h"
#include "cli/load/load_report.h"
#include "cli/load/rate_plan.h"
#include "cli/load_requests.h"
#include "cli/model_options.h"
#include "cli/output_file.h"
#include "cli/tls_options.h"
#include "cli/verb.h"
#include <grpcpp/grpcpp.h>

#include "engine/tensor/pending_file.h"
#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

struct LoadVerbOptions {
  std::vector<std::string> models;
  RequestSource
      source;  // Its model, and its precision for models that name none, are filled in for each.
  LoadSettings settings;  // But for the credentials, which `tls` makes.
  TlsOptions tls;
  std::vector<int> concurrency = {1};
  std::vector<std::string> rates;
  int max_in_flight = 1024;
  double timeout_seconds = 60;
  std::string json;
  std::string svg;
};

using Credentials = std::shared_ptr<grpc::ChannelCredentials>;

absl::StatusOr<std::vector<LoadStream>> PrepareStreams(const LoadVerbOptions& options,
                                                       const Credentials& credentials) {
  std::vector<LoadStream> streams;
  for (const std::string& text : options.models) {
    OCTET_ASSIGN_OR_RETURN(LoadTarget target, LoadTarget::Parse(text));
    if (target.precision.empty()) target.precision = options.source.precision;
    streams.push_back({.target = std::move(target)});
  }
  const bool one_model = std::ranges::all_of(streams, [&](const LoadStream& stream) {
    return stream.target.model == streams[0].target.model;
  });
  const RequestSource& given = options.source;
  if (!one_model && !(given.data.empty() && given.map.empty() && given.version.empty()))
    return InvalidArgument("--data, --map and --model-version are of one model, got {} of them",
                           streams.size());
  const std::unique_ptr<InferStub> stub = Connect(options.settings.target, credentials);
  for (LoadStream& stream : streams) {
    RequestSource source = options.source;
    source.model = stream.target.model;
    source.precision = stream.target.precision;
    OCTET_ASSIGN_OR_RETURN(const auto requests, MakeRequests(*stub, source));
    for (const inference::ModelInferRequest& request : requests) {
      bool own = false;
      const grpc::Status status =
          grpc::SerializationTraits<inference::ModelInferRequest>::Serialize(
              request, &stream.requests.emplace_back(), &own);
      OCTET_RETURN_IF_ERROR(FromGrpc(status));
    }
  }
  return streams;
}

absl::StatusOr<std::vector<LoadRun>> PlanRuns(const LoadVerbOptions& options,
                                              const Credentials& credentials) {
  std::vector<LoadRun> runs;
  LoadSettings settings = options.settings;
  settings.credentials = credentials;
  settings.timeout = std::chrono::milliseconds(std::llround(options.timeout_seconds * 1e3));
  for (const std::string& rate : options.rates) {
    OCTET_ASSIGN_OR_RETURN(settings.plan, RatePlan::Parse(rate, settings.seconds));
    settings.in_flight = options.max_in_flight;
    runs.push_back({settings, {}});
  }
  if (!runs.empty()) return runs;
  for (const int concurrency : options.concurrency) {
    settings.in_flight = concurrency;
    runs.push_back({settings, {}});
  }
  return runs;
}

/// Draws one line anew at each look, for a terminal.
void DrawLook(size_t run, size_t runs, const LoadProgress& look) {
  std::fprintf(stderr,
               "\r\x1b[Krun %zu of %zu, %.1f s: %lld answered, %lld under way, %lld errors; p50 "
               "%.0f us, p99 %.0f us ",
               run, runs, look.seconds, static_cast<long long>(look.finished),
               static_cast<long long>(look.sent - look.finished),
               static_cast<long long>(look.failed), look.recent.MicrosecondsAt(50),
               look.recent.MicrosecondsAt(99));
  std::fflush(stderr);
}

/// Before the runs, not after them.
absl::Status CheckOutputs(const LoadVerbOptions& options) {
  std::vector<std::string> others = {options.source.data, options.source.map};
  if (!options.json.empty() && options.json != "-") {
    OCTET_RETURN_IF_ERROR(CheckOutputFile(options.json, others));
    others.push_back(options.json);
  }
  return options.svg.empty() ? absl::OkStatus() : CheckOutputFile(options.svg, others);
}

absl::Status Report(const LoadVerbOptions& options, const std::vector<LoadRun>& runs,
                    const std::vector<LoadStream>& streams) {
  if (!options.svg.empty())
    OCTET_RETURN_IF_ERROR(WriteWholeFile(options.svg, LoadAsPlot(runs, streams)));
  nlohmann::ordered_json rows = nlohmann::json::array();
  for (const LoadRun& run : runs) rows.push_back(LoadAsJson(run, streams));
  const std::string json = JsonText(rows) + "\n";
  if (options.json == "-") {
    std::cout << json;
    return absl::OkStatus();
  }
  if (!options.json.empty()) OCTET_RETURN_IF_ERROR(WriteWholeFile(options.json, json));
  std::cout << LoadAsTable(runs, streams);
  return absl::OkStatus();
}

/// A run without an answer has measured nothing: its figures are zeros.
absl::Status CheckAnswered(const std::vector<LoadRun>& runs) {
  for (size_t i = 0; i < runs.size(); ++i) {
    const LoadTally& tally = runs[i].tally;
    if (tally.errors.empty() || tally.All().count() > 0) continue;
    const auto& [error, count] = tally.errors.most();
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     "run {} of {}: none of {} requests was answered, {} of them with {}", i + 1,
                     runs.size(), tally.errors.total(), count, error);
  }
  return absl::OkStatus();
}

absl::Status Load(const LoadVerbOptions& options) {
  // Answers are freed to be allocated again: glibc would give their pages back to the system in between, which costs a client
  // of large tensors more than all the rest.
  mallopt(M_MMAP_THRESHOLD, 16 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
  OCTET_RETURN_IF_ERROR(CheckOutputs(options));
  OCTET_ASSIGN_OR_RETURN(const Credentials credentials, options.tls.Credentials());
  OCTET_ASSIGN_OR_RETURN(std::vector<LoadRun> runs, PlanRuns(options, credentials));
  OCTET_ASSIGN_OR_RETURN(const std::vector<LoadStream> streams,
                         PrepareStreams(options, credentials));
  const bool terminal = isatty(STDERR_FILENO) == 1;
  StopOnInterrupt();
  absl::Status status;
  for (size_t i = 0; i < runs.size(); ++i) {
    std::function<void(const LoadProgress&)> look;
    if (terminal) look = [&](const LoadProgress& now) { DrawLook(i + 1, runs.size(), now); };
    auto tally = RunLoad(streams, runs[i].settings, look, [] { return !Interrupted(); });
    if (!tally.ok()) {  // Those before it are worth what they were.
      status = Annotate(tally.status(), Format("run {} of {}", i + 1, runs.size()));
      runs.resize(i);
      break;
    }
    runs[i].tally = *std::move(tally);
  }
  if (terminal) std::fputs("\r\x1b[K", stderr);
  if (!runs.empty()) status.Update(Report(options, runs, streams));
  status.Update(CheckAnswered(runs));
  return status;
}

void AddRequestOptions(CLI::App& verb, LoadVerbOptions& options) {
  verb.add_option("--model", options.models,
                  "Model to ask, NAME[@PRECISION][=WEIGHT]; several share the requests by weight")
      ->required()
      ->allow_extra_args(false);
  verb.add_option("--model-version", options.source.version,
                  "Version to ask; default what the server chooses");
  verb.add_option("--precision", options.source.precision,
                  "Precision to ask models for that name none; default what the server chooses");
  CLI::Option* data = verb.add_option("--data", options.source.data,
                                      "Samples: an .npz or .npy file, or a folder of them; default "
                                      "random elements: reals of 0 to 1, any bytes, 0 or 1 of "
                                      "other integers");
  verb.add_option("--map", options.source.map,
                  "model.yaml: convert samples to the model's own element type before sending; "
                  "default as stored")
      ->needs(data);
  verb.add_option("--rows", options.source.rows, "Samples per request")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

void AddLoopOptions(CLI::App& verb, LoadVerbOptions& options) {
  CLI::Option* concurrency = verb.add_option("--concurrency", options.concurrency,
                                             "Closed loop: requests under way, one run each")
                                 ->delimiter(',')
                                 ->check(CLI::Range(1, 100000))
                                 ->capture_default_str();
  CLI::Option* rate =
      verb.add_option(
              "--rate", options.rates,
              "Open loop: requests per second, one run each; R, or a ramp FROM:TO[:SECONDS]")
          ->delimiter(',')
          ->excludes(concurrency);
  verb.add_option_function<std::string>(
          "--arrivals",
          [&options](const std::string& name) {
            options.settings.arrivals =
                name == "constant" ? ArrivalKind::kConstant : ArrivalKind::kPoisson;
          },
          "Gaps of an open loop")
      ->check(CLI::IsMember({"poisson", "constant"}))
      ->default_str("poisson")
      ->needs(rate);
  verb.add_option("--seed", options.settings.seed, "Of arrivals, and of the choice among models")
      ->capture_default_str();
  verb.add_option("--max-in-flight", options.max_in_flight,
                  "Requests under way in an open loop; more wait, and their latencies count it")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str()
      ->needs(rate);
  verb.add_option(
          "--seconds", options.settings.seconds,
          "Length of each run; an open loop ends when all that its rate asked for is answered")
      ->check(FiniteRange(0.01, 3600.0))
      ->capture_default_str();
}

}  // namespace

void AddLoad(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<LoadVerbOptions>();
  CLI::App* verb = app.add_subcommand(
      "load",
      "Put load on a server and measure it; exit 1 when a run was answered nothing, or was "
      "interrupted, which loses that run alone");
  verb->add_option("--target", options->settings.target, "host:port of the gRPC endpoint")
      ->required();
  options->tls.AddTo(*verb);
  AddRequestOptions(*verb, *options);
  AddLoopOptions(*verb, *options);
  verb->add_option("--connections", options->settings.connections,
                   "TCP connections that the requests are spread over")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  verb->add_option("--timeout-seconds", options->timeout_seconds, "Of each request")
      ->check(FiniteRange(0.001, 86400.0))
      ->capture_default_str();
  verb->add_option("--json", options->json, "Write JSON to this file; without one, print it")
      ->expected(0, 1)
      ->default_str("-");
  verb->add_option("--svg", options->svg, "Draw latencies by percentile into this file");
  verb->callback([options, &outcome] {
    if (const absl::Status status = Load(*options); !status.ok()) outcome.exit_code = Fail(status);
  });
}

}  // namespace octet::cli

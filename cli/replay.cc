// octet replay: captured requests once more, and how far two answers to each are apart.
#include <atomic>
#include <cmath>
#include <iostream>
#include <memory>

#include "absl/strings/str_join.h"
#include "cli/answers.h"
#include "cli/closed_loop.h"
#include "cli/error_counts.h"
#include "cli/finite_range.h"
#include "cli/json_text.h"
#include "cli/latencies.h"
#include "cli/load_requests.h"
#include "cli/model_options.h"
#include "cli/output_file.h"
#include "cli/tls_options.h"
#include "cli/verb.h"
#include <nlohmann/json.hpp>

#include "engine/tensor/npz_writer.h"
#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

// Who answers.
struct ReplaySide {
  std::string server;
  std::string version;
  std::string precision;
};

struct ReplayOptions {
  RequestSource source;  // The version and the precision are the sides'.
  ReplaySide side;
  TlsOptions tls;  // Of both sides' servers.
  std::optional<std::string> against_server;
  std::optional<std::string> against_version;
  std::optional<std::string> against_precision;
  std::string expect;
  std::string save;
  std::optional<double> min_agreement;
  std::optional<double> min_sqnr_db;
  int concurrency = 1;
  double timeout_seconds = 60;
  bool json = false;

  // The other one; absent when nobody else is asked.
  std::optional<ReplaySide> Against() const {
    if (!against_server && !against_version && !against_precision) return std::nullopt;
    return ReplaySide{against_server.value_or(side.server), against_version.value_or(side.version),
                      against_precision.value_or(side.precision)};
  }
  bool compares() const { return Against() || !expect.empty(); }
};

// What one side has done.
struct SideTally {
  Latencies latencies;
  std::map<std::string, int64_t> answered_by;  // "1/int8"
  ErrorCounts errors;

  void Merge(const SideTally& other) {
    latencies.Merge(other.latencies);
    for (const auto& [who, count] : other.answered_by) answered_by[who] += count;
    errors.Merge(other.errors);
  }
};

struct ReplayTally {
  std::vector<SideTally> sides;
  std::map<std::string, OutputTally> outputs;
  int64_t rows = 0;  // Of requests that both sides answered.

  void Merge(const ReplayTally& other) {
    for (size_t i = 0; i < sides.size(); ++i) sides[i].Merge(other.sides[i]);
    for (const auto& [name, tally] : other.outputs) outputs[name].Merge(tally);
    rows += other.rows;
  }
};

std::string AnsweredBy(const inference::ModelInferResponse& response) {
  const auto precision = response.parameters().find("precision");
  return precision == response.parameters().end()
             ? response.model_version()
             : Format("{}/{}", response.model_version(), precision->second.string_param());
}

// What all slots share. Nothing of it changes while they run but what is atomic, and each request's place in `saved`.
struct ReplayWork {
  const SampleRequests& samples;
  int64_t rows_per_request;
  std::vector<ReplaySide> sides;
  std::vector<std::unique_ptr<InferStub>> stubs;
  NpzArrays expected;
  bool expects = false;
  std::atomic<int64_t> next{0};
  std::vector<inference::ModelInferResponse>
      saved;  // By request; empty when they are not asked for.

  int64_t requests() const { return (samples.count() + rows_per_request - 1) / rows_per_request; }
};

// Asks both sides the same, one after the other, every second time the other one first.
class ReplaySlot final : public LoopSlot {
 public:
  explicit ReplaySlot(ReplayWork& work) : work_(work) { tally_.sides.resize(work.sides.size()); }

  Call Next() override {
    if (asked_ == work_.sides.size()) {
      number_ = work_.next.fetch_add(1, std::memory_order_relaxed);
      if (number_ >= work_.requests()) return {};
      asked_ = 0;
      first_ = number_ * work_.rows_per_request;
      rows_ = std::min(work_.rows_per_request, work_.samples.count() - first_);
      absl::StatusOr<inference::ModelInferRequest> made = work_.samples.Make(first_, rows_);
      if (!made.ok()) {
        // No later one is asked either: what cannot be read now is not there.
        for (SideTally& side : tally_.sides) side.errors.Add(std::string(Message(made.status())));
        work_.next = work_.requests();
        asked_ = work_.sides.size();
        return {};
      }
      request_ = *std::move(made);
      // What is replayed is no traffic, and would change the file that it came from.
      (*request_.mutable_parameters())["capture"].set_bool_param(false);
    }
    const ReplaySide& side = work_.sides[current()];
    Address(request_, side.version, side.precision);
    return {work_.stubs[current()].get(), &request_};
  }

  void Answered(const grpc::Status& status, inference::ModelInferResponse& response,
                std::chrono::nanoseconds latency) override {
    SideTally& tally = tally_.sides[current()];
    responses_[current()].reset();
    if (status.ok()) {
      tally.latencies.Add(latency);
      ++tally.answered_by[AnsweredBy(response)];
      responses_[current()] = std::move(response);
    } else {
      tally.errors.Add(
          Format("{}: {}", static_cast<int>(status.error_code()), status.error_message()));
    }
    if (++asked_ == work_.sides.size()) Compare();
  }

  const ReplayTally& tally() const { return tally_; }

 private:
  // The side that is asked now.
  size_t current() const {
    return work_.sides.size() == 2 && number_ % 2 != 0 ? 1 - asked_ : asked_;
  }

  // The outputs of a side's response; none when it failed, which is counted.
  std::optional<Answer> AnswerOf(size_t side) {
    if (!responses_[side]) return std::nullopt;
    absl::StatusOr<Answer> answer = ReadAnswer(*responses_[side]);
    if (answer.ok()) return *std::move(answer);
    tally_.sides[side].errors.Add(Format("unreadable answer: {}", Message(answer.status())));
    return std::nullopt;
  }

  void Compare() {
    std::optional<Answer> got = AnswerOf(0);
    std::optional<Answer> reference;
    if (work_.sides.size() == 2) reference = AnswerOf(1);
    if (work_.expects)
      reference = *RowsOf(work_.expected, first_, rows_);  // LoadExpected has tried it.
    if (got && reference) {
      CompareAnswers(*got, *reference, rows_, tally_.outputs);
      tally_.rows += rows_;
    }
    if (!work_.saved.empty() && got) {
      work_.saved[static_cast<size_t>(number_)] = *std::move(responses_[0]);
    }
  }

  ReplayWork& work_;
  int64_t number_ = 0;  // Of the request.
  int64_t first_ = 0;   // Of its samples.
  int64_t rows_ = 0;
  size_t asked_ = work_.sides.size();
  inference::ModelInferRequest request_;
  std::optional<inference::ModelInferResponse> responses_[2];
  ReplayTally tally_;
};

ReplayTally RunReplay(ReplayWork& work, const ReplayOptions& options) {
  std::vector<std::unique_ptr<ReplaySlot>> slots;
  std::vector<LoopSlot*> running;
  for (int i = 0; i < options.concurrency; ++i) {
    slots.push_back(std::make_unique<ReplaySlot>(work));
    running.push_back(slots.back().get());
  }
  RunClosedLoop(running, std::chrono::milliseconds(std::llround(options.timeout_seconds * 1e3)));
  ReplayTally tally;
  tally.sides.resize(work.sides.size());
  for (const auto& slot : slots) tally.Merge(slot->tally());
  return tally;
}

nlohmann::ordered_json PercentOf(int64_t part, int64_t whole) {
  if (whole == 0) return nullptr;
  return 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

nlohmann::ordered_json ToJson(SideTally& tally, const ReplaySide& side) {
  return {{"server", side.server},
          {"version", side.version},
          {"precision", side.precision},
          {"answered_by", tally.answered_by},
          {"requests", tally.latencies.count()},
          {"errors", tally.errors.total()},
          {"errors_by_code", tally.errors.rows()},
          {"p50_us", tally.latencies.MicrosecondsAt(50)},
          {"p99_us", tally.latencies.MicrosecondsAt(99)}};
}

// null: what does not apply to the output's type and shape; the SQNR of equal outputs, which have no noise.
nlohmann::ordered_json ToJson(const OutputTally& tally) {
  nlohmann::ordered_json json = {
      {"class_rows", tally.classes.rows},
      {"top1_percent", PercentOf(tally.classes.top1, tally.classes.rows)},
      {"top5_percent", PercentOf(tally.classes.top5, tally.classes.rows)},
      {"max_abs", nullptr},
      {"relative_l2", nullptr},
      {"sqnr_db", nullptr},
      {"non_finite", tally.noise.non_finite},
      {"equal_percent", PercentOf(tally.equal, tally.exact)},
      {"incomparable", tally.incomparable}};
  if (tally.floats == 0) return json;
  json["max_abs"] = tally.noise.max_abs;
  json["relative_l2"] = tally.noise.RelativeL2();
  if (tally.noise.noise > 0) json["sqnr_db"] = tally.noise.SqnrDb();
  return json;
}

void PrintReplay(const nlohmann::ordered_json& json) {
  const auto cell = [](const nlohmann::ordered_json& value) {
    return value.is_null() ? std::string("-") : Format("{:.6g}", value.get<double>());
  };
  std::cout << Format("{} rows\n\n{:<40} {:>9} {:>7} {:>10} {:>10}\n", json["rows"].get<int64_t>(),
                      "answered by", "requests", "errors", "p50 us", "p99 us");
  for (const auto& side : json["sides"]) {
    std::string who;
    for (const auto& [name, unused] : side["answered_by"].items()) {
      who += (who.empty() ? "" : ", ") + name;
    }
    std::cout << Format("{:<40} {:>9} {:>7} {:>10.0f} {:>10.0f}\n",
                        Format("{} {}", side["server"].get<std::string>(), who),
                        side["requests"].get<int64_t>(), side["errors"].get<int64_t>(),
                        side["p50_us"].get<double>(), side["p99_us"].get<double>());
    for (const auto& [error, count] : side["errors_by_code"].items()) {
      std::cout << Format("  {} x {}\n", count.get<int64_t>(), error);
    }
  }
  if (json["outputs"].empty()) return;
  std::cout << Format("\n{:<24} {:>8} {:>8} {:>8} {:>11} {:>11} {:>8} {:>8}\n", "output", "top-1 %",
                      "top-5 %", "equal %", "max abs", "relative L2", "SQNR dB", "NaN, inf");
  for (const auto& [name, output] : json["outputs"].items()) {
    std::cout << Format(
        "{:<24} {:>8} {:>8} {:>8} {:>11} {:>11} {:>8} {:>8}\n", name, cell(output["top1_percent"]),
        cell(output["top5_percent"]), cell(output["equal_percent"]), cell(output["max_abs"]),
        cell(output["relative_l2"]), cell(output["sqnr_db"]), output["non_finite"].get<int64_t>());
  }
}

// What is wrong with one output, by the gates that were asked for.
void CheckOutput(const std::string& name, const OutputTally& output, const ReplayOptions& options,
                 std::vector<std::string>& failures) {
  if (output.incomparable > 0) {
    failures.push_back(
        Format("output '{}': {} answers cannot be compared: its type, shape or presence differs",
               name, output.incomparable));
  }
  const double agreement =
      100.0 * static_cast<double>(output.classes.top1) / static_cast<double>(output.classes.rows);
  if (options.min_agreement && output.classes.rows > 0 && agreement < *options.min_agreement) {
    failures.push_back(Format("output '{}': top-1 agreement {:.4g} % is below --min-agreement {}",
                              name, agreement, *options.min_agreement));
  }
  if (!options.min_sqnr_db || output.floats == 0) return;
  if (output.noise.SqnrDb() < *options.min_sqnr_db) {
    failures.push_back(Format("output '{}': SQNR {:.4g} dB is below --min-sqnr-db {}", name,
                              output.noise.SqnrDb(), *options.min_sqnr_db));
  }
  if (output.noise.non_finite > 0) {
    failures.push_back(
        Format("output '{}': {} elements have no difference: a NaN, or infinite on one side", name,
               output.noise.non_finite));
  }
}

// Everything that makes the replay a failure.
std::vector<std::string> FailuresOf(const ReplayTally& tally, const ReplayOptions& options) {
  std::vector<std::string> failures;
  for (const SideTally& side : tally.sides) {
    if (side.errors.empty()) continue;
    failures.push_back(Format("{} requests failed, {} of them with {}", side.errors.total(),
                              side.errors.most().second, side.errors.most().first));
  }
  int64_t with_classes = 0;
  int64_t with_floats = 0;
  for (const auto& [name, output] : tally.outputs) {
    CheckOutput(name, output, options, failures);
    with_classes += output.classes.rows;
    with_floats += output.floats;
  }
  if (options.min_agreement && with_classes == 0) {
    failures.emplace_back("--min-agreement: no output with classes was compared");
  }
  if (options.min_sqnr_db && with_floats == 0) {
    failures.emplace_back("--min-sqnr-db: no output of floating point was compared");
  }
  return failures;
}

// True when `view` continues what is in `pieces` along axis 0, in a file.
bool Joins(const ConstTensorView& view, const std::vector<ConstTensorView>& pieces) {
  if (!NpzHolds(view.dtype()) || view.shape().rank() == 0) return false;
  if (pieces.empty()) return true;
  TensorSpec expected = pieces.front().spec;
  if (expected.shape.rank() == 0) return false;
  expected.shape[0] = view.shape()[0];
  return expected == view.spec;
}

absl::Status SaveAnswers(const ReplayWork& work, const std::string& file, const SideTally& side) {
  if (side.errors.total() > 0) {
    return InvalidArgument("--save: '{}' is not written: expected {} answers, {} requests failed",
                           file, work.requests(), side.errors.total());
  }
  std::vector<Answer> answers;
  std::map<std::string, NpzArray> arrays;
  for (const auto& response : work.saved) {
    OCTET_ASSIGN_OR_RETURN(Answer answer, ReadAnswer(response));
    for (const auto& [name, view] : answer.outputs) {
      NpzArray& array = arrays[name];
      array.name = name;
      if (!Joins(view, array.pieces)) {
        return InvalidArgument("--save: output '{}' of {} {} cannot be joined along axis 0", name,
                               DTypeName(view.dtype()), view.shape().ToString());
      }
      array.pieces.push_back(view);
    }
    answers.push_back(std::move(answer));  // Keeps the elements of strings.
  }
  std::vector<NpzArray> list;
  for (auto& [unused, array] : arrays) list.push_back(std::move(array));
  return WriteNpz(file, list);
}

absl::Status LoadExpected(const std::string& file, ReplayWork& work) {
  OCTET_ASSIGN_OR_RETURN(work.expected, ReadNpz(file));
  work.expects = true;
  for (const auto& [name, array] : work.expected) {
    if (array.shape().rank() > 0 && array.shape()[0] == work.samples.count()) continue;
    return InvalidArgument("{}: array '{}': expected {} rows, one per sample, got shape {}", file,
                           name, work.samples.count(), array.shape().ToString());
  }
  return absl::OkStatus();
}

absl::Status Replay(const ReplayOptions& options) {
  if ((options.min_agreement || options.min_sqnr_db) && !options.compares()) {
    return InvalidArgument(
        "--min-agreement and --min-sqnr-db need something to compare with: "
        "--against, --against-server, --against-version or --expect");
  }
  const std::vector<std::string> others = {options.source.data, options.source.map, options.expect};
  if (!options.save.empty()) OCTET_RETURN_IF_ERROR(CheckOutputFile(options.save, others));
  std::vector<ReplaySide> sides = {options.side};
  if (const auto against = options.Against()) sides.push_back(*against);
  std::vector<std::unique_ptr<InferStub>> stubs;
  OCTET_ASSIGN_OR_RETURN(const auto credentials, options.tls.Credentials());
  for (const ReplaySide& side : sides) stubs.push_back(Connect(side.server, credentials));
  OCTET_ASSIGN_OR_RETURN(const SampleRequests samples,
                         SampleRequests::Load(*stubs[0], options.source));
  ReplayWork work{.samples = samples,
                  .rows_per_request = options.source.rows,
                  .sides = std::move(sides),
                  .stubs = std::move(stubs),
                  .expected = {},
                  .saved = {}};
  if (!options.expect.empty()) OCTET_RETURN_IF_ERROR(LoadExpected(options.expect, work));
  if (!options.save.empty()) work.saved.resize(static_cast<size_t>(work.requests()));
  ReplayTally tally = RunReplay(work, options);

  nlohmann::ordered_json json = {{"rows", tally.rows}, {"sides", nlohmann::json::array()}};
  if (!options.compares()) json["rows"] = samples.count();
  for (size_t i = 0; i < work.sides.size(); ++i) {
    json["sides"].push_back(ToJson(tally.sides[i], work.sides[i]));
  }
  json["outputs"] = nlohmann::json::object();
  for (const auto& [name, output] : tally.outputs) json["outputs"][name] = ToJson(output);
  std::vector<std::string> failures = FailuresOf(tally, options);
  json["failures"] = failures;
  if (options.json) {
    std::cout << JsonText(json) << '\n';
  } else {
    PrintReplay(json);
  }
  // Answers that miss a floor are as good to look at as any.
  if (!options.save.empty()) {
    const absl::Status saved = SaveAnswers(work, options.save, tally.sides[0]);
    if (!saved.ok()) failures.emplace_back(Message(saved));
  }
  return failures.empty() ? absl::OkStatus()
                          : absl::FailedPreconditionError(absl::StrJoin(failures, "\n"));
}

}  // namespace

void AddReplay(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<ReplayOptions>();
  CLI::App* verb = app.add_subcommand(
      "replay", "Send captured requests to a server and compare its answers with others");
  verb->add_option("FILE", options->source.data,
                   "Samples, a capture or any other: an .npz or .npy file, or a folder of them")
      ->required();
  verb->add_option("--server", options->side.server, "host:port of the gRPC endpoint")->required();
  options->tls.AddTo(*verb);
  verb->add_option("--model", options->source.model, "Model to ask")->required();
  verb->add_option("--version", options->side.version,
                   "Version to ask; default what the server chooses");
  verb->add_option("--precision", options->side.precision,
                   "Precision to ask for; default what the server chooses");
  verb->add_option("--map", options->source.map,
                   "model.yaml: convert samples to the model's own element type before sending; "
                   "default as stored");
  verb->add_option("--rows", options->source.rows, "Samples per request")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  CLI::Option* expect = verb->add_option(
      "--expect", options->expect, ".npz with the answers to compare with, one array per output");
  verb->add_option("--against", options->against_precision, "Precision to compare with")
      ->excludes(expect);
  verb->add_option("--against-server", options->against_server,
                   "host:port of the server to compare with; default the same")
      ->excludes(expect);
  verb->add_option("--against-version", options->against_version,
                   "Version to compare with; default the same")
      ->excludes(expect);
  verb->add_option("--save", options->save, "Write the answers to this .npz, for a later --expect");
  verb->add_option("--min-agreement", options->min_agreement,
                   "Fail when fewer per cent of the rows have the same best class")
      ->check(FiniteRange(0.0, 100.0));
  verb->add_option("--min-sqnr-db", options->min_sqnr_db,
                   "Fail when an output's signal to noise ratio is lower")
      ->check(FiniteRange(-100.0, 300.0));
  verb->add_option("--concurrency", options->concurrency, "Requests under way")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  verb->add_option("--timeout-seconds", options->timeout_seconds, "Of each request")
      ->check(FiniteRange(0.001, 86400.0))
      ->capture_default_str();
  verb->add_flag("--json", options->json, "Print JSON");
  verb->callback([options, &outcome] {
    options->source.version = options->side.version;
    options->source.precision = options->side.precision;
    if (const absl::Status status = Replay(*options); !status.ok())
      outcome.exit_code = Fail(status);
  });
}

}  // namespace octet::cli

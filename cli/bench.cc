// octet bench: latency and throughput of a model alone, without a server.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <span>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "cli/finite_range.h"
#include "cli/json_text.h"
#include "cli/model_options.h"
#include "cli/progress.h"
#include "cli/samples.h"
#include "cli/session.h"
#include "cli/timed_runs.h"
#include "cli/verb.h"
#include <nlohmann/json.hpp>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

constexpr int kLayerRepeats = 20;
constexpr int kLayerRepeatsPerRound = 3;

struct BenchOptions {
  ModelOptions model;
  ShapeOptions shapes;
  std::vector<int64_t> batches = {1};
  std::vector<int> threads = {1};
  double seconds = 2;
  std::string inputs;
  bool rounds = false;
  bool layers = false;
  bool json = false;
};

Tensor RandomTensor(const TensorSpec& spec, std::mt19937& random) {
  if (spec.dtype == DType::kString) return RandomTexts(spec.shape, random);
  Tensor tensor(spec.dtype, spec.shape);
  FillRandom(tensor.mutable_view(), random);
  return tensor;
}

absl::Status PrepareRandom(Session& session, const ShapeOptions& given, int64_t batch) {
  OCTET_ASSIGN_OR_RETURN(const std::vector<Shape> shapes,
                         given.ForBatch(session.model().signature(), batch));
  OCTET_RETURN_IF_ERROR(session.Prepare(shapes));
  std::mt19937 random(1);
  for (size_t i = 0; i < shapes.size(); ++i)
    session.SetInput(i, RandomTensor(session.inputs()[i], random).view());
  return absl::OkStatus();
}

// The arrays of an archive, one per input by its name; their shapes are the run's.
absl::Status PrepareFromFile(Session& session, const std::string& file) {
  OCTET_ASSIGN_OR_RETURN(const NpzArrays arrays, ReadNpz(file));
  std::vector<const Tensor*> inputs;
  std::vector<Shape> shapes;
  for (const TensorInfo& input : session.model().signature().inputs) {
    const auto found = arrays.find(input.name);
    if (found == arrays.end()) {
      return InvalidArgument("the archive has no array for input '{}': {}", input.name, file);
    }
    if (found->second.dtype() != input.dtype) {
      return InvalidArgument("array for input '{}' of another element type: expected {}, got {}",
                             input.name, DTypeName(input.dtype), DTypeName(found->second.dtype()));
    }
    inputs.push_back(&found->second);
    shapes.push_back(found->second.shape());
  }
  OCTET_RETURN_IF_ERROR(session.Prepare(shapes));
  for (size_t i = 0; i < inputs.size(); ++i) session.SetInput(i, inputs[i]->view());
  return absl::OkStatus();
}

absl::Status Prepare(Session& session, const BenchOptions& options, int64_t batch) {
  return options.inputs.empty() ? PrepareRandom(session, options.shapes, batch)
                                : PrepareFromFile(session, options.inputs);
}

double Milliseconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

nlohmann::ordered_json LayerRows(const Certificate& certificate,
                                 const std::vector<LayerTime>& times) {
  nlohmann::ordered_json rows = nlohmann::json::array();
  for (size_t i = 0; i < times.size(); ++i) {
    const LayerRecord& layer = certificate.layers[i];
    rows.push_back({{"name", layer.name},
                    {"operator", layer.op},
                    {"runs", layer.runs},
                    {"implementation", layer.impl},
                    {"macs", layer.macs},
                    {"in_order_ms", Milliseconds(times[i].in_order)},
                    {"alone_ms", Milliseconds(times[i].alone)}});
  }
  return rows;
}

absl::StatusOr<nlohmann::ordered_json> Measure(Session& session, int threads, double seconds,
                                               int layer_repeats, bool layers) {
  const std::span<const TensorSpec> inputs = session.plan().inputs();
  const int64_t batch = !inputs.empty() && inputs[0].shape.rank() > 0 ? inputs[0].shape[0] : 1;
  OCTET_ASSIGN_OR_RETURN(TimedRuns runs, TimeRuns(session, seconds));
  Latencies& latencies = runs.latencies;
  OCTET_ASSIGN_OR_RETURN(const std::vector<LayerTime> times,
                         session.plan().LayerTimes(session.workspace(), layer_repeats));
  std::chrono::nanoseconds alone{};
  std::chrono::nanoseconds in_place{};
  for (const LayerTime& time : times) {
    alone += time.alone;
    if (time.alone.count() > 0) in_place += time.in_order;
  }
  const auto items = static_cast<double>(latencies.count()) * static_cast<double>(batch);
  nlohmann::ordered_json row{{"batch", batch},
                             {"threads", threads},
                             {"latency_ms",
                              {{"min", latencies.MicrosecondsAt(0) / 1e3},
                               {"p50", latencies.MicrosecondsAt(50) / 1e3},
                               {"p99", latencies.MicrosecondsAt(99) / 1e3}}},
                             {"items_per_second", items / runs.seconds},
                             {"primitive_sum_ms", Milliseconds(alone)},
                             {"primitives_in_place_ms", Milliseconds(in_place)},
                             {"compile_ms", Milliseconds(session.plan().compile_time())},
                             {"weights_bytes", session.model().resident_weight_bytes()},
                             {"arena_bytes", session.plan().memory().arena_bytes},
                             {"live_peak_bytes", session.plan().memory().live_peak_bytes},
                             {"macs", session.plan().certificate().total_macs()}};
  if (layers) row["layers"] = LayerRows(session.plan().certificate(), times);
  return row;
}

// Elements of every output by name, so that a comparison of times can be one of answers, too.
nlohmann::ordered_json Answers(const Session& session) {
  nlohmann::ordered_json answers;
  for (size_t i = 0; i < session.output_count(); ++i) {
    nlohmann::ordered_json& answer = answers[session.model().signature().outputs[i].name];
    const ConstTensorView output = session.output(i);
    if (output.dtype() == DType::kString) {
      answer = nlohmann::json::array();
      for (const std::string_view text : output.span<std::string_view>())
        answer.push_back(absl::CHexEscape(std::string(text)));  // It may be no UTF-8.
      continue;
    }
    Tensor values(DType::kF64, output.shape());
    ConvertTensor(output, values.mutable_view());
    answer = values.span<double>();
  }
  return answers;
}

// One line of JSON with the answers once ready; then one round, and its line, per line of standard input, which is the
// round's length in seconds. Whoever writes the lines can so take turns with another program.
absl::Status BenchRounds(BenchOptions options) {
  if (options.batches.size() != 1 || options.threads.size() != 1) {
    return InvalidArgument("--rounds takes one batch size and one number of threads: got {} and {}",
                           options.batches.size(), options.threads.size());
  }
  options.model.threads = options.threads[0];
  OCTET_ASSIGN_OR_RETURN(std::shared_ptr<const Model> model, options.model.Load());
  Session session(std::move(model));
  OCTET_RETURN_IF_ERROR(Prepare(session, options, options.batches[0]));
  OCTET_RETURN_IF_ERROR(session.Run());
  std::cout << nlohmann::ordered_json{{"outputs", Answers(session)}}.dump() << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    double seconds = 0;
    if (!absl::SimpleAtod(line, &seconds) || !(seconds > 0 && seconds <= 3600)) {
      return InvalidArgument("a round's length is a number of seconds up to 3600: got '{}'", line);
    }
    OCTET_ASSIGN_OR_RETURN(
        const nlohmann::ordered_json row,
        Measure(session, options.threads[0], seconds, kLayerRepeatsPerRound, false));
    std::cout << row.dump() << std::endl;
  }
  return absl::OkStatus();
}

void PrintRow(const nlohmann::ordered_json& row) {
  const auto& latency = row["latency_ms"];
  std::cout << Format("{:>5} {:>7} {:>9.3f} {:>9.3f} {:>9.3f} {:>11.1f} {:>14.3f}\n",
                      row["batch"].get<int64_t>(), row["threads"].get<int>(),
                      latency["min"].get<double>(), latency["p50"].get<double>(),
                      latency["p99"].get<double>(), row["items_per_second"].get<double>(),
                      row["primitive_sum_ms"].get<double>());
}

// Where the time goes, the longest first.
void PrintLayers(const nlohmann::ordered_json& row) {
  std::vector<nlohmann::ordered_json> layers(row["layers"].begin(), row["layers"].end());
  double sum = 0;
  for (const auto& layer : layers) sum += layer["in_order_ms"].get<double>();
  std::ranges::stable_sort(layers, std::greater<>(), [](const nlohmann::ordered_json& layer) {
    return layer["in_order_ms"].get<double>();
  });
  std::cout << Format("\nlayers of batch {}, {} thread(s), the longest first\n",
                      row["batch"].get<int64_t>(), row["threads"].get<int>());
  std::cout << Format("{:>9} {:>6} {:>9}  {:<20} {:<6} {:<32} {}\n", "ms", "%", "alone ms",
                      "operator", "runs", "implementation", "layer");
  for (const auto& layer : layers) {
    const double time = layer["in_order_ms"].get<double>();
    std::cout << Format("{:>9.4f} {:>6.2f} {:>9.4f}  {:<20} {:<6} {:<32} {}\n", time,
                        100 * time / sum, layer["alone_ms"].get<double>(),
                        layer["operator"].get<std::string>(), layer["runs"].get<std::string>(),
                        layer["implementation"].get<std::string>(),
                        layer["name"].get<std::string>());
  }
}

absl::Status Bench(BenchOptions options) {
  if (options.rounds) return BenchRounds(std::move(options));
  nlohmann::ordered_json rows = nlohmann::json::array();
  const auto runs = static_cast<int64_t>(options.batches.size() * options.threads.size());
  ProgressBar progress("measuring", runs);
  for (const int threads : options.threads) {
    options.model.threads = threads;
    OCTET_ASSIGN_OR_RETURN(std::shared_ptr<const Model> model, options.model.Load());
    Session session(std::move(model));
    for (const int64_t batch : options.batches) {
      OCTET_RETURN_IF_ERROR(Prepare(session, options, batch));
      OCTET_ASSIGN_OR_RETURN(nlohmann::ordered_json row, Measure(session, threads, options.seconds,
                                                                 kLayerRepeats, options.layers));
      rows.push_back(std::move(row));
      progress.Update(static_cast<int64_t>(rows.size()));
    }
  }
  if (options.json) {
    std::cout << JsonText(rows) << '\n';
    return absl::OkStatus();
  }
  std::cout << Format("{:>5} {:>7} {:>9} {:>9} {:>9} {:>11} {:>14}\n", "batch", "threads", "min ms",
                      "p50 ms", "p99 ms", "items/s", "primitives ms");
  for (const auto& row : rows) PrintRow(row);
  if (options.layers) {
    for (const auto& row : rows) PrintLayers(row);
  }
  return absl::OkStatus();
}

}  // namespace

void AddBench(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* verb =
      app.add_subcommand("bench", "Measure a model's latency and throughput without a server");
  options->model.AddTo(*verb);
  verb->remove_option(verb->get_option("--threads"));
  verb->add_option("--threads", options->threads, "OpenMP threads, one run each")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  CLI::Option* batch = verb->add_option("--batch", options->batches, "Batch sizes, one run each")
                           ->delimiter(',')
                           ->check(CLI::PositiveNumber)
                           ->capture_default_str();
  CLI::Option* shape = options->shapes.AddTo(*verb);
  verb->add_option(
          "--inputs", options->inputs,
          ".npz with an array per input to run on, instead of random numbers (those of octet load)")
      ->check(CLI::ExistingFile)
      ->excludes(batch)
      ->excludes(shape);
  verb->add_option("--seconds", options->seconds, "Length of each run")
      ->check(FiniteRange(0.01, 3600.0))
      ->capture_default_str();
  CLI::Option* layers =
      verb->add_flag("--layers", options->layers, "Say how long each layer takes, too");
  verb->add_flag("--rounds", options->rounds,
                 "Measure once per line of standard input, a number of seconds, and print a line "
                 "of JSON each, the first with the answers")
      ->excludes(layers);
  verb->add_flag("--json", options->json, "Print JSON");
  verb->callback([options, &outcome] {
    if (const absl::Status status = Bench(*options); !status.ok()) outcome.exit_code = Fail(status);
  });
}

}  // namespace octet::cli

// octet check: a model against golden outputs in ONNX's test_data_set form, and the pass that changes an answer.
#include <algorithm>
#include <iostream>
#include <memory>
#include <random>

#include "cli/finite_range.h"
#include "cli/golden_set.h"
#include "cli/json_text.h"
#include "cli/model_options.h"
#include "cli/samples.h"
#include "cli/session.h"
#include "cli/verb.h"
#include <nlohmann/json.hpp>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

struct CheckOptions {
  ModelOptions model;
  ShapeOptions shapes;
  std::string golden;
  Tolerance tolerance;
  bool bisect_passes = false;
  bool json = false;
};

bool AllOk(const std::vector<Comparison>& results) {
  return std::ranges::all_of(results, &Comparison::ok);
}

nlohmann::ordered_json ToJson(const std::vector<Comparison>& results) {
  nlohmann::ordered_json rows = nlohmann::json::array();
  for (const Comparison& c : results) {
    rows.push_back({{"set", c.set},
                    {"output", c.output},
                    {"ok", c.ok},
                    {"elements", c.elements},
                    {"mismatches", c.mismatches},
                    {"max_abs", c.max_abs}});
    if (c.max_steps) rows.back()["max_steps"] = *c.max_steps;
  }
  return rows;
}

void PrintRows(const std::vector<Comparison>& results) {
  for (const Comparison& c : results) {
    std::cout << Format("{:<4} {} {}: {} of {} elements differ, largest difference {:.3g}{}\n",
                        c.ok ? "ok" : "FAIL", c.set, c.output, c.mismatches, c.elements, c.max_abs,
                        c.max_steps ? Format(", {:.2f} steps", *c.max_steps) : "");
  }
}

absl::StatusOr<bool> Check(const CheckOptions& options) {
  OCTET_ASSIGN_OR_RETURN(const std::vector<std::string> folders, GoldenFolders(options.golden));
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model, options.model.Load());
  Session session(model);
  std::vector<Comparison> results;
  for (const std::string& folder : folders) {
    OCTET_ASSIGN_OR_RETURN(const GoldenSet set, ReadGoldenSet(folder, model->signature()));
    OCTET_ASSIGN_OR_RETURN(
        const std::vector<Comparison> of_set,
        CompareWith(session, set, model->signature().outputs, options.tolerance));
    results.insert(results.end(), of_set.begin(), of_set.end());
  }
  const bool ok = AllOk(results);
  if (options.json) {
    std::cout << JsonText({{"ok", ok}, {"comparisons", ToJson(results)}}) << '\n';
  } else {
    PrintRows(results);
  }
  return ok;
}

/// A model under the first passes of the list, and how far its answers are from the right ones.
struct Trial {
  std::vector<Comparison> comparisons;
  int rewrites = 0;  ///< Of the last pass, at load and for the last set's shapes.
};

class PassBisection {
 public:
  explicit PassBisection(const CheckOptions& options) : options_(options) {}

  absl::StatusOr<bool> Run() {
    const std::span<const Pass> passes = AllPasses();
    OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model, Load(passes));
    signature_ = model->signature();
    OCTET_RETURN_IF_ERROR(TakeSets());
    OCTET_ASSIGN_OR_RETURN(const Trial without, Try(passes.first(0)));
    if (!AllOk(without.comparisons))
      return Print("answers differ already without any pass", {}, without);
    OCTET_ASSIGN_OR_RETURN(const Trial with_all, Try(passes));
    if (AllOk(with_all.comparisons)) return Print("no pass changes an answer", {}, with_all);
    OCTET_ASSIGN_OR_RETURN(
        const size_t wrong,
        FirstWrongPass(passes, [&](std::span<const Pass> first) -> absl::StatusOr<bool> {
          OCTET_ASSIGN_OR_RETURN(const Trial trial, Try(first));
          return AllOk(trial.comparisons);
        }));
    OCTET_ASSIGN_OR_RETURN(const Trial trial, Try(passes.first(wrong + 1)));
    return Print(Format("{} changes an answer: pass {} of {}, {} rewrites", passes[wrong].name,
                        wrong + 1, passes.size(), trial.rewrites),
                 passes[wrong].name, trial);
  }

 private:
  absl::StatusOr<std::shared_ptr<const Model>> Load(std::span<const Pass> passes) const {
    LoadOptions load = options_.model.ToLoadOptions();
    load.passes = passes;
    ConfigureWorkerThread(load.threads);
    return Model::Load(options_.model.path, load);
  }

  absl::Status TakeSets() {
    if (options_.golden.empty()) return MakeSet();
    OCTET_ASSIGN_OR_RETURN(const std::vector<std::string> folders, GoldenFolders(options_.golden));
    for (const std::string& folder : folders) {
      OCTET_ASSIGN_OR_RETURN(GoldenSet set, ReadGoldenSet(folder, signature_));
      sets_.push_back(std::move(set));
    }
    return absl::OkStatus();
  }

  // Random inputs, and what the model answers to them without any pass.
  absl::Status MakeSet() {
    constexpr uint32_t kInputSeed = 1;
    constexpr int64_t kBatch = 2;
    OCTET_ASSIGN_OR_RETURN(const std::vector<Shape> shapes,
                           options_.shapes.ForBatch(signature_, kBatch));
    std::mt19937 random(kInputSeed);
    std::normal_distribution<float> normal;
    GoldenSet set{"random", {}, {}};
    for (size_t i = 0; i < shapes.size(); ++i) {
      const DType dtype = signature_.inputs[i].dtype;
      if (dtype == DType::kString) {
        set.inputs.push_back(RandomTexts(shapes[i], random));
        continue;
      }
      Tensor reals(DType::kF32, shapes[i]);
      for (float& x : reals.mutable_span<float>())
        x = IsFloat(dtype) ? normal(random) : static_cast<float>(random() % 2);
      ConvertTensor(reals.view(), set.inputs.emplace_back(dtype, shapes[i]).mutable_view());
    }
    OCTET_ASSIGN_OR_RETURN(std::shared_ptr<const Model> model, Load({}));
    Session session(std::move(model));
    OCTET_RETURN_IF_ERROR(Feed(session, set));
    for (size_t i = 0; i < session.output_count(); ++i) {
      const ConstTensorView output = session.output(i);
      if (output.dtype() == DType::kString) {
        set.outputs.push_back(Tensor::Strings(output.shape(), output.span<std::string_view>()));
        continue;
      }
      ConvertTensor(output,
                    set.outputs.emplace_back(output.dtype(), output.shape()).mutable_view());
    }
    sets_.push_back(std::move(set));
    return absl::OkStatus();
  }

  absl::StatusOr<Trial> Try(std::span<const Pass> passes) const {
    OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model, Load(passes));
    Session session(model);
    Trial trial;
    for (const GoldenSet& set : sets_) {
      OCTET_ASSIGN_OR_RETURN(const std::vector<Comparison> of_set,
                             CompareWith(session, set, signature_.outputs, options_.tolerance));
      trial.comparisons.insert(trial.comparisons.end(), of_set.begin(), of_set.end());
    }
    if (!passes.empty()) {
      trial.rewrites =
          model->pass_trace().back().rewrites + session.plan().pass_trace().back().rewrites;
    }
    return trial;
  }

  bool Print(const std::string& finding, std::string_view pass, const Trial& trial) const {
    const bool ok = AllOk(trial.comparisons);
    if (options_.json) {
      nlohmann::ordered_json json{{"ok", ok}, {"finding", finding}};
      if (!pass.empty()) {
        json["pass"] = pass;
        json["rewrites"] = trial.rewrites;
      }
      json["comparisons"] = ToJson(trial.comparisons);
      std::cout << JsonText(json) << '\n';
    } else {
      std::cout << finding << '\n';
      PrintRows(trial.comparisons);
    }
    return ok;
  }

  const CheckOptions& options_;
  Signature signature_;
  std::vector<GoldenSet> sets_;
};

}  // namespace

void AddCheck(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<CheckOptions>();
  CLI::App* verb = app.add_subcommand(
      "check", "Compare a model's outputs with golden ones; exit 1 on a mismatch");
  options->model.AddTo(*verb);
  CLI::Option* golden = verb->add_option("--golden", options->golden,
                                         "Folder of test_data_set_* folders, or one of these");
  verb->add_option("--rtol", options->tolerance.rtol, "Relative tolerance, of reals")
      ->check(FiniteRange(0, 1e38))
      ->capture_default_str();
  verb->add_option("--atol", options->tolerance.atol,
                   "Absolute tolerance; below 1, integers are equal or they are not")
      ->check(FiniteRange(0, 1e38))
      ->capture_default_str();
  verb->add_option(
          "--steps", options->tolerance.steps,
          "Accept up to this many quantization steps of an output that is dequantized from "
          "8 bits, instead of --rtol and --atol")
      ->check(FiniteRange(1e-6, 1e6));
  CLI::Option* bisect = verb->add_flag(
      "--bisect-passes", options->bisect_passes,
      "Name the first graph pass that changes an answer, by bisection of the pass list; "
      "exit 1 when there is one. Without --golden: of random inputs (--shape), against the "
      "answers without any pass");
  options->shapes.AddTo(*verb)->needs(bisect)->excludes(golden);
  verb->add_flag("--json", options->json, "Print JSON");
  verb->callback([options, golden, &outcome] {
    if (!options->bisect_passes && golden->empty()) throw CLI::RequiredError("--golden");
    const absl::StatusOr<bool> ok =
        options->bisect_passes ? PassBisection(*options).Run() : Check(*options);
    outcome.exit_code = !ok.ok() ? Fail(ok.status()) : *ok ? 0 : 1;
  });
}

}  // namespace octet::cli

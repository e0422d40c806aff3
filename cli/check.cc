// octet check: a model against golden outputs in ONNX's test_data_set form.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <limits>
#include <memory>
#include <optional>

#include "cli/model_options.h"
#include "cli/session.h"
#include "cli/verb.h"
#include <nlohmann/json.hpp>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

namespace fs = std::filesystem;

struct CheckOptions {
  ModelOptions model;
  std::string golden;
  double rtol = 1e-3;
  double atol = 1e-4;
  double steps = 0;  // Above 0: instead of rtol and atol.
  bool json = false;
};

// How far one output is from what was expected.
struct Comparison {
  std::string set;
  std::string output;
  int64_t elements = 0;
  int64_t mismatches = 0;
  double max_abs = 0;
  std::optional<double> max_steps;
  bool ok = true;
};

std::vector<std::string> DataSets(const std::string& golden) {
  std::vector<std::string> sets;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(golden, ignored)) {
    if (entry.is_directory() && entry.path().filename().string().starts_with("test_data_set_")) {
      sets.push_back(entry.path().string());
    }
  }
  std::ranges::sort(sets);
  if (sets.empty() && fs::exists(fs::path(golden) / "input_0.pb", ignored)) sets.push_back(golden);
  return sets;
}

absl::StatusOr<std::vector<Tensor>> ReadTensors(const std::string& set, std::string_view prefix,
                                                size_t count) {
  std::vector<Tensor> tensors;
  for (size_t i = 0; i < count; ++i) {
    OCTET_ASSIGN_OR_RETURN(NamedTensor named,
                           ReadTensorFile(Format("{}/{}_{}.pb", set, prefix, i)));
    tensors.push_back(std::move(named.tensor));
  }
  return tensors;
}

// Mismatch: |got - expected| > atol + rtol * |expected|, or only one of the two is NaN.
Comparison Compare(ConstTensorView got, const Tensor& expected, double rtol, double atol) {
  Tensor a(DType::kF64, got.shape());
  Tensor b(DType::kF64, expected.shape());
  ConvertTensor(got, a.mutable_view());
  ConvertTensor(expected.view(), b.mutable_view());
  Comparison result;
  result.elements = a.elements();
  for (int64_t i = 0; i < a.elements(); ++i) {
    const double x = a.span<double>()[i];
    const double y = b.span<double>()[i];
    if (x == y || (std::isnan(x) && std::isnan(y))) continue;
    const double distance = std::abs(x - y);
    result.max_abs = std::max(result.max_abs, distance);
    if (!(distance <= atol + rtol * std::abs(y))) ++result.mismatches;
  }
  result.ok = result.mismatches == 0;
  return result;
}

// By how many quantization steps two outputs differ at most. Shares of a Softmax tell the differences of its
// inputs up to a common shift: d[i] = ln(got[i] / expected[i]) + c per row. The shift that makes the largest of
// them smallest is taken: half of their spread.
double StepsApart(const Tensor& got, const Tensor& expected, const OutputStep& step) {
  // Below it, shares have lost their digits.
  constexpr double kSmallestShare = 1e-30;
  const int64_t row = step.softmax ? got.shape().back() : 1;
  double most = 0;
  for (int64_t begin = 0; begin < got.elements(); begin += row) {
    double low = 0;
    double high = 0;
    bool first = true;
    for (int64_t i = begin; i < begin + row; ++i) {
      const double x = got.span<double>()[i];
      const double y = expected.span<double>()[i];
      if (std::isnan(x) != std::isnan(y)) return std::numeric_limits<double>::infinity();
      if (std::isnan(x)) continue;
      if (!step.softmax) {
        high = std::abs(x - y);
        continue;
      }
      if (x < kSmallestShare || y < kSmallestShare) continue;
      const double shift = std::log(x / y);
      low = first ? shift : std::min(low, shift);
      high = first ? shift : std::max(high, shift);
      first = false;
    }
    most = std::max(most, step.softmax ? (high - low) / 2 : high);
  }
  return most / step.scale;
}

// The comparison that --steps asks for.
absl::Status CompareSteps(ConstTensorView got, const Tensor& expected, const TensorInfo& info,
                          double steps, Comparison& result) {
  if (!info.step) {
    return InvalidArgument("--steps: output '{}' is not dequantized from 8 bits", info.name);
  }
  // A step has this much room for the float arithmetic around it.
  constexpr double kSlack = 0.01;
  Tensor a(DType::kF64, got.shape());
  Tensor b(DType::kF64, expected.shape());
  ConvertTensor(got, a.mutable_view());
  ConvertTensor(expected.view(), b.mutable_view());
  result.max_steps = StepsApart(a, b, *info.step);
  result.ok = *result.max_steps <= steps + kSlack;
  return absl::OkStatus();
}

absl::Status CheckSet(Session& session, const CheckOptions& options, const std::string& set,
                      std::vector<Comparison>& results) {
  const Signature& signature = session.model().signature();
  OCTET_ASSIGN_OR_RETURN(const std::vector<Tensor> inputs,
                         ReadTensors(set, "input", signature.inputs.size()));
  std::vector<Shape> shapes;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].dtype() != signature.inputs[i].dtype) {
      return InvalidArgument("{}: input '{}': expected {}, got {}", set, signature.inputs[i].name,
                             DTypeName(signature.inputs[i].dtype), DTypeName(inputs[i].dtype()));
    }
    shapes.push_back(inputs[i].shape());
  }
  OCTET_RETURN_IF_ERROR(session.Prepare(shapes));
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::memcpy(session.input(i).data, inputs[i].data(), inputs[i].bytes());
  }
  OCTET_RETURN_IF_ERROR(session.Run());
  OCTET_ASSIGN_OR_RETURN(const std::vector<Tensor> expected,
                         ReadTensors(set, "output", signature.outputs.size()));
  for (size_t i = 0; i < expected.size(); ++i) {
    const ConstTensorView got = session.output(i);
    if (got.spec != expected[i].spec()) {
      return InvalidArgument("{}: output '{}': expected {}{}, got {}{}", set,
                             signature.outputs[i].name, DTypeName(expected[i].dtype()),
                             expected[i].shape().ToString(), DTypeName(got.dtype()),
                             got.shape().ToString());
    }
    results.push_back(Compare(got, expected[i], options.rtol, options.atol));
    results.back().set = fs::path(set).filename().string();
    results.back().output = signature.outputs[i].name;
    if (options.steps > 0) {
      OCTET_RETURN_IF_ERROR(
          CompareSteps(got, expected[i], signature.outputs[i], options.steps, results.back()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> Check(const CheckOptions& options) {
  const std::vector<std::string> sets = DataSets(options.golden);
  if (sets.empty())
    return NotFound("no test_data_set_* folder and no input_0.pb in {}", options.golden);
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model, options.model.Load());
  Session session(model);
  std::vector<Comparison> results;
  for (const std::string& set : sets)
    OCTET_RETURN_IF_ERROR(CheckSet(session, options, set, results));
  const bool ok = std::ranges::all_of(results, &Comparison::ok);
  if (options.json) {
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
    std::cout << nlohmann::ordered_json{{"ok", ok}, {"comparisons", std::move(rows)}}.dump(2)
              << '\n';
    return ok;
  }
  for (const Comparison& c : results) {
    std::cout << Format("{:<4} {} {}: {} of {} elements differ, largest difference {:.3g}{}\n",
                        c.ok ? "ok" : "FAIL", c.set, c.output, c.mismatches, c.elements, c.max_abs,
                        c.max_steps ? Format(", {:.2f} steps", *c.max_steps) : "");
  }
  return ok;
}

}  // namespace

void AddCheck(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<CheckOptions>();
  CLI::App* verb = app.add_subcommand(
      "check", "Compare a model's outputs with golden ones; exit 1 on a mismatch");
  options->model.AddTo(*verb);
  verb->add_option("--golden", options->golden,
                   "Folder of test_data_set_* folders, or one of these")
      ->required();
  verb->add_option("--rtol", options->rtol, "Relative tolerance")->capture_default_str();
  verb->add_option("--atol", options->atol, "Absolute tolerance")->capture_default_str();
  verb->add_option(
          "--steps", options->steps,
          "Accept up to this many quantization steps of an output that is dequantized from "
          "8 bits, instead of --rtol and --atol")
      ->check(CLI::PositiveNumber);
  verb->add_flag("--json", options->json, "Print JSON");
  verb->callback([options, &outcome] {
    const absl::StatusOr<bool> ok = Check(*options);
    outcome.exit_code = !ok.ok() ? Fail(ok.status()) : *ok ? 0 : 1;
  });
}

}  // namespace octet::cli

#include "cli/golden_set.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

namespace fs = std::filesystem;

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

// Strings are equal or they are not.
Comparison CompareStrings(ConstTensorView got, const Tensor& expected) {
  const auto a = got.span<std::string_view>();
  const auto b = expected.span<std::string_view>();
  Comparison result;
  result.elements = got.elements();
  for (size_t i = 0; i < a.size(); ++i) result.mismatches += a[i] == b[i] ? 0 : 1;
  result.ok = result.mismatches == 0;
  return result;
}

// Integers have no share of themselves to be off by: class 1000 is not class 1001. 64 bits are more than a double holds.
template <typename T>
Comparison CompareIntegers(std::span<const T> got, std::span<const T> expected, double atol) {
  Comparison result;
  result.elements = std::ssize(got);
  for (size_t i = 0; i < got.size(); ++i) {
    const auto [low, high] = std::minmax(got[i], expected[i]);
    const auto distance =
        static_cast<double>(static_cast<uint64_t>(high) - static_cast<uint64_t>(low));
    result.max_abs = std::max(result.max_abs, distance);
    result.mismatches += distance > atol ? 1 : 0;
  }
  result.ok = result.mismatches == 0;
  return result;
}

Comparison CompareIntegers(ConstTensorView got, const Tensor& expected, double atol) {
  if (got.dtype() == DType::kU64)
    return CompareIntegers<uint64_t>(got.span<uint64_t>(), expected.span<uint64_t>(), atol);
  Tensor a(DType::kI64, got.shape());
  Tensor b(DType::kI64, expected.shape());
  ConvertTensor(got, a.mutable_view());
  ConvertTensor(expected.view(), b.mutable_view());
  return CompareIntegers<int64_t>(a.span<int64_t>(), b.span<int64_t>(), atol);
}

Comparison CompareElements(ConstTensorView got, const Tensor& expected, double rtol, double atol) {
  if (got.dtype() == DType::kString) return CompareStrings(got, expected);
  if (!IsFloat(got.dtype())) return CompareIntegers(got, expected, atol);
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
    // Nothing is near an infinity, whose share of itself is no bound.
    const bool finite = std::isfinite(x) && std::isfinite(y);
    if (!finite || distance > atol + rtol * std::abs(y)) ++result.mismatches;
  }
  result.ok = result.mismatches == 0;
  return result;
}

// By how many quantization steps two outputs differ at most. Shares of a Softmax tell the differences of its
// inputs up to a common shift: d[i] = ln(got[i] / expected[i]) + c per row. The shift that makes the largest of
// them smallest is taken: half of their spread.
double StepsApart(const Tensor& got, const Tensor& expected, const OutputStep& step) {
  // Below it, shares have lost their digits: a smaller one counts as this one.
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
      if (x < kSmallestShare && y < kSmallestShare) continue;
      const double shift = std::log(std::max(x, kSmallestShare) / std::max(y, kSmallestShare));
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
    return InvalidArgument(
        "--steps: output '{}' is not dequantized from 8 bits, with at most a Softmax over its last "
        "axis behind",
        info.name);
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

}  // namespace

absl::StatusOr<std::vector<std::string>> GoldenFolders(const std::string& folder) {
  std::vector<std::string> sets;
  std::error_code ignored;
  std::error_code error;
  for (fs::directory_iterator at(folder, error); !error && at != fs::directory_iterator();
       at.increment(error)) {
    if (at->is_directory(ignored) && at->path().filename().string().starts_with("test_data_set_"))
      sets.push_back(at->path().string());
  }
  std::ranges::sort(sets);
  if (sets.empty() && fs::exists(fs::path(folder) / "input_0.pb", ignored)) sets.push_back(folder);
  if (sets.empty()) return NotFound("no test_data_set_* folder and no input_0.pb in {}", folder);
  return sets;
}

absl::StatusOr<GoldenSet> ReadGoldenSet(const std::string& folder, const Signature& signature) {
  GoldenSet set;
  set.name = fs::path(folder).filename().string();
  OCTET_ASSIGN_OR_RETURN(set.inputs, ReadTensors(folder, "input", signature.inputs.size()));
  for (size_t i = 0; i < set.inputs.size(); ++i) {
    if (set.inputs[i].dtype() != signature.inputs[i].dtype) {
      return InvalidArgument("{}: input '{}': expected {}, got {}", folder,
                             signature.inputs[i].name, DTypeName(signature.inputs[i].dtype),
                             DTypeName(set.inputs[i].dtype()));
    }
  }
  OCTET_ASSIGN_OR_RETURN(set.outputs, ReadTensors(folder, "output", signature.outputs.size()));
  return set;
}

absl::Status Feed(Session& session, const GoldenSet& set) {
  std::vector<Shape> shapes;
  for (const Tensor& input : set.inputs) shapes.push_back(input.shape());
  OCTET_RETURN_IF_ERROR(session.Prepare(shapes));
  for (size_t i = 0; i < set.inputs.size(); ++i) session.SetInput(i, set.inputs[i].view());
  return session.Run();
}

absl::StatusOr<std::vector<Comparison>> CompareWith(Session& session, const GoldenSet& set,
                                                    std::span<const TensorInfo> outputs,
                                                    const Tolerance& tolerance) {
  OCTET_RETURN_IF_ERROR(Feed(session, set));
  std::vector<Comparison> results;
  for (size_t i = 0; i < set.outputs.size(); ++i) {
    const ConstTensorView got = session.output(i);
    const Tensor& expected = set.outputs[i];
    if (got.spec != expected.spec()) {
      return InvalidArgument("{}: output '{}': expected {}{}, got {}{}", set.name, outputs[i].name,
                             DTypeName(expected.dtype()), expected.shape().ToString(),
                             DTypeName(got.dtype()), got.shape().ToString());
    }
    results.push_back(CompareElements(got, expected, tolerance.rtol, tolerance.atol));
    results.back().set = set.name;
    results.back().output = outputs[i].name;
    if (tolerance.steps > 0) {
      OCTET_RETURN_IF_ERROR(
          CompareSteps(got, expected, outputs[i], tolerance.steps, results.back()));
    }
  }
  return results;
}

}  // namespace octet::cli

#include "cli/model_options.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <optional>
#include <string_view>
#include <utility>

#include "cli/finite_range.h"

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

constexpr const char* kWrongUsage = "octet.wrong_usage";
// Of an input's elements: an extent with a digit too many is to be an error, not the machine's memory.
constexpr int64_t kMostElements = int64_t{1} << 32;

// A number from 1 on, or kUnknownDim for "?".
std::optional<int64_t> ParseExtent(std::string_view text) {
  if (text == "?") return kUnknownDim;
  int64_t extent = 0;
  const auto [next, error] = std::from_chars(text.begin(), text.end(), extent);
  if (error != std::errc() || next != text.end() || extent < 1) return std::nullopt;
  return extent;
}

// "x=1x3x224x224", "ids=?x128".
absl::StatusOr<GivenShapes::value_type> ParseShape(std::string_view text) {
  const size_t equals = text.rfind('=');
  if (equals == 0 || equals == std::string_view::npos)
    return InvalidArgument("expected NAME=EXTENTxEXTENT..., got '{}'", text);
  Shape shape;
  for (size_t at = equals + 1; at <= text.size();) {
    const size_t end = std::min(text.find('x', at), text.size());
    const auto extent = ParseExtent(text.substr(at, end - at));
    if (!extent || (*extent == kUnknownDim && shape.rank() > 0)) {
      return InvalidArgument(
          "expected extents from 1 on with 'x' between them, or '?' as the first, got '{}'", text);
    }
    shape.push_back(*extent);
    at = end + 1;
  }
  return GivenShapes::value_type(text.substr(0, equals), shape);
}

absl::Status CheckShape(const TensorInfo& input, const Shape& shape) {
  bool fits = shape.rank() == input.shape.rank();
  for (int axis = 0; fits && axis < shape.rank(); ++axis)
    fits = input.shape[axis] == kUnknownDim || input.shape[axis] == shape[axis];
  if (!fits) {
    return WrongUsage(InvalidArgument("shape of input '{}': expected {}, got {}", input.name,
                                      input.shape.ToString(), shape.ToString()));
  }
  if (!shape.is_static()) {
    return WrongUsage(
        InvalidArgument("input '{}' has extents that only a request knows: {}; --shape "
                        "{}=EXTENTxEXTENT... says them",
                        input.name, input.shape.ToString(), input.name));
  }
  if (const auto elements = CheckedElements(shape.dims()); elements && *elements <= kMostElements)
    return absl::OkStatus();
  return WrongUsage(InvalidArgument("shape of input '{}': expected at most {} elements, got {}",
                                    input.name, kMostElements, shape.ToString()));
}

absl::Status CheckNames(const Signature& signature, const GivenShapes& given) {
  for (const auto& [name, shape] : given) {
    std::string names;
    bool known = false;
    for (const TensorInfo& input : signature.inputs) {
      known = known || input.name == name;
      names += Format("{}'{}'", names.empty() ? "" : ", ", input.name);
    }
    if (!known) {
      return WrongUsage(
          InvalidArgument("--shape: the model has no input '{}', its inputs are {}", name, names));
    }
  }
  return absl::OkStatus();
}

}  // namespace

void ModelOptions::AddTo(CLI::App& verb) {
  verb.add_option("MODEL", path, "ONNX file")->required();
  verb.add_option("--precision", precision, "Compute in this precision instead of the file's own")
      ->check(CLI::IsMember({"fp32", "fp16", "bf16", "int8", "int8-dynamic"}));
  verb.add_option("--require-int8", require_int8,
                  "Fail when less than this per cent of multiply-adds run in int8")
      ->check(FiniteRange(0, 100));
  AddRunOptions(verb, disabled_passes, threads);
}

LoadOptions ModelOptions::ToLoadOptions() const {
  LoadOptions options;
  if (!precision.empty()) options.precision = ParsePrecision(precision);
  options.threads = threads;
  options.disabled_passes = disabled_passes;
  options.require_int8_percent = require_int8;
  return options;
}

absl::StatusOr<std::shared_ptr<const Model>> ModelOptions::Load() const {
  ConfigureWorkerThread(threads);
  return Model::Load(path, ToLoadOptions());
}

void AddRunOptions(CLI::App& verb, std::vector<std::string>& disabled_passes, int& threads) {
  verb.add_option("--disable-pass", disabled_passes,
                  "Leave out a graph pass, by name (see inspect --passes)")
      ->delimiter(',');
  verb.add_option("--threads", threads, "OpenMP threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
}

absl::StatusOr<std::shared_ptr<const Model>> LoadFp32(
    const std::string& path, const std::vector<std::string>& disabled_passes, int threads) {
  LoadOptions options;
  options.precision = Precision::kFp32;
  options.threads = threads;
  options.disabled_passes = disabled_passes;
  return Model::Load(path, options);
}

absl::StatusOr<std::shared_ptr<const Model>> LoadReference(const std::string& path, int threads) {
  LoadOptions options;
  options.threads = threads;
  OCTET_ASSIGN_OR_RETURN(std::shared_ptr<const Model> model, Model::Load(path, options));
  const Precision precision = model->precision();
  if (precision != Precision::kFp16 && precision != Precision::kBf16) return model;
  return LoadFp32(path, {}, threads);
}

int Fail(const absl::Status& status) {
  const std::string_view message = Message(status);
  std::fprintf(stderr, "octet: %.*s\n", static_cast<int>(message.size()), message.data());
  return status.GetPayload(kWrongUsage) ? 2 : 1;
}

absl::Status WrongUsage(absl::Status status) {
  status.SetPayload(kWrongUsage, absl::Cord());
  return status;
}

absl::StatusOr<std::vector<Shape>> ShapesForBatch(const Signature& signature, int64_t batch,
                                                  const GivenShapes& given) {
  OCTET_RETURN_IF_ERROR(CheckNames(signature, given));
  std::vector<Shape> shapes;
  for (const TensorInfo& input : signature.inputs) {
    const auto found = given.find(input.name);
    Shape shape = found == given.end() ? input.shape : found->second;
    if (shape.rank() > 0 && shape[0] == kUnknownDim) shape[0] = batch;
    OCTET_RETURN_IF_ERROR(CheckShape(input, shape));
    shapes.push_back(std::move(shape));
  }
  return shapes;
}

CLI::Option* ShapeOptions::AddTo(CLI::App& verb) {
  const auto refusal = [](const std::string& text) {
    return std::string(Message(ParseShape(text).status()));
  };
  return verb
      .add_option("--shape", given_,
                  "Shape of an input whose extents the model leaves open, such as ids=1x128; with "
                  "'?' as the first extent, the batch. Once per input")
      ->allow_extra_args(false)
      ->check(CLI::Validator(refusal, "NAME=EXTENTxEXTENT..."));
}

absl::StatusOr<std::vector<Shape>> ShapeOptions::ForBatch(const Signature& signature,
                                                          int64_t batch) const {
  GivenShapes given;
  for (const std::string& text : given_) {
    OCTET_ASSIGN_OR_RETURN(const auto named, ParseShape(text));
    if (!given.insert(named).second)
      return WrongUsage(InvalidArgument("--shape: input '{}' is given twice", named.first));
  }
  return ShapesForBatch(signature, batch, given);
}

}  // namespace octet::cli

#include "cli/model_options.h"

#include <cstdio>
#include <string_view>

#include "cli/finite_range.h"

#include "engine/tensor/status.h"

namespace octet::cli {

void ModelOptions::AddTo(CLI::App& verb) {
  verb.add_option("MODEL", path, "ONNX file")->required();
  verb.add_option("--precision", precision, "Compute in this precision instead of the file's own")
      ->check(CLI::IsMember({"fp32", "fp16", "bf16", "int8", "int8-dynamic"}));
  verb.add_option("--threads", threads, "OpenMP threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  verb.add_option("--require-int8", require_int8,
                  "Fail when less than this per cent of multiply-adds run in int8")
      ->check(FiniteRange(0, 100));
  verb.add_option("--disable-pass", disabled_passes,
                  "Leave out a graph pass, by name (see inspect --passes)")
      ->delimiter(',');
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

int Fail(const absl::Status& status) {
  const std::string_view message = Message(status);
  std::fprintf(stderr, "octet: %.*s\n", static_cast<int>(message.size()), message.data());
  return 1;
}

absl::StatusOr<std::vector<Shape>> ShapesForBatch(const Signature& signature, int64_t batch) {
  std::vector<Shape> shapes;
  for (const TensorInfo& input : signature.inputs) {
    Shape shape = input.shape;
    if (shape.rank() > 0 && shape[0] == kUnknownDim) shape[0] = batch;
    if (!shape.is_static()) {
      return InvalidArgument("input '{}' has extents that only a request knows: {}", input.name,
                             input.shape.ToString());
    }
    shapes.push_back(std::move(shape));
  }
  return shapes;
}

}  // namespace octet::cli

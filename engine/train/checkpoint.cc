#include "engine/train/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>

#include "engine/tensor/npz.h"
#include "engine/tensor/npz_writer.h"
#include "engine/tensor/status.h"
#include "engine/train/exam.h"

namespace octet::train {
namespace {

constexpr int64_t kCheckpointVersion = 3;
constexpr size_t kCurveColumns = 5;

using Values = std::vector<std::vector<float>>;

// Arrays with their elements.
class CheckpointArrays {
 public:
  template <typename T>
  void Add(std::string name, std::span<const T> values) {
    Keep(std::move(name), Tensor::From<T>(Shape{std::ssize(values)}, values));
  }
  void Add(std::string name, std::span<const std::string_view> texts) {
    Keep(std::move(name), Tensor::Strings(Shape{std::ssize(texts)}, texts));
  }
  void Add(std::string name, const Values& per_parameter) {
    std::vector<float> all;
    for (const std::vector<float>& values : per_parameter)
      all.insert(all.end(), values.begin(), values.end());
    Add<float>(std::move(name), all);
  }
  absl::Status Write(const std::string& path) const { return WriteNpz(path, arrays_); }

 private:
  void Keep(std::string name, Tensor tensor) {
    arrays_.push_back({std::move(name), {tensors_.emplace_back(std::move(tensor)).view()}});
  }

  std::deque<Tensor> tensors_;
  std::vector<NpzArray> arrays_;
};

template <typename T>
absl::StatusOr<std::span<const T>> Elements(const NpzArrays& arrays, const std::string& name,
                                            DType dtype, size_t count) {
  const auto found = arrays.find(name);
  if (found == arrays.end()) return InvalidArgument("no array '{}'", name);
  const Tensor& tensor = found->second;
  if (tensor.dtype() != dtype || static_cast<size_t>(tensor.elements()) != count) {
    return InvalidArgument("array '{}': expected {} elements of {}, got {} of {}", name, count,
                           DTypeName(dtype), tensor.elements(), DTypeName(tensor.dtype()));
  }
  return tensor.span<T>();
}

// One vector per parameter, each as long as the one of `sizes`.
absl::StatusOr<Values> ReadValues(const NpzArrays& arrays, const std::string& name,
                                  const Values& sizes) {
  size_t count = 0;
  for (const std::vector<float>& values : sizes) count += values.size();
  OCTET_ASSIGN_OR_RETURN(auto rest, Elements<float>(arrays, name, DType::kF32, count));
  if (!std::ranges::all_of(rest, [](float x) { return std::isfinite(x); }))
    return InvalidArgument("array '{}': NaN or infinity", name);
  Values all;
  for (const std::vector<float>& values : sizes) {
    const auto own = rest.first(values.size());
    all.emplace_back(own.begin(), own.end());
    rest = rest.subspan(values.size());
  }
  return all;
}

absl::Status CheckOrigin(const NpzArrays& arrays, const Origin& origin) {
  if (!arrays.contains("version") || !arrays.contains("marks"))
    return InvalidArgument("not a checkpoint: no arrays 'version' and 'marks'");
  OCTET_ASSIGN_OR_RETURN(const auto version, Elements<int64_t>(arrays, "version", DType::kI64, 1));
  if (version[0] != kCheckpointVersion) {
    return InvalidArgument("checkpoint: expected version {}, got {}", kCheckpointVersion,
                           version[0]);
  }
  OCTET_ASSIGN_OR_RETURN(const auto marks, Elements<uint64_t>(arrays, "marks", DType::kU64, 3));
  OCTET_ASSIGN_OR_RETURN(const auto samples, Elements<int64_t>(arrays, "samples", DType::kI64, 1));
  if (marks[0] != origin.model) return InvalidArgument("checkpoint of another model");
  if (samples[0] != origin.samples) {
    return InvalidArgument("checkpoint of other data: it has {} samples, there are {}", samples[0],
                           origin.samples);
  }
  if (marks[1] != origin.data)
    return InvalidArgument("checkpoint of other data: as many samples, with other elements");
  const size_t count = origin.options.size();
  OCTET_ASSIGN_OR_RETURN(
      const auto names, Elements<std::string_view>(arrays, "options/names", DType::kString, count));
  OCTET_ASSIGN_OR_RETURN(const auto values, Elements<std::string_view>(arrays, "options/values",
                                                                       DType::kString, count));
  for (size_t i = 0; i < count; ++i) {
    const auto& [name, value] = origin.options[i];
    if (names[i] != name)
      return InvalidArgument("array 'options/names': expected '{}', got '{}'", name, names[i]);
    if (values[i] != value) {
      return InvalidArgument("checkpoint of other options: it has {} '{}', asked for is '{}'", name,
                             values[i], value);
    }
  }
  if (marks[2] == origin.start) return absl::OkStatus();
  return InvalidArgument(
      "checkpoint of another quantized model that training began with: made by another version, or "
      "on another CPU");
}

absl::Status CheckParameters(const NpzArrays& arrays, std::span<Parameter* const> parameters) {
  const size_t count = parameters.size();
  OCTET_ASSIGN_OR_RETURN(const auto names, Elements<std::string_view>(arrays, "parameters/names",
                                                                      DType::kString, count));
  OCTET_ASSIGN_OR_RETURN(const auto sizes,
                         Elements<int64_t>(arrays, "parameters/sizes", DType::kI64, count));
  for (size_t i = 0; i < count; ++i) {
    const int64_t expected = std::ssize(parameters[i]->values);
    if (names[i] == parameters[i]->name && sizes[i] == expected) continue;
    return InvalidArgument("arrays 'parameters': expected {} values of '{}', got {} of '{}'",
                           expected, parameters[i]->name, sizes[i], names[i]);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TrainEpoch>> ReadCurve(const NpzArrays& arrays, int epochs,
                                                  int best_epoch) {
  const auto count = static_cast<size_t>(epochs);
  OCTET_ASSIGN_OR_RETURN(const auto curve,
                         Elements<double>(arrays, "curve", DType::kF64, count * kCurveColumns));
  std::vector<TrainEpoch> rows;
  double least = std::numeric_limits<double>::infinity();
  int best = 0;
  for (size_t i = 0; i < count; ++i) {
    const auto row = curve.subspan(i * kCurveColumns, kCurveColumns);
    if (!std::ranges::all_of(row.subspan(i == 0), [](double x) { return std::isfinite(x); }))
      return InvalidArgument("array 'curve': NaN or infinity in epoch {}", i);
    rows.push_back({.epoch = static_cast<int>(i),
                    .held_back_loss = row[1],
                    .agreement = row[2],
                    .sureness = row[3],
                    .seconds = row[4],
                    .best = i == 0 || (row[3] >= kSure && row[1] < least),
                    .restored = true});
    if (i > 0) rows.back().train_loss = row[0];
    if (!rows.back().best) continue;
    least = row[1];
    best = static_cast<int>(i);
  }
  if (best != best_epoch) {
    return InvalidArgument("array 'progress': the best epoch is {}, the curve's is {}", best_epoch,
                           best);
  }
  return rows;
}

absl::Status Restore(const NpzArrays& arrays, const Origin& origin, int epochs,
                     int64_t batches_per_epoch, Progress& progress,
                     std::span<Parameter* const> parameters, Optimizer::State& optimizer) {
  OCTET_RETURN_IF_ERROR(CheckOrigin(arrays, origin));
  OCTET_RETURN_IF_ERROR(CheckParameters(arrays, parameters));
  OCTET_ASSIGN_OR_RETURN(const auto at, Elements<int64_t>(arrays, "progress", DType::kI64, 4));
  const auto [done, best_epoch, batch, steps] = std::tuple(at[0], at[1], at[2], at[3]);
  const bool possible = done >= 1 && done <= epochs + 1 && best_epoch >= 0 && best_epoch < done &&
                        batch >= 0 && batch <= (done <= epochs ? batches_per_epoch : 0) &&
                        steps == (done - 1) * batches_per_epoch + batch;
  if (!possible) {
    return InvalidArgument("array 'progress': {} epochs, the best one {}, {} batches, {} steps",
                           done, best_epoch, batch, steps);
  }
  Progress read{.best_epoch = static_cast<int>(best_epoch), .batch = batch};
  OCTET_ASSIGN_OR_RETURN(read.epochs, ReadCurve(arrays, static_cast<int>(done), read.best_epoch));
  OCTET_ASSIGN_OR_RETURN(const auto sum, Elements<double>(arrays, "loss_sum", DType::kF64, 1));
  if (!std::isfinite(sum[0])) return InvalidArgument("array 'loss_sum': {}", sum[0]);
  read.loss_sum = sum[0];
  Values sizes;
  for (const Parameter* parameter : parameters) sizes.push_back(parameter->values);
  OCTET_ASSIGN_OR_RETURN(Values values, ReadValues(arrays, "parameters/values", sizes));
  OCTET_ASSIGN_OR_RETURN(read.best, ReadValues(arrays, "parameters/best", sizes));
  Optimizer::State moments{.done = steps};
  OCTET_ASSIGN_OR_RETURN(moments.first, ReadValues(arrays, "parameters/first", optimizer.first));
  OCTET_ASSIGN_OR_RETURN(moments.second, ReadValues(arrays, "parameters/second", optimizer.second));
  OCTET_ASSIGN_OR_RETURN(moments.average, ReadValues(arrays, "parameters/average", sizes));
  for (const std::vector<float>& squares : moments.second) {
    if (std::ranges::any_of(squares, [](float v) { return v < 0; }))
      return InvalidArgument("array 'parameters/second': mean squares below 0");
  }
  for (size_t i = 0; i < values.size(); ++i) parameters[i]->values = std::move(values[i]);
  optimizer = std::move(moments);
  progress = std::move(read);
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteCheckpoint(const Origin& origin, const Progress& progress,
                             std::span<Parameter* const> parameters,
                             const Optimizer::State& optimizer, const std::string& path) {
  CheckpointArrays arrays;
  arrays.Add<int64_t>("version", {{kCheckpointVersion}});
  arrays.Add<uint64_t>("marks", {{origin.model, origin.data, origin.start}});
  arrays.Add<int64_t>("samples", {{origin.samples}});
  std::vector<std::string_view> names;
  std::vector<std::string_view> texts;
  for (const auto& [name, value] : origin.options) {
    names.push_back(name);
    texts.push_back(value);
  }
  arrays.Add("options/names", names);
  arrays.Add("options/values", texts);
  arrays.Add<int64_t>("progress", {{std::ssize(progress.epochs), progress.best_epoch,
                                    progress.batch, optimizer.done}});
  std::vector<double> curve;
  for (const TrainEpoch& row : progress.epochs) {
    curve.insert(curve.end(), {row.train_loss.value_or(std::numeric_limits<double>::quiet_NaN()),
                               row.held_back_loss, row.agreement, row.sureness, row.seconds});
  }
  arrays.Add<double>("curve", curve);
  arrays.Add<double>("loss_sum", {{progress.loss_sum}});
  names.clear();
  std::vector<int64_t> sizes;
  Values values;
  for (const Parameter* parameter : parameters) {
    names.push_back(parameter->name);
    sizes.push_back(std::ssize(parameter->values));
    values.push_back(parameter->values);
  }
  arrays.Add("parameters/names", names);
  arrays.Add<int64_t>("parameters/sizes", sizes);
  arrays.Add("parameters/values", values);
  arrays.Add("parameters/best", progress.best);
  arrays.Add("parameters/first", optimizer.first);
  arrays.Add("parameters/second", optimizer.second);
  arrays.Add("parameters/average", optimizer.average);
  return arrays.Write(path);
}

absl::Status ReadCheckpoint(const std::string& path, const Origin& origin, int epochs,
                            int64_t batches_per_epoch, Progress& progress,
                            std::span<Parameter* const> parameters, Optimizer::State& optimizer) {
  OCTET_ASSIGN_OR_RETURN(const NpzArrays arrays, ReadNpz(path));
  return Annotate(
      Restore(arrays, origin, epochs, batches_per_epoch, progress, parameters, optimizer), path);
}

}  // namespace octet::train

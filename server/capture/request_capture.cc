#include "server/capture/request_capture.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <new>
#include <system_error>
#include <utility>

#include <sys/stat.h>

#include "engine/tensor/npz_writer.h"
#include "engine/tensor/status.h"
#include "server/logging/event_log.h"

namespace octet {
namespace {

namespace fs = std::filesystem;

/// What keeping a request costs beside its elements: its node, control blocks, and the list that is made to write it.
constexpr size_t kBytesPerRequest = sizeof(UniformSample::Entry) + 192;
constexpr size_t kBytesPerInput = sizeof(UniformSample::Input) + sizeof(UniformSample::Texts) +
                                  sizeof(ConstTensorView) + 2 * kTensorAlignment;

/// Longer names are cut: file systems take 255 bytes, and one of ours is put around it while it is written.
constexpr size_t kLongestName = 200;

bool IsFolderName(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

/// "uint8-3x32x32_int64": element type and extents behind axis 0 of every input.
std::string ShapesOf(std::span<const WireTensor> inputs) {
  std::string text;
  for (const ConstTensorView& input : inputs) {
    if (!text.empty()) text += '_';
    for (const char c : DTypeName(input.dtype())) {
      text += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    for (int axis = 1; axis < input.shape().rank(); ++axis) {
      text += Format("{}{}", axis == 1 ? '-' : 'x', input.shape()[axis]);
    }
  }
  return text;
}

bool ShareAxis0(std::span<const WireTensor> inputs) {
  return std::ranges::all_of(inputs, [&](const ConstTensorView& input) {
    return input.shape().rank() > 0 && inputs[0].shape().rank() > 0 &&
           input.shape()[0] == inputs[0].shape()[0];
  });
}

/// True when an element of BYTES ends with a zero byte: in a file it could not be told from the zeros behind a shorter one.
bool EndsWithNul(const WireTensor& input) {
  return input.dtype() == DType::kString &&
         std::ranges::any_of(input.span<std::string_view>(),
                             [](std::string_view text) { return text.ends_with('\0'); });
}

absl::Status CheckInputs(const Signature& signature) {
  if (signature.inputs.empty())
    return absl::InvalidArgumentError("capture: the model has no inputs");
  const TensorInfo* fixed = nullptr;  // An input whose extent along axis 0 is known.
  for (const TensorInfo& input : signature.inputs) {
    if (!NpzHolds(input.dtype)) {
      return InvalidArgument("capture: element type of input '{}': .npz files hold no {}",
                             input.name, DTypeName(input.dtype));
    }
    if (!input.rank_known) continue;
    if (input.shape.rank() == 0) {
      return InvalidArgument("capture: samples lie along axis 0, and input '{}' is a scalar",
                             input.name);
    }
    if (input.shape[0] == kUnknownDim) continue;
    if (fixed != nullptr && fixed->shape[0] != input.shape[0]) {
      return InvalidArgument(
          "capture: samples lie along axis 0, where inputs '{}' and '{}' have {} and {}",
          fixed->name, input.name, fixed->shape[0], input.shape[0]);
    }
    fixed = &input;
  }
  return absl::OkStatus();
}

absl::Status CheckRedacted(const Signature& signature, const ModelConfig::Capture& rule) {
  std::string names;
  for (const TensorInfo& input : signature.inputs) {
    names += (names.empty() ? "" : ", ") + input.name;
  }
  for (const std::string& name : rule.redact) {
    if (std::ranges::contains(signature.inputs, name, &TensorInfo::name)) continue;
    return InvalidArgument("capture.redact: the model has no input '{}', it has {}", name, names);
  }
  return absl::OkStatus();
}

/// Why `path` is no folder of ours; 0 when it is one. A link in its place is none: it might lead anywhere.
int WhyNoFolder(const std::string& path) {
  struct stat info{};
  if (::lstat(path.c_str(), &info) != 0) return errno;
  return S_ISDIR(info.st_mode) ? 0 : ENOTDIR;
}

/// Makes a folder that nobody else can look into, unless it is there.
absl::Status MakeFolder(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0) return absl::OkStatus();
  const int error = errno == EEXIST ? WhyNoFolder(path) : errno;
  if (error == 0) return absl::OkStatus();
  return MakeError(absl::StatusCode::kUnavailable, "cannot make a folder ({}): '{}'",
                   std::strerror(error), path);
}

absl::Status CannotRemove(const std::string& path, std::string_view why) {
  return MakeError(absl::StatusCode::kUnavailable, "cannot remove ({}): '{}'", why, path);
}

/// True for what is left of a capture's file that was being written: ".x.npz.12-0.tmp", as PendingFile calls it.
bool IsPart(std::string_view name) {
  return name.starts_with('.') && name.ends_with(".tmp") && name.contains(".npz.");
}

/// Removes the regular files of a folder that `chosen` says; what cannot be removed keeps nothing else.
absl::Status RemoveFrom(const std::string& folder,
                        const std::function<bool(const fs::path& file)>& chosen) {
  absl::Status first_error;
  std::error_code error;
  std::vector<fs::path> files;
  for (auto it = fs::directory_iterator(folder, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    if (!chosen(it->path())) continue;
    std::error_code unknown;
    const fs::file_status status = it->symlink_status(unknown);
    if (status.type() == fs::file_type::regular) files.push_back(it->path());
    if (status.type() == fs::file_type::none) {
      first_error.Update(CannotRemove(it->path().string(), unknown.message()));
    }
  }
  if (error) first_error.Update(CannotRemove(folder, error.message()));
  for (const fs::path& file : files) {
    fs::remove(file, error);
    if (error) first_error.Update(CannotRemove(file.string(), error.message()));
  }
  return first_error;
}

/// Removes what processes that are gone had half written. What is as young may be another one's that is at it.
absl::Status RemoveParts(const std::string& folder) {
  constexpr std::chrono::minutes kLongestWrite{10};
  const auto old = fs::file_time_type::clock::now() - kLongestWrite;
  return RemoveFrom(folder, [old](const fs::path& file) {
    std::error_code gone;
    return IsPart(file.filename().string()) && fs::last_write_time(file, gone) < old && !gone;
  });
}

}  // namespace

absl::StatusOr<std::shared_ptr<RequestCapture>> RequestCapture::Make(
    const CaptureOrigin& origin, const Signature& signature, const ModelConfig::Capture& rule,
    std::shared_ptr<CaptureMetrics> metrics) {
  if (!IsFolderName(origin.model)) {
    return InvalidArgument("capture: the model's name is no folder's: '{}'", origin.model);
  }
  OCTET_RETURN_IF_ERROR(CheckInputs(signature));
  OCTET_RETURN_IF_ERROR(CheckRedacted(signature, rule));
  return std::shared_ptr<RequestCapture>(  // The constructor is private.
      new RequestCapture(origin, signature, rule, std::move(metrics)));
}

RequestCapture::RequestCapture(const CaptureOrigin& origin, const Signature& signature,
                               const ModelConfig::Capture& rule,
                               std::shared_ptr<CaptureMetrics> metrics)
    : origin_(origin),
      rule_(rule),
      share_(rule.percent / 100),
      metrics_(std::move(metrics)),
      sample_(share_, static_cast<size_t>(rule.max_bytes)) {
  for (const TensorInfo& input : signature.inputs) {
    inputs_.push_back({.name = input.name,
                       .dtype = input.dtype,
                       .redacted = std::ranges::contains(rule.redact, input.name)});
  }
  ShowTotals();
}

bool RequestCapture::Serves(const Signature& signature, const ModelConfig::Capture& rule) const {
  const auto same = [](const Input& mine, const TensorInfo& its) {
    return mine.name == its.name && mine.dtype == its.dtype;
  };
  return rule == rule_ && std::ranges::equal(inputs_, signature.inputs, same);
}

void RequestCapture::Offer(double draw, std::span<const WireTensor> inputs) {
  metrics_->drawn.Add();
  if (!sample_.MayTake(draw) || closed_) return;
  try {
    Take(draw, inputs);
  } catch (const std::bad_alloc&) {
    Drop(CaptureDrop::kMemory);
  }
}

void RequestCapture::Take(double draw, std::span<const WireTensor> inputs) {
  using Verdict = UniformSample::Verdict;
  const auto held = [](const ConstTensorView& input) { return NpzHolds(input.dtype()); };
  if (!std::ranges::all_of(inputs, held)) return Drop(CaptureDrop::kDType);
  if (!ShareAxis0(inputs) || inputs[0].shape()[0] == 0) return Drop(CaptureDrop::kAxis0);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs_[i].redacted && EndsWithNul(inputs[i])) return Drop(CaptureDrop::kNul);
  }
  const int64_t rows = inputs[0].shape()[0];
  auto reservation =
      sample_.Reserve(draw, BytesOf(inputs), rows, ShapesOf(inputs), FileShareOf(inputs));
  switch (reservation.verdict) {
    case Verdict::kPassed:
      return ShowTotals();  // It may have ended the sample earlier.
    case Verdict::kTooLarge:
      return Drop(CaptureDrop::kTooLarge);
    case Verdict::kTooManyShapes:
      return Drop(CaptureDrop::kShapes);
    case Verdict::kBusy:
      return Drop(CaptureDrop::kBusy);
    case Verdict::kTaken:
      break;
  }
  std::vector<UniformSample::Input> copies;
  try {
    copies = CopyOf(inputs);
  } catch (const std::bad_alloc&) {
    sample_.Abandon(std::move(reservation));
    throw;
  }
  sample_.Fill(std::move(reservation), std::move(copies));
  metrics_->requests.Add();
  metrics_->rows.Add(static_cast<uint64_t>(rows));
  ShowTotals();
}

std::vector<UniformSample::Input> RequestCapture::CopyOf(std::span<const WireTensor> inputs) const {
  std::vector<UniformSample::Input> copies;
  copies.reserve(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    const WireTensor& input = inputs[i];
    UniformSample::Input& copy = copies.emplace_back();
    copy.spec = input.spec;
    if (inputs_[i].redacted) continue;
    if (input.dtype() == DType::kString) {
      copy.elements = Tensor::Strings(input.shape(), input.span<std::string_view>());
    } else {
      copy.elements = Tensor(input.dtype(), input.shape());
      input.CopyTo(copy.elements.mutable_data());
    }
  }
  return copies;
}

size_t RequestCapture::BytesOf(std::span<const WireTensor> inputs) const {
  size_t bytes = kBytesPerRequest;
  for (size_t i = 0; i < inputs.size(); ++i) {
    bytes += kBytesPerInput;
    if (inputs_[i].redacted) continue;
    const uint64_t elements = MemoryBytes(inputs[i]);
    bytes += (elements + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
  }
  return bytes;
}

UniformSample::FileShare RequestCapture::FileShareOf(std::span<const WireTensor> inputs) const {
  UniformSample::FileShare file;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const ConstTensorView& input = inputs[i];
    const auto count = static_cast<uint64_t>(input.elements());
    if (input.dtype() != DType::kString) {
      file.fixed += count * SizeOf(input.dtype());
      continue;
    }
    UniformSample::Texts& texts = file.texts.emplace_back();
    texts.count = count;
    if (inputs_[i].redacted) continue;
    for (const std::string_view text : input.span<std::string_view>()) {
      texts.longest = std::max<uint64_t>(texts.longest, text.size());
    }
  }
  return file;
}

void RequestCapture::ShowTotals() {
  absl::MutexLock lock(&showing_);
  const UniformSample::Totals totals = sample_.totals();
  metrics_->sample_requests.Set(static_cast<double>(totals.requests));
  metrics_->sample_rows.Set(static_cast<double>(totals.rows));
  metrics_->sample_bytes.Set(static_cast<double>(totals.bytes));
}

void RequestCapture::Write() {
  absl::MutexLock lock(&writing_);
  if (!ended_) WriteIfChanged();
}

void RequestCapture::WriteIfChanged() {
  const uint64_t changes = sample_.changes();
  if (changes == written_changes_) return;
  absl::Status status;
  try {
    status = WriteChanged(sample_.Take());
  } catch (const std::bad_alloc&) {
    status = absl::ResourceExhaustedError("out of memory for a capture's files");
  }
  if (status.ok()) written_changes_ = changes;
  Report(status);
}

void RequestCapture::Close() {
  closed_ = true;
  absl::MutexLock lock(&writing_);
  if (!std::exchange(ended_, true)) WriteIfChanged();
}

bool RequestCapture::ShowsMoreThan(const RequestCapture& next) const {
  return std::ranges::any_of(inputs_, [&](const Input& mine) {
    const auto its = std::ranges::find(next.inputs_, mine.name, &Input::name);
    return !mine.redacted && its != next.inputs_.end() && its->redacted;
  });
}

void RequestCapture::Discard() {
  closed_ = true;
  absl::MutexLock lock(&writing_);
  ended_ = true;
  if (const absl::Status status = RemoveFiles(); !status.ok()) {
    LogEvent(LogLevel::kError, "capture_not_removed",
             {{"model", origin_.model}, {"version", origin_.version}, {"error", Message(status)}});
    return;
  }
  LogEvent(LogLevel::kWarn, "capture_discarded",
           {{"model", origin_.model}, {"version", origin_.version}, {"folder", Folder()}});
}

absl::Status RequestCapture::RemoveFiles() const {
  for (const std::string& folder : {ModelFolder(), Folder()}) {
    const int error = WhyNoFolder(folder);
    if (error == ENOENT) return absl::OkStatus();
    if (error != 0) return CannotRemove(folder, std::strerror(error));
  }
  return RemoveFrom(Folder(), [](const fs::path& file) {
    const std::string name = file.filename().string();
    return name.ends_with(".npz") || IsPart(name);
  });
}

std::string RequestCapture::ModelFolder() const {
  return Format("{}/{}", origin_.path, origin_.model);
}

std::string RequestCapture::Folder() const {
  return Format("{}/{}", ModelFolder(), origin_.version);
}

absl::Status RequestCapture::WriteChanged(const UniformSample::Snapshot& snapshot) {
  OCTET_RETURN_IF_ERROR(MakeFolder(ModelFolder()));
  OCTET_RETURN_IF_ERROR(MakeFolder(Folder()));
  absl::Status first_error;
  if (written_.empty()) first_error.Update(RemoveParts(Folder()));
  written_.resize(snapshot.shapes.size());
  for (size_t shape = 0; shape < snapshot.shapes.size(); ++shape) {
    if (written_[shape] == snapshot.shapes[shape].changes) continue;
    const absl::Status status = WriteShape(snapshot, shape);
    if (status.ok()) written_[shape] = snapshot.shapes[shape].changes;
    first_error.Update(status);
  }
  return first_error;
}

std::string RequestCapture::FileOf(const UniformSample::Snapshot& snapshot, size_t shape) const {
  std::string name = snapshot.shapes[shape].name;
  if (name.size() > kLongestName) name = Format("{}-{}", name.substr(0, kLongestName), shape);
  return Format("{}/{}.npz", Folder(), name);
}

absl::Status RequestCapture::WriteShape(const UniformSample::Snapshot& snapshot,
                                        size_t shape) const {
  const std::string file = FileOf(snapshot, shape);
  const auto same = [shape](const auto& entry) { return entry->shape == shape; };
  const auto count = static_cast<size_t>(std::ranges::count_if(snapshot.entries, same));
  if (count == 0) {  // All of them gave way to others.
    if (std::remove(file.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
    return CannotRemove(file, std::strerror(errno));
  }
  std::vector<NpzArray> arrays(inputs_.size());
  for (size_t i = 0; i < inputs_.size(); ++i) {
    arrays[i].name = inputs_[i].name;
    arrays[i].pieces.reserve(count);
    for (const auto& entry : snapshot.entries) {
      if (same(entry)) arrays[i].pieces.push_back(entry->inputs[i].view());
    }
  }
  return WriteNpz(file, arrays);
}

void RequestCapture::Report(const absl::Status& status) {
  (status.ok() ? metrics_->writes : metrics_->write_failures).Add();
  if (status.ok() == !failing_) return;
  failing_ = !status.ok();
  if (failing_) {
    LogEvent(LogLevel::kError, "capture_write_failed",
             {{"model", origin_.model}, {"version", origin_.version}, {"error", Message(status)}});
  } else {
    LogEvent(LogLevel::kInfo, "capture_write_recovered",
             {{"model", origin_.model}, {"version", origin_.version}});
  }
}

}  // namespace octet

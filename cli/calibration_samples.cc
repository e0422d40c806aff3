#include "cli/calibration_samples.h"

#include <memory>
#include <utility>

#include "cli/sample_arrays.h"

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

// Rows of an array, as the model's element type.
class ArrayRows : public SampleSource {
 public:
  ArrayRows(std::shared_ptr<const StoredArray> array, ArrayMatch match, TensorSpec spec)
      : array_(std::move(array)), match_(std::move(match)), spec_(std::move(spec)) {}
  const TensorSpec& spec() const override { return spec_; }
  absl::Status Read(int64_t first, int64_t rows, void* to) const override {
    Shape shape = spec_.shape;
    shape[0] = 1;
    const size_t row_bytes = TensorSpec{array_->spec().dtype, shape}.bytes();
    const size_t begin = static_cast<size_t>(first) * row_bytes;
    const size_t bytes = static_cast<size_t>(rows) * row_bytes;
    if (!match_.mapped) return array_->Read(begin, bytes, to);
    std::vector<std::byte> stored(bytes);
    OCTET_RETURN_IF_ERROR(array_->Read(begin, bytes, stored.data()));
    shape[0] = rows;
    ConvertFromWire({stored.data(), {match_.mapping.dtype, shape}}, match_.mapping,
                    {.stored = spec_.dtype, .quant = {}}, to);
    return absl::OkStatus();
  }

 private:
  std::shared_ptr<const StoredArray> array_;
  ArrayMatch match_;
  TensorSpec spec_;
};

class CalibrationOpener {
 public:
  CalibrationOpener(const Signature& signature, const ModelConfig& config)
      : signature_(signature), config_(config) {}

  absl::Status AddFolder(const std::string& folder) {
    OCTET_ASSIGN_OR_RETURN(const std::vector<std::string> files, SampleFiles(folder));
    for (const std::string& file : files) OCTET_RETURN_IF_ERROR(AddFile(file, false));
    return absl::OkStatus();
  }

  // In a folder there may be more files than a process can have open.
  absl::Status AddFile(const std::string& file, bool in_place) {
    OCTET_ASSIGN_OR_RETURN(const StoredArrays arrays, Open(file, {spool_, in_place}));
    ArraySpecs specs;
    for (const auto& [name, array] : arrays) {
      specs.emplace(name, array->spec());
      if (file.ends_with(".npy")) specs[name].shape = WithSamples(array->spec().shape, signature_);
    }
    OCTET_RETURN_IF_ERROR(CompareWithFirst(file, specs));
    return Annotate(Take(arrays, specs), file);
  }

  absl::StatusOr<CalibrationSamples> Finish(const std::string& where) && {
    if (made_.inputs.count() == 0) return InvalidArgument("{}: no samples", where);
    return std::move(made_);
  }

 private:
  absl::StatusOr<StoredArrays> Open(const std::string& file, const Placement& placement) const {
    if (!file.ends_with(".npy")) return OpenNpz(file, placement);
    OCTET_ASSIGN_OR_RETURN(auto array, OpenNpy(file, placement));
    return StoredArrays{{kOnlyInputArray, std::move(array)}};
  }

  // What the model reads of the files of one set has one element type, and as many axes.
  absl::Status CompareWithFirst(const std::string& file, const ArraySpecs& specs) {
    for (const TensorInfo& info : signature_.inputs) {
      const auto found = FindArray(info, signature_.inputs.size() == 1, specs);
      if (found == specs.end()) continue;
      const auto& [name, spec] = *found;
      const auto& [first_file, first] = first_.try_emplace(name, file, spec).first->second;
      if (spec.dtype == first.dtype && spec.shape.rank() == first.shape.rank()) continue;
      return InvalidArgument("{}: {} of {} does not go with {} of {} in {}", file,
                             spec.shape.ToString(), DTypeName(spec.dtype), first.shape.ToString(),
                             DTypeName(first.dtype), first_file);
    }
    return absl::OkStatus();
  }

  absl::Status Take(const StoredArrays& arrays, const ArraySpecs& specs) {
    CalibrationData::Sources sources;
    std::optional<int64_t> count;
    for (const TensorInfo& info : signature_.inputs) {
      OCTET_ASSIGN_OR_RETURN(ArrayMatch match,
                             MatchArray(info, signature_.inputs.size() == 1, specs, config_));
      const Shape& shape = specs.at(match.array).shape;
      if (count && shape[0] != *count) {
        return InvalidArgument("arrays disagree about the number of samples, {} and {}", *count,
                               shape[0]);
      }
      count = shape[0];
      const auto& array = arrays.at(match.array);
      sources.emplace(info.name, std::make_shared<ArrayRows>(array, std::move(match),
                                                             TensorSpec{info.dtype, shape}));
    }
    if (*count == 0) return absl::OkStatus();
    made_.inputs.Add(std::move(sources));
    return TakeLabels(arrays, *count);
  }

  // Of the samples that were added last.
  absl::Status TakeLabels(const StoredArrays& arrays, int64_t count) {
    if (!LabelsAreLabels(signature_)) return absl::OkStatus();
    const auto found = arrays.find(kLabelsArray);
    const bool labelled = found != arrays.end();
    const int64_t before = made_.inputs.count() - count;
    if (before > 0 && labelled == made_.labels.empty()) {
      return InvalidArgument(
          "{} array 'labels': the {} samples before it have {}, expected all or none",
          labelled ? "an" : "no", before, labelled ? "none" : "theirs");
    }
    if (!labelled) return absl::OkStatus();
    Tensor labels(found->second->spec().dtype, found->second->spec().shape);
    OCTET_RETURN_IF_ERROR(found->second->Read(0, labels.bytes(), labels.mutable_data()));
    OCTET_ASSIGN_OR_RETURN(const std::vector<int64_t> own, LabelsIn(labels, count));
    made_.labels.insert(made_.labels.end(), own.begin(), own.end());
    return absl::OkStatus();
  }

  const Signature& signature_;
  const ModelConfig& config_;
  std::shared_ptr<Spool> spool_ = std::make_shared<Spool>();
  std::map<std::string, std::pair<std::string, TensorSpec>> first_;  ///< By array: file and spec.
  CalibrationSamples made_;
};

}  // namespace

absl::StatusOr<CalibrationSamples> OpenCalibration(const Signature& signature,
                                                   const std::vector<std::string>& paths,
                                                   const std::string& map_file) {
  if (signature.inputs.empty()) return InvalidArgument("the model has no inputs");
  ModelConfig config;
  if (!map_file.empty()) {
    OCTET_ASSIGN_OR_RETURN(config, LoadModelConfig(map_file));
  }
  CalibrationOpener opener(signature, config);
  for (const std::string& path : paths)
    OCTET_RETURN_IF_ERROR(IsFolder(path) ? opener.AddFolder(path) : opener.AddFile(path, true));
  return std::move(opener).Finish(paths.front());
}

}  // namespace octet::cli

#include "cli/samples.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "cli/sample_arrays.h"

#include "config/model_config.h"
#include "engine/tensor/status.h"

namespace octet::cli {

// Rows of an array, converted as they are read.
class SampleRows : public SampleSource {
 public:
  SampleRows(std::shared_ptr<const StoredArray> array, ArrayMatch match, TensorSpec spec,
             bool whole_inputs)
      : array_(std::move(array)),
        match_(std::move(match)),
        spec_(std::move(spec)),
        whole_inputs_(whole_inputs) {}
  const TensorSpec& spec() const override { return spec_; }
  absl::Status Read(int64_t first, int64_t rows, void* to) const override {
    return ReadAs(spec_.dtype, first, rows, to);
  }
  absl::Status ReadAs(DType dtype, int64_t first, int64_t rows, void* to) const {
    Shape shape = spec_.shape;
    shape[0] = rows;
    const TensorSpec stored{array_->spec().dtype, shape};
    const auto elements_per_row = static_cast<size_t>(shape.elements(1, shape.rank()));
    const size_t begin = static_cast<size_t>(first) * elements_per_row * SizeOf(stored.dtype);
    if (!match_.mapped && dtype == stored.dtype) return array_->Read(begin, stored.bytes(), to);
    std::vector<std::byte> elements(stored.bytes());
    OCTET_RETURN_IF_ERROR(array_->Read(begin, elements.size(), elements.data()));
    if (match_.mapped && dtype == DType::kF64) {
      Tensor reals(DType::kF32, shape);
      Map(elements.data(), stored, DType::kF32, reals.mutable_data());
      ConvertTensor(reals.view(), {to, {dtype, shape}});
    } else if (match_.mapped) {
      Map(elements.data(), stored, dtype, to);
    } else {
      ConvertTensor({elements.data(), stored}, {to, {dtype, shape}});
    }
    return absl::OkStatus();
  }

 private:
  // A mapping speaks of the input's own axes.
  void Map(const std::byte* from, const TensorSpec& stored, DType dtype, void* to) const {
    const RealFormat format{.stored = dtype, .quant = {}};
    if (!whole_inputs_) return ConvertFromWire({from, stored}, match_.mapping, format, to);
    const TensorSpec one{stored.dtype, Shape(stored.shape.dims().subspan(1))};
    const size_t row_bytes = TensorSpec{dtype, one.shape}.bytes();
    for (int64_t row = 0; row < stored.shape[0]; ++row) {
      const auto at = static_cast<size_t>(row);
      ConvertFromWire({from + at * one.bytes(), one}, match_.mapping, format,
                      static_cast<std::byte*>(to) + at * row_bytes);
    }
  }

  std::shared_ptr<const StoredArray> array_;
  ArrayMatch match_;
  TensorSpec spec_;
  bool whole_inputs_;
};

class SampleOpener {
 public:
  SampleOpener(const Signature& signature, const SampleSet& set, const ModelConfig& config)
      : signature_(signature), set_(set), config_(config) {}

  absl::StatusOr<Samples> Open() {
    for (const std::string& path : set_.paths)
      OCTET_RETURN_IF_ERROR(IsFolder(path) ? AddFolder(path) : AddFile(path, true));
    if (made_.count() == 0) return InvalidArgument("{}: no samples", set_.paths.front());
    return std::move(made_);
  }

 private:
  absl::Status AddFolder(const std::string& folder) {
    OCTET_ASSIGN_OR_RETURN(const std::vector<std::string> files, SampleFiles(folder));
    for (const std::string& file : files) OCTET_RETURN_IF_ERROR(AddFile(file, false));
    return absl::OkStatus();
  }

  // In a folder there may be more files than a process can have open.
  absl::Status AddFile(const std::string& file, bool in_place) {
    OCTET_ASSIGN_OR_RETURN(const StoredArrays arrays, OpenArrays(file, {spool_, in_place}));
    ArraySpecs specs;
    for (const auto& [name, array] : arrays) specs.emplace(name, array->spec());
    if (first_.empty()) DecideWhole(specs);
    if (whole_inputs_ || (file.ends_with(".npy") && only())) {
      for (const TensorInfo& info : signature_.inputs) {
        const auto found = FindArray(info, only(), specs);
        if (found == specs.end()) continue;
        Shape& shape = specs[found->first].shape;
        shape = WithSamples(shape, info.shape.rank(), whole_inputs_);
      }
    }
    OCTET_RETURN_IF_ERROR(CompareWithFirst(file, specs));
    return Annotate(Take(arrays, specs), file);
  }

  // By the first file: what has an axis more than its input stacks whole ones.
  void DecideWhole(const ArraySpecs& specs) {
    whole_inputs_ = !HasSampleAxis(signature_);
    const TensorInfo& info = signature_.inputs[0];
    const auto found = FindArray(info, only(), specs);
    if (found != specs.end() && info.rank_known)
      whole_inputs_ |= found->second.shape.rank() == info.shape.rank() + 1;
    if (whole_inputs_) made_.data_ = CalibrationData::OfWholeInputs();
  }

  static absl::StatusOr<StoredArrays> OpenArrays(const std::string& file,
                                                 const Placement& placement) {
    if (!file.ends_with(".npy")) return OpenNpz(file, placement);
    OCTET_ASSIGN_OR_RETURN(auto array, OpenNpy(file, placement));
    return StoredArrays{{kOnlyInputArray, std::move(array)}};
  }

  bool only() const { return signature_.inputs.size() == 1; }

  // What the model reads of the files of one set has one element type, and as many axes; where it has to, one shape.
  absl::Status CompareWithFirst(const std::string& file, const ArraySpecs& specs) {
    for (const TensorInfo& info : signature_.inputs) {
      const auto found = FindArray(info, only(), specs);
      if (found == specs.end()) continue;
      const TensorSpec& spec = found->second;
      const auto& [first_file, first] = first_.try_emplace(info.name, file, spec).first->second;
      bool goes = spec.dtype == first.dtype && spec.shape.rank() == first.shape.rank();
      const bool one_shape = set_.one_shape && !whole_inputs_;
      for (int axis = 1; goes && one_shape && axis < spec.shape.rank(); ++axis)
        goes = spec.shape[axis] == first.shape[axis];
      if (goes) continue;
      return InvalidArgument("{}: {} of {} does not go with {} of {} in {}", file,
                             spec.shape.ToString(), DTypeName(spec.dtype), first.shape.ToString(),
                             DTypeName(first.dtype), first_file);
    }
    return absl::OkStatus();
  }

  absl::Status Take(const StoredArrays& arrays, const ArraySpecs& specs) {
    std::vector<Samples::Input> inputs;
    Samples::Part part;
    CalibrationData::Sources sources;
    std::optional<int64_t> count;
    for (TensorInfo info : signature_.inputs) {
      const auto found = FindArray(info, only(), specs);
      if (set_.as_stored && found != specs.end()) info.dtype = found->second.dtype;
      OCTET_ASSIGN_OR_RETURN(ArrayMatch match,
                             MatchArray(info, only(), specs, config_, whole_inputs_));
      const Shape& shape = specs.at(match.array).shape;
      if (count && shape[0] != *count) {
        return InvalidArgument("arrays disagree about the number of samples, {} and {}", *count,
                               shape[0]);
      }
      count = shape[0];
      inputs.push_back({info, match.mapped});
      const auto& array = arrays.at(match.array);
      part.push_back(std::make_shared<SampleRows>(array, std::move(match),
                                                  TensorSpec{info.dtype, shape}, whole_inputs_));
      sources.emplace(info.name, part.back());
    }
    if (*count == 0) return absl::OkStatus();
    made_.inputs_ = std::move(inputs);
    made_.parts_.push_back(std::move(part));
    made_.data_.Add(std::move(sources));
    made_.ends_.push_back(made_.count());
    return TakeLabels(arrays, *count);
  }

  // Of the samples that were added last.
  absl::Status TakeLabels(const StoredArrays& arrays, int64_t count) {
    if (!LabelsAreLabels(signature_)) return absl::OkStatus();
    const auto found = arrays.find(kLabelsArray);
    const bool labelled = found != arrays.end();
    const int64_t before = made_.count() - count;
    if (before > 0 && labelled == made_.labels_.empty()) {
      return InvalidArgument(
          "{} array 'labels': the {} samples before it have {}, expected all or none",
          labelled ? "an" : "no", before, labelled ? "none" : "theirs");
    }
    if (!labelled) return absl::OkStatus();
    OCTET_ASSIGN_OR_RETURN(const std::vector<int64_t> own, LabelsIn(*found->second, count));
    made_.labels_.insert(made_.labels_.end(), own.begin(), own.end());
    return absl::OkStatus();
  }

  const Signature& signature_;
  const SampleSet& set_;
  const ModelConfig& config_;
  std::shared_ptr<Spool> spool_ = std::make_shared<Spool>();
  std::map<std::string, std::pair<std::string, TensorSpec>> first_;  ///< By input: file and spec.
  bool whole_inputs_ = false;
  Samples made_;
};

absl::StatusOr<Samples> Samples::Open(const Signature& signature, const SampleSet& set) {
  if (signature.inputs.empty()) return InvalidArgument("the model has no inputs");
  ModelConfig config;
  if (!set.map.empty()) {
    OCTET_ASSIGN_OR_RETURN(config, LoadModelConfig(set.map));
  }
  return SampleOpener(signature, set, config).Open();
}

int64_t Samples::OwnBatch(const Signature& signature) const {
  return whole_inputs() ? 1 : signature.inputs[0].shape[0];
}

std::vector<Shape> Samples::BatchShapes(int64_t first, int64_t rows) const {
  std::vector<Shape> shapes;
  for (const Input& input : inputs_) shapes.push_back(data_.RunShape(input.info.name, first, rows));
  return shapes;
}

absl::Status Samples::Read(size_t i, int64_t first, int64_t rows, TensorView dst) const {
  auto* to = static_cast<std::byte*>(dst.data);
  const size_t row_bytes = dst.bytes() / static_cast<size_t>(rows);
  auto part = static_cast<size_t>(std::ranges::upper_bound(ends_, first) - ends_.begin());
  while (rows > 0) {
    const int64_t before = part == 0 ? 0 : ends_[part - 1];
    const int64_t taken = std::min(rows, ends_[part] - first);
    OCTET_RETURN_IF_ERROR(parts_[part][i]->ReadAs(dst.dtype(), first - before, taken, to));
    to += static_cast<size_t>(taken) * row_bytes;
    first += taken;
    rows -= taken;
    ++part;
  }
  return absl::OkStatus();
}

Tensor RandomTexts(const Shape& shape, std::mt19937& random) {
  std::vector<std::string> texts;
  for (int64_t i = 0; i < shape.elements(); ++i) texts.push_back(std::to_string(random() % 1000));
  return Tensor::Strings(shape, std::vector<std::string_view>(texts.begin(), texts.end()));
}

void FillRandom(TensorView dst, std::mt19937& random) {
  // Some at a time: as F32 those of a byte would take four times as much.
  constexpr int64_t kAtOnce = 65'536;
  const DType dtype = dst.dtype();
  std::uniform_real_distribution<float> uniform(0, 1);
  const auto whole = [&random](uint32_t count) { return static_cast<float>(random() % count); };
  const auto next = [&] {
    if (IsFloat(dtype)) return uniform(random);
    if (dtype == DType::kU8) return whole(256);
    return dtype == DType::kI8 ? whole(256) - 128 : whole(2);
  };
  std::vector<float> values;
  auto* to = static_cast<std::byte*>(dst.data);
  for (int64_t left = dst.elements(); left > 0; left -= std::ssize(values)) {
    values.resize(static_cast<size_t>(std::min(left, kAtOnce)));
    std::ranges::generate(values, next);
    const Shape shape{std::ssize(values)};
    ConvertTensor({values.data(), {DType::kF32, shape}}, {to, {dtype, shape}});
    to += values.size() * SizeOf(dtype);
  }
}

}  // namespace octet::cli

#include "engine/quantize/calibration_data.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/tensor/format.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

int64_t RowsOf(const TensorSpec& spec) { return spec.shape.rank() > 0 ? spec.shape[0] : 0; }

size_t RowBytes(const TensorSpec& spec) {
  return SizeOf(spec.dtype) * static_cast<size_t>(spec.shape.elements(1, spec.shape.rank()));
}

class TensorSource : public SampleSource {
 public:
  explicit TensorSource(Tensor samples) : samples_(std::move(samples)) {}
  const TensorSpec& spec() const override { return samples_.spec(); }
  absl::Status Read(int64_t first, int64_t rows, void* to) const override {
    const size_t row_bytes = RowBytes(spec());
    const auto* const from = static_cast<const std::byte*>(samples_.data());
    if (row_bytes > 0) {
      std::memcpy(to, from + static_cast<size_t>(first) * row_bytes,
                  static_cast<size_t>(rows) * row_bytes);
    }
    return absl::OkStatus();
  }

 private:
  Tensor samples_;
};

// Of samples that one run may take together.
std::string KindName(const CalibrationData::Sources& sources) {
  std::string name;
  for (const auto& [input, source] : sources) {
    Shape shape = source->spec().shape;
    if (shape.rank() > 0) shape[0] = 1;
    name += Format("{}\n{} {}\n", input, DTypeName(source->spec().dtype), shape.ToString());
  }
  return name;
}

}  // namespace

CalibrationData::CalibrationData(const CalibrationSet& in_memory) {
  Sources sources;
  for (const auto& [name, samples] : in_memory)
    sources.emplace(name, std::make_shared<TensorSource>(samples));
  if (!sources.empty()) Add(std::move(sources));
}

CalibrationData CalibrationData::OfWholeInputs() {
  CalibrationData data;
  data.whole_inputs_ = true;
  return data;
}

void CalibrationData::Add(Sources sources) {
  const int64_t before =
      parts_.empty()
          ? 0
          : parts_.back()->before + RowsOf(parts_.back()->sources.begin()->second->spec());
  const int64_t rows = RowsOf(sources.begin()->second->spec());
  const auto [kind, added] = kinds_.try_emplace(KindName(sources), kinds_.size());
  for (int64_t row = 0; row < rows; ++row) order_.push_back({parts_.size(), row});
  parts_.push_back(std::make_shared<Part>(std::move(sources), before, kind->second));
}

absl::Status CalibrationData::CheckCounts() const {
  for (const auto& part : parts_) {
    const int64_t count = RowsOf(part->sources.begin()->second->spec());
    for (const auto& [name, source] : part->sources) {
      if (RowsOf(source->spec()) == count) continue;
      return InvalidArgument("calibration input '{}': expected {} samples like the others, got {}",
                             name, count, RowsOf(source->spec()));
    }
  }
  return absl::OkStatus();
}

bool CalibrationData::HasOneShape() const { return Alike(0, count()) == count(); }

std::vector<const CalibrationData::Sources*> CalibrationData::sources() const {
  std::vector<const Sources*> all;
  for (const auto& part : parts_) all.push_back(&part->sources);
  return all;
}

const TensorSpec* CalibrationData::SpecOf(const std::string& input, int64_t sample) const {
  if (sample >= count()) return nullptr;
  const auto found = SourcesOf(sample).find(input);
  return found == SourcesOf(sample).end() ? nullptr : &found->second->spec();
}

Shape CalibrationData::RunShape(const std::string& input, int64_t first, int64_t rows) const {
  const Shape& samples = SpecOf(input, first)->shape;
  Shape shape;
  for (int axis = whole_inputs_ ? 1 : 0; axis < samples.rank(); ++axis)
    shape.push_back(axis == 0 ? rows : samples[axis]);
  return shape;
}

int64_t CalibrationData::Alike(int64_t first, int64_t most) const {
  const int64_t end = std::min(count(), first + most);
  int64_t at = first;
  while (at < end && KindOf(at) == KindOf(first)) ++at;
  return at - first;
}

absl::Status CalibrationData::Read(const std::string& input, int64_t first, int64_t rows,
                                   void* to) const {
  auto* at = static_cast<std::byte*>(to);
  const std::span<const Place> places =
      std::span(order_).subspan(static_cast<size_t>(first), static_cast<size_t>(rows));
  for (size_t done = 0; done < places.size();) {
    const Place& begin = places[done];
    size_t run = 1;  // Rows that follow each other in their source.
    while (done + run < places.size() && places[done + run].part == begin.part &&
           places[done + run].row == begin.row + static_cast<int64_t>(run)) {
      ++run;
    }
    const SampleSource& source = *parts_[begin.part]->sources.at(input);
    OCTET_RETURN_IF_ERROR(source.Read(begin.row, static_cast<int64_t>(run), at));
    at += run * RowBytes(source.spec());
    done += run;
  }
  return absl::OkStatus();
}

absl::Status CalibrationData::Pass(const std::string& input, int64_t first, int64_t rows,
                                   const See& see) const {
  constexpr size_t kBytesAtOnce = size_t{1} << 20;
  TensorSpec spec = *SpecOf(input, first);
  const auto most = static_cast<int64_t>(kBytesAtOnce / std::max<size_t>(RowBytes(spec), 1));
  const int64_t step = std::clamp<int64_t>(most, 1, rows);
  spec.shape[0] = step;
  Tensor samples(spec.dtype, spec.shape);
  for (int64_t at = first; at < first + rows; at += step) {
    spec.shape[0] = std::min(step, first + rows - at);
    OCTET_RETURN_IF_ERROR(Read(input, at, spec.shape[0], samples.mutable_data()));
    OCTET_RETURN_IF_ERROR(see(at, {samples.data(), spec}));
  }
  return absl::OkStatus();
}

absl::StatusOr<CalibrationSet> CalibrationData::InMemory(int64_t first, int64_t rows) const {
  CalibrationSet set;
  if (first >= count()) return set;
  if (whole_inputs_ && rows != 1)
    return InvalidArgument("a run takes one sample of whole inputs, not {}", rows);
  if (Alike(first, rows) != rows) {
    return InvalidArgument("samples {} to {} are not of one shape: one array cannot hold them",
                           first, first + rows - 1);
  }
  for (const auto& [name, source] : SourcesOf(first)) {
    Tensor samples(source->spec().dtype, RunShape(name, first, rows));
    OCTET_RETURN_IF_ERROR(Read(name, first, rows, samples.mutable_data()));
    set.emplace(name, std::move(samples));
  }
  return set;
}

int64_t CalibrationData::PlaceOf(int64_t sample) const {
  const Place& place = order_[static_cast<size_t>(sample)];
  return parts_[place.part]->before + place.row;
}

CalibrationData CalibrationData::Drawn(std::span<const int64_t> samples) const {
  CalibrationData drawn;
  drawn.parts_ = parts_;
  drawn.kinds_ = kinds_;
  drawn.whole_inputs_ = whole_inputs_;
  for (const int64_t sample : samples) drawn.order_.push_back(order_[static_cast<size_t>(sample)]);
  return drawn;
}

CalibrationData CalibrationData::Grouped() const {
  CalibrationData grouped = *this;
  std::ranges::stable_sort(grouped.order_, {},
                           [&](const Place& place) { return parts_[place.part]->kind; });
  return grouped;
}

}  // namespace octet

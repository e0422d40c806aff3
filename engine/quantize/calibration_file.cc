#include "engine/quantize/calibration_file.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <filesystem>
#include <functional>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/quantize/content_mark.h"
#include "engine/tensor/npz.h"
#include "engine/tensor/npz_writer.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr int64_t kVersion = 3;
// Of channels, samples and elements per channel: sums of them stay far from 64 bits.
constexpr int64_t kMost = int64_t{1} << 48;

std::string_view ResultOf(const Graph& graph, NodeId node) {
  return graph.value(graph.node(node).outputs[0]).name;
}

// Arrays whose elements lie here or in the statistics.
class ArchiveWriter {
 public:
  template <typename T>
  void Add(std::string name, std::span<const T> values) {
    const Shape shape{std::ssize(values)};
    arrays_.push_back(
        {std::move(name), {owned_.emplace_back(Tensor::From<T>(shape, values)).view()}});
  }
  void AddNames(std::string name, std::span<const std::string_view> names) {
    const Shape shape{std::ssize(names)};
    arrays_.push_back(
        {std::move(name), {owned_.emplace_back(Tensor::Strings(shape, names)).view()}});
  }
  void AddPieces(std::string name, std::vector<ConstTensorView> pieces) {
    arrays_.push_back({std::move(name), std::move(pieces)});
  }
  absl::Status Write(const std::string& path) const { return WriteNpz(path, arrays_); }

 private:
  std::deque<Tensor> owned_;
  std::vector<NpzArray> arrays_;
};

template <typename T>
ConstTensorView View(DType dtype, std::span<const T> elements) {
  return {elements.data(), {dtype, Shape{std::ssize(elements)}}};
}

using NamedHistograms = std::vector<std::pair<std::string_view, std::span<const Histogram>>>;

void WriteHistograms(const std::string& group, const NamedHistograms& named,
                     ArchiveWriter& archive) {
  std::vector<std::string_view> names;
  std::vector<int64_t> channels;
  std::vector<double> limits;
  std::vector<float> extremes;
  std::vector<ConstTensorView> counts;
  for (const auto& [name, histograms] : named) {
    names.push_back(name);
    channels.push_back(std::ssize(histograms));
    for (const Histogram& histogram : histograms) {
      limits.push_back(histogram.limit());
      extremes.insert(extremes.end(), {histogram.extremes().min, histogram.extremes().max});
      counts.push_back(View(DType::kU64, histogram.bins()));
    }
  }
  if (counts.empty()) return;
  archive.AddNames(group + "/names", names);
  archive.Add<int64_t>(group + "/channels", channels);
  archive.Add<double>(group + "/limits", limits);
  archive.Add<float>(group + "/extremes", extremes);
  archive.AddPieces(group + "/counts", std::move(counts));
}

void WriteMoving(const NamedHistograms& named, ArchiveWriter& archive) {
  std::vector<int64_t> samples;
  std::vector<double> sums;
  for (const auto& [name, histograms] : named) {
    const MovingExtremes& moving = histograms[0].moving();
    samples.push_back(moving.samples());
    sums.insert(sums.end(), {moving.min_sum(), moving.max_sum()});
  }
  archive.Add<int64_t>("moving/samples", samples);
  archive.Add<double>("moving/sums", sums);
}

using NamedMoments = std::vector<std::pair<std::string_view, const ChannelMoments*>>;

void WriteMoments(const std::string& group, const NamedMoments& named, ArchiveWriter& archive) {
  std::vector<std::string_view> names;
  std::vector<int64_t> channels;
  std::vector<int64_t> elements;
  std::vector<double> sums;
  std::vector<double> squares;
  std::vector<float> extremes;
  for (const auto& [name, moments] : named) {
    names.push_back(name);
    channels.push_back(std::ssize(moments->sums()));
    elements.push_back(moments->count());
    sums.insert(sums.end(), moments->sums().begin(), moments->sums().end());
    squares.insert(squares.end(), moments->squares().begin(), moments->squares().end());
    for (const Range& range : moments->extremes())
      extremes.insert(extremes.end(), {range.min, range.max});
  }
  if (sums.empty()) return;
  archive.AddNames(group + "/names", names);
  archive.Add<int64_t>(group + "/channels", channels);
  archive.Add<int64_t>(group + "/elements", elements);
  archive.Add<double>(group + "/sums", sums);
  archive.Add<double>(group + "/squares", squares);
  archive.Add<float>(group + "/extremes", extremes);
}

void WritePatches(const Graph& graph, const std::map<NodeId, PatchMoments>& patches,
                  ArchiveWriter& archive) {
  if (patches.empty()) return;
  std::vector<std::string_view> names;
  std::vector<int64_t> sizes;
  std::vector<int64_t> counts;
  std::vector<ConstTensorView> sums;
  std::vector<ConstTensorView> products;
  for (const auto& [node, moments] : patches) {
    names.push_back(ResultOf(graph, node));
    sizes.insert(sizes.end(), {moments.groups(), moments.length()});
    counts.push_back(moments.count());
    sums.push_back(View(DType::kF32, moments.sums()));
    products.push_back(View(DType::kF32, moments.products()));
  }
  archive.AddNames("patches/names", names);
  archive.Add<int64_t>("patches/sizes", sizes);
  archive.Add<int64_t>("patches/counts", counts);
  archive.AddPieces("patches/sums", std::move(sums));
  archive.AddPieces("patches/products", std::move(products));
}

// Takes the elements of arrays one behind the other.
class ArchiveReader {
 public:
  explicit ArchiveReader(NpzArrays arrays) : arrays_(std::move(arrays)) {}

  bool Has(const std::string& name) const { return arrays_.contains(name); }
  // All elements, of which there are `count`.
  template <typename T>
  absl::StatusOr<std::span<const T>> All(const std::string& name, DType dtype,
                                         int64_t count) const {
    OCTET_ASSIGN_OR_RETURN(const std::span<const T> elements, All<T>(name, dtype));
    if (std::ssize(elements) != count)
      return InvalidArgument("array '{}': expected {} elements, got {}", name, count,
                             elements.size());
    return elements;
  }
  template <typename T>
  absl::StatusOr<std::span<const T>> All(const std::string& name, DType dtype) const {
    const auto found = arrays_.find(name);
    if (found == arrays_.end()) return InvalidArgument("no array '{}'", name);
    if (found->second.dtype() != dtype) {
      return InvalidArgument("array '{}': expected {}, got {}", name, DTypeName(dtype),
                             DTypeName(found->second.dtype()));
    }
    return found->second.span<T>();
  }
  // Names, `wanted` of them, and how many channels each has; the sum of these goes to `total`.
  absl::StatusOr<std::vector<std::pair<std::string_view, size_t>>> Groups(const std::string& group,
                                                                          size_t wanted,
                                                                          int64_t& total) const {
    const int64_t count = static_cast<int64_t>(wanted);
    OCTET_ASSIGN_OR_RETURN(const auto names,
                           All<std::string_view>(group + "/names", DType::kString, count));
    OCTET_ASSIGN_OR_RETURN(const auto channels,
                           All<int64_t>(group + "/channels", DType::kI64, count));
    std::vector<std::pair<std::string_view, size_t>> groups;
    for (size_t i = 0; i < names.size(); ++i) {
      if (channels[i] < 0 || channels[i] > kMost - total)
        return InvalidArgument("array '{}/channels': {} at {}", group, channels[i], i);
      total += channels[i];
      groups.emplace_back(names[i], static_cast<size_t>(channels[i]));
    }
    return groups;
  }

 private:
  NpzArrays arrays_;
};

bool AllFinite(auto elements) {
  return std::ranges::all_of(elements, [](auto x) { return std::isfinite(x); });
}

// What a group of arrays is to fill, and how many channels it has.
template <typename T>
struct Wanted {
  T* collector;
  size_t channels;
};
template <typename T>
using WantedByName = std::map<std::string_view, Wanted<T>>;

// Whom `channels` channels of a name are for; whoever was found is wanted no more.
template <typename T>
absl::StatusOr<T*> Take(WantedByName<T>& wanted, std::string_view name, size_t channels) {
  const auto found = wanted.find(name);
  if (found == wanted.end()) return InvalidArgument("is there twice, or is not looked at");
  const auto [collector, expected] = found->second;
  if (channels != expected)
    return InvalidArgument("expected {} channels, got {}", expected, channels);
  wanted.erase(found);
  return collector;
}

using TakeHistograms = std::function<absl::Status(std::string_view, std::span<const Histogram>)>;

// Of `count` values, in the order of their histograms.
absl::StatusOr<std::vector<MovingExtremes>> ReadMoving(const ArchiveReader& archive,
                                                       int64_t count) {
  OCTET_ASSIGN_OR_RETURN(const auto samples,
                         archive.All<int64_t>("moving/samples", DType::kI64, count));
  OCTET_ASSIGN_OR_RETURN(const auto sums,
                         archive.All<double>("moving/sums", DType::kF64, 2 * count));
  std::vector<MovingExtremes> read;
  for (size_t i = 0; i < samples.size(); ++i) {
    auto moving = MovingExtremes::Restored(samples[i], sums[2 * i], sums[2 * i + 1]);
    constexpr double kLargest = std::numeric_limits<float>::max();
    const double most = kLargest * MovingExtremes::WeightOf(samples[i]);
    const bool real = std::abs(sums[2 * i]) <= most && std::abs(sums[2 * i + 1]) <= most;
    if (!moving.ok() || samples[i] == 0 || samples[i] > kMost || !real)
      return InvalidArgument("arrays 'moving': sums {} and {} of {} samples at {}", sums[2 * i],
                             sums[2 * i + 1], samples[i], i);
    read.push_back(*std::move(moving));
  }
  return read;
}

absl::Status ReadHistograms(const ArchiveReader& archive, const std::string& group, int bins,
                            size_t wanted, const TakeHistograms& take,
                            std::span<const MovingExtremes> moving = {}) {
  if (wanted == 0) return absl::OkStatus();
  int64_t total = 0;
  OCTET_ASSIGN_OR_RETURN(const auto named, archive.Groups(group, wanted, total));
  OCTET_ASSIGN_OR_RETURN(const auto limits,
                         archive.All<double>(group + "/limits", DType::kF64, total));
  OCTET_ASSIGN_OR_RETURN(const auto extremes,
                         archive.All<float>(group + "/extremes", DType::kF32, 2 * total));
  OCTET_ASSIGN_OR_RETURN(const auto counts,
                         archive.All<uint64_t>(group + "/counts", DType::kU64, bins * total));
  size_t at = 0;
  for (const auto& [name, channels] : named) {
    std::vector<Histogram> histograms;
    for (size_t c = 0; c < channels; ++c, ++at) {
      auto restored = Histogram::Restored(
          limits[at], {extremes[2 * at], extremes[2 * at + 1]},
          counts.subspan(at * static_cast<size_t>(bins), static_cast<size_t>(bins)),
          at < moving.size() ? moving[at] : MovingExtremes());
      if (!restored.ok()) return Annotate(restored.status(), Format("'{}' of '{}'", group, name));
      if (restored->count() == 0)
        return InvalidArgument("'{}' of '{}': no elements counted", group, name);
      histograms.push_back(*std::move(restored));
    }
    const absl::Status taken = take(name, histograms);
    if (!taken.ok()) return Annotate(taken, Format("'{}' of '{}'", group, name));
  }
  return absl::OkStatus();
}

absl::Status ReadMoments(const ArchiveReader& archive, const std::string& group,
                         WantedByName<ChannelMoments> wanted) {
  if (wanted.empty()) return absl::OkStatus();
  int64_t total = 0;
  OCTET_ASSIGN_OR_RETURN(const auto named, archive.Groups(group, wanted.size(), total));
  OCTET_ASSIGN_OR_RETURN(const auto elements,
                         archive.All<int64_t>(group + "/elements", DType::kI64, std::ssize(named)));
  OCTET_ASSIGN_OR_RETURN(const auto sums, archive.All<double>(group + "/sums", DType::kF64, total));
  OCTET_ASSIGN_OR_RETURN(const auto squares,
                         archive.All<double>(group + "/squares", DType::kF64, total));
  OCTET_ASSIGN_OR_RETURN(const auto extremes,
                         archive.All<float>(group + "/extremes", DType::kF32, 2 * total));
  if (!AllFinite(sums) || !AllFinite(squares) || !AllFinite(extremes))
    return InvalidArgument("'{}': NaN or infinity", group);
  size_t at = 0;
  for (size_t i = 0; i < named.size(); ++i) {
    const auto& [name, channels] = named[i];
    if (elements[i] <= 0 || elements[i] > kMost)
      return InvalidArgument("array '{}/elements': {} at {}", group, elements[i], i);
    std::vector<Range> ranges;
    for (size_t c = at; c < at + channels; ++c)
      ranges.push_back({extremes[2 * c], extremes[2 * c + 1]});
    const auto taken = Take(wanted, name, channels);
    if (!taken.ok()) return Annotate(taken.status(), Format("'{}' of '{}'", group, name));
    OCTET_RETURN_IF_ERROR((*taken)->Add(elements[i], sums.subspan(at, channels),
                                        squares.subspan(at, channels), ranges));
    at += channels;
  }
  return absl::OkStatus();
}

absl::Status ReadPatches(const ArchiveReader& archive, const Graph& graph,
                         std::map<NodeId, PatchMoments>& patches) {
  if (patches.empty()) return absl::OkStatus();
  int64_t sums_in_all = 0;
  int64_t products_in_all = 0;
  for (const auto& [node, moments] : patches) {
    sums_in_all += std::ssize(moments.sums());
    products_in_all += std::ssize(moments.products());
  }
  const int64_t layers = std::ssize(patches);
  OCTET_ASSIGN_OR_RETURN(const auto names,
                         archive.All<std::string_view>("patches/names", DType::kString, layers));
  OCTET_ASSIGN_OR_RETURN(const auto counts,
                         archive.All<int64_t>("patches/counts", DType::kI64, layers));
  OCTET_ASSIGN_OR_RETURN(auto sums, archive.All<float>("patches/sums", DType::kF32, sums_in_all));
  OCTET_ASSIGN_OR_RETURN(auto products,
                         archive.All<float>("patches/products", DType::kF32, products_in_all));
  if (!AllFinite(sums)) return InvalidArgument("array 'patches/sums': NaN or infinity");
  size_t layer = 0;
  for (auto& [node, moments] : patches) {
    // None where rows of the layer's input are no samples': PatchMoments has drawn nothing then.
    if (names[layer] != ResultOf(graph, node) || counts[layer] < 0 || counts[layer] > kMost) {
      return InvalidArgument("arrays 'patches': expected '{}' at {}, got {} patches of '{}'",
                             ResultOf(graph, node), layer, counts[layer], names[layer]);
    }
    OCTET_RETURN_IF_ERROR(moments.Add(counts[layer++], sums.first(moments.sums().size()),
                                      products.first(moments.products().size())));
    sums = sums.subspan(moments.sums().size());
    products = products.subspan(moments.products().size());
  }
  return absl::OkStatus();
}

absl::StatusOr<CalibrationState> ReadState(const ArchiveReader& archive, const Graph& graph) {
  if (!archive.Has("version") || !archive.Has("model"))
    return InvalidArgument("not a calibration file: no arrays 'version' and 'model'");
  OCTET_ASSIGN_OR_RETURN(const auto version, archive.All<int64_t>("version", DType::kI64, 1));
  if (version[0] != kVersion)
    return InvalidArgument("calibration file: expected version {}, got {}", kVersion, version[0]);
  OCTET_ASSIGN_OR_RETURN(const auto model, archive.All<uint64_t>("model", DType::kU64, 1));
  const uint64_t expected = MarkOf(graph);
  if (model[0] != expected) {
    return InvalidArgument(
        "calibration file of another model (or with other passes left out): expected {:016x}, got "
        "{:016x}",
        expected, model[0]);
  }
  OCTET_ASSIGN_OR_RETURN(const auto data, archive.All<uint64_t>("data", DType::kU64));
  if (data.empty()) return InvalidArgument("array 'data': no sets");
  OCTET_ASSIGN_OR_RETURN(const auto samples, archive.All<int64_t>("samples", DType::kI64, 2));
  if (samples[0] <= 0 || samples[0] > samples[1] || samples[1] > kMost)
    return InvalidArgument("array 'samples': {} of {}", samples[0], samples[1]);
  return CalibrationState{samples[0], samples[1], {data.begin(), data.end()}};
}

// Of what a weighted node multiplies its weights with.
size_t InputChannels(const Graph& graph, NodeId id) {
  const Shape& weights = graph.value(graph.node(id).inputs[1]).constant.shape();
  return static_cast<size_t>(LayoutOf(graph, *AsWeighted(graph, id)).Inputs(weights));
}

absl::StatusOr<CalibrationState> AddArchive(const Graph& graph, const ArchiveReader& archive,
                                            Statistics& statistics) {
  OCTET_ASSIGN_OR_RETURN(CalibrationState state, ReadState(archive, graph));
  const auto extent = [&](ValueId id,
                          int axis) {  // ChannelLinks has those alone whose channels are known.
    const Shape& shape = *graph.value(id).shape;
    return static_cast<size_t>(shape[axis < 0 ? shape.rank() + axis : axis]);
  };
  WantedByName<Histogram> histograms;
  for (auto& [id, histogram] : statistics.histograms)
    histograms.emplace(graph.value(id).name, Wanted{&histogram, 1});
  WantedByName<ChannelHistograms> by_channel;
  for (auto& [id, channels] : statistics.channel_histograms)
    by_channel.emplace(graph.value(id).name, Wanted{&channels, extent(id, channels.axis())});
  WantedByName<ChannelMoments> channels;
  for (auto& [id, moments] : statistics.channels)
    channels.emplace(graph.value(id).name, Wanted{&moments, extent(id, moments.axis())});
  WantedByName<ChannelMoments> moments;
  for (auto& [id, of_input] : statistics.moments)
    moments.emplace(ResultOf(graph, id), Wanted{&of_input, InputChannels(graph, id)});
  OCTET_ASSIGN_OR_RETURN(const auto moving, ReadMoving(archive, std::ssize(histograms)));
  OCTET_RETURN_IF_ERROR(ReadHistograms(
      archive, "histograms", Histogram::kBins, histograms.size(),
      [&](std::string_view name, std::span<const Histogram> read) -> absl::Status {
        OCTET_ASSIGN_OR_RETURN(Histogram* const to, Take(histograms, name, read.size()));
        to->Merge(read[0]);
        return absl::OkStatus();
      },
      moving));
  OCTET_RETURN_IF_ERROR(ReadHistograms(
      archive, "channel_histograms", ChannelHistograms::kBins, by_channel.size(),
      [&](std::string_view name, std::span<const Histogram> read) -> absl::Status {
        OCTET_ASSIGN_OR_RETURN(ChannelHistograms* const to, Take(by_channel, name, read.size()));
        return to->Add(read);
      }));
  OCTET_RETURN_IF_ERROR(ReadMoments(archive, "moments", std::move(moments)));
  OCTET_RETURN_IF_ERROR(ReadMoments(archive, "channels", std::move(channels)));
  OCTET_RETURN_IF_ERROR(ReadPatches(archive, graph, statistics.patches));
  return state;
}

absl::Status OtherSamples(const std::string& path) {
  return InvalidArgument("{}: is there already, with statistics of other samples", path);
}

bool IsThere(const std::string& path) {
  std::error_code unreadable;  // Then to write it will say why.
  return std::filesystem::exists(path, unreadable);
}

// Keeps a merged file, but in the place of no other one.
absl::Status KeepMerged(const Graph& graph, const Statistics& statistics,
                        const CalibrationState& state, const std::string& path) {
  if (!IsThere(path)) return WriteCalibrationFile(graph, statistics, state, path);
  OCTET_ASSIGN_OR_RETURN(Statistics unused, EmptyStatistics(graph, 1));
  OCTET_ASSIGN_OR_RETURN(const CalibrationState kept, AddCalibrationFile(graph, path, unused));
  const bool same = kept.sets == state.sets && kept.seen == state.seen;
  return same ? absl::OkStatus() : OtherSamples(path);
}

absl::StatusOr<Statistics> Merged(const Graph& graph, const CalibrationData& set,
                                  const CalibrationRun& run) {
  OCTET_ASSIGN_OR_RETURN(Statistics statistics, EmptyStatistics(graph, 1));
  CalibrationState all;
  std::map<uint64_t, std::string> files;  // By the sets that they are of.
  for (const std::string& path : run.statistics_from) {
    OCTET_ASSIGN_OR_RETURN(const CalibrationState state,
                           AddCalibrationFile(graph, path, statistics));
    if (state.seen < state.total) {
      return InvalidArgument("{}: calibration was stopped after {} of {} samples", path, state.seen,
                             state.total);
    }
    for (const uint64_t mark : state.sets) {
      const auto [same, added] = files.emplace(mark, path);
      if (!added) return InvalidArgument("{}: holds the same samples as {}", path, same->second);
    }
    all.seen += state.seen;
    all.total += state.total;
  }
  for (const auto& [mark, file] : files) all.sets.push_back(mark);
  if (!run.statistics_to.empty())
    OCTET_RETURN_IF_ERROR(KeepMerged(graph, statistics, all, run.statistics_to));
  if (!set.empty()) {
    OCTET_ASSIGN_OR_RETURN(const uint64_t own, MarkOf(set));
    statistics.of_judges = files.contains(own);
  }
  return statistics;
}

}  // namespace

absl::Status WriteCalibrationFile(const Graph& graph, const Statistics& statistics,
                                  const CalibrationState& state, const std::string& path) {
  ArchiveWriter archive;
  archive.Add<int64_t>("version", {{kVersion}});
  archive.Add<uint64_t>("model", {{MarkOf(graph)}});
  archive.Add<uint64_t>("data", state.sets);
  archive.Add<int64_t>("samples", {{state.seen, state.total}});
  NamedHistograms histograms;
  for (const auto& [id, histogram] : statistics.histograms)
    histograms.emplace_back(graph.value(id).name, std::span(&histogram, 1));
  WriteHistograms("histograms", histograms, archive);
  WriteMoving(histograms, archive);
  NamedHistograms by_channel;
  for (const auto& [id, channels] : statistics.channel_histograms)
    by_channel.emplace_back(graph.value(id).name, channels.channels());
  WriteHistograms("channel_histograms", by_channel, archive);
  NamedMoments moments;
  for (const auto& [id, of_input] : statistics.moments)
    moments.emplace_back(ResultOf(graph, id), &of_input);
  WriteMoments("moments", moments, archive);
  NamedMoments channels;
  for (const auto& [id, of_value] : statistics.channels)
    channels.emplace_back(graph.value(id).name, &of_value);
  WriteMoments("channels", channels, archive);
  WritePatches(graph, statistics.patches, archive);
  return archive.Write(path);
}

absl::StatusOr<CalibrationState> AddCalibrationFile(const Graph& graph, const std::string& path,
                                                    Statistics& statistics) {
  OCTET_ASSIGN_OR_RETURN(NpzArrays arrays, ReadNpz(path));
  auto state = AddArchive(graph, ArchiveReader(std::move(arrays)), statistics);
  if (!state.ok()) return Annotate(state.status(), path);
  return state;
}

absl::StatusOr<Statistics> FileStatistics(const Graph& graph, const CalibrationData& set,
                                          const CalibrationRun& run) {
  if (!run.statistics_from.empty()) return Merged(graph, set, run);
  const std::string& path = run.statistics_to;
  OCTET_ASSIGN_OR_RETURN(Statistics statistics, EmptyStatistics(graph, set.count()));
  OCTET_ASSIGN_OR_RETURN(const uint64_t mark, MarkOf(set));
  CalibrationState state{.total = set.count(), .sets = {mark}};
  if (IsThere(path)) {
    OCTET_ASSIGN_OR_RETURN(const CalibrationState kept,
                           AddCalibrationFile(graph, path, statistics));
    if (kept.sets != state.sets || kept.total != state.total) return OtherSamples(path);
    if (kept.seen == kept.total) return statistics;
    state.seen = kept.seen;
  }
  CalibrationRun rest = run;
  rest.first = state.seen;
  rest.progress = [&](int64_t done, int64_t total) {
    state.seen = done;
    return !run.progress || run.progress(done, total);
  };
  absl::Status ran = Calibrate(graph, statistics.Observations(graph), set, rest);
  if (!ran.ok() && !absl::IsCancelled(ran)) return ran;
  if (ran.ok()) state.seen = state.total;  // A fixed batch leaves a rest out.
  if (state.seen > 0) OCTET_RETURN_IF_ERROR(WriteCalibrationFile(graph, statistics, state, path));
  if (!ran.ok() && state.seen == 0) return ran;
  if (!ran.ok())
    return Annotate(ran, Format("{} of {} samples are kept in {}", state.seen, state.total, path));
  return statistics;
}

void RecordSeenJudges(const Statistics& statistics, std::vector<QuantizeRecord>& records) {
  if (!statistics.of_judges) return;
  records.push_back({"calibration file", "seen",
                     "the samples that answers are compared on are those that it was made of: "
                     "the figures may flatter"});
}

}  // namespace octet

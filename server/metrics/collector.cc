#include "server/metrics/collector.h"

#include <array>
#include <cmath>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "prometheus/client_metric.h"
#include "prometheus/metric_type.h"

#include "server/metrics/process_metrics.h"

namespace octet {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

constexpr MetricType TypeOf(const Counter&) { return MetricType::Counter; }
constexpr MetricType TypeOf(const Gauge&) { return MetricType::Gauge; }
constexpr MetricType TypeOf(const OptionalGauge&) { return MetricType::Gauge; }
template <typename Label>
constexpr MetricType TypeOf(const CounterPer<Label>&) {
  return MetricType::Counter;
}
template <typename Label>
constexpr MetricType TypeOf(const GaugePer<Label>&) {
  return MetricType::Gauge;
}
template <const auto& kBounds>
constexpr MetricType TypeOf(const BucketHistogram<kBounds>&) {
  return MetricType::Histogram;
}

void Append(const Counter& cell, const Labels& labels, MetricFamily& family) {
  ClientMetric metric;
  metric.label = labels;
  metric.counter.value = static_cast<double>(cell.value());
  family.metric.push_back(std::move(metric));
}

void Append(const Gauge& cell, const Labels& labels, MetricFamily& family) {
  ClientMetric metric;
  metric.label = labels;
  metric.gauge.value = cell.value();
  family.metric.push_back(std::move(metric));
}

void Append(const OptionalGauge& cell, const Labels& labels, MetricFamily& family) {
  const double value = cell.value();
  if (std::isnan(value)) return;
  ClientMetric metric;
  metric.label = labels;
  metric.gauge.value = value;
  family.metric.push_back(std::move(metric));
}

template <typename Label>
void Append(const CounterPer<Label>& cell, const Labels& labels, MetricFamily& family) {
  for (size_t i = 0; i < cell.values().size(); ++i) {
    ClientMetric metric;
    metric.label = labels;
    metric.label.push_back({std::string(cell.label()), std::string(cell.values()[i])});
    metric.counter.value = static_cast<double>(cell.value(i));
    family.metric.push_back(std::move(metric));
  }
}

/// Those that were set.
template <typename Label>
void Append(const GaugePer<Label>& cell, const Labels& labels, MetricFamily& family) {
  for (size_t i = 0; i < cell.values().size(); ++i) {
    if (cell.value(i) == 0) continue;
    ClientMetric metric;
    metric.label = labels;
    metric.label.push_back({std::string(cell.label()), std::string(cell.values()[i])});
    metric.gauge.value = cell.value(i);
    family.metric.push_back(std::move(metric));
  }
}

template <const auto& kBounds>
void Append(const BucketHistogram<kBounds>& cell, const Labels& labels, MetricFamily& family) {
  const HistogramCounts counts = cell.Read();
  ClientMetric metric;
  metric.label = labels;
  uint64_t cumulative = 0;
  for (size_t i = 0; i < counts.bounds.size(); ++i) {
    cumulative += counts.counts[i];
    metric.histogram.bucket.push_back({cumulative, counts.bounds[i]});
  }
  cumulative += counts.counts[counts.bounds.size()];
  metric.histogram.sample_count = cumulative;
  metric.histogram.sample_sum = counts.sum;
  family.metric.push_back(std::move(metric));
}

Labels LabelsOf(const VariantLabels& who) {
  return {{"model", who.model}, {"version", who.version}, {"precision", who.precision}};
}

Labels LabelsOf(const ShadowLabels& who) {
  return {{"model", who.model},
          {"version", who.version},
          {"precision", who.precision},
          {"against", who.against}};
}

Labels LabelsOf(const CaptureLabels& who) {
  return {{"model", who.model}, {"version", who.version}};
}

Labels LabelsOf(const ModelLabels& who) { return {{"model", who.model}}; }

/// Cells and the labels of their series.
template <typename Metrics>
using LiveCells = std::vector<std::pair<Labels, std::shared_ptr<const Metrics>>>;

/// Those of `cells` that somebody holds. Forgets the others.
template <typename Key, typename Metrics>
LiveCells<Metrics> Live(std::map<Key, std::weak_ptr<Metrics>>& cells) {
  LiveCells<Metrics> live;
  for (auto it = cells.begin(); it != cells.end();) {
    if (auto metrics = it->second.lock()) {
      live.emplace_back(LabelsOf(it->first), std::move(metrics));
      ++it;
    } else {
      it = cells.erase(it);
    }
  }
  return live;
}

/// The metrics that `known` stands for; new ones when nobody holds them.
template <typename Metrics>
std::shared_ptr<Metrics> Obtain(std::weak_ptr<Metrics>& known) {
  std::shared_ptr<Metrics> metrics = known.lock();
  if (metrics == nullptr) {
    metrics = std::make_shared<Metrics>();
    known = metrics;
  }
  return metrics;
}

/// Appends one metric of all of `live`; nothing of none.
template <typename Metrics, typename Cell>
void AppendFamily(const char* name, const char* help, Cell Metrics::* member,
                  const LiveCells<Metrics>& live, std::vector<MetricFamily>& families) {
  if (live.empty()) return;
  families.push_back({name, help, TypeOf((*live[0].second).*member), {}});
  for (const auto& [labels, metrics] : live) Append((*metrics).*member, labels, families.back());
}

MetricFamily InfoFamily(const BuildInfo& build) {
  MetricFamily family{
      "octet_build_info", "What runs here; the value is always 1.", MetricType::Gauge, {}};
  ClientMetric metric;
  metric.label = {{"version", build.version}, {"onednn", build.onednn}, {"isa", build.isa}};
  metric.gauge.value = 1;
  family.metric.push_back(std::move(metric));
  return family;
}

void AppendProcessFamilies(std::vector<MetricFamily>& families) {
  for (const ProcessMetric& process : ReadProcessMetrics()) {
    MetricFamily family{process.name, process.help, MetricType::Gauge, {}};
    ClientMetric metric;
    if (process.is_counter) {
      family.type = MetricType::Counter;
      metric.counter.value = process.value;
    } else {
      metric.gauge.value = process.value;
    }
    family.metric.push_back(std::move(metric));
    families.push_back(std::move(family));
  }
}

}  // namespace

std::vector<MetricFamily> MetricsRegistry::Collector::Collect() const {
  std::vector<MetricFamily> families = {InfoFamily(build_)};
  AppendProcessFamilies(families);
#define OCTET_APPEND_SERVER(kind, member, name, help)           \
  families.push_back({name, help, TypeOf(server_.member), {}}); \
  Append(server_.member, {}, families.back());
  OCTET_SERVER_METRICS(OCTET_APPEND_SERVER)
#undef OCTET_APPEND_SERVER

  LiveCells<VariantMetrics> variants;
  LiveCells<ShadowMetrics> shadows;
  LiveCells<CaptureMetrics> captures;
  LiveCells<SequenceMetrics> sequences;
  LiveCells<ModelSequenceMetrics> model_sequences;
  {
    absl::MutexLock lock(&mutex_);
    variants = Live(variants_);
    shadows = Live(shadows_);
    captures = Live(captures_);
    sequences = Live(sequences_);
    model_sequences = Live(model_sequences_);
  }
#define OCTET_APPEND_VARIANTS(kind, member, name, help) \
  AppendFamily(name, help, &VariantMetrics::member, variants, families);
  OCTET_VARIANT_METRICS(OCTET_APPEND_VARIANTS)
#undef OCTET_APPEND_VARIANTS
#define OCTET_APPEND_SHADOWS(kind, member, name, help) \
  AppendFamily(name, help, &ShadowMetrics::member, shadows, families);
  OCTET_SHADOW_METRICS(OCTET_APPEND_SHADOWS)
#undef OCTET_APPEND_SHADOWS
#define OCTET_APPEND_CAPTURES(kind, member, name, help) \
  AppendFamily(name, help, &CaptureMetrics::member, captures, families);
  OCTET_CAPTURE_METRICS(OCTET_APPEND_CAPTURES)
#undef OCTET_APPEND_CAPTURES
#define OCTET_APPEND_SEQUENCES(kind, member, name, help) \
  AppendFamily(name, help, &SequenceMetrics::member, sequences, families);
  OCTET_SEQUENCE_METRICS(OCTET_APPEND_SEQUENCES)
#undef OCTET_APPEND_SEQUENCES
#define OCTET_APPEND_MODEL_SEQUENCES(kind, member, name, help) \
  AppendFamily(name, help, &ModelSequenceMetrics::member, model_sequences, families);
  OCTET_MODEL_SEQUENCE_METRICS(OCTET_APPEND_MODEL_SEQUENCES)
#undef OCTET_APPEND_MODEL_SEQUENCES
  return families;
}

std::shared_ptr<VariantMetrics> MetricsRegistry::Collector::ForVariant(
    const VariantLabels& labels) {
  absl::MutexLock lock(&mutex_);
  return Obtain(variants_[labels]);
}

std::shared_ptr<ShadowMetrics> MetricsRegistry::Collector::ForShadow(const ShadowLabels& labels) {
  absl::MutexLock lock(&mutex_);
  return Obtain(shadows_[labels]);
}

std::shared_ptr<CaptureMetrics> MetricsRegistry::Collector::ForCapture(
    const CaptureLabels& labels) {
  absl::MutexLock lock(&mutex_);
  return Obtain(captures_[labels]);
}

std::shared_ptr<SequenceMetrics> MetricsRegistry::Collector::ForSequences(
    const VariantLabels& labels) {
  absl::MutexLock lock(&mutex_);
  return Obtain(sequences_[labels]);
}

std::shared_ptr<ModelSequenceMetrics> MetricsRegistry::Collector::ForSequences(
    const ModelLabels& labels) {
  absl::MutexLock lock(&mutex_);
  return Obtain(model_sequences_[labels]);
}

}  // namespace octet

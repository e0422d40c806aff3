#include "server/metrics/registry.h"

#include <utility>

#include "prometheus/text_serializer.h"

#include "server/metrics/collector.h"

namespace octet {

MetricsRegistry::MetricsRegistry(BuildInfo build)
    : collector_(std::make_shared<Collector>(std::move(build))) {}
MetricsRegistry::~MetricsRegistry() = default;

std::shared_ptr<VariantMetrics> MetricsRegistry::ForVariant(const VariantLabels& labels) {
  return collector_->ForVariant(labels);
}

std::shared_ptr<ShadowMetrics> MetricsRegistry::ForShadow(const ShadowLabels& labels) {
  return collector_->ForShadow(labels);
}

std::shared_ptr<CaptureMetrics> MetricsRegistry::ForCapture(const CaptureLabels& labels) {
  return collector_->ForCapture(labels);
}

std::shared_ptr<SequenceMetrics> MetricsRegistry::ForSequences(const VariantLabels& labels) {
  return collector_->ForSequences(labels);
}

std::shared_ptr<ModelSequenceMetrics> MetricsRegistry::ForSequences(const ModelLabels& labels) {
  return collector_->ForSequences(labels);
}

ServerMetrics& MetricsRegistry::server() { return collector_->server(); }

std::string MetricsRegistry::Text() const {
  return prometheus::TextSerializer().Serialize(collector_->Collect());
}

}  // namespace octet

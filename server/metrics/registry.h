// All metrics of the process, and their text for Prometheus.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "server/metrics/metric_list.h"

namespace octet {

/// What octet_build_info says.
struct BuildInfo {
  std::string version;  ///< Octet's.
  std::string onednn;   ///< Version of oneDNN.
  std::string isa;      ///< The instruction set that oneDNN uses.
};

/// Who a variant's series are about.
struct VariantLabels {
  std::string model;
  std::string version;
  std::string precision;
  auto operator<=>(const VariantLabels&) const = default;
};

/// Whom the series of a comparison are about.
struct ShadowLabels {
  std::string model;
  std::string version;
  std::string precision;  ///< Of the copies.
  std::string against;    ///< Of the answers.
  auto operator<=>(const ShadowLabels&) const = default;
};

/// Whom the series of a capture are about.
struct CaptureLabels {
  std::string model;
  std::string version;
  auto operator<=>(const CaptureLabels&) const = default;
};

/// Whom the series of a model's sequences are about.
struct ModelLabels {
  std::string model;
  auto operator<=>(const ModelLabels&) const = default;
};

/// Owns the process's metrics. Thread-safety: safe.
class MetricsRegistry {
 public:
  explicit MetricsRegistry(BuildInfo build);
  ~MetricsRegistry();
  MetricsRegistry(const MetricsRegistry&) = delete;
  MetricsRegistry& operator=(const MetricsRegistry&) = delete;

  /// The metrics with these labels: the same ones as long as somebody holds them. With the last
  /// holder the series disappear.
  std::shared_ptr<VariantMetrics> ForVariant(const VariantLabels& labels);
  std::shared_ptr<ShadowMetrics> ForShadow(const ShadowLabels& labels);
  std::shared_ptr<CaptureMetrics> ForCapture(const CaptureLabels& labels);
  std::shared_ptr<SequenceMetrics> ForSequences(const VariantLabels& labels);
  std::shared_ptr<ModelSequenceMetrics> ForSequences(const ModelLabels& labels);
  ServerMetrics& server();

  /// Everything in Prometheus' text format.
  std::string Text() const;

 private:
  friend class MetricsEndpoint;
  class Collector;
  std::shared_ptr<Collector> collector_;
};

/// Serves the registry at http://address:port/metrics.
class MetricsEndpoint {
 public:
  /// Port 0 takes any free one. UNAVAILABLE naming address and port when it cannot listen there.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(const MetricsRegistry& registry,
                                                                const std::string& address,
                                                                int port);
  ~MetricsEndpoint();
  int port() const { return port_; }

 private:
  struct Impl;
  MetricsEndpoint(std::unique_ptr<Impl> impl, int port);
  std::unique_ptr<Impl> impl_;
  int port_;
};

}  // namespace octet

// What `octet top` shows: two looks at a server's experiments, and what happened in between.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace octet::cli {

/// Remembers the look before. Not thread-safe.
class TopScreen {
 public:
  /// Returns what /certificates answers for a version, or null when it cannot be had.
  using Certificates =
      std::function<nlohmann::json(const std::string& model, const std::string& version)>;
  explicit TopScreen(Certificates certificates) : certificates_(std::move(certificates)) {}

  /// The screen for what /v2/experiments answered `passed` seconds after the look before; rates and latency are those of that
  /// time, at the first look the rates 0 and the latency that of all requests so far. Asks for a version's certificates when its experiment began anew.
  std::string Draw(const nlohmann::json& answer, double passed);

 private:
  /// A precision, or a pipeline, at the look before.
  struct Row {
    std::vector<uint64_t> counts;
    uint64_t refused = 0;
    int64_t started_ms = 0;
  };
  struct Certified {
    int64_t started_ms = 0;
    std::string lines;
  };

  std::string RowText(const nlohmann::json& arm, int64_t started_ms, double passed, Row& row) const;
  /// A line per precision: which share of its multiply-adds runs in what.
  const std::string& CertificateLines(const nlohmann::json& experiment, const std::string& name);

  const Certificates certificates_;
  std::map<std::string, Row> rows_;
  std::map<std::string, Certified> certified_;
};

}  // namespace octet::cli

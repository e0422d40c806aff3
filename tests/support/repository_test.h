// A model repository in this process, over a folder that a test writes.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/repository/model_repository.h"
#include "server/scheduling/batch_runner.h"
#include "server/scheduling/dispatcher.h"
#include "tests/support/model_folder.h"
#include "tests/support/test_request.h"

namespace octet {

/// "net/1 READY", "net/1 UNAVAILABLE: reason".
inline std::vector<std::string> Rows(const ModelRepository& repository, bool ready_only = false) {
  std::vector<std::string> rows;
  for (const IndexEntry& entry : repository.Index(ready_only)) {
    rows.push_back(Format("{}/{} {}{}{}", entry.model, entry.version, VersionStateName(entry.state),
                          entry.reason.empty() ? "" : ": ", entry.reason));
  }
  return rows;
}

class ModelRepositoryTest : public ::testing::Test {
 protected:
  ServerConfig Config() {
    ServerConfig config;
    config.repository.path = folder_.path();
    return config;
  }
  ModelRepository& Open() { return Open(Config()); }
  ModelRepository& Open(const ServerConfig& config) {
    auto opened = ModelRepository::Open(config, 1, metrics_);
    EXPECT_TRUE(opened.ok()) << opened.status();
    repository_ = *std::move(opened);
    return *repository_;
  }
  /// Two looks: the second one follows.
  void PollTwice() {
    repository_->Poll();
    repository_->Poll();
  }

  /// What the version's precision answers to 1: the factor of its model; -1 when nothing does.
  float Ask(const ModelVersion& version, Precision precision = Precision::kFp32) {
    const ServedVariant* variant = version.Find(precision);
    if (variant == nullptr || !variant->ready()) return -1;
    BatchRunner runner(Clock::Real());
    TestCall call({1, 1, 1, 1}, {4});
    dispatcher_.Submit(variant->queue, call.Request(Clock::Real().Now()));
    while (!call.finished.HasBeenNotified()) {
      if (auto batch = dispatcher_.TryTake()) runner.Run(*std::move(batch));
    }
    return call.status->ok() ? call.answer[0] : -1;
  }
  float Ask(std::string_view model, Precision precision = Precision::kFp32,
            std::string_view version = "") {
    const auto found = repository_->Find(model, version);
    return found.ok() ? Ask(**found, precision) : -1;
  }
  uint64_t loads() { return metrics_.server().loads.value(); }

  ModelFolder folder_;
  Dispatcher dispatcher_{Clock::Real()};
  MetricsRegistry metrics_{{}};
  std::unique_ptr<ModelRepository> repository_;
};

}  // namespace octet

#include "server/repository/model_settings.h"

#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <utility>

#include "engine/tensor/status.h"

namespace octet {
namespace {

using Models = std::map<std::string, ModelFiles>;

/// One line for each thing that is wrong with the model's folder.
void CheckModel(const ServerConfig& server, std::string_view name, const Models& models,
                std::string& mistakes) {
  const ModelFiles& files = models.at(std::string(name));
  const auto add = [&mistakes](std::string_view line) {
    mistakes += mistakes.empty() ? "" : "\n";
    mistakes += line;
  };
  const absl::StatusOr<ModelSettings> settings = ReadModelSettings(server, name, files);
  if (!settings.ok()) return add(Message(settings.status()));
  if (settings->config.pipeline) {
    if (const auto alone = CheckPipelineFolder(files); !alone.ok()) add(Message(alone));
    for (const auto& [step, rule] : settings->config.pipeline->steps) {
      if (rule.model.empty() || models.contains(rule.model)) continue;
      add(std::format("{}: pipeline.steps.{}.model: the repository has no such model: '{}'",
                      files.config_path(), step, rule.model));
    }
    return;
  }
  for (const int64_t number : settings->config.versions.specific) {
    if (files.versions.contains(number)) continue;
    add(std::format("{}: versions.specific: the model has no such version: {}", files.config_path(),
                    number));
  }
  std::vector<int64_t> existing;
  for (const auto& [number, unused] : files.versions) existing.push_back(number);
  for (const int64_t number : SelectVersions(settings->config, std::move(existing))) {
    const std::map<Precision, VariantFile>& present = files.versions.at(number);
    for (const Precision precision : WantedPrecisions(settings->config, present)) {
      if (present.contains(precision)) continue;
      add(std::format("{}: file does not exist: '{}'", files.config_path(),
                      VariantPath(files, number, precision)));
    }
  }
}

/// The lines of a file; none when there is no such file. What is longer than a mebibyte is cut, within a line, too.
std::vector<std::string> ReadLines(const std::string& path) {
  constexpr std::streamsize kMostBytes = std::streamsize{1} << 20;
  std::string text(static_cast<size_t>(kMostBytes), '\0');
  std::ifstream file(path);
  file.read(text.data(), kMostBytes);
  text.resize(static_cast<size_t>(file.gcount()));
  std::vector<std::string> lines;
  std::istringstream stream(std::move(text));
  for (std::string line; std::getline(stream, line);) {
    if (line.ends_with('\r')) line.pop_back();
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace

absl::StatusOr<ModelSettings> ReadModelSettings(const ServerConfig& server, std::string_view name,
                                                const ModelFiles& files) {
  ModelSettings settings;
  if (files.config) {
    OCTET_ASSIGN_OR_RETURN(settings.config, LoadModelConfig(files.config_path()));
  }
  OCTET_RETURN_IF_ERROR(CheckPipelineAlone(files.config_path(), settings.config));
  if (files.rollout && settings.config.pipeline) {
    return InvalidArgument("{}: a pipeline has no rollout: its models have", files.rollout_path());
  }
  if (files.rollout) {
    OCTET_ASSIGN_OR_RETURN(const ModelConfig rollout, LoadModelConfig(files.rollout_path()));
    OCTET_ASSIGN_OR_RETURN(settings.config,
                           ApplyRollout(std::move(settings.config), rollout, files.rollout_path()));
  }
  if (!settings.config.name.empty() && settings.config.name != name) {
    return InvalidArgument("{}: name: expected the folder's name '{}', got '{}'",
                           files.config_path(), name, settings.config.name);
  }
  if (settings.config.capture && server.capture.path.empty()) {
    return InvalidArgument("{}: capture: the server's configuration has no capture.path",
                           files.config_path());
  }
  absl::StatusOr<ServerConfig::Batching> batching = ResolveBatching(server, settings.config);
  OCTET_RETURN_IF_ERROR(Annotate(batching.status(), files.config_path()));
  settings.batching = *batching;
  settings.labels = ReadLines(files.labels_path());
  return settings;
}

absl::Status CheckPipelineFolder(const ModelFiles& files) {
  if (files.versions.empty()) return absl::OkStatus();
  return InvalidArgument("{}: pipeline: expected a folder without versions, got version {}",
                         files.config_path(), files.versions.begin()->first);
}

std::vector<Precision> WantedPrecisions(const ModelConfig& config,
                                        const std::map<Precision, VariantFile>& present) {
  if (!config.precisions.empty()) return config.precisions;
  std::set<Precision> wanted;
  for (const auto& [precision, unused] : present) wanted.insert(precision);
  for (const auto& [precision, weight] : config.routing.split) {
    if (weight > 0) wanted.insert(precision);
  }
  if (config.routing.default_precision) wanted.insert(*config.routing.default_precision);
  if (const auto& shadow = config.routing.shadow) {
    wanted.insert(shadow->precision);
    if (shadow->against) wanted.insert(*shadow->against);
  }
  if (config.routing.ramp && config.routing.ramp->precision) {
    wanted.insert(*config.routing.ramp->precision);
  }
  for (const auto& [precision, unused] : config.routing.guard) wanted.insert(precision);
  return {wanted.begin(), wanted.end()};
}

absl::Status CheckModelSettings(const ServerConfig& server) {
  OCTET_ASSIGN_OR_RETURN(const RepositoryFiles files, ScanRepository(server.repository.path));
  std::string mistakes;
  for (const auto& [name, unused] : files.models) CheckModel(server, name, files.models, mistakes);
  for (const std::string& path : files.ignored) {
    mistakes += Format("{}the folder's name is no UTF-8, which a model's must be: '{}'",
                       mistakes.empty() ? "" : "\n", path);
  }
  for (const auto& [name, status] : files.unreadable) {
    mistakes += Format("{}{}: {}", mistakes.empty() ? "" : "\n", name, Message(status));
  }
  return mistakes.empty() ? absl::OkStatus() : absl::InvalidArgumentError(mistakes);
}

}  // namespace octet

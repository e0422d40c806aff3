#include "config/yaml_reader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>

#include "config/did_you_mean.h"
#include "engine/tensor/format.h"
#include "engine/tensor/utf8.h"

namespace octet {
namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 20;

/// The rows as a tree: one level per part of the path.
struct Level {
  std::map<std::string, std::unique_ptr<Level>> children;
  std::unique_ptr<Level> any;    ///< Below `*`.
  const YamlKey* key = nullptr;  ///< Set where a path ends.
};

void AddKey(Level& root, const YamlKey& key) {
  Level* level = &root;
  std::istringstream parts(key.path);
  for (std::string part; std::getline(parts, part, '.');) {
    std::unique_ptr<Level>& next = part == "*" ? level->any : level->children[part];
    if (next == nullptr) next = std::make_unique<Level>();
    level = next.get();
  }
  level->key = &key;
}

/// What a file gives a name, clients and metrics have, where one that is no UTF-8 hides all others. (A path may be of any bytes.)
absl::Status CheckName(const std::string& name) {
  if (IsUtf8(name)) return absl::OkStatus();
  return InvalidArgument("expected UTF-8, got \"{}\"", Utf8Of(name));
}

class Reader {
 public:
  explicit Reader(std::string_view file) : file_(file) {}

  void ReadSection(const YAML::Node& section, const Level& level, const std::string& path,
                   const std::string& name) {
    if (section.IsNull()) return;  // every key of it is commented out
    if (!section.IsMap()) {
      Report(section.Mark(), path, "expected a mapping of keys to values");
      return;
    }
    std::set<std::string> seen;
    for (const auto& entry : section) {
      if (!entry.first.IsScalar()) {
        Report(entry.first.Mark(), path, "a key must be a plain text");
        continue;
      }
      ReadEntry(entry.first, entry.second, level, path, name, seen);
    }
  }

  void Report(const YAML::Mark& mark, const std::string& path, std::string_view problem) {
    std::string line = file_;
    if (!mark.is_null()) line += Format(":{}:{}", mark.line + 1, mark.column + 1);
    line += path.empty() ? Format(": {}", problem) : Format(": {}: {}", path, problem);
    problems_.push_back(std::move(line));
  }

  absl::Status Finish() const {
    if (problems_.empty()) return absl::OkStatus();
    std::string message;
    for (const std::string& problem : problems_) {
      if (!message.empty()) message += '\n';
      message += problem;
    }
    return absl::InvalidArgumentError(message);
  }

 private:
  void ReadEntry(const YAML::Node& key, const YAML::Node& value, const Level& level,
                 const std::string& path, const std::string& name, std::set<std::string>& seen) {
    const std::string& part = key.Scalar();
    const std::string full = path.empty() ? part : path + "." + part;
    if (const absl::Status named = CheckName(part); !named.ok()) {
      return Report(key.Mark(), full, Message(named));
    }
    if (!seen.insert(part).second) return Report(key.Mark(), full, "key given twice");

    const auto child = level.children.find(part);
    const bool known = child != level.children.end();
    if (!known && level.any == nullptr) return ReportUnknown(key, level, full);
    const Level& next = known ? *child->second : *level.any;
    const std::string& next_name = known ? name : part;
    if (next.key == nullptr && known) return ReadSection(value, next, full, next_name);
    if (next.key == nullptr) return ReadNamed(key, value, next, full);
    if (value.IsNull()) return Report(key.Mark(), full, "key without a value");
    ++values_;
    if (absl::Status status = next.key->binding.store(value, next_name); !status.ok()) {
      Report(value.Mark(), full, Message(status));
    }
  }

  /// A section whose name the file chose: with no key it would not be there at all.
  void ReadNamed(const YAML::Node& key, const YAML::Node& value, const Level& level,
                 const std::string& path) {
    const size_t before = values_ + problems_.size();
    ReadSection(value, level, path, key.Scalar());
    if (values_ + problems_.size() > before) return;
    std::string keys;
    for (const auto& [name, unused] : level.children) keys += (keys.empty() ? "" : ", ") + name;
    Report(key.Mark(), path, Format("says nothing, expected one of {} in it", keys));
  }

  void ReportUnknown(const YAML::Node& key, const Level& level, const std::string& full) {
    std::vector<std::string> candidates;
    for (const auto& [candidate, unused] : level.children) candidates.push_back(candidate);
    const std::string nearest = DidYouMean(key.Scalar(), candidates);
    Report(key.Mark(), full,
           nearest.empty() ? "unknown key" : Format("unknown key, did you mean \"{}\"?", nearest));
  }

  std::string file_;
  std::vector<std::string> problems_;
  size_t values_ = 0;  ///< That were handed to their bindings, right or wrong.
};

/// What the value looks like, for messages.
std::string Got(const YAML::Node& value) {
  if (value.IsScalar()) return Format("\"{}\"", value.Scalar());
  if (value.IsSequence()) return "a list";
  return value.IsMap() ? "a mapping" : "nothing";
}

}  // namespace

absl::Status ReadYaml(std::string_view text, std::string_view file,
                      const std::vector<YamlKey>& keys) {
  Level root;
  for (const YamlKey& key : keys) AddKey(root, key);
  Reader reader(file);
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.size() > 1) {
      reader.Report(documents[1].Mark(), "", "expected one YAML document");
    } else if (!documents.empty()) {
      reader.ReadSection(documents[0], root, "", "");
    }
  } catch (const YAML::Exception& e) {
    reader.Report(e.mark, "", e.msg);
  } catch (const std::exception& e) {
    reader.Report(YAML::Mark::null_mark(), "", e.what());
  }
  return reader.Finish();
}

absl::StatusOr<std::string> ReadConfigFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in)
    return NotFound("cannot open the configuration file: {}: {}", path, std::strerror(errno));
  std::string text;
  char block[4096];
  while (in.read(block, sizeof(block)) || in.gcount() > 0) {
    text.append(block, static_cast<size_t>(in.gcount()));
    if (text.size() > kMaxFileBytes) {
      return InvalidArgument("configuration file larger than {} bytes: {}", kMaxFileBytes, path);
    }
  }
  if (in.bad()) return NotFound("cannot read the configuration file: {}", path);
  return text;
}

std::vector<ConfigKeyInfo> DescribeKeys(const std::vector<YamlKey>& keys) {
  std::vector<ConfigKeyInfo> infos;
  infos.reserve(keys.size());
  for (const YamlKey& key : keys) {
    infos.push_back({key.path, key.unit, key.binding.accepts, key.meaning});
  }
  return infos;
}

absl::StatusOr<int64_t> ParseInteger(const YAML::Node& value, int64_t min, int64_t max) {
  int64_t number = 0;
  if (!value.IsScalar() || !YAML::convert<int64_t>::decode(value, number)) {
    return InvalidArgument("expected a whole number in {} .. {}, got {}", min, max, Got(value));
  }
  if (number < min || number > max) {
    return InvalidArgument("expected {} .. {}, got {}", min, max, number);
  }
  return number;
}

absl::StatusOr<double> ParseNumber(const YAML::Node& value, double min, double max) {
  double number = 0;
  if (!value.IsScalar() || !YAML::convert<double>::decode(value, number)) {
    return InvalidArgument("expected a number, got {}", Got(value));
  }
  if (!(number >= min && number <= max)) {  // also false for NaN
    return InvalidArgument("expected {} .. {}, got {}", min, max, value.Scalar());
  }
  return number;
}

YamlBinding Boolean(bool* target) {
  return {"true or false", [=](const YAML::Node& value, const std::string&) -> absl::Status {
            if (!value.IsScalar() || (value.Scalar() != "true" && value.Scalar() != "false")) {
              return InvalidArgument("expected true or false, got {}", Got(value));
            }
            *target = value.Scalar() == "true";
            return absl::OkStatus();
          }};
}

YamlBinding Text(std::string* target) {
  return {"text", [=](const YAML::Node& value, const std::string&) -> absl::Status {
            if (!value.IsScalar()) return InvalidArgument("expected a text, got {}", Got(value));
            *target = value.Scalar();
            return absl::OkStatus();
          }};
}

YamlBinding Choice(std::vector<std::string> choices,
                   std::function<void(const std::string&)> store) {
  std::string list;
  for (const std::string& choice : choices) list += (list.empty() ? "" : ", ") + choice;
  return {list,
          [choices, list, store](const YAML::Node& value, const std::string&) -> absl::Status {
            for (const std::string& choice : choices) {
              if (value.IsScalar() && value.Scalar() == choice) {
                store(choice);
                return absl::OkStatus();
              }
            }
            return InvalidArgument("expected one of {}; got {}", list, Got(value));
          }};
}

YamlBinding TextList(std::vector<std::string>* target,
                     std::function<absl::Status(const std::string&)> accept) {
  return {"list of texts", [=](const YAML::Node& value, const std::string&) -> absl::Status {
            if (!value.IsSequence()) return InvalidArgument("expected a list, got {}", Got(value));
            std::vector<std::string> list;
            for (const YAML::Node& item : value) {
              if (!item.IsScalar()) {
                return InvalidArgument("expected a list of texts, got {} in it", Got(item));
              }
              if (accept) OCTET_RETURN_IF_ERROR(accept(item.Scalar()));
              list.push_back(item.Scalar());
            }
            *target = std::move(list);
            return absl::OkStatus();
          }};
}

YamlBinding TextMap(std::vector<std::pair<std::string, std::string>>* target) {
  return {"mapping of names to texts",
          [=](const YAML::Node& value, const std::string&) -> absl::Status {
            if (!value.IsMap()) return InvalidArgument("expected a mapping, got {}", Got(value));
            std::vector<std::pair<std::string, std::string>> map;
            for (const auto& entry : value) {
              if (!entry.first.IsScalar() || !entry.second.IsScalar()) {
                return InvalidArgument("expected a mapping of names to texts, got {} in it",
                                       Got(entry.first.IsScalar() ? entry.second : entry.first));
              }
              const std::string& name = entry.first.Scalar();
              OCTET_RETURN_IF_ERROR(CheckName(name));
              OCTET_RETURN_IF_ERROR(CheckName(entry.second.Scalar()));
              if (std::ranges::contains(map, name, &std::pair<std::string, std::string>::first)) {
                return InvalidArgument("key given twice: \"{}\"", name);
              }
              map.emplace_back(name, entry.second.Scalar());
            }
            *target = std::move(map);
            return absl::OkStatus();
          }};
}

YamlBinding NumberList(std::vector<float>* target) {
  return {"number or list of numbers",
          [=](const YAML::Node& value, const std::string&) -> absl::Status {
            constexpr double kMax = 3.4e38;
            std::vector<float> list;
            if (!value.IsSequence()) {
              OCTET_ASSIGN_OR_RETURN(const double number, ParseNumber(value, -kMax, kMax));
              list.push_back(static_cast<float>(number));
            }
            for (size_t i = 0; value.IsSequence() && i < value.size(); ++i) {
              OCTET_ASSIGN_OR_RETURN(const double number, ParseNumber(value[i], -kMax, kMax));
              list.push_back(static_cast<float>(number));
            }
            *target = std::move(list);
            return absl::OkStatus();
          }};
}

YamlBinding IntegerList(std::vector<int64_t>* target, int64_t min) {
  return {Format("list of whole numbers >= {}", min),
          [=](const YAML::Node& value, const std::string&) -> absl::Status {
            if (!value.IsSequence()) return InvalidArgument("expected a list, got {}", Got(value));
            std::vector<int64_t> list;
            for (const YAML::Node& item : value) {
              OCTET_ASSIGN_OR_RETURN(const int64_t number, ParseInteger(item, min, INT64_MAX));
              list.push_back(number);
            }
            *target = std::move(list);
            return absl::OkStatus();
          }};
}

YamlBinding NotEmpty(YamlBinding list) {
  return {list.accepts,
          [store = std::move(list.store)](const YAML::Node& value,
                                          const std::string& name) -> absl::Status {
            if (value.IsSequence() && value.size() == 0) {
              return absl::InvalidArgumentError("expected at least one, got an empty list");
            }
            return store(value, name);
          }};
}

}  // namespace octet

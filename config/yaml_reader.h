// Reads a YAML text into plain structs by a table with one row per key. Included by this folder's
// sources only: nobody else sees yaml-cpp.
//
// Every mistake of a file is reported, one line each, as `file:line:column: key.path: what is
// wrong`: an unknown key (with the nearest known one), a key given twice, a value of the wrong kind
// or outside its range, a name that is no UTF-8, a section that is no mapping, one under a name of
// the file's own without any key, YAML that does not parse.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "yaml-cpp/yaml.h"

#include "config/config_key.h"
#include "engine/tensor/status.h"

namespace octet {

/// How the value of a key reaches its member.
struct YamlBinding {
  std::string accepts;
  /// Stores `value`; `name` is what stood for the `*` of the row's path. The error says what is
  /// wrong with the value; the reader adds where.
  std::function<absl::Status(const YAML::Node& value, const std::string& name)> store;
};

/// A row of the table.
struct YamlKey {
  std::string path;
  YamlBinding binding;
  std::string unit;
  std::string meaning;
};

/// Reads `text` by the table. `file` names it in errors. INVALID_ARGUMENT listing every mistake.
absl::Status ReadYaml(std::string_view text, std::string_view file,
                      const std::vector<YamlKey>& keys);

/// Returns the whole file; NOT_FOUND when it cannot be opened, INVALID_ARGUMENT above 1 MiB.
absl::StatusOr<std::string> ReadConfigFile(const std::string& path);

/// The rows without their bindings.
std::vector<ConfigKeyInfo> DescribeKeys(const std::vector<YamlKey>& keys);

// Bindings. Targets must outlive the table.

/// Whole number in [min, max]; the target is of a type for such numbers, or a std::optional of one.
template <typename Target>
YamlBinding Integer(Target* target, int64_t min, int64_t max);
/// Finite number in [min, max]; the target is a double, or a std::optional of it.
template <typename Target>
YamlBinding Number(Target* target, double min, double max);
/// `true` or `false`.
YamlBinding Boolean(bool* target);
/// Any text.
YamlBinding Text(std::string* target);
/// One of `choices`, handed to `store`.
YamlBinding Choice(std::vector<std::string> choices, std::function<void(const std::string&)> store);
/// A list of texts; each is checked by `accept`, which says what is wrong with it.
YamlBinding TextList(std::vector<std::string>* target,
                     std::function<absl::Status(const std::string&)> accept = nullptr);
/// A mapping of names to texts, in its order.
YamlBinding TextMap(std::vector<std::pair<std::string, std::string>>* target);
/// A list of finite numbers, or one number.
YamlBinding NumberList(std::vector<float>* target);
/// A list of whole numbers >= min.
YamlBinding IntegerList(std::vector<int64_t>* target, int64_t min);
/// The same, but for the empty list, which would say as little as no key at all.
YamlBinding NotEmpty(YamlBinding list);

/// For a path with `*`: the binding of the map's entry for the name that stood there.
template <typename Entry>
YamlBinding ForName(std::map<std::string, Entry>* entries,
                    std::function<YamlBinding(Entry&)> bind) {
  Entry sample;
  return {bind(sample).accepts, [entries, bind](const YAML::Node& value, const std::string& name) {
            return bind((*entries)[name]).store(value, name);
          }};
}

/// The value as a whole number in [min, max], or what is wrong with it.
absl::StatusOr<int64_t> ParseInteger(const YAML::Node& value, int64_t min, int64_t max);
/// The value as a finite number in [min, max], or what is wrong with it.
absl::StatusOr<double> ParseNumber(const YAML::Node& value, double min, double max);

template <typename Target>
YamlBinding Integer(Target* target, int64_t min, int64_t max) {
  return {Format("{} .. {}", min, max),
          [=](const YAML::Node& value, const std::string&) -> absl::Status {
            OCTET_ASSIGN_OR_RETURN(const int64_t number, ParseInteger(value, min, max));
            *target = static_cast<Target>(number);
            return absl::OkStatus();
          }};
}

template <typename Target>
YamlBinding Number(Target* target, double min, double max) {
  return {Format("{} .. {}", min, max),
          [=](const YAML::Node& value, const std::string&) -> absl::Status {
            OCTET_ASSIGN_OR_RETURN(*target, ParseNumber(value, min, max));
            return absl::OkStatus();
          }};
}

}  // namespace octet

// JSON as the verbs write it, into files and on standard output.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace octet::cli {

/// Indented, without a newline at its end. What is no UTF-8, in the names of files or in what servers say, is replaced:
/// nlohmann::json would throw, after all the work.
inline std::string JsonText(const nlohmann::ordered_json& json) {
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace octet::cli

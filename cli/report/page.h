// The report as a file: one page that asks nobody for anything.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace octet::cli {

/// The page: its script and Chart.js are part of it, and so are the data, in which nothing can end the element that holds them:
/// '<', '>' and '&' are written as \u003c, \u003e and \u0026, what is no ASCII as escapes, bytes that are no UTF-8 as U+FFFD.
std::string ReportPage(const nlohmann::ordered_json& report);

/// The report as indented JSON.
std::string ReportText(const nlohmann::ordered_json& report);

}  // namespace octet::cli

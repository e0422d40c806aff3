// page.html with Chart.js in it, as embed.cmake writes it: what comes before the data, and what behind.
#pragma once

#include <string_view>

namespace octet::cli {

extern const std::string_view kPageBeforeData;
extern const std::string_view kPageAfterData;

}  // namespace octet::cli

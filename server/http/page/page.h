// Files that are part of the program: embed.cmake writes the source.
#pragma once

#include <string_view>

namespace octet {

extern const std::string_view kStatusPage;  ///< status.html
extern const std::string_view kChartJs;     ///< Chart.js, minified, as Debian packages it.

}  // namespace octet

// page.html, as it is part of the program: embed.cmake writes the source.
#pragma once

#include <string_view>

namespace octet {

extern const std::string_view kReportPage;

}  // namespace octet

#include "cli/report/page.h"

#include <utility>

#include "cli/json_text.h"
#include "cli/report/page_text.h"

#include "server/http/page/page.h"

namespace octet::cli {
namespace {

/// What stands before a mark of the page, of which there is one, and what behind it.
std::pair<std::string_view, std::string_view> CutAt(std::string_view text, std::string_view mark) {
  const size_t at = text.find(mark);
  return {text.substr(0, at), text.substr(at + mark.size())};
}

}  // namespace

std::string ReportPage(const nlohmann::ordered_json& report) {
  const auto [head, rest] = CutAt(kReportPage, "/*CHART*/");
  const auto [middle, tail] = CutAt(rest, "/*DATA*/");
  std::string page(head);
  page += kChartJs;
  page += middle;
  for (const char c :
       report.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace)) {
    switch (c) {
      case '<':
        page += "\\u003c";
        break;
      case '>':
        page += "\\u003e";
        break;
      case '&':
        page += "\\u0026";
        break;
      default:
        page += c;
    }
  }
  page += tail;
  return page;
}

std::string ReportText(const nlohmann::ordered_json& report) { return JsonText(report) + '\n'; }

}  // namespace octet::cli

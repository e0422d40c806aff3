#include "cli/load/percentile_plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "absl/strings/str_replace.h"

#include "engine/tensor/format.h"

namespace octet::cli {
namespace {

constexpr double kWidth = 960, kHeight = 540;
constexpr double kLeft = 80, kRight = 230, kTop = 50, kBottom = 60;
constexpr double kLabelHeight = 16;
constexpr int kStepsPerDecade = 40;
// Of the least confusable colours of Okabe and Ito, the dark ones.
constexpr std::array kColours = {"#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7f5200"};
constexpr std::array kDashes = {"", "8 4", "2 3", "12 4 2 4", "5 5 1 5", "16 6"};
// Drawn at each decade: circle, square, triangle, rhomb.
constexpr std::array kMarks = {
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "M-4 -4h8v8h-8z",
    "M0 -5l5 9h-10z",
    "M0 -5l5 5l-5 5l-5 -5z",
};

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(text,
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string TimeText(double us) {
  if (us >= 1e6) return Format("{:g} s", us / 1e6);
  return us >= 1e3 ? Format("{:g} ms", us / 1e3) : Format("{:g} us", us);
}

/// 0 -> 0, 1 -> 90, 2 -> 99, 3 -> 99.9 ...
double PercentAt(double decades) { return 100 - 100 * std::pow(10, -decades); }
double DecadesOf(int64_t count) { return std::log10(static_cast<double>(count)); }

/// The values of 1, 2 and 5 times a power of ten in [least, most].
std::vector<double> Ticks(double least, double most) {
  std::vector<double> ticks;
  for (double power = std::pow(10, std::floor(std::log10(least))); power <= most; power *= 10) {
    for (const double value : {power, 2 * power, 5 * power})
      if (value >= least * 0.999 && value <= most * 1.001) ticks.push_back(value);
  }
  return ticks;
}

/// The last tick that is not above a value, and the first that is not below it.
double TickBelow(double value) { return Ticks(value / 10, value).back(); }
double TickAbove(double value) { return Ticks(value, value * 10).front(); }

class Plot {
 public:
  explicit Plot(std::vector<const PlotLine*> lines) : lines_(std::move(lines)) {
    for (const PlotLine* line : lines_) {
      // A latency of 0 has no logarithm.
      const double first = std::max(line->latencies.MicrosecondsAt(0), 1e-3);
      least_ = std::min(least_, TickBelow(first));
      most_ = std::max(most_, TickAbove(std::max(line->latencies.MicrosecondsAt(100), 2 * first)));
      decades_ = std::max(decades_, DecadesOf(line->latencies.count()));
    }
  }

  std::string Draw(const std::string& title) {
    text_ = Format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
        "height=\"{1}\" font-family=\"sans-serif\" font-size=\"12\">\n"
        "<title>{2}</title>\n<rect width=\"{0}\" height=\"{1}\" fill=\"#fff\"/>\n"
        "<text x=\"{3}\" y=\"26\" font-size=\"16\">{2}</text>\n",
        kWidth, kHeight, Escaped(title), kLeft);
    DrawAxes();
    for (size_t i = 0; i < lines_.size(); ++i) DrawLine(i);
    DrawLabels();
    return std::move(text_) + "</svg>\n";
  }

 private:
  double X(double decades) const { return kLeft + (kWidth - kLeft - kRight) * decades / decades_; }
  double Y(double us) const {
    const double share = std::log(std::max(us, least_) / least_) / std::log(most_ / least_);
    return kHeight - kBottom - (kHeight - kTop - kBottom) * share;
  }
  double YAt(const PlotLine& line, double decades) const {
    return Y(line.latencies.MicrosecondsAt(PercentAt(decades)));
  }

  void DrawAxes() {
    for (const double us : Ticks(least_, most_)) {
      text_ += Format(
          "<path d=\"M{0} {1:.1f}H{2}\" stroke=\"#ddd\"/>"
          "<text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5}</text>\n",
          kLeft, Y(us), kWidth - kRight, kLeft - 6, Y(us) + 4, TimeText(us));
    }
    DrawPercentile(0);
    DrawPercentile(std::log10(2));  // The median.
    for (int decade = 1; decade <= decades_; ++decade) DrawPercentile(decade);
    text_ += Format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">percentile</text>\n",
                    (kLeft + kWidth - kRight) / 2, kHeight - 14);
  }

  void DrawPercentile(double decades) {
    text_ += Format(
        "<path d=\"M{0:.1f} {1}V{2}\" stroke=\"#ddd\"/>"
        "<text x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"middle\">{4:.9g} %</text>\n",
        X(decades), kTop, kHeight - kBottom, kHeight - kBottom + 18, PercentAt(decades));
  }

  void DrawLine(size_t index) {
    const PlotLine& line = *lines_[index];
    const double end = DecadesOf(line.latencies.count());
    const auto steps = static_cast<int>(std::ceil(end * kStepsPerDecade));
    std::string path = Format("M{:.1f} {:.1f}", X(0), Y(line.latencies.MicrosecondsAt(0)));
    for (int step = 1; step < steps; ++step) {
      const double decades = static_cast<double>(step) / kStepsPerDecade;
      path += Format("L{:.1f} {:.1f}", X(decades), YAt(line, decades));
    }
    path += Format("L{:.1f} {:.1f}", X(end), Y(line.latencies.MicrosecondsAt(100)));
    const char* colour = kColours[index % kColours.size()];
    text_ += Format(
        "<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\" stroke-dasharray=\"{}\"/>\n",
        path, colour, kDashes[index % kDashes.size()]);
    for (int decade = 0; decade <= end; ++decade) {
      text_ +=
          Format("<path d=\"{}\" transform=\"translate({:.1f} {:.1f})\" fill=\"{}\"/>\n",
                 kMarks[index % kMarks.size()], X(decade),
                 decade == 0 ? Y(line.latencies.MicrosecondsAt(0)) : YAt(line, decade), colour);
    }
  }

  // Each beside its line's end, moved down where it would cover the one above.
  void DrawLabels() {
    std::vector<std::pair<double, size_t>> places;
    for (size_t i = 0; i < lines_.size(); ++i)
      places.emplace_back(Y(lines_[i]->latencies.MicrosecondsAt(100)), i);
    std::ranges::sort(places);
    double next = 0;
    for (const auto& [y, index] : places) {
      const double at = std::max(y + 4, next);
      next = at + kLabelHeight;
      const char* colour = kColours[index % kColours.size()];
      const double x = kWidth - kRight + 18;
      text_ += Format(
          "<path d=\"{}\" transform=\"translate({} {:.1f})\" fill=\"{}\"/>"
          "<text x=\"{}\" y=\"{:.1f}\" fill=\"{}\">{}</text>\n",
          kMarks[index % kMarks.size()], x, at - 4, colour, x + 10, at, colour,
          Escaped(lines_[index]->label));
    }
  }

  const std::vector<const PlotLine*> lines_;
  double least_ = 1e12;  // us
  double most_ = 1e-3;   // us
  double decades_ = 1;
  std::string text_;
};

}  // namespace

std::string PercentilePlot(const std::string& title, const std::vector<PlotLine>& lines) {
  std::vector<const PlotLine*> drawn;
  for (const PlotLine& line : lines)
    if (line.latencies.count() > 0) drawn.push_back(&line);
  return Plot(std::move(drawn)).Draw(title);
}

}  // namespace octet::cli

#include "longstride/scaling/scaling_plot.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>

#include <fmt/format.h>

#include "longstride/base/text.h"
#include "longstride/report/page.h"

namespace longstride {

namespace {

constexpr double kPanel = 380, kHeight = 340;                       // of a panel, in pixels
constexpr double kLeft = 58, kRight = 16, kTop = 46, kBottom = 52;  // around its axes
constexpr int kCurvePoints = 64;

// A logarithmic axis from `low` to `high`, drawn from `from` to `to`.
struct Axis {
  double low = 1, high = 10, from = 0, to = 1;
  double place(double value) const {
    return from + (to - from) * std::log(value / low) / std::log(high / low);
  }
  double at(double part) const { return low * std::pow(high / low, part); }
  bool has(double value) const { return value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9); }
};

// Powers of ten, and where those are few also their 2, 5 or all multiples; in a short range, round steps.
std::vector<double> ticks_of(const Axis& axis) {
  std::vector<double> ticks;
  const std::vector<std::vector<int>> multiples{{1}, {1, 3}, {1, 2, 5}};
  for (const auto& parts : multiples) {
    ticks.clear();
    for (int power = static_cast<int>(std::floor(std::log10(axis.low))); power <= std::log10(axis.high);
         ++power)
      for (const int part : parts)
        if (axis.has(part * std::pow(10.0, power))) ticks.push_back(part * std::pow(10.0, power));
    if (ticks.size() >= 4) break;
  }
  if (ticks.size() >= 3) return ticks;
  const double rough = (axis.high - axis.low) / 5, unit = std::pow(10.0, std::floor(std::log10(rough)));
  double step = unit;
  for (const double part : {2.0, 5.0, 10.0})
    if (step < rough) step = part * unit;
  ticks.clear();
  for (double value = std::ceil(axis.low / step) * step; axis.has(value); value += step)
    ticks.push_back(value);
  return ticks;
}

std::string short_number(double value) {
  if (value >= 1e15) return fmt::format("{:.0e}", value);
  constexpr const char* kUnits[] = {"", "k", "M", "G", "T"};
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < std::size(kUnits)) value /= 1000, ++unit;
  return fmt::format("{:.3g}{}", value, kUnits[unit]);
}

class Panel {
 public:
  Panel(const std::vector<ScalingRun>& runs, const ScalingLaw& law, double left) : runs_(runs), law_(law) {
    double least_x = amount(0), most_x = least_x, least = runs[0].loss, most = least;
    for (const ScalingRun& run : runs) {
      const double x = run.amount_of(law.resource);
      least_x = std::min(least_x, x), most_x = std::max(most_x, x);
      least = std::min(least, run.loss), most = std::max(most, run.loss);
    }
    x_ = {least_x / 1.3, most_x * 1.3, left + kLeft, left + kPanel - kRight};
    // Room for the band, but not so much that the runs become a line.
    least = std::max(std::min(least, law.fit->at(most_x * 1.3).low), least * 0.9);
    most = std::min(std::max(most, law.fit->at(least_x / 1.3).high), most * 1.1);
    const double margin = std::pow(most / least, 0.06);
    y_ = {least / margin, most * margin, kHeight - kBottom, kTop};
  }

  std::string draw(size_t number) const {
    return frame(number) + axes() + fmt::format("<g clip-path='url(#panel{})'>\n", number) + band() +
           curve() + points() + "</g>\n" + labels();
  }

 private:
  double amount(size_t run) const { return runs_[run].amount_of(law_.resource); }

  std::string frame(size_t number) const {
    return fmt::format(
        "<clipPath id='panel{0}'><rect x='{1:.1f}' y='{2:.1f}' width='{3:.1f}' "
        "height='{4:.1f}'/></clipPath>\n"
        "<rect x='{1:.1f}' y='{2:.1f}' width='{3:.1f}' height='{4:.1f}' fill='#fff' stroke='#999'/>\n",
        number, x_.from, y_.to, x_.to - x_.from, y_.from - y_.to);
  }

  std::string axes() const {
    std::string text;
    for (const double tick : ticks_of(x_))
      text += fmt::format(
          "<path d='M{0:.1f} {1:.1f}V{2:.1f}' stroke='#e4e4e4'/><text x='{0:.1f}' y='{3:.1f}' "
          "text-anchor='middle'>{4}</text>\n",
          x_.place(tick), y_.from, y_.to, y_.from + 15, short_number(tick));
    for (const double tick : ticks_of(y_))
      text += fmt::format(
          "<path d='M{0:.1f} {1:.1f}H{2:.1f}' stroke='#e4e4e4'/><text x='{3:.1f}' y='{4:.1f}' "
          "text-anchor='end'>{5:.4g}</text>\n",
          x_.from, y_.place(tick), x_.to, x_.from - 5, y_.place(tick) + 4, tick);
    return text;
  }

  std::string band() const {
    std::string there, back;
    for (int i = 0; i <= kCurvePoints; ++i) {
      const double x = x_.at(static_cast<double>(i) / kCurvePoints);
      const FitInterval interval = law_.fit->at(x);
      there += fmt::format("{}{:.1f} {:.1f}", i == 0 ? "M" : "L", x_.place(x), y_.place(interval.high));
      back = fmt::format("L{:.1f} {:.1f}", x_.place(x), y_.place(interval.low)) + back;
    }
    return "<path d='" + there + back + "Z' fill='#3b76c4' fill-opacity='0.16'/>\n";
  }

  std::string curve() const {
    std::string path;
    for (int i = 0; i <= kCurvePoints; ++i) {
      const double x = x_.at(static_cast<double>(i) / kCurvePoints);
      path += fmt::format("{}{:.1f} {:.1f}", i == 0 ? "M" : "L", x_.place(x), y_.place(law_.fit->law.at(x)));
    }
    std::string text = "<path d='" + path + "' fill='none' stroke='#2458a0' stroke-width='2'/>\n";
    if (const double floor = law_.fit->law.floor; floor > 0 && y_.has(floor))
      text += fmt::format("<path d='M{:.1f} {:.1f}H{:.1f}' stroke='#2458a0' stroke-dasharray='5 4'/>\n",
                          x_.from, y_.place(floor), x_.to);
    return text;
  }

  std::string points() const {
    std::string text;
    for (size_t run = 0; run < runs_.size(); ++run) {
      const bool counts = std::find(law_.runs.begin(), law_.runs.end(), run) != law_.runs.end();
      text +=
          fmt::format("<circle cx='{:.1f}' cy='{:.1f}' r='4' {}><title>{}: {:.4f} bits</title></circle>\n",
                      x_.place(amount(run)), y_.place(runs_[run].loss),
                      counts ? "fill='#d9541e'" : "fill='none' stroke='#d9541e' stroke-opacity='0.6'",
                      escape_html(runs_[run].path), runs_[run].loss);
    }
    return text;
  }

  std::string labels() const {
    const double middle = (x_.from + x_.to) / 2, half_up = (y_.from + y_.to) / 2;
    const std::string unit = unit_of(law_.resource);
    return fmt::format(
               "<text x='{:.1f}' y='20' text-anchor='middle' font-size='14' font-weight='bold'>loss against "
               "{}</text>\n"
               "<text x='{:.1f}' y='37' text-anchor='middle'>{}</text>\n",
               middle, name_of(law_.resource), middle, escape_html(formula_of(law_))) +
           fmt::format("<text x='{:.1f}' y='{:.1f}' text-anchor='middle'>{} {}{}</text>\n", middle,
                       kHeight - 16, name_of(law_.resource), symbol_of(law_.resource),
                       unit.empty() ? "" : ", " + unit) +
           fmt::format(
               "<text transform='translate({:.1f} {:.1f}) rotate(-90)' text-anchor='middle'>bits per "
               "byte</text>\n",
               x_.from - 42, half_up);
  }

  const std::vector<ScalingRun>& runs_;
  const ScalingLaw& law_;
  Axis x_, y_;
};

}  // namespace

std::string formula_of(const ScalingLaw& law) {
  if (!law.fit) return "";
  const PowerLaw& fitted = law.fit->law;
  const double scale = std::exp(fitted.log_scale);
  const std::string shown = std::isfinite(scale) && scale > 0
                                ? fmt::format("{:.2e}", scale)
                                : fmt::format("10^{:.1f}", fitted.log_scale / std::log(10.0));
  const char symbol = symbol_of(law.resource);
  return fmt::format("L({}) = {:.3f} + ({} / {})^{:.3f}", symbol, fitted.floor, shown, symbol,
                     fitted.exponent);
}

std::string scaling_plot(const std::vector<ScalingRun>& runs, const std::vector<ScalingLaw>& laws) {
  std::string panels;
  size_t count = 0;
  for (const ScalingLaw& law : laws) {
    if (!law.fit) continue;
    panels += Panel(runs, law, static_cast<double>(count) * kPanel).draw(count);
    ++count;
  }
  if (count == 0) return "";
  return fmt::format(
             "<svg xmlns='http://www.w3.org/2000/svg' width='{0}' height='{1}' viewBox='0 0 {0} {1}' "
             "font-family='Helvetica, Arial, sans-serif' font-size='11' fill='#333'>\n"
             "<rect width='{0}' height='{1}' fill='#fff'/>\n",
             kPanel * static_cast<double>(count), kHeight) +
         panels + "</svg>\n";
}

}  // namespace longstride

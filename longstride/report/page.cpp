#include "longstride/report/page.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include <nlohmann/json.hpp>

#include "longstride/base/check.h"
#include "longstride/base/checksum.h"
#include "longstride/base/printable.h"
#include "longstride/base/text.h"
#include "longstride/report/page_parts.h"

namespace longstride {

namespace fs = std::filesystem;

namespace {

using nlohmann::ordered_json;

constexpr int64_t kMostSampleBytes = 4 << 20;  // of one sample in the page
constexpr size_t kMostSamples = 24;            // of one run

struct ChartSpec {
  std::string title, unit;
  std::vector<std::pair<std::string, std::string>> names;  // curve, label
  bool wide = false;                                       // as wide as the page
  bool cut = false;                                        // its steep beginning may be left out
  bool zero = false;                                       // the axis includes 0
};

const std::vector<ChartSpec>& known_charts() {
  static const std::vector<ChartSpec> charts{
      {"Bits per byte", "bits", {{"validation/bits", "validation"}, {"train/bits", "training"}}, true, true},
      {"Learning rate", "", {{"train/learning_rate", "rate"}}, false, false, true},
      {"Gradient norm", "", {{"train/gradient_norm", "norm"}}, false, true, true},
      {"Bytes a second", "", {{"train/tokens_per_second", "bytes a second"}}, false, false, true},
      {"Memory", "memory", {{"memory/gpu", "GPU"}, {"memory/resident", "CPU"}}, false, false, true},
      {"Skipped steps", "", {{"train/skipped_steps", "skipped"}}, false, false, true},
      {"Context", "", {{"train/context", "context"}}, false, false, true}};
  return charts;
}

// A curve that says nothing: the same value throughout.
bool is_flat(const ThinCurve& curve) {
  const std::vector<CurveSample> samples = curve.samples();
  return std::all_of(samples.begin(), samples.end(),
                     [&](const CurveSample& s) { return s.value == samples[0].value; });
}

// The known charts that have something to show, and one for each other curve.
std::vector<ChartSpec> charts_of(const std::vector<PageRun>& runs) {
  std::vector<ChartSpec> charts;
  std::vector<std::string> known{"train/bytes"};
  for (const ChartSpec& chart : known_charts()) {
    bool any = false;
    for (const auto& [name, label] : chart.names) {
      known.push_back(name);
      for (const PageRun& run : runs)
        any |= run.metrics->curve(name).count() > 0 &&
               (name != "train/context" || !is_flat(run.metrics->curve(name)));
    }
    if (any) charts.push_back(chart);
  }
  for (const PageRun& run : runs)
    for (const auto& [name, curve] : run.metrics->curves()) {
      if (std::find(known.begin(), known.end(), name) != known.end()) continue;
      known.push_back(name);
      charts.push_back({printable_line(name), "", {{name, printable_line(name)}}});
    }
  return charts;
}

// Six digits are more than a screen shows.
double rounded(double value) {
  if (value == 0 || !std::isfinite(value)) return value;
  const double scale = std::pow(10.0, 5 - std::floor(std::log10(std::abs(value))));
  return std::isfinite(scale) && scale > 0 ? std::round(value * scale) / scale : value;
}

ordered_json data_of(const std::vector<PageRun>& runs, const std::vector<ChartSpec>& charts,
                     const PageOptions& options) {
  ordered_json data{{"refresh", options.refresh_seconds},
                    {"now", std::round(options.now)},
                    {"charts", ordered_json::array()},
                    {"runs", ordered_json::array()}};
  for (const ChartSpec& chart : charts) {
    ordered_json names = ordered_json::array(), labels = ordered_json::object();
    for (const auto& [name, label] : chart.names) names.push_back(name), labels[name] = label;
    data["charts"].push_back({{"title", chart.title},
                              {"unit", chart.unit},
                              {"wide", chart.wide},
                              {"cut", chart.cut},
                              {"zero", chart.zero},
                              {"names", names},
                              {"labels", labels}});
  }
  for (const PageRun& run : runs) {
    ordered_json clock{{"step", ordered_json::array({0})},
                       {"bytes", ordered_json::array({0})},
                       {"seconds", ordered_json::array({0})}};
    for (const ClockSample& sample : run.metrics->clock().samples()) {
      clock["step"].push_back(sample.step);
      clock["bytes"].push_back(sample.bytes);
      clock["seconds"].push_back(rounded(sample.seconds));
    }
    ordered_json curves = ordered_json::object();
    for (const ChartSpec& chart : charts)
      for (const auto& [name, label] : chart.names) {
        ordered_json x = ordered_json::array(), y = ordered_json::array();
        for (const CurveSample& sample : run.metrics->curve(name).samples()) {
          x.push_back(sample.step);
          y.push_back(std::isfinite(sample.value) ? ordered_json(rounded(sample.value)) : ordered_json());
        }
        if (!x.empty()) curves[name] = {{"x", x}, {"y", y}};
      }
    data["runs"].push_back({{"name", printable_line(run.view.name)}, {"clock", clock}, {"curves", curves}});
  }
  return data;
}

std::string bits_text(double bits) { return std::isfinite(bits) ? fmt::format("{:.4f}", bits) : ""; }

void write_runs(ByteSink& sink, const std::vector<PageRun>& runs) {
  double best = std::numeric_limits<double>::infinity();
  for (const PageRun& run : runs)
    if (run.view.best_bits < best) best = run.view.best_bits;
  sink.write(
      "<section aria-labelledby=\"runs\"><h2 id=\"runs\">Runs</h2>\n<div class=\"scroll\"><table "
      "class=\"runs\">"
      "<thead><tr><th scope=\"col\">Run</th><th scope=\"col\">State</th><th scope=\"col\" class=\"number\">"
      "Parameters</th><th scope=\"col\" class=\"number\">Step</th><th scope=\"col\" "
      "class=\"number\">Bytes</th>"
      "<th scope=\"col\" class=\"number\">Time</th><th scope=\"col\" class=\"number\">Training bits</th>"
      "<th scope=\"col\" class=\"number\">Best bits</th><th scope=\"col\" class=\"number\">at "
      "step</th></tr></thead>"
      "<tbody>\n");
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunView& view = runs[i].view;
    const std::string part = std::isfinite(view.part_done) && view.part_done < 1
                                 ? fmt::format(" {:.0f} %", 100 * view.part_done)
                                 : "";
    const auto cell = [&](const char* label, const std::string& text, const char* more = "") {
      sink.write(fmt::format("<td class=\"number{}\" data-label=\"{}\">{}</td>", more, label, text));
    };
    const bool is_best = runs.size() > 1 && view.best_bits == best;
    std::string state = name_of(view.progress);
    const std::string path = view.path == view.name ? ""
                                                    : fmt::format("<span class=\"path\">{}</span>",
                                                                  escape_html(printable_line(view.path)));
    sink.write(fmt::format(
        "<tr><th scope=\"row\"><label><input type=\"checkbox\" data-run=\"{}\" checked "
        "disabled><span data-key=\"{}\">"
        "</span><span>{}</span></label>{}</th>"
        "<td data-label=\"State\"><span class=\"state {}\">{}{}</span></td>",
        i, i, escape_html(printable_line(view.name)), path, state.substr(0, state.find(' ')), state, part));
    cell("Parameters", view.parameters > 0 ? human_count(static_cast<double>(view.parameters)) : "");
    cell("Step", view.last_step >= 0 ? fmt::format("{}", view.last_step) : "");
    cell("Bytes", view.bytes > 0 ? human_count(view.bytes) : "");
    cell("Time", view.seconds > 0 ? human_seconds(view.seconds) : "");
    cell("Training bits", bits_text(view.train_bits));
    cell("Best bits", bits_text(view.best_bits) + (is_best ? "<span class=\"soft\"> best</span>" : ""),
         is_best ? " best" : "");
    cell("at step", view.best_step >= 0 ? fmt::format("{}", view.best_step) : "");
    sink.write("</tr>\n");
  }
  sink.write("</tbody></table></div>\n");
  std::string remarks;
  for (const PageRun& run : runs)
    for (const std::string& remark : run.view.remarks)
      remarks += fmt::format("<li><b>{}</b>: {}</li>\n", escape_html(printable_line(run.view.name)),
                             escape_html(printable_line(remark)));
  if (!remarks.empty())
    sink.write("<h3 class=\"wrong\">What is wrong</h3><ul class=\"remarks\">" + remarks + "</ul>\n");
  sink.write("</section>\n");
}

void write_charts(ByteSink& sink, const std::vector<ChartSpec>& charts) {
  sink.write(
      "<section aria-labelledby=\"curves\"><h2 id=\"curves\">Curves</h2>\n<noscript><p>Curves need "
      "JavaScript; the "
      "tables do not.</p></noscript>\n<div id=\"controls\" class=\"controls\" hidden>"
      "<fieldset><legend>Against</legend>"
      "<label><input type=\"radio\" name=\"x\" value=\"step\" checked>steps</label>"
      "<label><input type=\"radio\" name=\"x\" value=\"bytes\">bytes</label>"
      "<label><input type=\"radio\" name=\"x\" value=\"hours\">hours</label></fieldset>"
      "<label><input type=\"checkbox\" id=\"log\">logarithmic</label>"
      "<label><input type=\"checkbox\" id=\"whole\">with the steep beginning</label>"
      "<label>Smoothing <select id=\"smooth\"><option value=\"0\">none</option><option "
      "value=\"0.8\">some</option>"
      "<option value=\"0.95\">much</option></select></label>"
      "<button id=\"reset\" type=\"button\" disabled>Show all</button></div>\n");
  if (charts.empty()) sink.write("<p>There are no metrics yet.</p>\n");
  sink.write("<div class=\"charts\">\n");
  for (size_t i = 0; i < charts.size(); ++i) {
    const ChartSpec& chart = charts[i];
    std::string kinds;
    if (chart.wide) kinds = "<span class=\"soft\">thick: validation, thin: training</span>";
    sink.write(fmt::format(
        "<figure{0} data-chart=\"{1}\"><figcaption><h3>{2}</h3>{3}</figcaption><div class=\"plot\"></div>"
        "<details><summary>as a table<span class=\"unseen\">: {2}</span></summary><div "
        "class=\"scroll\"></div></details></figure>\n",
        chart.wide ? " class=\"wide\"" : "", i, escape_html(chart.title), kinds));
  }
  sink.write(
      "</div>\n<p class=\"soft\">Pull over a chart to look closer, Escape or a double click to see all "
      "again. With the "
      "keyboard: Tab to a chart, the arrows read it off, + and - look closer and wider. Where a line has a "
      "pale "
      "band, that has all values and the line goes through their middle.</p></section>\n");
}

std::string read_sample(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  LONGSTRIDE_CHECK(file.is_open(), "cannot open it");
  std::string bytes(static_cast<size_t>(kMostSampleBytes) + 1, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  LONGSTRIDE_CHECK(!file.bad(), "cannot read it");
  LONGSTRIDE_CHECK(file.gcount() <= kMostSampleBytes, "it has more than {}",
                   human_bytes(static_cast<double>(kMostSampleBytes)));
  bytes.resize(static_cast<size_t>(file.gcount()));
  return bytes;
}

void write_samples(ByteSink& sink, const std::vector<PageRun>& runs) {
  if (std::none_of(runs.begin(), runs.end(), [](const PageRun& run) { return !run.view.samples.empty(); }))
    return;
  sink.write("<section aria-labelledby=\"samples\"><h2 id=\"samples\">Samples over time</h2>\n");
  for (const PageRun& run : runs) {
    std::vector<RunSample> samples = run.view.samples;
    if (samples.empty()) continue;
    sink.write(fmt::format("<h3>{}</h3>\n", escape_html(printable_line(run.view.name))));
    if (samples.size() > kMostSamples) {  // evenly, with the last one
      std::vector<RunSample> kept;
      for (size_t i = 0; i < kMostSamples; ++i)
        kept.push_back(samples[(i + 1) * samples.size() / kMostSamples - 1]);
      sink.write(fmt::format("<p class=\"soft\">{} of {} samples</p>\n", kMostSamples, samples.size()));
      samples = std::move(kept);
    }
    sink.write("<div class=\"samples\">\n");
    for (const RunSample& sample : samples) {
      sink.write(fmt::format("<figure><figcaption>step {}</figcaption>", sample.step));
      const std::string ending = fs::path(sample.path).extension().string();
      try {
        const std::string bytes = read_sample(sample.path);
        if (ending == ".txt")
          sink.write(fmt::format("<pre>{}</pre>", escape_html(bytes)));
        else if (ending == ".png")
          sink.write(
              fmt::format("<img alt=\"pictures drawn at step {} of {}\" src=\"data:image/png;base64,{}\">",
                          sample.step, escape_html(printable_line(run.view.name)), base64(bytes)));
        else
          sink.write(fmt::format("<audio controls preload=\"none\" src=\"data:audio/wav;base64,{}\"></audio>",
                                 base64(bytes)));
      } catch (const Error& error) {
        sink.write(fmt::format("<p>{}: {}</p>", escape_html(printable_line(sample.path)),
                               escape_html(error.what())));
      }
      sink.write("</figure>\n");
    }
    sink.write("</div>\n");
  }
  sink.write("</section>\n");
}

std::string toml_of(RunConfig config) {
  std::string text, section;
  const FieldList fields = config.fields();
  for (const Field& field : fields.all()) {
    if (field.section != section) text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", field.section);
    section = field.section;
    text += fmt::format("{} = {}\n", field.name, field.value_as_toml());
  }
  return text;
}

void write_configs(ByteSink& sink, const std::vector<PageRun>& runs) {
  sink.write("<section aria-labelledby=\"configs\"><h2 id=\"configs\">Configurations</h2>\n");
  std::vector<RunView> views;
  for (const PageRun& run : runs) views.push_back(run.view);
  const std::vector<FieldDifference> differences = differences_of(views);
  const auto known =
      std::count_if(views.begin(), views.end(), [](const RunView& v) { return v.config.has_value(); });
  if (known > 1 && differences.empty()) sink.write("<p>They are all the same.</p>\n");
  if (!differences.empty()) {
    sink.write(
        "<div class=\"scroll\"><table class=\"differs\"><caption class=\"soft\">Fields that "
        "differ</caption><thead>"
        "<tr><th scope=\"col\">Field</th>");
    for (const RunView& view : views)
      sink.write(fmt::format("<th scope=\"col\">{}</th>", escape_html(printable_line(view.name))));
    sink.write("</tr></thead><tbody>\n");
    for (const FieldDifference& field : differences) {
      sink.write(fmt::format("<tr><th scope=\"row\" class=\"mono\">{}</th>", field.key));
      for (const std::string& value : field.values)
        sink.write(fmt::format("<td class=\"mono\">{}</td>", escape_html(value)));
      sink.write("</tr>\n");
    }
    sink.write("</tbody></table></div>\n");
  }
  for (const RunView& view : views)
    if (view.config)
      sink.write(fmt::format("<details><summary>all of {}</summary><pre tabindex=\"0\">{}</pre></details>\n",
                             escape_html(printable_line(view.name)), escape_html(toml_of(*view.config))));
  sink.write("</section>\n");
}

void write_commands(ByteSink& sink, const std::vector<PageRun>& runs) {
  sink.write("<section aria-labelledby=\"commands\"><h2 id=\"commands\">Commands</h2>\n");
  for (const PageRun& run : runs) {
    const RunView& view = run.view;
    sink.write(fmt::format("<h3>{}</h3>\n", escape_html(printable_line(view.name))));
    for (const RunCommand& command : view.commands) {
      std::string line;
      for (const std::string& word : command.words)
        line += fmt::format("{}{}", line.empty() ? "" : " ", shell_word(word));
      sink.write(fmt::format("<p class=\"soft\">{}, in {}</p><pre tabindex=\"0\">{}</pre>\n",
                             escape_html(command.time), escape_html(printable_line(command.folder)),
                             escape_html(line)));
    }
    if (view.commands.empty()) sink.write("<p class=\"soft\">It has kept no command that trained it.</p>\n");
    if (!view.config) continue;
    const std::string folder = shell_word(view.path),
                      config = shell_word((fs::path(view.path) / "config.toml").string());
    sink.write(fmt::format(
        "<p class=\"soft\">The same again, and what comes next</p><pre tabindex=\"0\">{}</pre>\n",
        escape_html(fmt::format("longstride train {0} --run {1}\nlongstride eval {2}\nlongstride sample {2}",
                                config, shell_word(view.path + "-again"), folder))));
  }
  sink.write("</section>\n");
}

}  // namespace

void write_page(ByteSink& sink, const std::vector<PageRun>& runs, const PageOptions& options) {
  const std::vector<ChartSpec> charts = charts_of(runs);
  const std::string data = escape_json_for_html(
      data_of(runs, charts, options).dump(-1, ' ', false, ordered_json::error_handler_t::replace));
  // Only scripts with this word run, which nobody can put into a run beforehand.
  const std::string word = checksum_of(data.data(), std::ssize(data));
  const std::string title = escape_html(printable_line(options.title));
  sink.write(fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; media-src "
      "data:; "
      "style-src 'unsafe-inline'; script-src 'nonce-{0}'; base-uri 'none'; form-action 'none'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\">\n<title>{1}</title>\n<style>\n{2}</style>\n"
      "</head>\n<body>\n<a class=\"skip\" href=\"#main\">to the content</a>\n<header><h1>{1}</h1>"
      "<p class=\"soft\">{3} run{4}, as of {5}{6}</p>\n",
      word, title, kPageStyle, runs.size(), runs.size() == 1 ? "" : "s", as_date(options.now),
      options.refresh_seconds > 0 ? fmt::format("<span id=\"age\"></span>; loads itself again every {} s "
                                                "<label><input type=\"checkbox\" id=\"pause\"> pause</label>",
                                                options.refresh_seconds)
                                  : ""));
  const bool samples =
      std::any_of(runs.begin(), runs.end(), [](const PageRun& run) { return !run.view.samples.empty(); });
  sink.write(
      fmt::format("<nav aria-label=\"Sections\"><ul><li><a href=\"#runs\">Runs</a></li><li><a "
                  "href=\"#curves\">Curves</a></li>{}"
                  "<li><a href=\"#configs\">Configurations</a></li><li><a "
                  "href=\"#commands\">Commands</a></li></ul></nav></header>\n"
                  "<main id=\"main\">\n",
                  samples ? "<li><a href=\"#samples\">Samples</a></li>" : ""));
  write_runs(sink, runs);
  write_charts(sink, charts);
  write_samples(sink, runs);
  write_configs(sink, runs);
  write_commands(sink, runs);
  sink.write(
      fmt::format("</main>\n<script type=\"application/json\" id=\"data\">{}</script>\n<script "
                  "nonce=\"{}\">\n{}</script>\n"
                  "</body>\n</html>\n",
                  data, word, kPageScript));
}

}  // namespace longstride

// `longstride scaling`: the power laws that a set of runs follows.
#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "longstride/base/check.h"
#include "longstride/base/output_file.h"
#include "longstride/base/printable.h"
#include "longstride/base/say.h"
#include "longstride/base/text.h"
#include "longstride/scaling/scaling_plot.h"
#include "longstride/scaling/scaling_runs.h"

#include "cli/commands.h"
#include "cli/output_file.h"
#include "cli/standard_streams.h"
#include "cli/table.h"

namespace longstride::cli {

namespace {

constexpr double kFarther = 10;  // the table tells what this many times the largest amount would reach

double most_of(const std::vector<ScalingRun>& runs, const ScalingLaw& law) {
  double most = 0;
  for (const size_t run : law.runs) most = std::max(most, runs[run].amount_of(law.resource));
  return most;
}

std::string with_interval(double value, const FitInterval& interval) {
  return fmt::format("{:.3f} ({:.3f} to {:.3f})", value, interval.low, interval.high);
}

// x0 may be beyond the range of numbers.
std::string power_of_ten(double logarithm) { return fmt::format("10^{:.2f}", logarithm / std::log(10.0)); }

void print_laws(const std::vector<ScalingRun>& runs, const std::vector<ScalingLaw>& laws) {
  std::vector<std::vector<std::string>> rows{
      {"loss against", "runs", "exponent a", "floor L_inf", "x0", "spread", "at ten times the most"}};
  for (const ScalingLaw& law : laws) {
    if (!law.fit) continue;
    const double farther = kFarther * most_of(runs, law);
    rows.push_back({name_of(law.resource), fmt::format("{}", law.runs.size()),
                    with_interval(law.fit->law.exponent, law.fit->exponent),
                    with_interval(law.fit->law.floor, law.fit->floor), power_of_ten(law.fit->law.log_scale),
                    fmt::format("{:.2f} %", 100 * law.fit->spread),
                    with_interval(law.fit->law.at(farther), law.fit->at(farther))});
  }
  print_table(rows, 1);
  for (const ScalingLaw& law : laws)
    if (law.fit) print_result("{}\n", formula_of(law));
}

nlohmann::json as_json(const FitInterval& interval) { return {interval.low, interval.high}; }

nlohmann::json as_json(const std::vector<ScalingRun>& runs, const ScalingLaw& law) {
  nlohmann::json json;
  json["fitted"] = law.fit.has_value();
  json["runs"] = nlohmann::json::array();
  for (const size_t run : law.runs) json["runs"].push_back(runs[run].path);
  if (!law.fit) {
    json["why_not"] = law.why_not;
    return json;
  }
  const double farther = kFarther * most_of(runs, law);
  json["exponent"] = law.fit->law.exponent;
  json["exponent_interval"] = as_json(law.fit->exponent);
  json["floor"] = law.fit->law.floor;
  json["floor_interval"] = as_json(law.fit->floor);
  json["log_x0"] = law.fit->law.log_scale;
  json["log_x0_interval"] = as_json(law.fit->log_scale);
  json["spread"] = law.fit->spread;
  json["at_ten_times"] = {
      {"x", farther}, {"bits", law.fit->law.at(farther)}, {"interval", as_json(law.fit->at(farther))}};
  return json;
}

nlohmann::json as_json(const ScalingRuns& all, const std::vector<ScalingLaw>& laws) {
  nlohmann::json json;
  json["laws"] = nlohmann::json::object();
  for (const ScalingLaw& law : laws) json["laws"][name_of(law.resource)] = as_json(all.runs, law);
  json["runs"] = nlohmann::json::array();
  for (const ScalingRun& run : all.runs)
    json["runs"].push_back({{"run", run.path},
                            {"parameters", run.parameters},
                            {"bytes", run.bytes},
                            {"flops", run.flops},
                            {"bits", run.loss},
                            {"epochs", run.epochs > 0 ? nlohmann::json(run.epochs) : nullptr}});
  json["left_out"] = nlohmann::json::array();
  for (const LeftOutRun& run : all.left_out)
    json["left_out"].push_back({{"run", run.path}, {"why", run.why}});
  return json;
}

void say_what_to_know(const ScalingRuns& all) {
  for (const LeftOutRun& run : all.left_out) say("left out   {}: {}", run.path, run.why);
  std::set<std::string> data;
  int64_t again = 0;
  for (const ScalingRun& run : all.runs) data.insert(run.data), again += run.epochs > 1 ? 1 : 0;
  if (data.size() > 1)
    say("note       the runs learn from {} different data, whose losses do not compare", data.size());
  if (again > 0)
    say("note       {} of {} runs saw their data more than once, which teaches less than new data", again,
        all.runs.size());
}

// A law of parameters is of models that had the same data, and a law of data of one model.
void note_what_else_differs(const std::vector<ScalingRun>& runs, const ScalingLaw& law) {
  if (!law.fit || law.resource == Resource::compute) return;
  const Resource other = law.resource == Resource::data ? Resource::parameters : Resource::data;
  double least = runs[law.runs[0]].amount_of(other), most = least;
  for (const size_t run : law.runs) {
    least = std::min(least, runs[run].amount_of(other));
    most = std::max(most, runs[run].amount_of(other));
  }
  if (most > 1.01 * least)
    say("note       the runs of the law of {} differ in {} too, by up to {:.3g} times; fit it to runs that "
        "do not",
        name_of(law.resource), name_of(other), most / least);
}

}  // namespace

int run_scaling(const ScalingOptions& options) {
  if (!options.output.empty()) {
    if (options.output != "-" && !options.output.ends_with(".svg"))
      throw UsageError(fmt::format("--output {}: must end in .svg", options.output));
    prepare_output(options.output, "--output");
  }
  const ScalingRuns all = read_scaling_runs(options.runs);
  std::vector<ScalingLaw> laws;
  for (const Resource resource : kResources) laws.push_back(fit_scaling_law(all.runs, resource));
  say_what_to_know(all);
  const bool any =
      std::any_of(laws.begin(), laws.end(), [](const ScalingLaw& law) { return law.fit.has_value(); });
  for (const ScalingLaw& law : laws)
    if (any && !law.fit) say("no law     of {}: {}", name_of(law.resource), law.why_not);
  for (const ScalingLaw& law : laws) note_what_else_differs(all.runs, law);
  LONGSTRIDE_CHECK(any, "no law can be fitted to {} run{}: {}; {}; {}", all.runs.size(),
                   all.runs.size() == 1 ? "" : "s", laws[0].why_not, laws[1].why_not, laws[2].why_not);
  if (!options.output.empty())
    write_output(options.output, [&](ByteSink& sink) { sink.write(scaling_plot(all.runs, laws)); });
  if (options.json)
    print_json(as_json(all, laws));
  else
    print_laws(all.runs, laws);
  if (!options.output.empty() && options.output != "-") say("drawn in {}", options.output);
  return 0;
}

}  // namespace longstride::cli

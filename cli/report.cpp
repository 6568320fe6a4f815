// `longstride runs` and `longstride report`: what runs have come to.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "longstride/base/check.h"
#include "longstride/base/interrupt.h"
#include "longstride/base/output_file.h"
#include "longstride/base/printable.h"
#include "longstride/base/say.h"
#include "longstride/base/text.h"
#include "longstride/report/page.h"
#include "longstride/report/run_view.h"
#include "longstride/run/run_directory.h"

#include "cli/commands.h"
#include "cli/output_file.h"
#include "cli/report_samples.h"
#include "cli/standard_streams.h"
#include "cli/table.h"

namespace longstride::cli {

namespace fs = std::filesystem;

namespace {

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// A number that is not known is null.
nlohmann::json known(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(nullptr);
}
nlohmann::json known_step(int64_t step) { return step >= 0 ? nlohmann::json(step) : nlohmann::json(nullptr); }

nlohmann::json as_json(const RunView& view) {
  return {{"run", view.path},
          {"state", name_of(view.progress)},
          {"done", known(view.part_done)},
          {"step", known_step(view.last_step)},
          {"train_bits", known(view.train_bits)},
          {"best_bits", known(view.best_bits)},
          {"best_step", known_step(view.best_step)},
          {"parameters", view.parameters},
          {"bytes", view.bytes},
          {"seconds", view.seconds},
          {"updated", view.updated},
          {"remarks", view.remarks}};
}

std::string ago(double time) {
  if (time <= 0) return "";
  const double days = (seconds_since_1970() - time) / 86400;
  return days >= 2 ? fmt::format("{:.0f} days ago", days)
                   : human_seconds(std::max(0.0, 86400 * days)) + " ago";
}

struct Watched {
  std::string path;
  std::unique_ptr<MetricsReader> metrics;
};

// Adds the runs at and below these folders that are not there yet. A folder without a run is shown as what it is.
void find_watched(const std::vector<std::string>& folders, std::vector<Watched>& watched) {
  for (const std::string& folder : folders) {
    std::error_code ignored;
    if (!fs::is_directory(folder, ignored)) continue;
    std::vector<std::string> found = find_runs(folder);
    const auto is_below = [&](const Watched& run) { return run.path.starts_with(folder); };
    if (found.empty() && std::none_of(watched.begin(), watched.end(), is_below)) found.push_back(folder);
    for (std::string& run : found) {
      // Also under another name, as with a slash at the end.
      if (std::any_of(watched.begin(), watched.end(), [&](const Watched& known) {
            return known.path == run || fs::equivalent(known.path, run, ignored);
          }))
        continue;
      auto metrics = std::make_unique<MetricsReader>((fs::path(run) / "metrics.jsonl").string());
      watched.push_back({std::move(run), std::move(metrics)});
    }
  }
}

// A run that has gone away while it is watched is shown as such.
RunView view_of(const Watched& run) {
  try {
    return view_run(run.path, *run.metrics);
  } catch (const Error& error) {
    RunView gone;
    gone.path = run.path;
    gone.name = fs::path(run.path).filename().string();
    gone.remarks.emplace_back(error.what());
    return gone;
  }
}

// Reads what is new of all runs and writes the page.
std::vector<PageRun> make_page(const std::vector<Watched>& watched, const ReportOptions& options,
                               bool goes_on) {
  std::vector<PageRun> runs;
  for (const Watched& run : watched) {
    if (options.samples > 0) draw_samples(run.path, options.samples);
    runs.push_back({view_of(run), run.metrics.get()});
  }
  PageOptions page;
  page.title = !options.title.empty() ? options.title
               : runs.size() == 1     ? runs[0].view.name
                                      : fmt::format("{} runs", runs.size());
  page.now = seconds_since_1970();
  page.refresh_seconds = goes_on ? options.every : 0;
  write_output(options.output, [&](ByteSink& sink) { write_page(sink, runs, page); });
  return runs;
}

// A config that cannot be read for a moment, and the time between two runs of a sweep, end no watch.
bool anyone_trains(const std::vector<std::string>& folders, const std::vector<Watched>& watched) {
  return std::any_of(folders.begin(), folders.end(), is_being_trained) ||
         std::any_of(watched.begin(), watched.end(),
                     [](const Watched& run) { return is_being_trained(run.path); });
}

void wait_for_next(int64_t seconds) {
  const auto next = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  while (std::chrono::steady_clock::now() < next && !InterruptGuard::requested())
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
}

}  // namespace

int run_runs(const RunsOptions& options) {
  std::vector<RunView> views;
  for (const std::string& path : find_runs(options.folder)) views.push_back(view_run(path));
  if (options.sort == "best")
    std::stable_sort(views.begin(), views.end(), [](const RunView& a, const RunView& b) {
      return std::isfinite(a.best_bits) && !(a.best_bits >= b.best_bits);
    });
  if (options.sort == "time")
    std::stable_sort(views.begin(), views.end(),
                     [](const RunView& a, const RunView& b) { return a.updated > b.updated; });
  if (options.json) {
    nlohmann::json out = nlohmann::json::array();
    for (const RunView& view : views) out.push_back(as_json(view));
    return print_json(out), 0;
  }
  LONGSTRIDE_CHECK(!views.empty(), "{}: there is no run in it", options.folder);
  std::vector<std::vector<std::string>> rows{{"run", "state", "done", "step", "train", "best", "at step",
                                              "parameters", "bytes", "time", "last line"}};
  const auto bits = [](double value) { return std::isfinite(value) ? fmt::format("{:.4f}", value) : ""; };
  for (const RunView& view : views)
    rows.push_back({printable_line(view.path), name_of(view.progress),
                    std::isfinite(view.part_done) ? fmt::format("{:.0f}%", 100 * view.part_done) : "",
                    view.last_step >= 0 ? fmt::format("{}", view.last_step) : "", bits(view.train_bits),
                    bits(view.best_bits), view.best_step >= 0 ? fmt::format("{}", view.best_step) : "",
                    view.parameters > 0 ? human_count(static_cast<double>(view.parameters)) : "",
                    view.bytes > 0 ? human_count(view.bytes) : "",
                    view.seconds > 0 ? human_seconds(view.seconds) : "", ago(view.updated)});
  print_table(rows, 2);
  for (const RunView& view : views)
    for (const std::string& remark : view.remarks) say("note       {}: {}", view.path, remark);
  return 0;
}

int run_report(const ReportOptions& options) {
  std::vector<Watched> watched;
  for (const std::string& path : options.runs) {
    std::error_code ignored;
    LONGSTRIDE_CHECK(fs::is_directory(path, ignored), "{}: no such run directory", path);
  }
  find_watched(options.runs, watched);
  for (const Watched& run : watched)
    if (is_run_directory(run.path)) spare_what_is_read(options.output, "--output", {run.path});
  prepare_output(options.output, "--output");
  if (options.watch && is_direct_output(options.output))
    throw UsageError(fmt::format("--watch: {} is no file that could be written again", options.output));
  std::optional<InterruptGuard> interrupts;
  if (options.watch) interrupts.emplace();
  const std::vector<PageRun> runs = make_page(watched, options, options.watch);
  for (const PageRun& run : runs)
    for (const std::string& remark : run.view.remarks) say("note       {}: {}", run.view.path, remark);
  print_result("{} run{} in {}\n", runs.size(), runs.size() == 1 ? "" : "s", options.output);
  if (!options.watch) return 0;
  flush_results();
  bool goes_on = anyone_trains(options.runs, watched);
  if (!goes_on) say("no run is being trained, so there is nothing to watch");
  for (std::string told; goes_on && !InterruptGuard::requested();) {
    wait_for_next(options.every);
    try {
      find_watched(options.runs, watched);
      make_page(watched, options, true);
    } catch (const Error& error) {  // such as a full disk; the next time may go well
      if (told != error.what()) say("note       {}", error.what());
      told = error.what();
    }
    goes_on = anyone_trains(options.runs, watched);
  }
  make_page(watched, options, false);  // the last one stays as it is
  return 0;
}

}  // namespace longstride::cli

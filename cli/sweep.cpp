// `longstride sweep`: a run for each combination of values, one after another or one on each GPU.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <memory>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "longstride/base/atomic_file.h"
#include "longstride/base/check.h"
#include "longstride/base/interrupt.h"
#include "longstride/base/output_file.h"
#include "longstride/base/printable.h"
#include "longstride/base/say.h"
#include "longstride/base/text.h"
#include "longstride/device/backend.h"
#include "longstride/report/page.h"
#include "longstride/report/run_view.h"
#include "longstride/run/run_lock.h"
#include "longstride/sweep/record.h"
#include "longstride/sweep/runner.h"
#include "longstride/sweep/vary.h"

#include "cli/commands.h"
#include "cli/file_argument.h"
#include "cli/load_config.h"
#include "cli/standard_streams.h"
#include "cli/status_line.h"
#include "cli/table.h"

namespace longstride::cli {

namespace fs = std::filesystem;

namespace {

// What the run's folder tells. Whether it is finished.
bool look_at(SweepRow& row) {
  std::error_code ignored;
  if (!fs::is_directory(row.path, ignored)) return false;
  const RunView view = view_run(row.path);
  row.best_bits = view.best_bits, row.best_step = view.best_step;
  row.parameters = view.parameters, row.seconds = view.seconds;
  return view.progress == RunProgress::finished;
}

std::string shown_bits(double bits) { return std::isfinite(bits) ? fmt::format("{:.4f}", bits) : ""; }

// For each run that may go on at the same time, the GPU that it sees; "": what this process sees.
std::vector<std::string> places_for(const RunConfig& config, int64_t gpus) {
  const Device device = parse_device(config.compute.device);
  if (device.kind == DeviceKind::cpu) {
    if (gpus > 0) throw UsageError("--gpus: the runs of this sweep are on the CPU, one after another");
    return {""};
  }
  if (config.compute.device.starts_with("cuda:")) {
    if (gpus > 1)
      throw UsageError(
          fmt::format("--gpus {}: compute.device = \"{}\" names one", gpus, config.compute.device));
    return {""};
  }
  const int there = backend(device).count();
  if (gpus > there)
    throw UsageError(fmt::format("--gpus {}: there {} {}", gpus, there == 1 ? "is" : "are", there));
  const int64_t count = gpus > 0 ? gpus : std::max(1, there);
  if (count == 1) return {""};
  return one_gpu_each(count, std::getenv("CUDA_VISIBLE_DEVICES"));
}

class Sweep {
 public:
  Sweep(const SweepOptions& options, std::string folder, const std::vector<Vary>& lists)
      : options_(options), folder_(std::move(folder)) {
    for (SweepRun& run : runs_of_sweep(lists)) {
      SweepRow row;
      row.path = (fs::path(folder_) / run.name).string();
      row.log = (fs::path(folder_) / "logs" / (run.name + ".txt")).string();
      row.run = std::move(run);
      rows_.push_back(std::move(row));
    }
  }

  // Until all runs are finished or have failed, or somebody wants the sweep to end.
  void run(const std::vector<std::string>& places) {
    make_directories((fs::path(folder_) / "logs").string());
    const auto ending = [&] {
      line_.clear();
      say("ending: runs that are under way save what they have learnt");
    };
    train_sweep(rows_,
                {.places = places,
                 .command = [&](const SweepRow& row) { return words_for(row); },
                 .look_at = look_at,
                 .over = [&](const SweepRow& row, bool before) { tell(row, before ? ", from before" : ""); },
                 .elsewhere = [&](const SweepRow& row, bool left) { tell_elsewhere(row, left); },
                 .ending = ending,
                 .under_way = [&](const auto& rows) { show_progress(rows); }});
    line_.clear();
  }

  // The best first.
  std::vector<const SweepRow*> ranking() const {
    std::vector<const SweepRow*> ranked;
    for (const SweepRow& row : rows_) ranked.push_back(&row);
    std::stable_sort(ranked.begin(), ranked.end(), [](const SweepRow* a, const SweepRow* b) {
      return std::isfinite(a->best_bits) && !(a->best_bits >= b->best_bits);
    });
    return ranked;
  }

  // Of the runs that have anything to show. Returns how many.
  size_t write_report(const std::string& output) const {
    std::vector<std::unique_ptr<MetricsReader>> metrics;
    std::vector<PageRun> runs;
    for (const SweepRow* row : ranking()) {
      std::error_code ignored;
      if (!fs::is_directory(row->path, ignored)) continue;
      metrics.push_back(std::make_unique<MetricsReader>((fs::path(row->path) / "metrics.jsonl").string()));
      runs.push_back({view_run(row->path, *metrics.back()), metrics.back().get()});
    }
    PageOptions page;
    page.title = folder_;
    page.now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    write_output(output, [&](ByteSink& sink) { write_page(sink, runs, page); });
    return runs.size();
  }

  const std::vector<SweepRow>& rows() const { return rows_; }
  int64_t count(SweepState state) const {
    return std::count_if(rows_.begin(), rows_.end(), [&](const SweepRow& row) { return row.state == state; });
  }

 private:
  std::vector<std::string> words_for(const SweepRow& row) const {
    std::vector<std::string> words{"train", options_.config, "--run", row.path, "--resume"};
    if (options_.data_changed) words.emplace_back("--data-changed");
    for (const auto* settings : {&options_.overrides, &row.run.settings})
      for (const std::string& setting : *settings) words.insert(words.end(), {"--set", setting});
    return words;
  }

  void tell(const SweepRow& row, const std::string& more) {
    line_.clear();
    const std::string bits = std::isfinite(row.best_bits)
                                 ? fmt::format(", best {:.4f} bits at step {}", row.best_bits, row.best_step)
                                 : "";
    say("{:>{}}/{}  {}  {}{}{}{}", ++told_, fmt::format("{}", rows_.size()).size(), rows_.size(),
        row.run.name, name_of(row.state), bits, row.problem.empty() ? "" : ": " + row.problem, more);
  }

  void tell_elsewhere(const SweepRow& row, bool left) {
    line_.clear();
    say("{} failed on GPU {} ({}) and will be tried on another{}", row.run.name, row.not_on, row.problem,
        left ? fmt::format("; it was the second in a row there, so no more runs begin on GPU {}", row.not_on)
             : "");
  }

  void show_progress(const std::vector<const SweepRow*>& rows) {
    if (!line_.active() || std::chrono::steady_clock::now() < look_again_) return;
    look_again_ = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    std::string text;
    for (const SweepRow* row : rows) {
      std::error_code ignored;
      const double done = fs::is_directory(row->path, ignored) ? view_run(row->path).part_done : 0;
      text += fmt::format("{}{} {:.0f}%", text.empty() ? "" : ", ", row->run.name,
                          std::isfinite(done) ? std::floor(100 * done) : 0);
    }
    if (!text.empty()) line_.say(fmt::format("{}/{}  {}", told_, rows_.size(), text));
  }

  const SweepOptions& options_;
  std::string folder_;
  std::vector<SweepRow> rows_;
  int64_t told_ = 0;
  StatusLine line_{"sweep"};
  std::chrono::steady_clock::time_point look_again_;
};

void print_rows(const std::vector<const SweepRow*>& rows) {
  std::vector<std::vector<std::string>> table{{"run", "state", "best", "at step", "parameters", "time"}};
  for (const SweepRow* row : rows)
    table.push_back({printable_line(row->run.name), name_of(row->state), shown_bits(row->best_bits),
                     row->best_step >= 0 ? fmt::format("{}", row->best_step) : "",
                     row->parameters > 0 ? human_count(static_cast<double>(row->parameters)) : "",
                     row->seconds > 0 ? human_seconds(row->seconds) : ""});
  print_table(table, 2);
}

nlohmann::json as_json(const std::vector<const SweepRow*>& rows) {
  nlohmann::json all = nlohmann::json::array();
  const auto known = [](auto value, bool is_known) {
    return is_known ? nlohmann::json(value) : nlohmann::json(nullptr);
  };
  for (const SweepRow* row : rows)
    all.push_back({{"run", row->path},
                   {"settings", row->run.settings},
                   {"state", name_of(row->state)},
                   {"problem", row->problem},
                   {"best_bits", known(row->best_bits, std::isfinite(row->best_bits))},
                   {"best_step", known(row->best_step, row->best_step >= 0)},
                   {"parameters", row->parameters},
                   {"seconds", row->seconds}});
  return all;
}

std::string command_again(char** arguments) {
  std::string text;
  for (char** word = arguments; word != nullptr && *word != nullptr; ++word)
    text += fmt::format("{}{}", text.empty() ? "" : " ", shell_word(*word));
  return text;
}

}  // namespace

int run_sweep(const SweepOptions& options) {
  std::error_code ignored;
  if (fs::is_directory(options.config, ignored))
    throw UsageError(fmt::format("{} is a folder; a sweep begins with a config file, such as {}",
                                 options.config,
                                 file_argument((fs::path(options.config) / "config.toml").string())));
  // Whatever is wrong with the command line or the config comes to light before anything starts.
  const RunConfig config = load_config(options.config, options.overrides);
  std::vector<Vary> lists;
  for (const std::string& text : options.vary) lists.push_back(parse_vary(text, config));
  if (lists.empty()) throw UsageError("sweep needs a --vary, as in --vary train.learning_rate=1e-3,2e-3");
  for (const std::string& setting : options.overrides)
    for (const Vary& list : lists)
      if (trim(std::string_view(setting).substr(0, setting.find('='))) == list.key)
        throw UsageError(fmt::format("{} and --vary {}: one of them", setting, list.key));
  const std::string folder =
      options.folder.empty() ? "runs/" + fs::path(options.config).stem().string() : options.folder;
  Sweep sweep(options, folder, lists);
  const std::vector<std::string> places = places_for(config, options.gpus);
  open_sweep(folder, config, lists);
  const RunLock lock(folder, {.work = "this sweep",
                              .otherwise = "begin another sweep with --folder",
                              .note = [](const std::string& line) { say_line(line); }});

  say("sweep      {} runs in {}{}", sweep.rows().size(), folder,
      places.size() > 1 ? fmt::format(", {} at a time", places.size()) : "");
  int signal = 0;
  {
    const InterruptGuard interrupts;
    sweep.run(places);
    signal = InterruptGuard::signal_number();
  }
  const std::string report = (fs::path(folder) / "report.html").string();
  const size_t reported = sweep.write_report(report);
  if (options.json)
    print_json(as_json(sweep.ranking()));
  else
    print_rows(sweep.ranking());
  flush_results();
  say("{} run{} in {}", reported, reported == 1 ? "" : "s", report);
  if (signal != 0) return say("go on with: {}", command_again(options.arguments)), 128 + signal;
  const int64_t failed = sweep.count(SweepState::failed);
  LONGSTRIDE_CHECK(failed == 0, "{} of {} runs failed; what they said is in {}", failed, sweep.rows().size(),
                   (fs::path(folder) / "logs").string());
  return 0;
}

}  // namespace longstride::cli

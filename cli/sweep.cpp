// `longstride sweep`: a run for each combination of values, one after another or one on each GPU.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <optional>
#include <thread>
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
#include "longstride/sweep/child.h"
#include "longstride/sweep/record.h"
#include "longstride/sweep/vary.h"

#include "cli/commands.h"
#include "cli/load_config.h"
#include "cli/standard_streams.h"
#include "cli/status_line.h"
#include "cli/table.h"

namespace longstride::cli {

namespace fs = std::filesystem;

namespace {

enum class RowState { waiting, finished, stopped, failed };

struct Row {
  SweepRun run;
  std::string path, log;
  RowState state = RowState::waiting;
  std::string problem;  // why it failed
  double best_bits = std::numeric_limits<double>::quiet_NaN(), seconds = 0;
  int64_t best_step = -1, parameters = 0;
};

const char* name_of(RowState state) {
  switch (state) {
    case RowState::finished:
      return "finished";
    case RowState::stopped:
      return "stopped";
    case RowState::failed:
      return "failed";
    case RowState::waiting:
      break;
  }
  return "not begun";
}

// What the run's folder tells. Whether it is finished.
bool look_at(Row& row) {
  std::error_code ignored;
  if (!fs::is_directory(row.path, ignored)) return false;
  const RunView view = view_run(row.path);
  row.best_bits = view.best_bits, row.best_step = view.best_step;
  row.parameters = view.parameters, row.seconds = view.seconds;
  return view.progress == RunProgress::finished;
}

// The last complaint in a log, from this byte on.
std::string complaint_in(const std::string& log, int64_t from) {
  std::ifstream file(log);
  file.seekg(from);
  const std::string opening = "longstride: ";
  std::string last;
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(opening)) last = line.substr(opening.size());
  return last;
}

int64_t size_of(const std::string& path) {
  std::error_code missing;
  const auto size = fs::file_size(path, missing);
  return missing ? 0 : static_cast<int64_t>(size);
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
      Row row;
      row.path = (fs::path(folder_) / run.name).string();
      row.log = (fs::path(folder_) / "logs" / (run.name + ".txt")).string();
      row.run = std::move(run);
      rows_.push_back(std::move(row));
    }
  }

  // Until all runs are finished or have failed, or somebody wants the sweep to end.
  void run(const std::vector<std::string>& places) {
    make_directories((fs::path(folder_) / "logs").string());
    for (Row& row : rows_) {
      if (look_at(row))
        row.state = RowState::finished, tell(row, ", from before");
      else if (row.seconds > 0)
        row.state = RowState::stopped;
    }
    std::vector<Place> at;
    for (const std::string& gpu : places) at.push_back({gpu, nullptr, {}, 0});
    for (bool busy = true; busy;) {
      busy = false;
      const bool ends = InterruptGuard::requested();
      if (ends && !passed_on_) pass_on(at);
      for (Place& place : at) {
        if (place.row != nullptr) take_result(place);
        if (place.row == nullptr && !ends) begin_next(place);
        busy = busy || place.row != nullptr;
      }
      show_progress(at);
      if (busy) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    line_.clear();
  }

  // The best first.
  std::vector<const Row*> ranking() const {
    std::vector<const Row*> ranked;
    for (const Row& row : rows_) ranked.push_back(&row);
    std::stable_sort(ranked.begin(), ranked.end(), [](const Row* a, const Row* b) {
      return std::isfinite(a->best_bits) && !(a->best_bits >= b->best_bits);
    });
    return ranked;
  }

  // Of the runs that have anything to show. Returns how many.
  size_t write_report(const std::string& output) const {
    std::vector<std::unique_ptr<MetricsReader>> metrics;
    std::vector<PageRun> runs;
    for (const Row* row : ranking()) {
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

  const std::vector<Row>& rows() const { return rows_; }
  int64_t count(RowState state) const {
    return std::count_if(rows_.begin(), rows_.end(), [&](const Row& row) { return row.state == state; });
  }

 private:
  // Where one run at a time goes on.
  struct Place {
    std::string gpu;
    Row* row = nullptr;
    std::optional<Child> child;
    int64_t log_began = 0;
  };

  void begin_next(Place& place) {
    if (next_ < rows_.size() && rows_[next_].state == RowState::finished) return ++next_, begin_next(place);
    if (next_ == rows_.size()) return;
    Row& row = rows_[next_++];
    ChildCommand command;
    command.words = {"train", options_.config, "--run", row.path, "--resume"};
    for (const std::string& setting : options_.overrides)
      command.words.insert(command.words.end(), {"--set", setting});
    for (const std::string& setting : row.run.settings)
      command.words.insert(command.words.end(), {"--set", setting});
    if (!place.gpu.empty()) command.environment.emplace_back("CUDA_VISIBLE_DEVICES", place.gpu);
    command.log = row.log;
    place.log_began = size_of(row.log);
    place.child.emplace(command);
    place.row = &row;
  }

  void take_result(Place& place) {
    const std::optional<int> code = place.child->ended();
    if (!code) return;
    Row& row = *std::exchange(place.row, nullptr);
    place.child.reset();
    const bool finished = look_at(row);
    if (*code == 0 && finished) {
      row.state = RowState::finished;
    } else if (InterruptGuard::requested()) {
      row.state = RowState::stopped;
    } else {
      row.state = RowState::failed;
      row.problem = complaint_in(row.log, place.log_began);
      if (row.problem.empty())
        row.problem = *code > 128 ? fmt::format("ended by signal {}", *code - 128)
                                  : fmt::format("ended with code {}", *code);
    }
    tell(row, "");
  }

  void tell(const Row& row, const std::string& more) {
    line_.clear();
    const std::string bits = std::isfinite(row.best_bits)
                                 ? fmt::format(", best {:.4f} bits at step {}", row.best_bits, row.best_step)
                                 : "";
    say("{:>{}}/{}  {}  {}{}{}{}", ++told_, fmt::format("{}", rows_.size()).size(), rows_.size(),
        row.run.name, name_of(row.state), bits, row.problem.empty() ? "" : ": " + row.problem, more);
  }

  // A terminal's Ctrl-C reaches the runs by itself; a signal to this process alone does not, and twice within a second
  // is once.
  void pass_on(const std::vector<Place>& places) {
    passed_on_ = true;
    for (const Place& place : places)
      if (place.row != nullptr) place.child->send(InterruptGuard::signal_number());
    line_.clear();
    say("ending: runs that are under way save what they have learnt");
  }

  void show_progress(const std::vector<Place>& places) {
    if (!line_.active() || std::chrono::steady_clock::now() < look_again_) return;
    look_again_ = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    std::string text;
    for (const Place& place : places) {
      std::error_code ignored;
      if (place.row == nullptr) continue;
      const double done =
          fs::is_directory(place.row->path, ignored) ? view_run(place.row->path).part_done : 0;
      text += fmt::format("{}{} {:.0f}%", text.empty() ? "" : ", ", place.row->run.name,
                          std::isfinite(done) ? std::floor(100 * done) : 0);
    }
    if (!text.empty()) line_.say(fmt::format("{}/{}  {}", told_, rows_.size(), text));
  }

  const SweepOptions& options_;
  std::string folder_;
  std::vector<Row> rows_;
  size_t next_ = 0;
  int64_t told_ = 0;
  bool passed_on_ = false;
  StatusLine line_{"sweep"};
  std::chrono::steady_clock::time_point look_again_;
};

void print_rows(const std::vector<const Row*>& rows) {
  std::vector<std::vector<std::string>> table{{"run", "state", "best", "at step", "parameters", "time"}};
  for (const Row* row : rows)
    table.push_back({printable_line(row->run.name), name_of(row->state), shown_bits(row->best_bits),
                     row->best_step >= 0 ? fmt::format("{}", row->best_step) : "",
                     row->parameters > 0 ? human_count(static_cast<double>(row->parameters)) : "",
                     row->seconds > 0 ? human_seconds(row->seconds) : ""});
  print_table(table, 2);
}

nlohmann::json as_json(const std::vector<const Row*>& rows) {
  nlohmann::json all = nlohmann::json::array();
  const auto known = [](auto value, bool is_known) {
    return is_known ? nlohmann::json(value) : nlohmann::json(nullptr);
  };
  for (const Row* row : rows)
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
                                 options.config, (fs::path(options.config) / "config.toml").string()));
  // Whatever is wrong with the command line or the config comes to light before anything starts.
  const RunConfig config = load_config(options.config, options.overrides);
  std::vector<Vary> lists;
  for (const std::string& text : options.vary) lists.push_back(parse_vary(text, config));
  if (lists.empty()) throw UsageError("sweep needs a --vary, as in --vary train.learning_rate=1e-3,2e-3");
  for (const std::string& setting : options.overrides)
    for (const Vary& list : lists)
      if (trim(std::string_view(setting).substr(0, setting.find('='))) == list.key)
        throw UsageError(fmt::format("--set {} and --vary {}: one of them", setting, list.key));
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
  const int64_t failed = sweep.count(RowState::failed);
  LONGSTRIDE_CHECK(failed == 0, "{} of {} runs failed; what they said is in {}", failed, sweep.rows().size(),
                   (fs::path(folder) / "logs").string());
  return 0;
}

}  // namespace longstride::cli

#include "longstride/report/run_view.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <ctime>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <tuple>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/file.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/base/despite_signals.h"
#include "longstride/base/printable.h"
#include "longstride/checkpoint/checkpoint.h"
#include "longstride/checkpoint/json_fields.h"
#include "longstride/data/batches.h"
#include "longstride/model/cost.h"
#include "longstride/run/run_directory.h"
#include "longstride/run/stages.h"
#include "longstride/train/trainer.h"

namespace longstride {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kTail = 256 << 10;      // bytes of metrics.jsonl that a table reads
constexpr size_t kMostCommand = 1 << 20;  // bytes of a line of commands.jsonl
constexpr size_t kMostCommands = 1000;
constexpr int kDeepest = 8;  // levels of folders that are searched for runs

// Calls `action`; what it throws becomes a remark.
template <class Action>
void note_errors(RunView& view, Action action) {
  try {
    action();
  } catch (const std::exception& error) {
    view.remarks.emplace_back(error.what());
  }
}

void read_train_bytes(RunView& view) {
  std::ifstream file(fs::path(view.path) / "data.json");
  if (!file.is_open()) return;
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const nlohmann::json data = parse_json_or_discard(text);
  const auto bytes = nlohmann::json::json_pointer("/parts/train/bytes");
  if (data.is_object() && data.contains(bytes) && data[bytes].is_number_integer())
    view.train_bytes = data[bytes].get<int64_t>();
  else
    view.remarks.emplace_back("data.json cannot be understood");
}

void read_shape(RunView& view) {
  view.config = read_run_config(view.path);
  const ModelCost cost = cost_of(view.config->model);
  view.parameters = cost.parameters;
  const std::vector<Stage> stages = stages_of(*view.config);
  for (size_t i = 0; i < stages.size(); ++i) {
    const double end = i + 1 < stages.size() ? stages[i + 1].from : 1;
    view.flops_per_byte += (end - stages[i].from) * cost_of(stages[i].config.model).training_flops();
  }
}

// Steps of the whole run; 0 if that depends on data that are not known.
int64_t total_steps(const RunView& view) {
  const TrainConfig& train = view.config->train;
  if (train.epochs <= 0) return train.steps;
  if (view.train_bytes <= 0) return 0;
  const ModelConfig& model = view.config->model;
  const bool pictures = view.config->data.kind == "image";
  const double windows =
      train.epochs * static_cast<double>(windows_in_epoch(view.train_bytes, model.context, pictures));
  return std::max<int64_t>(1, std::llround(windows / static_cast<double>(train.batch)));
}

double part_done(const RunView& view, int64_t step, double seconds) {
  const int64_t total = total_steps(view);
  double part = total > 0 ? static_cast<double>(step) / static_cast<double>(total) : 0;
  if (view.config->train.minutes > 0) part = std::max(part, seconds / (60 * view.config->train.minutes));
  return std::min(part, 1.0);
}

// State and progress by the newest checkpoint, and what is best.
void read_checkpoints(RunView& view) {
  view.progress = RunProgress::begun;
  const std::vector<CheckpointInfo> checkpoints = list_checkpoints(view.path);
  std::error_code ignored;
  if (checkpoints.empty() && fs::exists(fs::path(view.path) / "model.safetensors", ignored))
    view.progress = RunProgress::stripped;
  if (!checkpoints.empty()) {
    view.progress = RunProgress::stopped;
    note_errors(view, [&] {
      const OpenCheckpoint newest(checkpoints.back(), Verify::sizes);
      const TrainState state = TrainState::from_metadata(newest.metadata());
      view.last_step = std::max(view.last_step, state.step);
      view.seconds = std::max(view.seconds, state.seconds);
      view.part_done = part_done(view, state.step, state.seconds);
      if (view.part_done >= 1) view.progress = RunProgress::finished;
    });
  }
  note_errors(view, [&] {
    if (const auto best = read_best(view.path)) view.best_step = best->step, view.best_bits = best->value;
  });
}

void read_commands(RunView& view) {
  std::ifstream file(fs::path(view.path) / "commands.jsonl");
  int64_t broken = 0;
  for (std::string line; view.commands.size() < kMostCommands && std::getline(file, line);) {
    const nlohmann::json parsed = line.size() > kMostCommand ? nlohmann::json() : parse_json_or_discard(line);
    try {
      view.commands.push_back({as_date(parsed.at("time").get<double>()),
                               parsed.at("folder").get<std::string>(),
                               parsed.at("command").get<std::vector<std::string>>()});
    } catch (const nlohmann::json::exception&) {
      ++broken;
    }
  }
  if (file.bad()) view.remarks.push_back("commands.jsonl: it cannot be read to its end");
  if (broken > 0)
    view.remarks.push_back(
        fmt::format("commands.jsonl: {} line{} left out, not whole", broken, broken == 1 ? " is" : "s are"));
}

// RUN/samples/step-00000040.txt, .png and .wav
void list_samples(RunView& view) {
  std::error_code error;
  const fs::path folder = fs::path(view.path) / "samples";
  for (fs::directory_iterator entry = entries_of(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const fs::path& path = entry->path();
    const std::string stem = path.stem().string(), ending = path.extension().string();
    if (!stem.starts_with("step-") || (ending != ".txt" && ending != ".png" && ending != ".wav")) continue;
    RunSample sample{0, path.string()};
    const char* const last = stem.data() + stem.size();
    const auto [stop, bad] = std::from_chars(stem.data() + 5, last, sample.step);
    if (bad == std::errc() && stop == last) view.samples.push_back(std::move(sample));
  }
  if (error && error != std::errc::no_such_file_or_directory)
    view.remarks.push_back(fmt::format("cannot list {}: {}", folder.string(), error.message()));
  std::sort(view.samples.begin(), view.samples.end(), [](const RunSample& a, const RunSample& b) {
    return std::tie(a.step, a.path) < std::tie(b.step, b.path);
  });
}

// The name of "runs/a/" and of "." is that of the folder.
std::string name_of_folder(const std::string& path) {
  std::error_code error;
  const fs::path whole = fs::absolute(path, error).lexically_normal();
  const fs::path name = whole.has_filename() ? whole.filename() : whole.parent_path().filename();
  return name.empty() ? path : name.string();
}

bool has_sign_of_training(const fs::path& folder) {
  std::error_code ignored;
  for (const char* name : {"checkpoints", "metrics.jsonl", "model.safetensors", "data.json", ".lock"})
    if (fs::exists(folder / name, ignored)) return true;
  return false;
}

void find_runs(const fs::path& folder, int depth, std::vector<std::string>& found) {
  std::error_code ignored;
  if (fs::exists(folder / "config.toml", ignored) && has_sign_of_training(folder)) {
    found.push_back(folder.string());
    return;
  }
  if (depth == kDeepest) return;
  std::error_code error;
  for (fs::directory_iterator entry(folder, fs::directory_options::skip_permission_denied, error), end;
       !error && entry != end; entry.increment(error))
    if (entry->is_directory(ignored) && !entry->is_symlink(ignored) &&
        !entry->path().filename().string().starts_with('.'))
      find_runs(entry->path(), depth + 1, found);
}

}  // namespace

std::string as_date(double time) {
  const auto seconds = static_cast<std::time_t>(time);
  std::tm parts{};
  char text[64] = {};
  if (gmtime_r(&seconds, &parts) == nullptr || strftime(text, sizeof text, "%F %T UTC", &parts) == 0)
    return "";
  return text;
}

std::string name_of(RunProgress progress) {
  switch (progress) {
    case RunProgress::training:
      return "training";
    case RunProgress::finished:
      return "finished";
    case RunProgress::stopped:
      return "stopped";
    case RunProgress::begun:
      return "no checkpoint";
    case RunProgress::stripped:
      return "weights only";
    case RunProgress::unreadable:
      break;
  }
  return "unreadable";
}

bool is_being_trained(const std::string& folder) {
  const int file = open((fs::path(folder) / ".lock").c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (file < 0) return false;
  const bool held = flock(file, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  close(file);
  return held;
}

RunView view_run(const std::string& path, MetricsReader& metrics) {
  std::error_code ignored;
  LONGSTRIDE_CHECK(fs::exists(path, ignored), "{}: no such run directory", path);
  LONGSTRIDE_CHECK(fs::is_directory(path, ignored), "{}: not a run directory but a file", path);
  RunView view;
  view.path = path;
  view.name = name_of_folder(path);
  note_errors(view, [&] { metrics.refresh(); });
  view.last_step = metrics.last_step();
  view.bytes = metrics.bytes();
  view.seconds = metrics.seconds();
  view.updated = metrics.last_time();
  const ThinCurve& train = metrics.curve("train/bits");
  if (train.last().step >= 0) view.train_bits = train.last().value;
  note_errors(view, [&] { read_train_bytes(view); });
  note_errors(view, [&] { read_shape(view); });
  if (view.config) {
    note_errors(view, [&] { read_checkpoints(view); });
    const ThinCurve& validation = metrics.curve("validation/bits");
    if (view.best_step < 0 && validation.lowest().step >= 0)
      view.best_bits = validation.lowest().value, view.best_step = validation.lowest().step;
    if (view.progress != RunProgress::finished && view.last_step >= 0)
      view.part_done = part_done(view, view.last_step, view.seconds);
    if (is_being_trained(path)) view.progress = RunProgress::training;
  }
  note_errors(view, [&] { read_commands(view); });
  list_samples(view);
  for (const std::string& remark : metrics.remarks()) view.remarks.push_back(remark);
  return view;
}

RunView view_run(const std::string& path) {
  MetricsReader metrics((fs::path(path) / "metrics.jsonl").string(), kTail);
  return view_run(path, metrics);
}

std::vector<std::string> find_runs(const std::string& folder) {
  std::error_code ignored;
  LONGSTRIDE_CHECK(fs::exists(folder, ignored), "{}: no such folder", folder);
  LONGSTRIDE_CHECK(fs::is_directory(folder, ignored), "{}: not a folder but a file", folder);
  std::vector<std::string> found;
  find_runs(fs::path(folder), 0, found);
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<FieldDifference> differences_of(const std::vector<RunView>& runs) {
  std::vector<FieldDifference> all;
  for (size_t run = 0; run < runs.size(); ++run) {
    if (!runs[run].config) continue;
    RunConfig config = *runs[run].config;
    const FieldList fields = config.fields();
    for (size_t i = 0; i < fields.all().size(); ++i) {
      if (all.size() <= i) all.push_back({fields.all()[i].key(), std::vector<std::string>(runs.size())});
      all[i].values[run] = fields.all()[i].value_as_toml();
    }
  }
  std::erase_if(all, [](const FieldDifference& field) {
    std::set<std::string> values(field.values.begin(), field.values.end());
    values.erase("");
    return values.size() < 2;
  });
  return all;
}

std::string shell_word(const std::string& word) {
  constexpr std::string_view plain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=,:+@%";
  if (!word.empty() && word.find_first_not_of(plain) == std::string::npos) return word;
  // What a terminal would obey, or no text, is written as bash, zsh and ksh read it, in one line.
  if (printable_line(word) != word) {
    std::string escaped = "$'";
    for (const char c : word) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte < 0x20 || byte >= 0x7f)
        escaped += fmt::format("\\x{:02x}", byte);
      else
        escaped += c == '\'' || c == '\\' ? std::string("\\") + c : std::string(1, c);
    }
    return escaped + "'";
  }
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace longstride

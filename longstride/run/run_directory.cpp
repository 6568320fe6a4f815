#include "longstride/run/run_directory.h"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <set>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "longstride/base/atomic_file.h"
#include "longstride/base/check.h"
#include "longstride/base/despite_signals.h"
#include "longstride/checkpoint/json_fields.h"

namespace longstride {

namespace fs = std::filesystem;

namespace {

std::string config_path(const std::string& run) { return (fs::path(run) / "config.toml").string(); }

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// Throws the Error that explains why `path` is no run.
void check_run_directory(const std::string& path) {
  std::error_code ignored;
  if (!is_there(path)) fail("{}: no such run directory", path);
  if (!fs::is_directory(path, ignored)) fail("{}: not a run directory but a file", path);
  if (!is_there(config_path(path))) fail("{}: not a run directory, it has no config.toml", path);
  if (!fs::is_regular_file(config_path(path), ignored))
    fail("cannot read {}: it is not a regular file", config_path(path));
}

// The last step in the curves; 0 without curves.
int64_t last_metrics_step(const std::string& run) {
  const fs::path path = fs::path(run) / "metrics.jsonl";
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return 0;
  std::ifstream file(path);
  int64_t last = 0;
  for (std::string line; std::getline(file, line);) {
    const nlohmann::json parsed = parse_json_or_discard(line);
    if (!parsed.is_object() || !parsed.contains("step") || !parsed["step"].is_number_integer()) continue;
    last = std::max(last, parsed["step"].get<int64_t>());
  }
  return last;
}

// Whether a checkpoint of this run was ever saved, although there is none now.
bool was_trained(const std::string& run) {
  if (is_there(fs::path(run) / "model.safetensors") || is_there(fs::path(run) / "best.json")) return true;
  std::error_code ignored;
  for (fs::directory_iterator entry = entries_of(fs::path(run) / "checkpoints", ignored), end; entry != end;
       entry.increment(ignored))
    if (entry->path().filename().string().starts_with("step-")) return true;
  const int64_t last = last_metrics_step(run);
  if (last == 0) return false;
  // The curves reach beyond the first checkpoint. A start may also have failed while it was saved.
  const TrainConfig train = read_run_config(run).train;
  return last > (train.checkpoint_every > 0 ? std::min(train.checkpoint_every, train.steps) : train.steps);
}

}  // namespace

bool is_run_directory(const std::string& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored) && is_there(config_path(path));
}

RunDirectoryState state_of_directory(const std::string& path) {
  std::error_code error;
  if (!is_there(path)) return RunDirectoryState::fresh;
  if (!fs::is_directory(path, error)) return RunDirectoryState::foreign;
  if (is_there(config_path(path))) {
    if (!list_checkpoints(path).empty()) return RunDirectoryState::trained;
    return was_trained(path) ? RunDirectoryState::stripped : RunDirectoryState::begun;
  }
  for (fs::directory_iterator entry = entries_of(path, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().filename() != ".lock" && !is_temporary(entry->path().string()))
      return RunDirectoryState::foreign;
  }
  LONGSTRIDE_CHECK(!error, "cannot list {}: {}", path, error.message());
  return RunDirectoryState::fresh;
}

RunConfig read_run_config(const std::string& path) {
  check_run_directory(path);
  RunConfig defaults;
  defaults.train.recipe = "paper";
  defaults.train.optimizer = "adam";
  defaults.train.context_schedule = defaults.train.pattern_schedule = "";
  // For runs that began before these fields existed.
  defaults.train.schedule = 1;
  defaults.train.newton_schulz = "jordan";
  std::set<std::string> named;
  RunConfig config = RunConfig::from_file(config_path(path), defaults, &named);
  // It is written with every field, so one that lacks what all runs have was cut or emptied.
  for (const char* key : {"model.context", "model.layers", "model.width", "model.pattern", "data.path",
                          "train.batch", "compute.precision"})
    LONGSTRIDE_CHECK(named.contains(key), "{} is damaged: it does not say {}; put back a whole one",
                     config_path(path), key);
  return config;
}

void write_run_config(const std::string& path, const RunConfig& config) {
  const std::string text = config.to_toml(true);
  write_file_atomically(config_path(path), [&](ByteSink& sink) { sink.write(text); });
}

void record_command(const std::string& path, const std::vector<std::string>& words) {
  const std::string file = (fs::path(path) / "commands.jsonl").string();
  check_file_or_absent(file);
  constexpr int kFlags = O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC;
  const int descriptor = despite_signals([&] { return open(file.c_str(), kFlags, 0666); });
  LONGSTRIDE_CHECK(descriptor >= 0, "cannot open {}: {}", file, last_system_error());
  std::error_code ignored;
  const nlohmann::ordered_json line{{"time", static_cast<int64_t>(std::time(nullptr))},
                                    {"folder", fs::current_path(ignored).string()},
                                    {"command", words}};
  // A line that a killed process left unfinished must not swallow this one.
  char last = '\n';
  const off_t end = lseek(descriptor, 0, SEEK_END);
  if (end > 0 && pread(descriptor, &last, 1, end - 1) != 1) last = '\n';
  write_descriptor(descriptor, file, [&](ByteSink& sink) {
    if (last != '\n') sink.write("\n");
    sink.write(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  });
}

}  // namespace longstride

#include "longstride/train/metrics.h"

#include <cerrno>
#include <chrono>
#include <cmath>
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

namespace {

using nlohmann::json;

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

struct Kept {
  int64_t last_step = 0;
  bool validates_again = false;  // validation at last_step is repeated
};

// A line is whole if it is an object with a step. A killed run can leave half a line.
bool stays(const Kept& kept, const std::string& line) {
  const json parsed = parse_json_or_discard(line);
  if (!parsed.is_object() || !parsed.contains("step") || !parsed["step"].is_number_integer()) return false;
  const auto step = parsed["step"].get<int64_t>();
  return step < kept.last_step ||
         (step == kept.last_step && !(kept.validates_again && parsed.contains("validation/bits")));
}

// Calls keep(line) for each line that stays. Returns whether any part of the file is dropped.
template <class Keep>
bool select_lines(const std::string& path, const Kept& kept, Keep keep) {
  std::ifstream file(path);
  LONGSTRIDE_CHECK(file.is_open(), "cannot open {}: {}", path, last_system_error());
  bool any_cut = false;
  for (std::string line; std::getline(file, line);) {
    const bool ended = !file.eof();
    if (ended && stays(kept, line))
      keep(line);
    else
      any_cut = true;
  }
  LONGSTRIDE_CHECK(!file.bad(), "cannot read {}: {}", path, last_system_error());
  return any_cut;
}

void cut(const std::string& path, const Kept& kept) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return;
  if (!select_lines(path, kept, [](const std::string&) {})) return;
  write_file_atomically(path, [&](ByteSink& sink) {
    select_lines(path, kept, [&](const std::string& line) { sink.write(line + "\n"); });
  });
}

std::string render_line(int64_t step, double time, const Scalars& scalars) {
  std::string line = fmt::format("{{\"step\":{},\"time\":{:.3f}", step, time);
  std::set<std::string_view> names{"step", "time"};
  for (const auto& [name, value] : scalars) {
    LONGSTRIDE_CHECK(names.insert(name).second, "the metric '{}' of step {} has a name that is taken", name,
                     step);
    try {
      line += fmt::format(",{}:{}", json(name).dump(), json(value).dump());
    } catch (const json::exception&) {
      fail("a metric of step {} has a name that is no UTF-8", step);
    }
  }
  return line + "}\n";
}

}  // namespace

MetricsLog::MetricsLog(const std::string& run_directory, int64_t resume_step, bool validates_again)
    : path_(run_directory + "/metrics.jsonl") {
  make_directories(run_directory);
  check_file_or_absent(path_);
  cut(path_, {resume_step, validates_again});
  events_ = std::make_unique<EventFile>(run_directory, seconds_since_1970(), resume_step);
  constexpr int kFlags = O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC;
  descriptor_ = despite_signals([&] { return open(path_.c_str(), kFlags, 0666); });
  LONGSTRIDE_CHECK(descriptor_ >= 0, "cannot open {}: {}", path_, last_system_error());
  sync_directory(run_directory);  // the lines are as safe as their checkpoint only if the name is
}

MetricsLog::~MetricsLog() {
  if (descriptor_ >= 0) close(descriptor_);
}

void MetricsLog::bring_to_disk() {
  const int synced = despite_signals([&] { return fsync(descriptor_); });
  LONGSTRIDE_CHECK(synced == 0 || errno == EINVAL || errno == ENOTSUP, "cannot bring {} to the disk: {}",
                   path_, last_system_error());
}

void MetricsLog::log(int64_t step, const Scalars& scalars) {
  const double time = seconds_since_1970();
  append_bytes(descriptor_, render_line(step, time, scalars), path_);
  events_->add(step, time, scalars);
}

}  // namespace longstride

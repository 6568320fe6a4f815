#include "tests/reliability/soak_watch.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <system_error>

#include <fmt/format.h>
#include <unistd.h>

namespace longstride::reliability {

namespace fs = std::filesystem;

namespace {

constexpr double kMiB = 1 << 20;
constexpr size_t kFewest = 8;          // readings: two in each quarter
constexpr int64_t kFewestSteps = 100;  // in a quarter
// Of a quarter: another process on the same core raises the CPU time of a step by more than the rule allows, and one
// that comes and goes must not look like a process that grows slow.
constexpr double kShortestQuarter = 60;  // seconds

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

template <class Value>
Finding growth(const std::string& name, const std::string& unit, const std::vector<Reading>& readings,
               Value value, double more) {
  std::vector<double> series;
  for (const Reading& reading : readings) series.push_back(static_cast<double>(value(reading)));
  return growth_of(name, unit, series, 1.03, more);
}

// From the first to the last reading of a quarter.
double cpu_per_step(const Reading& first, const Reading& last) {
  return (last.cpu_seconds - first.cpu_seconds) / static_cast<double>(last.steps - first.steps);
}

}  // namespace

Finding growth_of(const std::string& name, const std::string& unit, const std::vector<double>& series,
                  double factor, double more) {
  Finding finding{name, unit, 0, 0, 0, true, ""};
  if (series.size() < kFewest) {
    finding.judged = false;
    finding.why_not = fmt::format("{} readings are too few", series.size());
    return finding;
  }
  const auto at = [&](size_t quarter) {
    return series.begin() + static_cast<std::ptrdiff_t>(quarter * series.size() / 4);
  };
  finding.before = median({at(1), at(2)});
  finding.after = median({at(3), at(4)});
  finding.limit = factor * finding.before + more;
  return finding;
}

std::vector<Finding> judge(const std::vector<Reading>& readings) {
  std::vector<Finding> findings{
      growth(
          "memory", "MiB", readings, [](const Reading& r) { return static_cast<double>(r.memory) / kMiB; },
          8),
      growth(
          "descriptors", "", readings, [](const Reading& r) { return r.descriptors; }, 2),
      growth(
          "threads", "", readings, [](const Reading& r) { return r.threads; }, 2),
      growth(
          "folder", "MiB", readings,
          [](const Reading& r) { return static_cast<double>(r.folder_bytes) / kMiB; }, 8),
  };
  Finding step{"CPU time for a step", "ms", 0, 0, 0, false, ""};
  const size_t count = readings.size();
  if (count >= kFewest) {
    const Reading &first = readings[count / 4], &second = readings[count / 2],
                  &third = readings[3 * count / 4], &last = readings.back();
    const int64_t fewest = std::min(second.steps - first.steps, last.steps - third.steps);
    const double shortest = std::min(second.seconds - first.seconds, last.seconds - third.seconds);
    step.judged = fewest >= kFewestSteps && shortest >= kShortestQuarter;
    step.why_not = fmt::format("{} steps or {:.0f} s in a quarter are too few", fewest, shortest);
    if (last.steps == third.steps && second.steps > first.steps) {
      step.why_not = "no step in the last quarter";
      step.judged = true;
      step.after = HUGE_VAL;
    } else if (step.judged) {
      step.before = 1000 * cpu_per_step(first, second);
      step.after = 1000 * cpu_per_step(third, last);
      step.limit = 1.5 * step.before;
    }
  } else {
    step.why_not = fmt::format("{} readings are too few", count);
  }
  findings.push_back(step);
  return findings;
}

Finding judge_peaks(const std::vector<double>& bytes) {
  std::vector<double> series;
  for (const double each : bytes) series.push_back(each / kMiB);
  return growth_of("memory of a sample", "MiB", series, 1.03, 8);
}

Finding judge_gpu_memory(const std::vector<double>& bytes) {
  std::vector<double> series;
  for (const double each : bytes) series.push_back(each / kMiB);
  return growth_of("memory of the GPU", "MiB", series, 1.03, 8);
}

double gpu_memory(const std::string& device) {
  const size_t colon = device.find(':');
  const std::string number = colon == std::string::npos ? "0" : device.substr(colon + 1);
  const std::string command =
      "nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits --id=" + number;
  FILE* said = popen(command.c_str(), "r");
  double mebibytes = 0;
  const bool read = said != nullptr && std::fscanf(said, "%lf", &mebibytes) == 1;
  if (said != nullptr) pclose(said);
  if (!read) throw std::runtime_error("nvidia-smi does not say how much memory is used");
  return mebibytes * kMiB;
}

Reading look_at(int process) {
  const std::string folder = fmt::format("/proc/{}", process);
  const auto gone = [&] { return std::runtime_error(fmt::format("process {} is gone", process)); };
  Reading reading;
  int64_t all = 0, resident = 0;
  if (!(std::ifstream(folder + "/statm") >> all >> resident)) throw gone();
  reading.memory = resident * sysconf(_SC_PAGESIZE);

  std::ifstream file(folder + "/stat");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const size_t name_end = text.rfind(')');  // a name may have brackets and spaces
  if (name_end == std::string::npos) throw gone();
  std::istringstream rest(text.substr(name_end + 1));
  std::vector<std::string> fields{std::istream_iterator<std::string>(rest), {}};
  constexpr size_t kUser = 11, kSystem = 12, kThreads = 17;  // after the name
  if (fields.size() <= kThreads) throw gone();
  reading.cpu_seconds = static_cast<double>(std::stoll(fields[kUser]) + std::stoll(fields[kSystem])) /
                        static_cast<double>(sysconf(_SC_CLK_TCK));
  reading.threads = std::stoll(fields[kThreads]);
  std::error_code error;
  for (fs::directory_iterator entry(folder + "/fd", error), end; !error && entry != end;
       entry.increment(error))
    ++reading.descriptors;
  if (error) throw gone();
  return reading;
}

int64_t bytes_in(const std::string& folder) {
  int64_t sum = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const bool grows = name == "metrics.jsonl" || name.starts_with("events.out.");
    std::error_code gone;
    if (grows || !entry->is_regular_file(gone)) continue;
    const auto bytes = entry->file_size(gone);
    if (!gone) sum += static_cast<int64_t>(bytes);
  }
  return sum;  // what vanished meanwhile was being replaced or removed
}

std::string table_of(const std::vector<Finding>& findings) {
  std::string text =
      fmt::format("{:<24} {:>14} {:>14} {:>14}\n", "", "second quarter", "last quarter", "limit");
  for (const Finding& finding : findings) {
    const std::string name = finding.unit.empty() ? finding.name : finding.name + ", " + finding.unit;
    if (finding.judged)
      text += fmt::format("{:<24} {:>14.2f} {:>14.2f} {:>14.2f}  {}\n", name, finding.before, finding.after,
                          finding.limit, finding.failed() ? "FAILED" : "ok");
    else
      text += fmt::format("{:<24} {:>44}  not judged: {}\n", name, "", finding.why_not);
  }
  return text;
}

}  // namespace longstride::reliability

#include "cli/sample_files.h"

#include <filesystem>
#include <utility>

#include <fmt/format.h>

#include "longstride/base/check.h"
#include "longstride/base/despite_signals.h"
#include "longstride/base/output_file.h"
#include "longstride/base/say.h"

#include "cli/output_file.h"

namespace longstride::cli {

namespace fs = std::filesystem;

std::string wanted_output(const SampleOptions& options, const Modality& modality, const std::string& name) {
  if (options.output.empty()) return modality.extension.empty() ? "" : name + std::string(modality.extension);
  if (modality.as_is && !options.json && is_direct_output(options.output) &&
      is_standard_output(find_output(options.output)))
    return "";
  return options.output;
}

// A state may come from anybody. So it decides neither in which folder its output goes nor what is replaced:
// the output goes beside the state, and replaces only what the state itself wrote.
void use_output_of_state(SampleTask& task) {
  const std::string name = fs::path(task.job.session.output).filename().string();
  const std::string before =
      std::exchange(task.job.session.output, (fs::path(task.state).parent_path() / name).string());
  task.output_of_state = true;
  if (name.empty() || name.starts_with('.'))
    throw UsageError(fmt::format("--resume {}: its output would be {}; say with --output what to write",
                                 task.state, task.job.session.output));
  const int64_t count = task.job.modality().records ? 1 : std::ssize(task.job.session.sequences);
  for (int64_t i = 0; i < count; ++i)
    check_own_output(task, numbered_output(task.job.session.output, i, count));
  if (fs::path(before).lexically_normal() != fs::path(task.job.session.output).lexically_normal())
    say("the output was {}; without --output it goes beside the state: {}", before, task.job.session.output);
}

void check_files(const SampleTask& task, int64_t count) {
  const std::string& output = task.job.session.output;
  const Modality& modality = task.job.modality();
  if (is_direct_output(output)) {
    if (!modality.records && !modality.as_is && count > 1)
      throw UsageError(
          fmt::format("--output {}: {} {}s need files of their own", output, count, modality.one));
    prepare_output(output, "--output");
  } else if (!output.empty()) {
    const std::string extension = fs::path(output).extension().string();
    if (!modality.extension.empty() && extension != modality.extension)
      throw UsageError(fmt::format("--output {}: {} {} written as {}", output, modality.all, modality.verb,
                                   modality.extension));
    // No other name is longer than the last.
    prepare_output(modality.records ? output : numbered_output(output, count - 1, count), "--output");
  }
  if (task.state.empty()) return;
  if (fs::path(task.state).lexically_normal() == fs::path(output).lexically_normal())
    throw UsageError(
        fmt::format("--state {}: that is the output; give the state a file of its own", task.state));
  prepare_state(task.state, task.resumed ? "--resume" : "--state");
}

void check_own_output(const SampleTask& task, const std::string& file) {
  if (!task.output_of_state || is_own(task.job.session.written, file)) return;
  fail(
      "{} is there, and {} did not write it as it is; it was left alone. --output {} replaces it, another "
      "name "
      "keeps it",
      file, task.state, file);
}

void spare_what_is_read(const std::string& output, int64_t count, const std::vector<std::string>& read) {
  if (count == 1 || output.empty() || is_direct_output(output))
    return spare_what_is_read(output, "--output", read);
  // There may be a hundred million names, but only those that are there can be lost.
  const fs::path whole(output), folder = whole.has_parent_path() ? whole.parent_path() : fs::path(".");
  const std::string begin = whole.stem().string() + "-", end = whole.extension().string();
  std::error_code error;
  for (fs::directory_iterator entry = entries_of(folder, error), last; !error && entry != last;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.size() <= begin.size() + end.size() || !name.starts_with(begin) || !name.ends_with(end))
      continue;
    const std::string number = name.substr(begin.size(), name.size() - begin.size() - end.size());
    constexpr size_t kMostDigits = 18;
    if (number.size() > kMostDigits || number.starts_with('0') ||
        number.find_first_not_of("0123456789") != std::string::npos || std::stoll(number) > count)
      continue;
    spare_what_is_read((whole.parent_path() / name).string(), "--output", read);
  }
}

std::string numbered_output(const std::string& path, int64_t index, int64_t count) {
  if (count == 1) return path;
  const fs::path whole(path);
  return (whole.parent_path() /
          fmt::format("{}-{}{}", whole.stem().string(), index + 1, whole.extension().string()))
      .string();
}

}  // namespace longstride::cli

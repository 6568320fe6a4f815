#include "cli/load_run.h"

#include <algorithm>

#include "longstride/base/check.h"
#include "longstride/base/say.h"
#include "longstride/base/toml.h"
#include "longstride/run/run_data.h"
#include "longstride/run/run_directory.h"

namespace longstride::cli {

RunConfig load_run_config(const std::string& run, const std::vector<std::string>& overrides) {
  RunConfig config = read_run_config(run);
  FieldList fields;
  fields.section("data");
  config.data.fields(fields);
  fields.section("compute");
  config.compute.fields(fields);
  for (const std::string& assignment : overrides) {
    if (assignment.starts_with("model.") || assignment.starts_with("train."))
      throw UsageError(fmt::format("--set {}: {} is trained already; only data.* and compute.* can change",
                                   assignment, run));
    apply_override(assignment, fields);
  }
  config.check();
  return config;
}

Splits open_splits_of(const std::string& run, const RunConfig& config,
                      const std::vector<std::string>& overrides, const std::string& part, bool data_changed) {
  const std::string relative = note_relative_paths(config.data, run);
  if (!relative.empty()) say_line(relative);
  Splits splits = open_run_data(config.data, run);
  const bool others = std::any_of(overrides.begin(), overrides.end(), [](const std::string& assignment) {
    return assignment.starts_with("data.") && !assignment.starts_with("data.cache");
  });
  if (!others && !data_changed) check_run_data(run, config.data, splits, part);
  return splits;
}

void keep_weights_for(const std::string& file, const LoadedModel& loaded, const std::string& run) {
  const std::string reason = loaded.pin(run);
  if (!reason.empty())
    say("note: {} needs the weights of step {} of {}, which further training may remove: {}", file,
        loaded.step(), run, reason);
}

}  // namespace longstride::cli

#include "cli/load_config.h"

#include <filesystem>

#include "longstride/base/check.h"
#include "longstride/base/toml.h"
#include "longstride/run/choices.h"
#include "longstride/run/run_directory.h"

namespace longstride::cli {

namespace {

// A user who names the data themselves instead of a config is told what is expected.
RunConfig read_config(const std::string& path, RunConfig defaults, NamedKeys* named) {
  try {
    return RunConfig::from_file(path, std::move(defaults), named);
  } catch (const Error& error) {
    if (std::filesystem::path(path).extension() == ".toml") throw;
    fail(
        "{} is no config ({}); to learn from it, name it in one, such as a file my.toml of two lines, [data] "
        "and "
        "path = \"{}\"",
        path, error.what(), path);
  }
}

void override(RunConfig& config, const std::vector<std::string>& overrides, NamedKeys* named) {
  const FieldList fields = config.fields();
  for (const std::string& assignment : overrides) {
    const std::string key = apply_override(assignment, fields);
    if (named != nullptr) named->insert(key);
  }
}

// The recipe gives the fields their first values, and the config says which recipe that is.
RunConfig defaults_for(const std::string& path, const std::vector<std::string>& overrides,
                       const std::string& run, std::string* recipe_note) {
  if (!run.empty() && state_of_directory(run) == RunDirectoryState::trained) return read_run_config(run);
  NamedKeys named;
  RunConfig config = read_config(path, {}, &named);
  override(config, overrides, &named);
  // A config that names both the positions and the optimizer is deliberate.
  const bool deliberate = named.contains("model.positions") && named.contains("train.optimizer");
  if (!means_fast_recipe(config, named) && recipe_note != nullptr && config.train.recipe == "auto" &&
      !deliberate)
    *recipe_note = fmt::format(
        "the config sets {}, so that what it does not say of learning is the paper's; with "
        "train.recipe = \"fast\" it is what learns most in the same time",
        named_recipe_field(named));
  return defaults_of(config, named);
}

}  // namespace

RunConfig load_config(const std::string& target, const std::vector<std::string>& overrides,
                      const std::string& run, std::string* recipe_note) {
  std::error_code ignored;
  LONGSTRIDE_CHECK(std::filesystem::exists(target, ignored), "{}: no such config file or run directory",
                   target);
  const bool is_run = std::filesystem::is_directory(target, ignored);
  // A pipe has nothing left when it is read again.
  LONGSTRIDE_CHECK(is_run || std::filesystem::is_regular_file(target, ignored),
                   "{}: not a regular file; a config is read more than once, so put it into a file", target);
  RunConfig defaults = is_run ? read_run_config(target) : defaults_for(target, overrides, run, recipe_note);
  const std::string recipe = defaults.train.recipe;
  RunConfig config = is_run ? std::move(defaults) : read_config(target, std::move(defaults), nullptr);
  NamedKeys told;
  override(config, overrides, &told);
  // Epochs replace steps; so steps that the command names would be passed over.
  if (told.contains("train.steps") && config.train.epochs > 0) {
    if (told.contains("train.epochs"))
      throw UsageError("train.steps and train.epochs both say how long to train; set one of them");
    config.train.epochs = 0;
  }
  if (config.train.recipe == "auto") config.train.recipe = recipe;
  config.check();
  return config;
}

void override_section(RunConfig& config, const std::vector<std::string>& overrides,
                      const std::string& section) {
  for (const std::string& assignment : overrides)
    if (!assignment.starts_with(section + "."))
      throw UsageError(fmt::format("--set {}: only fields of {} can be set here", assignment, section));
  override(config, overrides, nullptr);
}

}  // namespace longstride::cli

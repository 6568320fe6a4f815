#include "cli/load_config.h"

#include <filesystem>

#include "longstride/base/check.h"
#include "longstride/base/toml.h"
#include "longstride/run/run_directory.h"

namespace longstride::cli {

namespace {

// A user who gives the data themselves is told what is wanted.
RunConfig read_config(const std::string& path) {
  try {
    return RunConfig::from_file(path);
  } catch (const Error& error) {
    if (std::filesystem::path(path).extension() == ".toml") throw;
    fail(
        "{} is no config ({}); to learn from it, name it in one, such as a file my.toml of two lines, [data] "
        "and "
        "path = \"{}\"",
        path, error.what(), path);
  }
}

}  // namespace

RunConfig load_config(const std::string& target, const std::vector<std::string>& overrides) {
  std::error_code ignored;
  LONGSTRIDE_CHECK(std::filesystem::exists(target, ignored), "{}: no such config file or run directory",
                   target);
  RunConfig config =
      std::filesystem::is_directory(target, ignored) ? read_run_config(target) : read_config(target);
  const FieldList fields = config.fields();
  for (const std::string& assignment : overrides) apply_override(assignment, fields);
  config.check();
  return config;
}

}  // namespace longstride::cli

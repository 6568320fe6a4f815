#include "cli/load_config.h"

#include <filesystem>

#include "longstride/base/check.h"
#include "longstride/base/toml.h"
#include "longstride/run/run_directory.h"

namespace longstride::cli {

RunConfig load_config(const std::string& target, const std::vector<std::string>& overrides) {
  std::error_code ignored;
  LONGSTRIDE_CHECK(std::filesystem::exists(target, ignored), "{}: no such config file or run directory",
                   target);
  RunConfig config =
      std::filesystem::is_directory(target, ignored) ? read_run_config(target) : RunConfig::from_file(target);
  const FieldList fields = config.fields();
  for (const std::string& assignment : overrides) apply_override(assignment, fields);
  config.check();
  return config;
}

}  // namespace longstride::cli

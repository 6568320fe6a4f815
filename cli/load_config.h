// The configuration that the user named, with the command line's overrides.
#pragma once

#include <string>
#include <vector>

#include "longstride/run/config.h"

namespace longstride::cli {

// Reads a config file or a run directory's config.toml, applies `overrides` (section.key=value) and checks
// the result. Fields that a config file does not name come from the trained run `run`, if there is one, and
// else from the recipe that the file means (run/choices.h), which may leave them open. *recipe_note is a
// line for a user who may not have meant that recipe, or empty. Throws Error or UsageError.
RunConfig load_config(const std::string& target, const std::vector<std::string>& overrides,
                      const std::string& run = "", std::string* recipe_note = nullptr);

// Applies `overrides`, which may only name fields of `section` (as "data"). Throws UsageError.
void override_section(RunConfig& config, const std::vector<std::string>& overrides,
                      const std::string& section);

}  // namespace longstride::cli

// A configuration from where the user pointed, with the command line's overrides.
#pragma once

#include <string>
#include <vector>

#include "longstride/run/config.h"

namespace longstride::cli {

// Reads a config file or a run directory's config.toml, applies `overrides` (section.key=value) and checks
// the result. Throws Error or UsageError.
RunConfig load_config(const std::string& target, const std::vector<std::string>& overrides);

}  // namespace longstride::cli

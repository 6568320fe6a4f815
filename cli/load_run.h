// A run's configuration for the commands that use its model but do not train it.
#pragma once

#include <string>
#include <vector>

#include "longstride/run/config.h"

namespace longstride::cli {

// Reads the run's configuration and applies `overrides` of the data and compute sections; the model's shape
// is fixed by its weights and how it was trained is past. Throws Error if `run` is no run, UsageError for
// other sections.
RunConfig load_run_config(const std::string& run, const std::vector<std::string>& overrides);

}  // namespace longstride::cli

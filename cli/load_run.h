// A run's configuration for the commands that use its model but do not train it.
#pragma once

#include <string>
#include <vector>

#include "longstride/data/corpus.h"
#include "longstride/run/config.h"
#include "longstride/run/run_directory.h"

namespace longstride::cli {

// Reads the run's configuration and applies `overrides` of the data and compute sections. The others cannot
// change: the model's shape is fixed by its weights, and its training is over. Throws Error if `run` is not
// a run, UsageError for other sections.
RunConfig load_run_config(const std::string& run, const std::vector<std::string>& overrides);

// The run's own data, or other data that `overrides` of the data section name. Throws Error if `part` of the
// run's own data is not what the run was trained with, unless `data_changed`.
Splits open_splits_of(const std::string& run, const RunConfig& config,
                      const std::vector<std::string>& overrides, const std::string& part, bool data_changed);

// Keeps the model's weights in the run for `file`, which can be read with no others. Says so if that fails.
void keep_weights_for(const std::string& file, const LoadedModel& loaded, const std::string& run);

}  // namespace longstride::cli

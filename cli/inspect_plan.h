// What `longstride inspect` says of time, money and what fits: questions that need a measurement or a search.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "longstride/run/config.h"

#include "cli/commands.h"

namespace longstride::cli {

// Bytes that training may take: those that --room names, else what its device has free.
int64_t training_room(const RunConfig& config, const InspectOptions& options);

// An answer for people and for programs.
struct Answer {
  std::vector<std::string> lines;  // each begins with a name of up to 10 letters, as all lines of `inspect`
  nlohmann::json json;
};

// --fit: makes that extent of `config` as large as fits. Throws Error if nothing fits.
Answer answer_fit(RunConfig& config, const InspectOptions& options);

// The whole run by steps that are measured on this machine (train/step_time.h), and beside it with dense attention;
// `windows` are those of the training part, or -1 where the data are not there.
Answer answer_time(const RunConfig& config, int64_t windows, const InspectOptions& options);

// The work of dense attention in place of the pattern.
Answer answer_dense(const RunConfig& config);

}  // namespace longstride::cli

// The options that say what samples go on from: --prime, --prime-fraction and --prime-seconds.
#pragma once

#include <cstdint>
#include <vector>

#include "longstride/sample/job.h"

#include "cli/commands.h"

namespace longstride::cli {

// The bytes that the options name, for the samples of a prepared job; empty without a prime. A line on
// standard error says if samples go on only from its end (end_of_prime). Throws Error or UsageError.
std::vector<uint8_t> load_prime(const SampleOptions& options, const SampleJob& job);

}  // namespace longstride::cli

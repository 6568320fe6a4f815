// Applies compute.instructions, or LONGSTRIDE_INSTRUCTIONS in the environment.
#pragma once

#include <string>

#include "longstride/run/config.h"

namespace longstride::cli {

// Limits the CPU ops to `setting`. With "auto" the environment decides, which is otherwise ignored. Call it
// once, before any op. Throws Error if the CPU lacks the set, UsageError for an unknown name.
void use_instructions(const std::string& setting, const std::string& where);
void use_instructions(const ComputeConfig& compute);

// Prints a line on stderr if `device` is a CPU without AVX2.
void note_slow_cpu(Device device);

}  // namespace longstride::cli

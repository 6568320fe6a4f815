// compute.instructions, or LONGSTRIDE_INSTRUCTIONS in the environment, put into force.
#pragma once

#include <string>

#include "longstride/run/config.h"

namespace longstride::cli {

// Limits the CPU ops to `setting`; "auto" leaves it to the environment, which is otherwise not looked at. To
// be called once, before any op. Throws Error if the CPU lacks the set, UsageError for an unknown name.
void use_instructions(const std::string& setting, const std::string& where);
void use_instructions(const ComputeConfig& compute);

// A line on stderr if `device` is a CPU that has to do without AVX2.
void note_slow_cpu(Device device);

}  // namespace longstride::cli

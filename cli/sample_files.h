// The files that `longstride sample` writes: their names, and what keeps them from being written.
#pragma once

#include <cstdint>
#include <string>

#include "longstride/data/modalities/modality.h"

#include "cli/sample_task.h"

namespace longstride::cli {

// The output that the options name, or `name` with the extension of the kind; "" for text that goes to standard
// output as it comes.
std::string wanted_output(const SampleOptions& options, const Modality& modality, const std::string& name);

// The output of a resumed task, without --output: beside the state. Throws UsageError for a name that is none,
// Error if something is there that the state did not write.
void use_output_of_state(SampleTask& task);

// Throws Error or UsageError if the output of `count` samples, or the state, could not be written.
void check_files(const SampleTask& task, int64_t count);

// Throws Error if the state chose the name of `file`, which is there and not as the state left it.
void check_own_output(const SampleTask& task, const std::string& file);

// "a.wav" as "a-3.wav", if there are several.
std::string numbered_output(const std::string& path, int64_t index, int64_t count);

}  // namespace longstride::cli

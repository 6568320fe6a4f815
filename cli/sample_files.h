// The files that `longstride sample` writes: their names, and whether they can be written.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "longstride/data/modalities/modality.h"

#include "cli/sample_task.h"

namespace longstride::cli {

// The output that the options name, or `name` with the extension of the kind; "" for text that is printed on
// standard output as it comes.
std::string wanted_output(const SampleOptions& options, const Modality& modality, const std::string& name);

// Puts the output of a resumed task that has no --output beside the state. Throws UsageError for an
// impossible name, Error if something is there that the state did not write.
void use_output_of_state(SampleTask& task);

// Throws Error or UsageError if the output of `count` samples, or the state, could not be written.
void check_files(const SampleTask& task, int64_t count);

// Throws Error if the state chose the name of `file` and there is a file that the state did not write.
void check_own_output(const SampleTask& task, const std::string& file);

// Throws Error as spare_what_is_read() of output_file.h, for the files of `count` samples.
void spare_what_is_read(const std::string& output, int64_t count, const std::vector<std::string>& read);

// "a-3.wav" for "a.wav", if there are several outputs.
std::string numbered_output(const std::string& path, int64_t index, int64_t count);

}  // namespace longstride::cli

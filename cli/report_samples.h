// Samples of a run's checkpoints, kept for reports.
#pragma once

#include <cstdint>
#include <string>

namespace longstride::cli {

// Draws `count` samples with the weights of each checkpoint that the run has now into RUN/samples, as
// step-00000040.txt, .png or .wav, unless they are there already. So whoever watches a run collects them.
// What cannot be drawn is said, and left out.
void draw_samples(const std::string& run, int64_t count);

}  // namespace longstride::cli

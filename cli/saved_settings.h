// The settings of the command line that a state or a compressed file keeps.
#pragma once

#include <string>
#include <vector>

namespace longstride::cli {

// Those of `settings` (section.key=value) that change the bits of a prediction: device, precision and
// instructions. A file may come from anybody, so nothing else is taken from it: it must not name files or
// folders, or how many threads run.
std::vector<std::string> settings_of_bits(const std::vector<std::string>& settings);

}  // namespace longstride::cli

// The settings that a session's state or a compressed file keeps, and how they are used again.
#pragma once

#include <string>
#include <vector>

namespace longstride {

// Those of `settings` (section.key=value) that change the bits of a prediction: device, precision and
// instructions. A file may come from anybody, so nothing else is taken from it: it must not name files or
// folders, or how many threads run.
std::vector<std::string> settings_of_bits(const std::vector<std::string>& settings);

// The settings to read a file with: first the precision and `saved` of the file, then those that are `given`
// now, so that they have the last word.
std::vector<std::string> overrides_after(const std::string& precision, const std::vector<std::string>& saved,
                                         const std::vector<std::string>& given);

}  // namespace longstride

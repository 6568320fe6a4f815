// The settings that a session's state or a compressed file keeps, and how they are used again.
#pragma once

#include <string>
#include <vector>

namespace longstride {

// Those of `settings` (section.key=value) that change the bits of a prediction: device, precision and
// instructions. Nothing else is taken, because a file may come from anybody: it must not name files or
// folders, or how many threads run.
std::vector<std::string> settings_of_bits(const std::vector<std::string>& settings);

// The settings to use with a file: first the precision and the settings `saved` in the file, then those that
// are `given` now, so that these have the last word.
std::vector<std::string> overrides_after(const std::string& precision, const std::vector<std::string>& saved,
                                         const std::vector<std::string>& given);

}  // namespace longstride

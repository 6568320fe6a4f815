// Files that a command will write, looked at before it works for them.
#pragma once

#include <string>

namespace longstride::cli {

// Throws Error, opened by `option` and `path`, for what would keep the output from being written, which
// should not come to light after hours of work. Removes what killed processes left of it. If it is standard
// output, results go to standard error from here on.
void prepare_output(const std::string& path, const std::string& option);

// The same for a file that is read again: it has to be a regular one.
void prepare_state(const std::string& path, const std::string& option);

// What `path` names is written to as it is, so that there is nothing to replace and nothing to undo. False
// for what cannot be written at all.
bool is_direct_output(const std::string& path);

}  // namespace longstride::cli

// Files that a command will write, looked at before it works for them.
#pragma once

#include <string>

namespace longstride::cli {

// Throws Error, opened by `option` and `path`, for what would keep the file from being written, which should
// not come to light after hours of work: no folder, no permission, or something there that is no file.
void check_writable(const std::string& path, const std::string& option);

}  // namespace longstride::cli

// Names of files in advice that a user copies into a shell.
#pragma once

#include <string>

namespace longstride::cli {

// The path as a word of a command: in quotes where a shell needs them, and no option if it begins with a dash.
std::string file_argument(const std::string& path);

}  // namespace longstride::cli

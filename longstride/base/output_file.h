// Files that a user names. A device, a pipe or an open descriptor is written to as it is. Symbolic links are
// followed. A regular file at their end appears whole or not at all (atomic_file.h).
#pragma once

#include <string>

#include "longstride/base/atomic_file.h"

namespace longstride {

// What an output's name stands for.
struct OutputPlace {
  std::string path;     // where symbolic links lead
  bool direct = false;  // no regular file: written to as it is, never replaced
  int descriptor = -1;  // of this process, for - (standard output), /dev/stdout, /dev/fd/3; -1: none
  bool exists = false;
};

// Throws Error for a folder, for links in a circle and for descriptors that are not open.
OutputPlace find_output(const std::string& path);

// The place is where results for people go too, so they have to go elsewhere.
bool is_standard_output(const OutputPlace& place);

// Throws Error, opened by `option` and `path`, if the output cannot be written: no folder, no permission, a
// name that is too long. Such errors should not come to light only after hours of work.
void check_output(const std::string& path, const std::string& option);

struct OutputOptions {
  bool replace = true;  // false: throws Error if there is a file under the name when all is written
  // Permission bits, of which a file that is replaced keeps none that it had not; -1: those of that file, or what the
  // umask leaves of 0666.
  int mode = -1;
};

// Writes what `writer` writes. If anything fails a regular file stays as it was, and the error is thrown.
void write_output(const std::string& path, const FileWriter& writer, const OutputOptions& options = {});

}  // namespace longstride

// Files that a command will write, checked before the work for them begins.
#pragma once

#include <string>
#include <vector>

namespace longstride::cli {

// Throws Error, opened by `option` and `path`, if the output cannot be written; that should not come to
// light only after hours of work. Removes what killed processes left of it. If it is standard output,
// results go to standard error from here on.
void prepare_output(const std::string& path, const std::string& option);

// Throws Error, opened likewise, if writing to `path` would destroy what the command reads: one of the files `read`, or a
// file that is there in one of the folders among them; of a run's folder, a file that the run consists of. Empty names are
// none.
void spare_what_is_read(const std::string& path, const std::string& option,
                        const std::vector<std::string>& read);

// Whether both name one file, which need not be there.
bool same_file(const std::string& a, const std::string& b);

// prepare_output() for a file that will be read again: it has to be a regular file.
void prepare_state(const std::string& path, const std::string& option);

// Whether `path` names something that is written to as it is (a device, a pipe), so that nothing is
// replaced. False if it cannot be written at all.
bool is_direct_output(const std::string& path);

}  // namespace longstride::cli

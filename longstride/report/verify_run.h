// Whether the files of a run are what was written: each is read whole and compared with the digest that was taken when it
// was written, where there is one, and else understood as a command would understand it. Nothing is changed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace longstride {

struct VerifiedFile {
  std::string path;
  int64_t bytes = 0;
  std::string how;       // it was looked at: "digest", "read"
  std::string problem;   // what is wrong, in one line; "": nothing
  bool missing = false;  // that is what is wrong
  std::string remark;    // what is no damage but worth a line
};

// The files of the run directory, in the order of docs/file-formats.md: config.toml, data.json, best.json, checkpoints,
// published and pinned weights, curves, commands. Files that may be missing and are have no entry. Throws Error only if
// there is no such run.
std::vector<VerifiedFile> verify_run(const std::string& run);

}  // namespace longstride

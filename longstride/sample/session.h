// The state of a sampling run as a file: all that a later process needs to draw the very bytes that this one
// would have drawn. docs/file-formats.md describes the file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "longstride/sample/generate.h"

namespace longstride {

// A file as it was when the session wrote it. Inode and time tell it from another file of the same name.
struct WrittenFile {
  std::string name;  // without its folder
  uint64_t inode = 0;
  int64_t modified = 0;  // nanoseconds since 1970
};

struct Session {
  // Of the model.
  std::string model;  // LoadedModel::digest()
  std::string run;    // its directory, as a hint
  int64_t step = 0;
  std::string weights = "auto";  // or int8
  // Of how it computes.
  std::string precision;  // of products: f32, bf16, f16
  bool exact_scores = false;
  std::string device;                 // in words
  std::vector<std::string> settings;  // of the command line, section.key=value
  // Of the samples as a whole. Each sequence has its own length, sampler and stream besides.
  std::string kind;  // as data.kind
  int64_t length = 0;
  double hop = 0.5;
  SamplerConfig sampler;
  std::string output;                // file; empty: the terminal
  std::vector<WrittenFile> written;  // outputs so far

  std::vector<Sequence> sequences;
};

// Writes the file. Whenever the process ends, a reader sees the old file or the new one. Throws Error.
void save_session(const std::string& path, const Session& session);

// Notes that the session wrote the file. Replaces what was noted under that name before.
void note_written(std::vector<WrittenFile>& written, const std::string& path);
// True if there is nothing under the name, or the very file that was written.
bool is_own(const std::vector<WrittenFile>& written, const std::string& path);

// Throws Error naming the file if it is not such a file, is cut off or was altered.
Session load_session(const std::string& path);
// Whether the file begins as one. What follows may be damaged.
bool is_session_file(const std::string& path);

// In what a branch differs from the session that it leaves.
struct BranchOptions {
  int64_t count = 1;  // of each sequence
  std::optional<int64_t> length = {};
  std::optional<double> temperature = {};
  std::optional<int64_t> top_k = {};
  std::optional<double> top_p = {};
  std::optional<uint64_t> seed = {};
};

// The seed of branch `index` of a sequence that was drawn with `parent`: two words of the Philox block
// {index, parent} under the key `seed`. Branches keep their sequence's random stream.
uint64_t branch_seed(uint64_t seed, uint64_t parent, int64_t index);

// A session in which each sequence of `from` that is shorter than the length goes on `count` times from
// where it stands, one after the other. Branch b draws with branch_seed(seed, its sequence's seed, b), where
// `seed` is that of the options or else of the session; so it is the same whatever the count. Throws Error
// if no sequence can go on.
Session branch(const Session& from, const BranchOptions& options);

}  // namespace longstride

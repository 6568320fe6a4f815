// The state of a sampling run as a file: what a process that comes later needs to draw the very bytes that
// this one would have drawn. ../../docs/file-formats.md describes the file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "longstride/sample/generate.h"

namespace longstride {

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
  std::string kind;  // text, image, audio
  int64_t length = 0;
  double hop = 0.5;
  SamplerConfig sampler;
  std::string output;  // file; empty: the terminal

  std::vector<Sequence> sequences;
};

// Writes the file so that a reader sees the old one or the new one, whenever the process ends. Throws Error.
void save_session(const std::string& path, const Session& session);

// Throws Error naming the file if it is none of these, is cut off or was altered.
Session load_session(const std::string& path);

// What a branch does in another way than the session it leaves.
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

// A session in which each sequence of `from` that is shorter than the length goes on `count` times from where
// it stands, one after the other; branch b draws with branch_seed(seed, its sequence's seed, b), `seed` being
// that of the options or else of the session, so that it is the same whatever the count. Throws Error if no
// sequence can go on.
Session branch(const Session& from, const BranchOptions& options);

}  // namespace longstride

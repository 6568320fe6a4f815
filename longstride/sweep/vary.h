// What a sweep varies: lists of values of fields, and the runs that all their combinations make.
#pragma once

#include <string>
#include <vector>

#include "longstride/run/config.h"

namespace longstride {

// A field and the values that it takes, as they would stand in a TOML file.
struct Vary {
  std::string key;
  std::vector<std::string> values;
  bool operator==(const Vary&) const = default;
};

// Reads "train.learning_rate=1e-3,2e-3". A value with a comma in it stands in quotes, or in brackets if it is a list:
// 'model.pattern="fixed:64,16",dense'. Every value is tried on `config`. Throws UsageError: that of --set for a field
// that there is not or a value out of range, and for a list that is empty or has a value twice.
Vary parse_vary(const std::string& text, RunConfig config);

struct SweepRun {
  std::string name;                   // of its folder: "learning_rate=0.001,width=64"
  std::vector<std::string> settings;  // for --set
};

// One run for each combination; the last list varies fastest. Names are different, and fit for a shell. Throws
// UsageError if a field is in two lists, or for more than kMostSweepRuns.
std::vector<SweepRun> runs_of_sweep(const std::vector<Vary>& lists);

inline constexpr size_t kMostSweepRuns = 1000;

}  // namespace longstride

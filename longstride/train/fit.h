// The largest model, context or batch that a memory can train.
#pragma once

#include <cstdint>
#include <optional>

#include "longstride/run/config.h"

namespace longstride {

enum class Extent {
  batch,    // sequences of a step, all at a time
  context,  // positions, a multiple of 64; one that divides by 64 keeps the pattern's cuts even
  layers,   // whole cycles of the pattern's schedule
};

// `config`, which is whole, with the largest extent that fits into `room` bytes of its device; all else stays as it is.
// A context schedule is left out if the context is what changes: its stages are parts of the context. Empty if not even
// the smallest fits.
std::optional<RunConfig> largest_that_fits(const RunConfig& config, Extent extent, int64_t room);

// The extent of a config.
int64_t extent_of(const RunConfig& config, Extent extent);

}  // namespace longstride

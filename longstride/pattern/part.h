// A part of the positions of a sequence: what a rank computes where several share each sequence.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "longstride/pattern/plan.h"

namespace longstride {

// The positions of part `index` of `parts`, in order. A sequence is cut into 2 * parts chunks of one length, and a
// part has one from the front and its mirror image from the back: later queries see more, and so all parts
// have as much to do. Throws Error if n cannot be cut so.
std::array<IndexRange, 2> positions_of_part(int64_t n, int64_t parts, int64_t index);

// The plan without the pairs of queries outside `ranges`. Throws Error if a tile of queries lies partly in them.
// Its `pairs` is an estimate.
Plan plan_of_queries(Plan plan, std::span<const IndexRange> ranges);

// Marks in `keys` (n) the positions that the plan's queries look at: whole tiles, so some more than need be.
void mark_keys(const Plan& plan, std::vector<bool>& keys);

}  // namespace longstride

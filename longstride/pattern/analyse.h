// What a schedule of patterns can see, and its cost.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "longstride/pattern/pattern.h"

namespace longstride {

struct Reach {
  bool complete = false;     // every position sees every earlier one through the given layers
  bool exhaustive = false;   // all positions were checked, not a sample of them
  int64_t layers = 0;        // the fewest layers after which reach is complete; all layers if it is not
  int64_t blind_query = -1;  // the query that misses most, and ...
  int64_t blind_first = -1;  // ... the first position that it cannot see, and
  int64_t blind_last = -1;   // ... the last
  int64_t blind_count = 0;   // ... how many
};

// Does every position see every earlier one through layers 0..layers-1 of the schedule (residual connections
// carry a position's own state along)? Heads of one layer see the union. Exact for n up to 16,384, else for a
// sample of queries.
Reach analyse_reach(const Schedule& schedule, int64_t layers, int64_t heads, int64_t n);

// What the positions see through the first layers: depth[d] holds for query positions[i] and key positions[j]
// at i * positions.size() + j whether the key is seen through d + 1 layers. Heads of one layer see the union.
struct ReceptiveFields {
  std::vector<int64_t> positions;
  std::vector<std::vector<bool>> depth;
};
// For up to kMostFieldPositions positions, evenly spread but not at the same place of each block. Ends with the
// depth at which these see all earlier ones, or with `layers`. Throws Error where analyse_reach() does.
inline constexpr int64_t kMostFieldPositions = 512;
ReceptiveFields receptive_fields(const Schedule& schedule, int64_t layers, int64_t heads, int64_t n,
                                 int64_t most_positions = kMostFieldPositions);

// One line for people: "every position sees every earlier one within 2 layers" or what is missing.
std::string describe(const Reach& reach, int64_t n);

// Mean keys a query of the layer sees, averaged over heads.
double mean_keys(const LayerPattern& layer, int64_t heads, int64_t n);

}  // namespace longstride

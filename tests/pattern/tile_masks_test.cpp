// Compares masks of partial tiles with Pass::allows_index, bit by bit.
#include "longstride/pattern/tile_masks.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "longstride/pattern/terms/table.h"

namespace longstride {
namespace {

// Returns the fault, or "".
std::string fault(const Pass& pass, const TileMasks& masks) {
  for (int64_t query_tile = 0; query_tile < pass.queries.count(); ++query_tile) {
    size_t next = 0;
    for (const TileRun& run : pass.rows.of(query_tile)) {
      if (run.full) continue;
      for (int64_t key_tile = run.begin; key_tile < run.end; ++key_tile) {
        if (next >= masks.of_row(query_tile).size()) return "a tile has no mask";
        const int32_t id = masks.of_row(query_tile)[next++];
        const auto column = masks.of_column(key_tile);
        if (std::find(column.begin(), column.end(), id) == column.end()) return "the column has another mask";
        const TileMask& mask = masks.masks[static_cast<size_t>(id)];
        for (int64_t q = 0; q < kMaskTile; ++q)
          for (int64_t k = 0; k < kMaskTile; ++k) {
            const bool inside = q < pass.queries.size(query_tile) && k < pass.keys.size(key_tile);
            const bool truth = inside && pass.allows_index(pass.queries.begin(query_tile) + q,
                                                           pass.keys.begin(key_tile) + k);
            if ((mask.rows[static_cast<size_t>(q)] >> k & 1) != truth ||
                (mask.columns[static_cast<size_t>(k)] >> q & 1) != truth)
              return "a bit is wrong";
          }
      }
    }
    if (next != masks.of_row(query_tile).size()) return "there are more masks than partial tiles";
  }
  return "";
}

TEST(TileMasks, AreWhatAllowsIndexSays) {
  std::vector<const char*> patterns = terms::examples();
  patterns.insert(
      patterns.end(),
      {"window:5+prefix:3+block:16", "fixed:16,4", "strided:24", "dilated:3,4+window:9",
       "previous-row:20+stride:20", "summary:3,1+summary:2,1", "summary:9,2,1+summary:70,30",
       "stride:2+stride:3+window:5", "stride:3+dilated:20,2", "stride:2+summary:3,1+dilated:5,7",
       "summary:6,1+stride:5+dilated:3,7+window:2", "stride:2+stride:3+stride:5+summary:7,3+summary:4,1"});
  for (const char* text : patterns)
    for (const int64_t n : {1, 63, 64, 200, 517})
      for (const auto& [queries, keys] : {std::pair<int64_t, int64_t>{64, 64}, {5, 64}, {64, 7}, {1, 1}}) {
        const Plan plan = make_plan(parse_pattern(text), n, queries, keys);
        for (const Pass& pass : plan.passes)
          ASSERT_EQ(fault(pass, make_tile_masks(pass)), "")
              << text << ' ' << n << ' ' << queries << 'x' << keys;
      }
}

}  // namespace
}  // namespace longstride

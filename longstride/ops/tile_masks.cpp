#include "longstride/ops/tile_masks.h"

#include <unordered_map>

#include "longstride/base/check.h"

namespace longstride {

namespace {

// Positions of a tile's indices, so that each is computed once and not once a pair.
struct TilePositions {
  std::array<int64_t, kMaskTile> position;
  int64_t count;
  TilePositions(const TileGrid& grid, int64_t tile) : count(grid.size(tile)) {
    for (int64_t i = 0; i < count; ++i) position[i] = grid.order.position(grid.begin(tile) + i);
  }
};

TileMask make_mask(const Pass& pass, const TilePositions& queries, const TilePositions& keys) {
  TileMask mask;
  for (int64_t q = 0; q < queries.count; ++q) {
    if (queries.position[q] >= pass.queries.order.n) continue;
    for (int64_t k = 0; k < keys.count; ++k) {
      if (keys.position[k] >= pass.keys.order.n || !pass.allows(queries.position[q], keys.position[k]))
        continue;
      mask.rows[q] |= uint64_t{1} << k;
      mask.columns[k] |= uint64_t{1} << q;
    }
  }
  return mask;
}

struct HashRows {
  size_t operator()(const TileMask& mask) const {
    uint64_t hash = 0;
    for (const uint64_t row : mask.rows) hash = (hash ^ row) * 0x9E3779B97F4A7C15u + (hash >> 29);
    return hash;
  }
};

int64_t count_partial(std::span<const TileRun> runs) {
  int64_t count = 0;
  for (const TileRun& run : runs) count += run.full ? 0 : run.end - run.begin;
  return count;
}

// Where the numbers of each tile begin.
std::vector<int64_t> offsets_of(const TileLists& lists, int64_t tiles) {
  std::vector<int64_t> offsets(tiles + 1, 0);
  for (int64_t tile = 0; tile < tiles; ++tile)
    offsets[tile + 1] = offsets[tile] + count_partial(lists.of(tile));
  return offsets;
}

}  // namespace

TileMasks make_tile_masks(const Pass& pass) {
  LONGSTRIDE_CHECK(pass.queries.tile <= kMaskTile && pass.keys.tile <= kMaskTile,
                   "tiles of {} by {} have no masks, at most {} by {} do", pass.queries.tile, pass.keys.tile,
                   kMaskTile, kMaskTile);
  TileMasks result;
  result.row_offsets = offsets_of(pass.rows, pass.queries.count());
  result.column_offsets = offsets_of(pass.columns, pass.keys.count());
  result.row_ids.reserve(result.row_offsets.back());
  result.column_ids.resize(result.column_offsets.back());
  // Columns list the same partial tiles, for each key tile by ascending query tile: the order in which rows
  // reach them.
  std::vector<int64_t> next_in_column(result.column_offsets.begin(), result.column_offsets.end() - 1);
  std::unordered_map<TileMask, int32_t, HashRows> known;
  for (int64_t query_tile = 0; query_tile < pass.queries.count(); ++query_tile) {
    const TilePositions queries(pass.queries, query_tile);
    for (const TileRun& run : pass.rows.of(query_tile)) {
      if (run.full) continue;
      for (int32_t key_tile = run.begin; key_tile < run.end; ++key_tile) {
        const TileMask mask = make_mask(pass, queries, TilePositions(pass.keys, key_tile));
        const auto [found, added] = known.try_emplace(mask, static_cast<int32_t>(result.masks.size()));
        if (added) result.masks.push_back(mask);
        result.row_ids.push_back(found->second);
        result.column_ids[next_in_column[key_tile]++] = found->second;
      }
    }
  }
  return result;
}

}  // namespace longstride

#include "longstride/pattern/tile_masks.h"

#include <unordered_map>

#include "longstride/base/check.h"
#include "longstride/pattern/pass_bits.h"

namespace longstride {

namespace {

// The queries of a tile. What they have in common for all key tiles is found once here.
std::vector<PassBits::Row> rows_of(PassBits& bits, const TileGrid& queries, int64_t tile) {
  std::vector<PassBits::Row> rows(static_cast<size_t>(queries.size(tile)));
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t q = queries.order.position(queries.begin(tile) + static_cast<int64_t>(i));
    if (q < queries.order.n) rows[i] = bits.row(q);  // else padding, which sees nothing
  }
  return rows;
}

// Turns rows into columns: halves of ever smaller squares change places across the diagonal.
std::array<uint64_t, kMaskTile> transposed(std::array<uint64_t, kMaskTile> rows) {
  uint64_t low = 0xffffffff;  // the left columns of each square
  for (size_t half = 32; half > 0; half /= 2, low ^= low << half)
    for (size_t i = 0; i < rows.size(); ++i) {
      if ((i & half) != 0) continue;
      const uint64_t moved = (rows[i] >> half ^ rows[i + half]) & low;
      rows[i] ^= moved << half;
      rows[i + half] ^= moved;
    }
  return rows;
}

TileMask make_mask(const PassBits& bits, const std::vector<PassBits::Row>& rows, const TileGrid& keys,
                   int64_t key_tile) {
  const int64_t begin = key_tile % keys.tiles_per_lane() * keys.tile;
  const uint64_t tile_bits = ~uint64_t{0} >> (kMaskTile - keys.size(key_tile));
  TileMask mask;
  for (size_t q = 0; q < rows.size(); ++q) mask.rows[q] = bits.bits(rows[q], begin) & tile_bits;
  mask.columns = transposed(mask.rows);
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
  // Columns list the same partial tiles. For each key tile they are by ascending query tile, which is the
  // order in which rows reach them.
  std::vector<int64_t> next_in_column(result.column_offsets.begin(), result.column_offsets.end() - 1);
  std::unordered_map<TileMask, int32_t, HashRows> known;
  PassBits bits(pass.terms, pass.excluded, pass.keys.order);
  for (int64_t query_tile = 0; query_tile < pass.queries.count(); ++query_tile) {
    const std::vector<PassBits::Row> rows = rows_of(bits, pass.queries, query_tile);
    for (const TileRun& run : pass.rows.of(query_tile)) {
      if (run.full) continue;
      for (int32_t key_tile = run.begin; key_tile < run.end; ++key_tile) {
        const TileMask mask = make_mask(bits, rows, pass.keys, key_tile);
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

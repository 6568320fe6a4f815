// The partial tiles of a pass as bits, found once when a layer is planned.
//
// Inside a kernel a mask has to cost next to nothing, but allows() divides. Partial tiles repeat (all tiles
// on the edge of a window look alike), so each distinct mask is stored once and a partial tile has its
// number. Only tiles that a plan lists appear here: memory grows with the work, never with the square of the
// length.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "longstride/pattern/plan.h"

namespace longstride {

inline constexpr int64_t kMaskTile = 64;  // the most queries and keys of a tile, so that a row is one word

struct TileMask {
  std::array<uint64_t, kMaskTile>
      rows{};  // bit k of rows[q]: query q of the tile may look at key k of the tile
  std::array<uint64_t, kMaskTile> columns{};  // bit q of columns[k]: the same
  bool operator==(const TileMask&) const = default;
};

struct TileMasks {
  std::vector<TileMask> masks;          // distinct
  std::vector<int64_t> row_offsets;     // by query tile: where its numbers begin in row_ids
  std::vector<int32_t> row_ids;         // one for each partial tile, in the order of Pass::rows
  std::vector<int64_t> column_offsets;  // by key tile
  std::vector<int32_t> column_ids;      // in the order of Pass::columns

  std::span<const int32_t> of_row(int64_t query_tile) const {
    return {row_ids.data() + row_offsets[query_tile], row_ids.data() + row_offsets[query_tile + 1]};
  }
  std::span<const int32_t> of_column(int64_t key_tile) const {
    return {column_ids.data() + column_offsets[key_tile], column_ids.data() + column_offsets[key_tile + 1]};
  }
};

// The masks of every partial tile of `pass`, whose tiles are at most kMaskTile wide: the result of
// allows_index for each pair.
TileMasks make_tile_masks(const Pass& pass);

}  // namespace longstride

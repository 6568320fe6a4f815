#include "longstride/pattern/plan.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "longstride/base/check.h"
#include "longstride/pattern/pass_bits.h"
#include "longstride/pattern/ranges.h"

namespace longstride {

namespace {

constexpr int32_t kNoTile = std::numeric_limits<int32_t>::max();
constexpr int64_t kWord = 64;  // keys that PassBits gives at a time

uint64_t first_bits(int64_t count) { return ~uint64_t{0} >> (kWord - std::min(count, kWord)); }

// From this key tile on, the numbers of queries that touch or cover a tile change by these amounts.
struct Step {
  int32_t tile = 0;
  int32_t touching = 0;  // queries with a key in the tile
  int32_t covering = 0;  // queries with all keys of the tile
};

// Lengthens the last run if it belongs to this query tile (whose runs begin at `first`), or adds a run.
void append_run(const TileRun& run, size_t first, std::vector<TileRun>& runs) {
  if (runs.size() > first && runs.back().end == run.begin && runs.back().full == run.full)
    runs.back().end = run.end;
  else
    runs.push_back(run);
}

// Turns the steps of one query tile into runs. A key tile that all `queries` cover is full.
void append_runs(std::vector<Step>& steps, int64_t queries, std::vector<TileRun>& runs) {
  std::sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) { return a.tile < b.tile; });
  const size_t first = runs.size();
  int64_t touching = 0, covering = 0;
  for (size_t i = 0; i < steps.size();) {
    const int32_t begin = steps[i].tile;
    for (; i < steps.size() && steps[i].tile == begin; ++i) {
      touching += steps[i].touching;
      covering += steps[i].covering;
    }
    if (touching == 0) continue;
    append_run({begin, steps[i].tile, covering == queries}, first, runs);
  }
}

// What the queries of one tile see of a key tile.
struct TileCount {
  int64_t pairs = 0;
  int64_t covering = 0;  // queries with all keys of the tile
};

// Does the same as build_rows, by the bits of every key.
int64_t build_rows_by_bits(Pass& pass) {
  const TokenOrder& query_order = pass.queries.order;
  const int64_t tiles_per_lane = pass.keys.tiles_per_lane(), lane_length = pass.keys.order.lane_length();
  const int64_t tile = pass.keys.tile;
  PassBits bits(pass.terms, pass.excluded, pass.keys.order);
  std::vector<TileCount> counts(static_cast<size_t>(tiles_per_lane));
  int64_t pairs = 0;
  pass.rows.offsets.assign(1, 0);
  for (int64_t t = 0; t < pass.queries.count(); ++t) {
    const int64_t lane = t / pass.queries.tiles_per_lane();
    const int64_t first = t % pass.queries.tiles_per_lane() * pass.queries.tile;
    const int64_t size = pass.queries.size(t);
    int64_t first_tile = tiles_per_lane, last_tile = 0;  // that any query reaches, and one past the last
    for (int64_t offset = first; offset < first + size; ++offset) {
      const int64_t q = position_at(query_order, lane, offset);
      if (q >= query_order.n) continue;
      const PassBits::Row row = bits.row(q);
      if (row.count == 0) continue;
      first_tile = std::min(first_tile, row.begin() / tile);
      last_tile = std::max(last_tile, (row.end() - 1) / tile + 1);
      for (int64_t key_tile = row.begin() / tile; key_tile * tile < row.end(); ++key_tile) {
        const int64_t end = std::min((key_tile + 1) * tile, lane_length);
        int64_t seen = 0;
        for (int64_t begin = key_tile * tile; begin < end; begin += kWord)
          seen += std::popcount(bits.bits(row, begin) & first_bits(end - begin));
        TileCount& count = counts[static_cast<size_t>(key_tile)];
        count.pairs += seen;
        count.covering += seen == end - key_tile * tile;
      }
    }
    const size_t first_run = pass.rows.runs.size();
    const auto lane_base = static_cast<int32_t>(lane * tiles_per_lane);
    for (int64_t key_tile = first_tile; key_tile < last_tile; ++key_tile) {
      const TileCount count = std::exchange(counts[static_cast<size_t>(key_tile)], {});
      if (count.pairs == 0) continue;
      pairs += count.pairs;
      const int32_t begin = lane_base + static_cast<int32_t>(key_tile);
      append_run({begin, begin + 1, count.covering == size}, first_run, pass.rows.runs);
    }
    pass.rows.offsets.push_back(static_cast<int64_t>(pass.rows.runs.size()));
  }
  return pairs;
}

// Fills pass.rows query tile by query tile; returns the pairs of the pass.
int64_t build_rows(Pass& pass) {
  const TokenOrder& query_order = pass.queries.order;
  const int64_t tiles_per_lane = pass.keys.tiles_per_lane();
  const int64_t lane_length = pass.keys.order.lane_length();
  const int64_t tile = pass.keys.tile;
  PassRanges ranges(pass.terms, pass.excluded, pass.keys.order);
  std::vector<Step> steps;
  int64_t pairs = 0;

  pass.rows.offsets.assign(1, 0);
  pass.rows.offsets.reserve(static_cast<size_t>(pass.queries.count() + 1));
  for (int64_t t = 0; t < pass.queries.count(); ++t) {
    const int64_t lane = t / pass.queries.tiles_per_lane();
    const int64_t first = t % pass.queries.tiles_per_lane() * pass.queries.tile;
    const int64_t size = pass.queries.size(t);
    const auto tile_base =
        static_cast<int32_t>(lane * tiles_per_lane);  // natural and summary have lane 0 only
    steps.clear();
    for (int64_t offset = first; offset < first + size; ++offset) {
      const int64_t q = position_at(query_order, lane, offset);
      if (q >= query_order.n) continue;  // padding counts in `size`, so its tiles are never full
      for (const IndexRange& range : ranges.of(q)) {
        pairs += range.end - range.begin;
        const auto begin = static_cast<int32_t>(range.begin / tile);
        const auto end = static_cast<int32_t>((range.end - 1) / tile + 1);
        const int32_t full_begin = begin + (range.begin % tile != 0);
        const int32_t full_end = end - (range.end != lane_length && range.end % tile != 0);
        const bool covers = full_begin < full_end;
        if (covers && full_begin == begin && full_end == end) {
          steps.push_back({tile_base + begin, 1, 1});
          steps.push_back({tile_base + end, -1, -1});
          continue;
        }
        steps.push_back({tile_base + begin, 1, 0});
        steps.push_back({tile_base + end, -1, 0});
        if (!covers) continue;
        steps.push_back({tile_base + full_begin, 0, 1});
        steps.push_back({tile_base + full_end, 0, -1});
      }
    }
    append_runs(steps, size, pass.rows.runs);
    pass.rows.offsets.push_back(static_cast<int64_t>(pass.rows.runs.size()));
  }
  return pairs;
}

// A stretch of tiles of equal state in a list of runs.
struct Stretch {
  enum class State : uint8_t { absent, partial, full };
  State state = State::absent;
  int32_t end = kNoTile;
};

Stretch stretch_at(std::span<const TileRun> runs, size_t next, int32_t tile) {
  if (next == runs.size()) return {};
  if (tile < runs[next].begin) return {Stretch::State::absent, runs[next].begin};
  return {runs[next].full ? Stretch::State::full : Stretch::State::partial, runs[next].end};
}

// The runs of rows, listed by key tile. Goes down the rows and looks only at key tiles whose state changes
// from one row to the next. So the work grows with the result, not with the number of listed tiles.
TileLists transpose(const TileLists& rows, int64_t row_count, int64_t column_count) {
  struct Entry {
    int32_t column;
    TileRun run;
  };
  std::vector<Entry> entries;
  std::vector<int32_t> since(static_cast<size_t>(column_count));
  std::span<const TileRun> above;
  for (int64_t row = 0; row <= row_count; ++row) {
    const std::span<const TileRun> here = row < row_count ? rows.of(row) : std::span<const TileRun>();
    size_t a = 0, h = 0;
    for (int32_t tile = 0; a < above.size() || h < here.size();) {
      const Stretch was = stretch_at(above, a, tile), is = stretch_at(here, h, tile);
      const int32_t end = std::min(was.end, is.end);
      for (int32_t column = tile; was.state != is.state && column < end; ++column) {
        int32_t& start = since[static_cast<size_t>(column)];
        if (was.state != Stretch::State::absent)
          entries.push_back({column, {start, static_cast<int32_t>(row), was.state == Stretch::State::full}});
        start = static_cast<int32_t>(row);
      }
      tile = end;
      if (a < above.size() && above[a].end == tile) ++a;
      if (h < here.size() && here[h].end == tile) ++h;
    }
    above = here;
  }

  TileLists columns;
  columns.offsets.assign(static_cast<size_t>(column_count + 1), 0);
  for (const Entry& entry : entries) ++columns.offsets[static_cast<size_t>(entry.column) + 1];
  for (size_t c = 1; c < columns.offsets.size(); ++c) columns.offsets[c] += columns.offsets[c - 1];
  std::vector<int64_t> next(columns.offsets.begin(), columns.offsets.end() - 1);
  columns.runs.resize(entries.size());
  for (const Entry& entry : entries)
    columns.runs[static_cast<size_t>(next[static_cast<size_t>(entry.column)]++)] = entry.run;
  return columns;
}

// One range takes about as long as this many words of bits.
constexpr double kWordsOfRange = 16;
// A plan that would take minutes is refused before it begins. In about a second 10^7 ranges or 2 * 10^8
// words are done.
constexpr double kMostRanges = 3e8, kMostWords = 1e9;

bool better_by_bits(const PassTerms& pass, int64_t n, int64_t tile) {
  return leaves_out_single_keys(pass) &&
         words_of_pass(pass, n, tile) < kWordsOfRange * ranges_of_pass(pass, n);
}

// The passes of `pattern`. Throws Error if later ones must leave out too many keys.
std::vector<PassTerms> passes_to_plan(const Pattern& pattern, int64_t n, int64_t tile) {
  std::vector<PassTerms> passes = group_passes(pattern, n);
  for (const PassTerms& pass : passes)
    LONGSTRIDE_CHECK(
        ranges_of_pass(pass, n) <= kMostRanges || words_of_pass(pass, n, tile) <= kMostWords,
        "pattern '{}' over {} positions: too many keys of '{}' belong to '{}' too and would have to be left "
        "out one by one; choose widths that divide one another, larger ones, or fewer positions",
        to_string(pattern), n, to_string(pass.terms), to_string(pass.excluded));
  return passes;
}

void check_tile_count(const TileGrid& grid) {
  LONGSTRIDE_CHECK(grid.count() < kNoTile,
                   "{} positions make {} tiles of {}, at most {} are possible; take larger tiles",
                   grid.order.n, grid.count(), grid.tile, kNoTile - 1);
}

}  // namespace

Plan make_plan(const Pattern& pattern, int64_t n, int64_t query_tile, int64_t key_tile) {
  LONGSTRIDE_CHECK(n >= 1, "a plan needs at least 1 position, here n = {}", n);
  LONGSTRIDE_CHECK(query_tile >= 1 && key_tile >= 1, "tiles are {} by {}, both sides must be at least 1",
                   query_tile, key_tile);
  Plan plan;
  plan.pattern = pattern;
  plan.n = n;
  for (const PassTerms& terms : passes_to_plan(pattern, n, key_tile)) {
    Pass pass;
    pass.terms = terms.terms;
    pass.excluded = terms.excluded;
    pass.queries = {terms.queries, query_tile};
    pass.keys = {terms.keys, key_tile};
    check_tile_count(pass.queries);
    check_tile_count(pass.keys);
    const int64_t pairs = better_by_bits(terms, n, key_tile) ? build_rows_by_bits(pass) : build_rows(pass);
    if (pairs == 0) continue;  // earlier passes have all its pairs
    pass.columns = transpose(pass.rows, pass.queries.count(), pass.keys.count());
    plan.pairs += pairs;
    plan.passes.push_back(std::move(pass));
  }
  return plan;
}

int64_t count_pairs(const Pattern& pattern, int64_t n) {
  LONGSTRIDE_CHECK(n >= 1, "pairs are counted over at least 1 position, here n = {}", n);
  int64_t pairs = 0;
  for (const PassTerms& pass : passes_to_plan(pattern, n, kWord)) {
    if (better_by_bits(pass, n, kWord)) {
      PassBits bits(pass.terms, pass.excluded, pass.keys);
      for (int64_t q = 0; q < n; ++q) {
        const PassBits::Row row = bits.row(q);
        for (int64_t begin = row.begin(); begin < row.end(); begin += kWord)
          pairs += std::popcount(bits.bits(row, begin));
      }
      continue;
    }
    PassRanges ranges(pass.terms, pass.excluded, pass.keys);
    for (int64_t q = 0; q < n; ++q)
      for (const IndexRange& range : ranges.of(q)) pairs += range.end - range.begin;
  }
  return pairs;
}

void keys_of(const Pattern& pattern, int64_t q, std::vector<int64_t>& keys) {
  LONGSTRIDE_CHECK(q >= 0, "the query's position is {}, must not be negative", q);
  keys.clear();
  for (const PassTerms& pass : group_passes(pattern, q + 1)) {
    PassRanges ranges(pass.terms, pass.excluded, pass.keys);
    const int64_t lane = lane_of(pass.keys, q);
    for (const IndexRange& range : ranges.of(q))
      for (int64_t offset = range.begin; offset < range.end; ++offset)
        keys.push_back(position_at(pass.keys, lane, offset));
  }
}

}  // namespace longstride

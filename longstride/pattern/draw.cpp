// Layout: one column of panels for each distinct layer, and in it one panel for each distinct pattern of its
// heads. Above each panel is its text, with every term in its own colour. Positions themselves (k = q) are a
// shade darker, so that the eye finds the diagonal. Between heading and panel there may be the view of one query.
#include "longstride/pattern/draw.h"

#include <algorithm>
#include <cmath>

#include "longstride/base/check.h"
#include "longstride/pattern/analyse.h"

namespace longstride {

namespace {

constexpr int64_t kMargin = 16;
constexpr int64_t kLargestCell = 14;   // pixels of a pair, for short sequences
constexpr int64_t kSmallestQuery = 3;  // pixels of its mark
constexpr int64_t kQueryLine = Picture::kGlyphHeight + 6;
constexpr int64_t kSmallestGrid = 4;   // pixels of a pair from which lines are drawn between pairs
constexpr int64_t kSamplesAside = 10;  // a cell of many pairs is judged by this many pairs along each side
constexpr Colour kPast{244, 245, 247}, kFuture{255, 255, 255}, kGrid{225, 228, 233}, kFrame{150, 156, 166},
    kText{70, 76, 86};
constexpr Colour kSeenNow{10, 91, 181}, kSeenBefore{158, 198, 240}, kItself{6, 52, 104}, kQuery{20, 22, 26};

Colour colour_of(TermKind kind) {
  return terms::visit(kind, [](auto t) { return decltype(t)::colour; });
}

uint8_t channel(double value) { return static_cast<uint8_t>(std::lround(std::clamp(value, 0.0, 255.0))); }

// Sums of colours, to average over the pairs of a cell.
struct Paint {
  double red = 0, green = 0, blue = 0, pairs = 0;
  void add(Colour c, double shade) {
    red += shade * c.red, green += shade * c.green, blue += shade * c.blue;
    pairs += 1;
  }
};

// Adds the colour of the first term that allows the pair; nothing if none does.
void add_pair(const Pattern& pattern, int64_t q, int64_t k, Paint& paint) {
  for (int t = 0; t < pattern.count; ++t) {
    if (!pattern.terms[t].allows(q, k)) continue;
    paint.add(colour_of(pattern.terms[t].kind), q == k ? 0.72 : 1.0);
    return;
  }
}

Colour mix(Colour background, const Paint& paint, double share) {
  if (paint.pairs == 0) return background;
  const double rest = 1 - share, own = share / paint.pairs;
  return {channel(background.red * rest + paint.red * own),
          channel(background.green * rest + paint.green * own),
          channel(background.blue * rest + paint.blue * own)};
}

// How a panel of n positions fits into a square of `pixels`.
struct Grid {
  int64_t n = 0, cells = 0, cell = 1;
  int64_t line() const { return cell >= kSmallestGrid ? 1 : 0; }
  int64_t side() const { return cells * cell + line(); }
  int64_t first(int64_t index) const { return index * n / cells; }  // the first position of a cell

  static Grid fit(int64_t n, int64_t pixels) {
    Grid grid{n, std::min(n, pixels), 1};
    if (n <= pixels) grid.cell = std::min(pixels / n, kLargestCell);
    return grid;
  }
};

// The colour of the cell of queries `row` and keys `column`. A cell of many pairs is judged by pairs at
// jittered places, because a regular choice would beat against strides. The cube root of the share keeps
// thin patterns visible.
Colour cell_colour(const Pattern& pattern, const Grid& grid, int64_t row, int64_t column) {
  const int64_t q0 = grid.first(row), q_count = grid.first(row + 1) - q0;
  const int64_t k0 = grid.first(column), k_count = grid.first(column + 1) - k0;
  const int64_t q_samples = std::min(q_count, kSamplesAside), k_samples = std::min(k_count, kSamplesAside);
  Paint paint;
  uint64_t jitter = static_cast<uint64_t>(row * grid.cells + column);
  const auto place = [&](int64_t index, int64_t samples, int64_t count) {
    const int64_t begin = index * count / samples, end = (index + 1) * count / samples;
    jitter = jitter * 6364136223846793005u + 1442695040888963407u;
    return begin + static_cast<int64_t>((jitter >> 33) % static_cast<uint64_t>(end - begin));
  };
  for (int64_t i = 0; i < q_samples; ++i)
    for (int64_t j = 0; j < k_samples; ++j) {
      const int64_t q = q0 + place(i, q_samples, q_count), k = k0 + place(j, k_samples, k_count);
      add_pair(pattern, q, k, paint);
    }
  const double share = paint.pairs / static_cast<double>(q_samples * k_samples);
  return mix(column <= row ? kPast : kFuture, paint, std::cbrt(share));
}

void draw_frame(Picture& picture, int64_t x, int64_t y, int64_t width, int64_t height) {
  picture.fill(x - 1, y - 1, width + 2, 1, kFrame);
  picture.fill(x - 1, y + height, width + 2, 1, kFrame);
  picture.fill(x - 1, y, 1, height, kFrame);
  picture.fill(x + width, y, 1, height, kFrame);
}

void draw_panel(Picture& picture, const Pattern& pattern, const Grid& grid, int64_t x, int64_t y) {
  if (grid.line()) picture.fill(x, y, grid.side(), grid.side(), kGrid);
  std::vector<Colour> colours(static_cast<size_t>(grid.cells));
  for (int64_t row = 0; row < grid.cells; ++row) {
    for (int64_t column = 0; column < grid.cells; ++column)
      colours[static_cast<size_t>(column)] = cell_colour(pattern, grid, row, column);
    for (int64_t column = 0, end = 0; column < grid.cells; column = end) {
      const Colour colour = colours[static_cast<size_t>(column)];
      for (end = column + 1; !grid.line() && end < grid.cells; ++end)  // equal neighbours are one rectangle
        if (colours[static_cast<size_t>(end)] != colour) break;
      picture.fill(x + column * grid.cell + grid.line(), y + row * grid.cell + grid.line(),
                   (end - column) * grid.cell - grid.line(), grid.cell - grid.line(), colour);
    }
  }
  draw_frame(picture, x, y, grid.side(), grid.side());
}

// The positions in their rows, in cells of one position or, where there are too many, of several.
struct QueryView {
  DrawnQuery query;
  int64_t n = 0, rows = 0, across = 0, down = 0;  // rows of positions; cells
  int64_t cell_width = 1, cell_height = 1;

  QueryView(const DrawnQuery& drawn, int64_t positions, int64_t pixels)
      : query(drawn), n(positions), rows((n + query.row - 1) / query.row) {
    across = std::min(query.row, pixels), down = std::min(rows, pixels);
    cell_width = std::min(pixels / across, kLargestCell);
    cell_height = std::min(pixels / down, kLargestCell);
  }
  int64_t line() const { return std::min(cell_width, cell_height) >= kSmallestGrid ? 1 : 0; }
  int64_t width() const { return across * cell_width + line(); }
  int64_t height() const { return down * cell_height + line(); }
  int64_t cell_of(int64_t position) const {
    return position / query.row * down / rows * across + position % query.row * across / query.row;
  }
  std::string text(const Pattern& pattern) const {
    int64_t keys = 0;
    for (int64_t k = 0; k <= query.position; ++k) keys += pattern.allows(query.position, k);
    return fmt::format("query {}: {} key{}", query.position, keys, keys == 1 ? "" : "s");
  }
};

void draw_query(Picture& picture, const Pattern& pattern, const QueryView& view, int64_t x, int64_t y) {
  const auto cells = static_cast<size_t>(view.across * view.down);
  std::vector<Paint> paints(cells);
  std::vector<int64_t> positions(cells), past(cells);
  for (int64_t k = 0; k < view.n; ++k) {
    const auto cell = static_cast<size_t>(view.cell_of(k));
    ++positions[cell];
    if (k > view.query.position) continue;
    ++past[cell];
    add_pair(pattern, view.query.position, k, paints[cell]);
  }
  if (view.line()) picture.fill(x, y, view.width(), view.height(), kGrid);
  const auto own = static_cast<size_t>(view.cell_of(view.query.position));
  const auto colour_of_cell = [&](size_t cell) {
    if (cell == own) return kQuery;
    const double share = paints[cell].pairs / static_cast<double>(std::max<int64_t>(1, positions[cell]));
    return mix(past[cell] > 0 ? kPast : kFuture, paints[cell], std::cbrt(share));
  };
  for (int64_t row = 0; row < view.down; ++row)
    for (int64_t column = 0, end = 0; column < view.across; column = end) {
      const auto first = static_cast<size_t>(row * view.across);
      const Colour colour = colour_of_cell(first + static_cast<size_t>(column));
      for (end = column + 1; !view.line() && end < view.across; ++end)
        if (colour_of_cell(first + static_cast<size_t>(end)) != colour) break;
      picture.fill(x + column * view.cell_width + view.line(), y + row * view.cell_height + view.line(),
                   (end - column) * view.cell_width - view.line(), view.cell_height - view.line(), colour);
    }
  // The query's own cell may be too small to be seen.
  const int64_t wide = std::max(kSmallestQuery, view.cell_width),
                high = std::max(kSmallestQuery, view.cell_height);
  if (wide > view.cell_width || high > view.cell_height)
    picture.fill(
        x + static_cast<int64_t>(own) % view.across * view.cell_width - (wide - view.cell_width) / 2,
        y + static_cast<int64_t>(own) / view.across * view.cell_height - (high - view.cell_height) / 2, wide,
        high, kQuery);
  draw_frame(picture, x, y, view.width(), view.height());
}

// A panel's heading in pieces, each in its colour.
struct Heading {
  std::vector<std::pair<std::string, Colour>> pieces;
  int64_t letters() const {
    int64_t count = 0;
    for (const auto& [text, colour] : pieces) count += static_cast<int64_t>(text.size());
    return count;
  }
};

Heading heading_of(const Pattern& pattern, const std::string& heads) {
  Heading heading;
  for (int t = 0; t < pattern.count; ++t) {
    Pattern term;
    term.add(pattern.terms[t]);
    if (t > 0) heading.pieces.emplace_back("+", kText);
    heading.pieces.emplace_back(to_string(term), colour_of(term.terms[0].kind));
  }
  if (!heads.empty()) heading.pieces.emplace_back(heads, kText);
  return heading;
}

struct Panel {
  Pattern pattern;
  Heading heading;
};

// The distinct patterns of a layer's heads, with their heads' numbers where there are several.
std::vector<Panel> panels_of(const LayerPattern& layer, int64_t heads) {
  std::vector<std::pair<Pattern, std::vector<int64_t>>> distinct;
  for (int64_t head = 0; head < heads; ++head) {
    const Pattern pattern = layer.for_head(head, heads);
    auto known =
        std::find_if(distinct.begin(), distinct.end(), [&](const auto& d) { return d.first == pattern; });
    if (known == distinct.end()) known = distinct.insert(distinct.end(), {pattern, {}});
    known->second.push_back(head);
  }
  std::vector<Panel> panels;
  for (const auto& [pattern, numbers] : distinct) {
    std::string text;
    if (distinct.size() > 1) {
      const bool run = numbers.back() - numbers.front() + 1 == static_cast<int64_t>(numbers.size());
      text = run && numbers.size() > 2 ? fmt::format("{}-{}", numbers.front(), numbers.back())
                                       : fmt::format("{}", fmt::join(numbers, ","));
      text = fmt::format("  head{} {}", numbers.size() > 1 ? "s" : "", text);
    }
    panels.push_back({pattern, heading_of(pattern, text)});
  }
  return panels;
}

}  // namespace

Picture picture_of(const Schedule& schedule, int64_t heads, int64_t n, int64_t pixels,
                   const std::optional<DrawnQuery>& query) {
  LONGSTRIDE_CHECK(n >= 1 && pixels >= 16 && pixels <= 16384,
                   "a drawing needs n of at least 1 and from 16 to 16384 pixels, here n = {} and {} pixels",
                   n, pixels);
  LONGSTRIDE_CHECK(!schedule.cycle.empty(), "a drawing needs a schedule of at least 1 layer");
  check_heads(schedule, heads);
  if (query)
    LONGSTRIDE_CHECK(
        query->position >= 0 && query->position < n && query->row >= 1 && query->row <= n,
        "a drawing of query {} in rows of {} needs a query from 0 to {} and rows of 1 to {} positions",
        query->position, query->row, n - 1, n);

  std::vector<LayerPattern> layers;
  for (const LayerPattern& layer : schedule.cycle)
    if (std::find(layers.begin(), layers.end(), layer) == layers.end()) layers.push_back(layer);
  std::vector<std::vector<Panel>> columns;
  for (const LayerPattern& layer : layers) columns.push_back(panels_of(layer, heads));

  const Grid grid = Grid::fit(n, pixels);
  std::optional<QueryView> view;
  if (query) view.emplace(*query, n, pixels);
  int64_t letters = 0, rows = 0;
  for (const auto& column : columns) {
    rows = std::max(rows, static_cast<int64_t>(column.size()));
    for (const Panel& panel : column) letters = std::max(letters, panel.heading.letters());
  }
  const int64_t scale = letters * Picture::kGlyphWidth * 2 <= grid.side() ? 2 : 1;
  const int64_t letter = Picture::kGlyphWidth * scale, heading_height = (Picture::kGlyphHeight + 4) * scale;
  const int64_t query_letters = view ? std::ssize(view->text({})) + 6 : 0;  // some for the number of keys
  const int64_t panel_width = std::max({grid.side(), letters * letter, view ? view->width() : 0,
                                        query_letters * Picture::kGlyphWidth}) +
                              kMargin;
  const int64_t query_height = view ? view->height() + kMargin + kQueryLine : 0;
  const int64_t panel_height = heading_height + query_height + grid.side() + kMargin;
  Picture picture(static_cast<int64_t>(columns.size()) * panel_width + kMargin,
                  rows * panel_height + kMargin);

  for (size_t column = 0; column < columns.size(); ++column)
    for (size_t row = 0; row < columns[column].size(); ++row) {
      const Panel& panel = columns[column][row];
      const int64_t x = kMargin + static_cast<int64_t>(column) * panel_width;
      const int64_t y = kMargin + static_cast<int64_t>(row) * panel_height;
      int64_t at = x;
      for (const auto& [text, colour] : panel.heading.pieces) {
        picture.write(at, y, scale, text, colour);
        at += static_cast<int64_t>(text.size()) * letter;
      }
      if (view) {
        picture.write(x, y + heading_height, 1, view->text(panel.pattern), kText);
        draw_query(picture, panel.pattern, *view, x, y + heading_height + kQueryLine);
      }
      const int64_t below = y + heading_height + query_height;
      draw_panel(picture, panel.pattern, grid, x, below);
      if (view)  // its row of the panel
        picture.fill(x - kMargin / 2, below + view->query.position * grid.cells / n * grid.cell + grid.line(),
                     kMargin / 2 - 2, std::max<int64_t>(2, grid.cell - grid.line()), kQuery);
    }
  return picture;
}

Picture picture_of_reach(const Schedule& schedule, int64_t layers, int64_t heads, int64_t n, int64_t pixels) {
  LONGSTRIDE_CHECK(pixels >= 16 && pixels <= 16384, "a drawing needs from 16 to 16384 pixels, here {}",
                   pixels);
  const ReceptiveFields fields = receptive_fields(schedule, std::min(layers, kMostDepths), heads, n,
                                                  std::min(pixels, kMostFieldPositions));
  const auto count = static_cast<int64_t>(fields.positions.size());
  const int64_t cell = std::min(pixels / count, kLargestCell), line = cell >= kSmallestGrid ? 1 : 0;
  const int64_t side = count * cell + line;
  const auto label = [](size_t depth) {
    return fmt::format("after {} layer{}", depth + 1, depth == 0 ? "" : "s");
  };
  const int64_t width = std::max(side, 16 * Picture::kGlyphWidth) + kMargin;
  const int64_t heading = Picture::kGlyphHeight + 6;
  Picture picture(static_cast<int64_t>(fields.depth.size()) * width + kMargin, heading + side + 2 * kMargin);
  for (size_t depth = 0; depth < fields.depth.size(); ++depth) {
    const int64_t x = kMargin + static_cast<int64_t>(depth) * width, y = kMargin + heading;
    picture.write(x, kMargin, 1, label(depth), kText);
    if (line) picture.fill(x, y, side, side, kGrid);
    const auto colour_at = [&](int64_t row, int64_t column) {
      const auto at = static_cast<size_t>(row * count + column);
      if (column > row) return kFuture;
      if (!fields.depth[depth][at]) return kPast;
      if (row == column) return kItself;
      return depth > 0 && fields.depth[depth - 1][at] ? kSeenBefore : kSeenNow;
    };
    for (int64_t row = 0; row < count; ++row)
      for (int64_t column = 0, end = 0; column < count; column = end) {
        const Colour colour = colour_at(row, column);
        for (end = column + 1; !line && end < count && colour_at(row, end) == colour;) ++end;
        picture.fill(x + column * cell + line, y + row * cell + line, (end - column) * cell - line,
                     cell - line, colour);
      }
    draw_frame(picture, x, y, side, side);
  }
  return picture;
}

void draw_schedule(const Schedule& schedule, int64_t heads, int64_t n, int64_t pixels,
                   const std::string& path, const std::optional<DrawnQuery>& query) {
  Picture::check_ending(path);
  picture_of(schedule, heads, n, pixels, query).save(path);
}

}  // namespace longstride

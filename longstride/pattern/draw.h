// A pattern as a picture. Each cell is a (query, key) pair: queries go down, keys to the right, and each
// kind of term has a colour.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "longstride/pattern/pattern.h"
#include "longstride/pattern/picture.h"

namespace longstride {

// One query among the positions, which lie in rows as text does in lines and pixels do in a picture.
struct DrawnQuery {
  int64_t position = 0;  // from 0 on
  int64_t row = 1;       // positions in a row
};

// Draws the distinct layers of the schedule's cycle side by side. Heads of a layer that differ are below each
// other. A panel is a square with sides of up to `pixels` (16 to 16384). Longer sequences are drawn by
// sampling: a cell's colour deepens with the cube root of the share of its pairs that are allowed. With a query, what it
// sees is drawn above each panel: all positions in their rows, those that it sees in the colours of the terms, itself dark.
Picture picture_of(const Schedule& schedule, int64_t heads, int64_t n, int64_t pixels,
                   const std::optional<DrawnQuery>& query = {});
// The same into a file, as PNG or SVG by its ending. Throws Error if the file cannot be written or has another
// ending.
void draw_schedule(const Schedule& schedule, int64_t heads, int64_t n, int64_t pixels,
                   const std::string& path, const std::optional<DrawnQuery>& query = {});

// What a position sees through the first 1, 2, .. layers: one panel a depth, up to kMostDepths and until all
// earlier positions are seen. What the last of these layers adds is strong, what was seen before is light.
// Panels have sides of up to `pixels` (16 to 16384); longer sequences are drawn by a sample of 512 positions.
inline constexpr int64_t kMostDepths = 8;
Picture picture_of_reach(const Schedule& schedule, int64_t layers, int64_t heads, int64_t n, int64_t pixels);

}  // namespace longstride

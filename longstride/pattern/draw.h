// A pattern as a picture: a cell a (query, key) pair, queries downwards, keys to the right, a colour for each
// kind of term.
#pragma once

#include <cstdint>
#include <string>

#include "longstride/pattern/pattern.h"

namespace longstride {

// Draws each distinct layer of the schedule's cycle side by side (heads of a layer that differ stand below
// each other) as PNG or SVG by the file's ending. A panel is a square of up to `pixels` (16 to 16384) a side;
// longer sequences are drawn by sampling: the colour of a cell deepens with the share of its pairs that are
// allowed (its cube root). Throws Error if the file cannot be written or has another ending.
void draw_schedule(const Schedule& schedule, int64_t heads, int64_t n, int64_t pixels,
                   const std::string& path);

}  // namespace longstride

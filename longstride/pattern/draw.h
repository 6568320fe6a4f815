// A pattern as a picture: one pixel a (query, key) pair, queries downwards, keys to the right.
#pragma once

#include <cstdint>
#include <string>

#include "longstride/pattern/pattern.h"

namespace longstride {

// Draws each distinct layer of the schedule's cycle side by side (heads of a layer that differ stand below each other)
// as PNG or SVG by the file's ending. Sequences over `pixels` positions are drawn by sampling: a cell is lit in
// proportion to its allowed pairs. Throws Error if the file cannot be written or has another ending.
void draw_schedule(const Schedule& schedule, int64_t heads, int64_t n, int64_t pixels, const std::string& path);

}  // namespace longstride

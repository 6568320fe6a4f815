// Loops over fixed pieces. Where a piece begins never depends on the number of threads, so results do not
// either.
#pragma once

#include <algorithm>
#include <cstdint>

#include "longstride/base/threads.h"

namespace longstride::cpu {

// Elements for one call of a vector kernel: enough to hide the cost of the call, few enough to share out.
inline constexpr int64_t kElementsPerPiece = 16384;

// Calls body(begin, end) for the pieces [0, size), [size, 2 size), ... of [0, count), on all threads.
template <class Body>
void parallel_pieces(int64_t count, int64_t size, const Body& body) {
  const int64_t pieces = (count + size - 1) / size;
  parallel_for(pieces, [&](int64_t piece) { body(piece * size, std::min(count, (piece + 1) * size)); });
}

// The same for rows of `width` elements, with about kElementsPerPiece elements in each piece.
template <class Body>
void parallel_rows(int64_t rows, int64_t width, const Body& body) {
  parallel_pieces(rows, std::max<int64_t>(1, kElementsPerPiece / std::max<int64_t>(1, width)), body);
}

// Columns of `width` for one thread, for loops whose columns are independent, so that the split does not
// change results. Wide enough for whole cache lines, and at most `most`.
inline int64_t columns_per_thread(int64_t width, int64_t most) {
  const int64_t share = (width + threads() - 1) / threads();
  return std::clamp<int64_t>((share + 15) / 16 * 16, 16, most);
}

}  // namespace longstride::cpu

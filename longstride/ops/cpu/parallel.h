// Loops over fixed pieces: where a piece begins never depends on the number of threads, so neither do
// results.
#pragma once

#include <algorithm>
#include <cstdint>

#include "longstride/base/threads.h"

namespace longstride::cpu {

// Elements that one call of a vector kernel handles: enough to hide the call, few enough to share out.
inline constexpr int64_t kElementsPerPiece = 16384;

// Calls body(begin, end) for the pieces [0, size), [size, 2 size), ... of [0, count), on all threads.
template <class Body>
void parallel_pieces(int64_t count, int64_t size, const Body& body) {
  const int64_t pieces = (count + size - 1) / size;
  parallel_for(pieces, [&](int64_t piece) { body(piece * size, std::min(count, (piece + 1) * size)); });
}

// The same for rows of `width` elements: about kElementsPerPiece elements a piece.
template <class Body>
void parallel_rows(int64_t rows, int64_t width, const Body& body) {
  parallel_pieces(rows, std::max<int64_t>(1, kElementsPerPiece / std::max<int64_t>(1, width)), body);
}

// Columns for one thread of `width`, for loops in which columns do not meet and the split so leaves results
// alone: wide enough for whole cache lines, at most `most`.
inline int64_t columns_per_thread(int64_t width, int64_t most) {
  const int64_t share = (width + threads() - 1) / threads();
  return std::clamp<int64_t>((share + 15) / 16 * 16, 16, most);
}

}  // namespace longstride::cpu

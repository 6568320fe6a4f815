// Rows of a matrix by their numbers.
#pragma once

#include <cstdint>

namespace longstride::reference {

// to (count, width) = the rows of `from` (rows, width) with these numbers.
template <class T>
void pick_rows(const T* from, const int32_t* numbers, int64_t count, int64_t width, T* to) {
  for (int64_t i = 0; i < count * width; ++i) to[i] = from[numbers[i / width] * width + i % width];
}

// The reverse; with `adds`, to what is there.
template <class T>
void place_rows(const T* from, const int32_t* numbers, int64_t count, int64_t width, bool adds, T* to) {
  for (int64_t i = 0; i < count * width; ++i) {
    T& at = to[numbers[i / width] * width + i % width];
    at = adds ? at + from[i] : from[i];
  }
}

}  // namespace longstride::reference

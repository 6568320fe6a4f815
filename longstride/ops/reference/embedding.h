// Token and position embeddings in any precision.
#pragma once

#include <cstdint>
#include <vector>

#include "longstride/ops/embedding.h"

namespace longstride::reference {

template <class T>
struct EmbeddingTables {
  int64_t width = 0;
  std::vector<T> token;              // (V, width)
  std::vector<T> start;              // (width)
  std::vector<int64_t> extents;      // of the axes, slowest first
  std::vector<std::vector<T>> axes;  // each (extent, width)
  PositionShift shift = PositionShift::before;
};

// The coordinate of `position` on each axis, the first modulo its extent.
inline std::vector<int64_t> embedding_coordinates(const std::vector<int64_t>& extents, int64_t position) {
  std::vector<int64_t> coordinates;
  for (size_t axis = 0; axis < extents.size(); ++axis) {
    int64_t inner = 1;
    for (size_t later = axis + 1; later < extents.size(); ++later) inner *= extents[later];
    coordinates.push_back(position / inner % extents[axis]);
  }
  return coordinates;
}

// Calls visit(row, table_row) for every row of a table that enters row `row` of y.
template <class T, class Visit>
void embedding_rows(EmbeddingTables<T>& tables, const uint8_t* tokens, int64_t batch, int64_t length,
                    const Visit& visit) {
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t slot = 0; slot < length; ++slot) {
      const int64_t row = b * length + slot;
      visit(row, slot == 0 ? tables.start.data() : &tables.token[tokens[row - 1] * tables.width]);
      const int64_t position = tables.shift == PositionShift::before ? slot : slot - 1;
      if (position < 0) continue;
      const std::vector<int64_t> coordinates = embedding_coordinates(tables.extents, position);
      for (size_t axis = 0; axis < coordinates.size(); ++axis)
        visit(row, &tables.axes[axis][coordinates[axis] * tables.width]);
    }
}

template <class T>
void embedding_forward(const uint8_t* tokens, EmbeddingTables<T>& tables, int64_t batch, int64_t length,
                       T* y) {
  for (int64_t i = 0; i < batch * length * tables.width; ++i) y[i] = T{};
  embedding_rows(tables, tokens, batch, length, [&](int64_t row, const T* from) {
    for (int64_t i = 0; i < tables.width; ++i) y[row * tables.width + i] += from[i];
  });
}

// Adds to the tables of `gradients`.
template <class T>
void embedding_backward(const uint8_t* tokens, const T* dy, EmbeddingTables<T>& gradients, int64_t batch,
                        int64_t length) {
  embedding_rows(gradients, tokens, batch, length, [&](int64_t row, T* to) {
    for (int64_t i = 0; i < gradients.width; ++i) to[i] += dy[row * gradients.width + i];
  });
}

}  // namespace longstride::reference

// Token and position embeddings (contract: longstride/ops/embedding.h). The same bits for any number of
// threads: the forward sums a few rows in a fixed order; in the backward each thread owns columns of every
// table and walks the slots in order. No scratch.
#include "longstride/ops/embedding.h"

#include "longstride/ops/cpu/parallel.h"

namespace longstride::cpu {

namespace {

// At most this many columns of the tables are summed in one walk over the slots: 256 tokens by 512 columns
// fit into a core's second-level cache.
constexpr int64_t kMostColumns = 512;

void add_row(const float* __restrict from, float* __restrict to, int64_t width) {
  for (int64_t i = 0; i < width; ++i) to[i] += from[i];
}

// Calls visit(axis, coordinate) for each axis, the last first, of `position`.
template <class Visit>
void for_each_coordinate(const std::vector<Tensor>& axes, int64_t position, const Visit& visit) {
  for (size_t axis = axes.size(); axis-- > 0;) {
    const int64_t extent = axes[axis].shape[0];
    visit(axis, position % extent);
    position /= extent;
  }
}

// The position whose embedding is added in slot `slot`, or -1 for none.
int64_t position_of_slot(PositionShift shift, int64_t slot) {
  return shift == PositionShift::before ? slot : slot - 1;
}

void write_slot(const EmbeddingTables& tables, int64_t slot, uint8_t previous, float* y) {
  const int64_t width = tables.token.shape[1];
  const float* row = slot == 0 ? tables.start.as<float>() : tables.token.as<float>() + previous * width;
  std::copy_n(row, width, y);
  const int64_t position = position_of_slot(tables.shift, slot);
  if (position < 0) return;
  for_each_coordinate(tables.axes, position, [&](size_t axis, int64_t coordinate) {
    add_row(tables.axes[axis].as<float>() + coordinate * width, y, width);
  });
}

}  // namespace

template <>
void compute(const OpContext& context, const EmbeddingForward& t) {
  const int64_t length = t.tokens.shape[1], width = t.tables.token.shape[1];
  const uint8_t* token = t.tokens.as<uint8_t>();
  float* out = t.y.as<float>();
  parallel_rows(t.tokens.count(), width, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t slot = t.first + row % length;
      write_slot(t.tables, slot, slot == 0 ? 0 : token[row - 1], out + row * width);
    }
  });
}

template <>
void compute(const OpContext& context, const EmbeddingOne& t) {
  const int64_t width = t.tables.token.shape[1];
  for (int64_t row = 0; row < t.y.shape[0]; ++row) {
    const int64_t position = t.positions[row];
    if (position < 0) continue;
    write_slot(t.tables, position, position == 0 ? 0 : t.previous.as<uint8_t>()[row],
               t.y.as<float>() + row * width);
  }
}

template <>
void compute(const OpContext& context, const EmbeddingBackward& t) {
  if (context.scratch != nullptr && context.scratch->is_measuring()) return;
  const int64_t rows = t.tokens.count(), length = t.tokens.shape[1], width = t.gradients.token.shape[1];
  const uint8_t* token = t.tokens.as<uint8_t>();
  const float* d_out = t.dy.as<float>();
  parallel_pieces(width, columns_per_thread(width, kMostColumns), [&](int64_t begin, int64_t end) {
    const int64_t columns = end - begin;
    float* d_token = t.gradients.token.as<float>() + begin;
    float* d_start = t.gradients.start.as<float>() + begin;
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t slot = t.first + row % length;
      const float* from = d_out + row * width + begin;
      add_row(from, slot == 0 ? d_start : d_token + token[row - 1] * width, columns);
      const int64_t position = position_of_slot(t.gradients.shift, slot);
      if (position < 0) continue;
      for_each_coordinate(t.gradients.axes, position, [&](size_t axis, int64_t coordinate) {
        add_row(from, t.gradients.axes[axis].as<float>() + coordinate * width + begin, columns);
      });
    }
  });
}

}  // namespace longstride::cpu

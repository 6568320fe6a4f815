// Token embedding plus factorized position embeddings, shifted right by one (paper: section 5.3).
//
// Position i has one coordinate for each axis. With axes (a0, a1, a2), i = (c0 * a1 + c1) * a2 + c2, and
// P(i) is the sum over axes of table[axis][c]. If i is beyond the axes' product, the first coordinate is
// taken modulo a0.
// PositionShift::before: a position belongs to the slot that predicts it.
//   y[0] = start + P(0),  y[i] = E[token[i-1]] + P(i)
// PositionShift::after: a position belongs to its own token (the released code).
//   y[0] = start,         y[i] = E[token[i-1]] + P(i-1)
//
// A token of V or more throws Error on the CPU, before anything is written. A GPU's memory is not read
// before the op runs: there such a token gives a row of NaN, and no gradient.
#pragma once

#include <span>
#include <vector>

#include "longstride/ops/run.h"

namespace longstride {

enum class PositionShift : uint8_t { before, after };

struct EmbeddingTables {
  Tensor token;              // (V, d) f32
  Tensor start;              // (d) f32
  std::vector<Tensor> axes;  // each (extent, d) f32, slowest axis first
  PositionShift shift = PositionShift::before;
};

// tokens (B, N) u8 -> y (B*N, d) f32 =. Slot i of y predicts token i; the last token of a row is not read. With
// `first` > 0 the tokens are those of one sequence (B = 1) from slot `first` on, and the one before them is read.
struct EmbeddingForward {
  Tensor tokens;
  const EmbeddingTables& tables;
  Tensor y;
  int64_t first = 0;

  const char* name() const { return "embedding_forward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// For sampling: one slot of each sequence. Row b of y (B, d) = slot positions[b], given the previous tokens
// (B) u8 (ignored at position 0). At -1 a sequence rests, and its row is left as it is.
struct EmbeddingOne {
  Tensor previous;
  std::span<const int64_t> positions;
  const EmbeddingTables& tables;
  Tensor y;

  static constexpr bool kOnCpuOnly = true;
  const char* name() const { return "embedding_one"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// gradients.* += for dy (B*N, d) f32. With `first` > 0 as above; then there must be no position tables.
struct EmbeddingBackward {
  Tensor tokens, dy;
  const EmbeddingTables& gradients;
  int64_t first = 0;

  static constexpr bool kUsesScratch = true;
  const char* name() const { return "embedding_backward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// Bytes of scratch of the backward for tokens (batch, length), a token table (vocabulary, width) and
// position tables of these extents, whatever the shift.
int64_t embedding_backward_scratch_bytes(Device device, int64_t batch, int64_t length, int64_t vocabulary,
                                         int64_t width, std::span<const int64_t> extents);

}  // namespace longstride

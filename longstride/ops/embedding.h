// Token embedding plus factorized position embeddings, shifted right by one (paper: section 5.3).
//
// Position i has one coordinate an axis: with axes (a0, a1, a2), i = (c0 * a1 + c1) * a2 + c2, and P(i) is
// the sum over axes of table[axis][c]. The first coordinate is taken modulo a0 should i run beyond the axes'
// product.
// PositionShift::before, a position belongs to the slot that predicts it:
//   y[0] = start + P(0),  y[i] = E[token[i-1]] + P(i)
// PositionShift::after, it belongs to its own token (the released code):
//   y[0] = start,         y[i] = E[token[i-1]] + P(i-1)
#pragma once

#include <vector>

#include "longstride/ops/context.h"

namespace longstride {

enum class PositionShift : uint8_t { before, after };

struct EmbeddingTables {
  Tensor token;              // (V, d) f32
  Tensor start;              // (d) f32
  std::vector<Tensor> axes;  // each (extent, d) f32, slowest axis first
  PositionShift shift = PositionShift::before;
};

// tokens (B, N) u8 -> y (B*N, d) f32 =. Slot i of y is what predicts token i; the last token of a row is not
// read.
void embedding_forward(const OpContext& context, const Tensor& tokens, const EmbeddingTables& tables,
                       const Tensor& y);

// One slot of each sequence while sampling: y (B, d) = slot `position`, given the previous tokens (B) u8
// (ignored at 0).
void embedding_one(const OpContext& context, const Tensor& previous, int64_t position,
                   const EmbeddingTables& tables, const Tensor& y);

// gradients.* += for dy (B*N, d) f32. Throws if a token is V or more.
void embedding_backward(const OpContext& context, const Tensor& tokens, const Tensor& dy,
                        const EmbeddingTables& gradients);

}  // namespace longstride

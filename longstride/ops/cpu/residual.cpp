// Dropout and layer norm together (contract: longstride/ops/residual.h). A run of rows goes through both
// while it is in cache. The bits are those of the two ops, and so the same for any number of threads.
// Scratch in the backward: that of layer_norm_backward.
#include "longstride/ops/residual.h"

#include "longstride/ops/cpu/parallel.h"
#include "longstride/ops/cpu/rows.h"

namespace longstride::cpu {

template <>
void compute(const OpContext& context, const ResidualForward& t) {
  const int64_t rows = t.x.shape[0], width = t.x.shape[1];
  const LayerNormForward norm{t.y, t.gain, t.bias, t.epsilon, t.normed, t.mean, t.rstd};
  parallel_rows((rows + kRunRows - 1) / kRunRows, kRunRows * width, [&](int64_t first, int64_t last) {
    for (int64_t begin = first * kRunRows; begin < std::min(rows, last * kRunRows); begin += kRunRows) {
      const int64_t end = std::min(rows, begin + kRunRows);
      add_kept(t.x, t.branch, t.dropout, t.y, begin * width, end * width);
      normalise_rows(norm, begin, end);
    }
  });
}

template <>
void compute(const OpContext& context, const ResidualBackward& t) {
  const int64_t width = t.x.shape[1];
  layer_norm_backward(context, {t.dy, t.x, t.gain, t.mean, t.rstd, t.dx, t.dgain, t.dbias},
                      [&](int64_t begin, int64_t end) {
                        keep_gradient(t.dx, t.dropout, t.dbranch, begin * width, end * width);
                      });
}

}  // namespace longstride::cpu

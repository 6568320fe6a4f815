// Dropout and layer norm together (contract: longstride/ops/residual.h): the layer norm's kernels, with the
// dropout between reading and writing. Rows too wide for registers go through the two ops. Scratch in the
// backward: that of layer_norm_backward.
#include <algorithm>

#include "longstride/ops/cuda/layer_norm.cuh"
#include "longstride/ops/residual.h"

namespace longstride::cuda {

template <>
void compute(const OpContext& context, const ResidualForward& r) {
  const int64_t rows = r.x.shape[0], width = r.x.shape[1];
  if (rows == 0 || width == 0) return;
  if (width > kWidestForward) {
    compute(context, DropoutAddForward{r.x, r.branch, r.dropout, r.y});
    return compute(context, LayerNormForward{r.y, r.gain, r.bias, r.epsilon, r.normed, r.mean, r.rstd});
  }
  with_float_type(r.branch.dtype, [&](auto element) {
    using T = decltype(element);
    NormForward<T> t{data_of<float>(r.x),
                     data_of<T>(r.branch),
                     data_of<float>(r.y),
                     data_of<float>(r.gain),
                     data_of<float>(r.bias),
                     r.epsilon,
                     data_of<T>(r.normed),
                     data_of<float>(r.mean),
                     data_of<float>(r.rstd),
                     rows,
                     width,
                     false};
    t.vectors = width % 8 == 0 && vectors_suit(t.x, t.branch, t.sum, t.gain, t.bias, t.y);
    with_chunks(width, [&](auto chunks) {
      norm_forward_kernel<decltype(chunks)::value, true>
          <<<static_cast<unsigned>(ceil_div(rows, kForwardWarps)), kForwardWarps * kWarp, 0, current()>>>(
              t, DropoutMask(r.dropout));
    });
  });
  check_launch("residual_forward");
}

template <>
void compute(const OpContext& context, const ResidualBackward& r) {
  const int64_t rows = r.x.shape[0], width = r.x.shape[1];
  if (rows == 0 || width == 0) return;
  if (width > kWidestBackward) {
    compute(context, LayerNormBackward{r.dy, r.x, r.gain, r.mean, r.rstd, r.dx, r.dgain, r.dbias});
    if (!context.scratch->is_measuring()) compute(context, DropoutBackward{r.dx, r.dropout, r.dbranch});
    return;
  }
  const int64_t blocks = backward_blocks(rows);
  Arena::Scope scope(*context.scratch);
  float* partial = data_of<float>(context.scratch->allocate(DType::f32, {blocks, 2, width}));
  if (context.scratch->is_measuring()) return;
  with_float_type(r.dy.dtype, [&](auto element) {
    using T = decltype(element);
    NormBackward<T> t{data_of<T>(r.dy),
                      data_of<float>(r.x),
                      data_of<float>(r.gain),
                      data_of<float>(r.mean),
                      data_of<float>(r.rstd),
                      data_of<float>(r.dx),
                      data_of<T>(r.dbranch),
                      partial,
                      rows,
                      width,
                      false};
    t.vectors = width % 8 == 0 && vectors_suit(t.dy, t.x, t.gain, t.dx, t.dbranch);
    with_chunks(width, [&](auto chunks) {
      constexpr int kChunks = std::min(decltype(chunks)::value, static_cast<int>(kWidestBackward / kChunk));
      norm_backward_kernel<kChunks, true>
          <<<static_cast<unsigned>(blocks), kBackwardThreads, 0, current()>>>(t, DropoutMask(r.dropout));
    });
  });
  add_partial_sums(partial, blocks, width, data_of<float>(r.dgain), data_of<float>(r.dbias));
  check_launch("residual_backward");
}

}  // namespace longstride::cuda

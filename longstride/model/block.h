// One residual block (paper: section 5.2), forward and backward:
//
//   a = drop(W_p attention(LN(x)));  mid = x + a;  y = mid + drop(W_2 f(W_1 LN(mid) + b_1) + b_2)
//
// x, mid and y, the residual stream, are f32. Everything on a branch has the compute dtype. With
// model.value_residual the attention reads values that are mixed with those of the first block. With
// model.convolution W_1 reads a convolution of LN(mid) over the last positions.
#pragma once

#include "longstride/model/config.h"
#include "longstride/model/parameters.h"
#include "longstride/model/sequence_ranks.h"
#include "longstride/model/shared_convolution.h"
#include "longstride/ops/attention.h"
#include "longstride/ops/dropout.h"

namespace longstride {

// The epsilon of the layer norms inside blocks and of the one before the output matrix.
inline constexpr float kNormEpsilon = 1e-5f;
inline constexpr float kFinalNormEpsilon = 1e-6f;

// What the backward pass reads of a block besides its input; kept from the forward pass or recomputed.
// M = B * N. Where ranks share sequences, N are this rank's positions and W all of them, of which it fills its own and those
// that it attends to; else W = N.
struct BlockActivations {
  Tensor mean1, rstd1;    // (M) f32
  Tensor qkv;             // (B * W, 2 * qk + d), queries and keys as the attention reads them
  Tensor reciprocal_rms;  // (M, 2 * heads) f32 of queries and keys; empty without model.qk_norm
  Tensor attended;        // (B * W, d)
  Tensor lse;             // (B, H, W) f32
  Tensor mid;             // (M, d) f32; empty where it lives in the block's output
  Tensor mean2, rstd2;    // (M) f32
  Tensor up;              // (M, ff)

  // `positions` is W. Without `mid`, BlockCall names its place.
  static BlockActivations allocate(const ModelConfig& config, int64_t batch, int64_t positions, DType product,
                                   bool mid, Arena& arena);
};

// Workspace of one block's forward or backward, or of the head, in the compute dtype. When training, tensors on
// different lines below are never live at once, so all lines but the first two share memory.
struct BlockTemporaries {
  Tensor branch;                // (M, d) what a branch begins with (normed) and ends in, and its gradient
  Tensor unconvolved;           // (M, d) LN(mid), and its gradient; empty without model.convolution
  Tensor hidden;                // (M, ff) forward; d_hidden in the backward
  Tensor normed_again, logits;  // (M, d) of recomputation, or d_normed of the head; (R, 256) f32, R at a time
  Tensor d_qkv, d_attended;     // (B * W, 2 * qk + d), (B * W, d)
  // Without training only these two and `logits` are allocated: the hidden layer takes the place of `up`.

  static BlockTemporaries allocate(const ModelConfig& config, int64_t batch, int64_t positions,
                                   int64_t logit_rows, DType product, bool training, Arena& arena);
};

// What blocks share with the first one where values are mixed; else empty.
struct SharedValues {
  Tensor first;    // (M, d): the first block's values, its own columns of qkv where those are kept
  Tensor d_first;  // (M, d) f32, training only: the sum of the later blocks' gradients of `first`
};

// Everything that a block's forward and backward have in common.
struct BlockCall {
  const ModelConfig* config = nullptr;
  const BlockParameters* parameters = nullptr;  // weights of products in the compute dtype
  const AttentionPlan* attention = nullptr;
  // Where several ranks share each sequence; else null.
  const SharedAttention* shared = nullptr;
  const SharedConvolution* shared_convolution = nullptr;
  Tensor rotation;  // of QueryKey, for the positions of one sequence; empty: not rotary
  int64_t batch = 1;
  Dropout attention_dropout, feed_forward_dropout;
  DType product = DType::f32;
  int64_t layer = 0;
  SharedValues values;
  Tensor mid;  // (M, d) f32: saved.mid, or the block's output until that is computed
};

// The layer norm that reads a block's output: the next block's first, or the final one.
struct NextNorm {
  Tensor gain, bias;
  float epsilon = kNormEpsilon;
  Tensor mean, rstd;  // (M) f32 =
};

// y (M, d) = block(x), and temporaries.branch = next(y). Before the call temporaries.branch holds LN(x),
// whose statistics are saved.mean1 and rstd1. y may be call.mid, and both may be x.
void block_forward(const OpContext& context, const BlockCall& call, const Tensor& x,
                   const BlockActivations& saved, const BlockTemporaries& temporaries, const NextNorm& next,
                   const Tensor& y);

// Fills `saved`, call.mid and temporaries.unconvolved from x, with the bits of the forward. Does not touch
// temporaries.branch.
void block_recompute(const OpContext& context, const BlockCall& call, const Tensor& x,
                     const BlockActivations& saved, const BlockTemporaries& temporaries);

// Where activations are not kept, block_recompute() must come just before. On entry dy (M, d) holds the
// gradient of y, and temporaries.branch that of the feed-forward branch, dropout'(dy). On return dy holds
// the gradient of x, and temporaries.branch, if there is a block `before`, dropout'(dy) for its feed-forward
// branch. Adds to the gradients of parameters. Overwrites saved.up.
void block_backward(const OpContext& context, const BlockCall& call, const Tensor& x,
                    const BlockActivations& saved, const BlockTemporaries& temporaries,
                    const BlockParameters& gradients, const Dropout* before, const Tensor& dy);

// Bytes of op scratch that these three functions need.
int64_t block_scratch_bytes(const ModelConfig& config, int64_t batch, DType product, bool training,
                            Device device, const AttentionPlan& attention);

}  // namespace longstride

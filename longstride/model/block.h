// One residual block (paper: section 5.2), forward and backward:
//
//   a = drop(W_p attention(LN(x)));  mid = x + a;  y = mid + drop(W_2 f(W_1 LN(mid) + b_1) + b_2)
//
// x, mid and y, the residual stream, are f32; what lies on a branch is held in the dtype of the products.
#pragma once

#include "longstride/model/config.h"
#include "longstride/model/parameters.h"
#include "longstride/ops/attention.h"
#include "longstride/ops/dropout.h"

namespace longstride {

// The epsilon of the layer norms inside blocks and of the one before the output matrix.
inline constexpr float kNormEpsilon = 1e-5f;
inline constexpr float kFinalNormEpsilon = 1e-6f;

// What the backward pass reads of a block besides its input; kept from the forward pass or recomputed. M = B
// * N.
struct BlockActivations {
  Tensor mean1, rstd1;  // (M) f32
  Tensor qkv;           // (M, 2 * qk + d)
  Tensor attended;      // (M, d)
  Tensor lse;           // (B, H, N) f32
  Tensor mid;           // (M, d) f32
  Tensor mean2, rstd2;  // (M) f32
  Tensor up;            // (M, ff)

  static BlockActivations allocate(const ModelConfig& config, int64_t batch, DType product, Arena& arena);
};

// Room for what lives only inside one block's forward or backward, in the products' dtype.
struct BlockTemporaries {
  Tensor normed;    // (M, d)
  Tensor hidden;    // (M, ff)
  Tensor d_hidden;  // (M, ff)      the rest only when training
  Tensor d_branch;  // (M, d)
  Tensor d_qkv;     // (M, 2 * qk + d)

  static BlockTemporaries allocate(const ModelConfig& config, int64_t batch, DType product, bool training,
                                   Arena& arena);
};

// Everything that is the same for a block's forward and backward.
struct BlockCall {
  const ModelConfig* config = nullptr;
  const BlockParameters* parameters = nullptr;  // weights of products in the product's dtype
  const AttentionPlan* attention = nullptr;
  int64_t batch = 1;
  Dropout attention_dropout, feed_forward_dropout;
  DType product = DType::f32;
};

// y (M, d) = block(x); y may be empty: then only the activations are computed (what recomputation needs). y
// may not be x.
void block_forward(const OpContext& context, const BlockCall& call, const Tensor& x,
                   const BlockActivations& saved, const BlockTemporaries& room, const Tensor& y);

// dy (M, d) holds the gradient of y and is turned into that of x in place; gradients of parameters are added
// to.
void block_backward(const OpContext& context, const BlockCall& call, const Tensor& x,
                    const BlockActivations& saved, const BlockTemporaries& room,
                    const BlockParameters& gradients, const Tensor& dy);

// Bytes of op scratch that the two need.
int64_t block_scratch_bytes(const ModelConfig& config, int64_t batch, DType product, bool training,
                            Device device, const AttentionPlan& attention);

}  // namespace longstride

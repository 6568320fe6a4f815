// Sparse attention on the CPU (contract: longstride/ops/attention.h; arguments have been checked).
#pragma once

#include "longstride/ops/attention.h"

namespace longstride::cpu {

void attention_forward(const OpContext& context, const AttentionPlan& plan, const AttentionTensors& t);
void attention_backward(const OpContext& context, const AttentionPlan& plan, const AttentionTensors& t,
                        const AttentionGradients& gradients);
int64_t attention_scratch_bytes(const AttentionPlan& plan, int64_t batch, int64_t heads, int64_t qk_width,
                                int64_t v_width);

// Queries and keys in a tile.
inline constexpr int64_t kAttentionTile = kMaskTile;

}  // namespace longstride::cpu

// The cost of a model, from its shape alone.
#pragma once

#include "longstride/model/config.h"

namespace longstride {

struct ModelCost {
  int64_t parameters = 0;
  double pairs_per_token = 0;  // (query, key) pairs for each token, over all heads and layers
  double product_flops = 0;    // forward FLOPs of matrix products for each token
  double attention_flops = 0;  // forward FLOPs of attention for each token: 2 (D + Dv) for each pair
  double forward_flops() const { return product_flops + attention_flops; }
  // Forward and backward, without recomputation. A product's backward is two products. Attention has two
  // products in its forward and five in its backward.
  double training_flops() const { return 3 * product_flops + 3.5 * attention_flops; }
};

ModelCost cost_of(const ModelConfig& config);

}  // namespace longstride

// What a model costs, from its shape alone.
#pragma once

#include "longstride/model/config.h"

namespace longstride {

struct ModelCost {
  int64_t parameters = 0;
  double pairs_per_token = 0;  // (query, key) pairs a token, all heads and layers together
  double product_flops = 0;    // forward FLOPs a token in matrix products
  double attention_flops = 0;  // forward FLOPs a token in attention: 2 (D + Dv) a pair
  double forward_flops() const { return product_flops + attention_flops; }
  // Forward and backward, recomputation not counted: a product's backward is two products, attention's
  // backward has five products where the forward has two.
  double training_flops() const { return 3 * product_flops + 3.5 * attention_flops; }
};

ModelCost cost_of(const ModelConfig& config);

}  // namespace longstride

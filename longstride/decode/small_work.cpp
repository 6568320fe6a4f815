#include "longstride/decode/small_work.h"

#include "longstride/model/parameters.h"

namespace longstride {

int64_t product_weights(const ModelConfig& config) {
  int64_t weights = 0;
  for (const ParameterSpec& spec : parameter_table(config))
    if (spec.product) weights += spec.count();
  return weights;
}

}  // namespace longstride

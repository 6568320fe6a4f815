#include "longstride/model/cost.h"

#include "longstride/model/parameters.h"
#include "longstride/pattern/analyse.h"

namespace longstride {

ModelCost cost_of(const ModelConfig& config) {
  ModelCost cost;
  cost.parameters = count_parameters(config);
  for (const ParameterSpec& spec : parameter_table(config))
    if (spec.product) cost.product_flops += 2.0 * static_cast<double>(spec.count());
  const Schedule& schedule = config.schedule();
  std::vector<double> pairs_of_cycle;
  for (const LayerPattern& layer : schedule.cycle)
    pairs_of_cycle.push_back(mean_keys(layer, config.heads, config.context) *
                             static_cast<double>(config.heads));
  for (int64_t layer = 0; layer < config.layers; ++layer)
    cost.pairs_per_token += pairs_of_cycle[layer % pairs_of_cycle.size()];
  cost.attention_flops = cost.pairs_per_token * 2.0 * static_cast<double>(config.qk_head() + config.v_head());
  return cost;
}

}  // namespace longstride

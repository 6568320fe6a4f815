#include "longstride/decode/key_caches.h"

#include <algorithm>

#include "longstride/ops/causal_convolution.h"

namespace longstride {

namespace {

// Keys or values (streams, rows, width) of one layer, and the rows for the convolution. Planning the memory
// and handing it out both go through here.
KeyCache lay_out(const CachePlan& plan, const ModelConfig& config, int64_t layer, int64_t streams,
                 Arena& arena, Tensor* recent) {
  const int64_t rows = plan.layer(layer).rows;
  KeyCache cache;
  cache.keys = arena.allocate(plan.keys, {streams, rows, config.qk_head()});
  cache.values = arena.allocate(plan.values, {streams, rows, config.v_head()});
  *recent =
      config.convolves() ? arena.allocate(plan.recent, {streams, kConvolutionTaps, config.width}) : Tensor{};
  return cache;
}

// Of one sequence and layer with so many rows of all heads together.
int64_t layer_bytes(const CachePlan& plan, const ModelConfig& config, int64_t rows) {
  const int64_t recent = config.convolves() ? kConvolutionTaps * config.width * size_of(plan.recent) : 0;
  return recent + rows * (config.qk_head() * size_of(plan.keys) + config.v_head() * size_of(plan.values));
}

}  // namespace

CachePlan plan_caches(const ModelConfig& config, int64_t positions, DType product, bool exact_scores) {
  CachePlan plan;
  plan.positions = positions;
  plan.keys = exact_scores ? DType::f32 : product;
  plan.values = product;
  const Schedule& schedule = config.schedule();
  for (const LayerPattern& pattern : schedule.cycle) {
    LayerCachePlan& layer = plan.layers.emplace_back();
    for (int64_t head = 0; head < config.heads; ++head) {
      const KeyStore store = make_key_store(pattern.for_head(head, config.heads), positions);
      const auto known = std::find(plan.stores.begin(), plan.stores.end(), store);
      layer.store_of_head.push_back(static_cast<int>(known - plan.stores.begin()));
      if (known == plan.stores.end()) plan.stores.push_back(store);
      layer.first_row.push_back(layer.rows);
      layer.rows += store.rows;
    }
  }
  return plan;
}

int64_t cache_bytes(const CachePlan& plan, const ModelConfig& config, int64_t layer) {
  return layer_bytes(plan, config, plan.layer(layer).rows);
}

int64_t dense_cache_bytes(const CachePlan& plan, const ModelConfig& config) {
  return layer_bytes(plan, config, plan.positions * config.heads);
}

int64_t KeyCaches::bytes(const ModelConfig& config, const CachePlan& plan, int64_t streams) {
  Arena measure = Arena::measuring({});
  Tensor recent;
  for (int64_t layer = 0; layer < config.layers; ++layer)
    lay_out(plan, config, layer, streams, measure, &recent);
  return measure.peak();
}

KeyCaches::KeyCaches(const ModelConfig& config, CachePlan plan, Device device, int64_t streams)
    : plan_(std::move(plan)), arena_(device, bytes(config, plan_, streams)) {
  for (const LayerCachePlan& layer : plan_.layers) {
    std::vector<HeadRows>& heads = heads_.emplace_back();
    for (size_t head = 0; head < layer.store_of_head.size(); ++head)
      heads.push_back({&plan_.stores[layer.store_of_head[head]], layer.first_row[head]});
  }
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    layers_.push_back(lay_out(plan_, config, layer, streams, arena_, &recent_.emplace_back()));
    layers_.back().heads = heads_[layer % heads_.size()];
  }
}

std::vector<Tensor> KeyCaches::tensors(int64_t layer) const {
  std::vector<Tensor> all{layers_[layer].keys, layers_[layer].values};
  if (recent_[layer]) all.push_back(recent_[layer]);
  return all;
}

}  // namespace longstride

// What all layers keep of several sequences, and the memory behind it: keys and values, in the rows that the
// schedule says each head needs, and the last rows that model.convolution reads.
#pragma once

#include <cstdint>
#include <vector>

#include "longstride/device/memory.h"
#include "longstride/model/config.h"
#include "longstride/ops/key_cache.h"

namespace longstride {

// What one layer keeps for one sequence.
struct LayerCachePlan {
  std::vector<int> store_of_head;  // (H) index into CachePlan::stores
  std::vector<int64_t> first_row;  // (H)
  int64_t rows = 0;                // of all heads
};

struct CachePlan {
  int64_t positions = 0;
  std::vector<KeyStore> stores;        // distinct ones
  std::vector<LayerCachePlan> layers;  // one for each layer of the schedule's cycle
  DType keys = DType::f32, values = DType::f32;
  DType recent = DType::f32;
  const LayerCachePlan& layer(int64_t index) const { return layers[index % layers.size()]; }
};

// `positions` as in DecoderOptions, but not 0.
CachePlan plan_caches(const ModelConfig& config, int64_t positions, DType product, bool exact_scores);

// Bytes that one layer keeps of one sequence, the convolution's rows too, and that a dense one of as many positions
// would keep.
int64_t cache_bytes(const CachePlan& plan, const ModelConfig& config, int64_t layer);
int64_t dense_cache_bytes(const CachePlan& plan, const ModelConfig& config);

class KeyCaches {
 public:
  KeyCaches() = default;
  KeyCaches(const ModelConfig& config, CachePlan plan, Device device, int64_t streams);
  KeyCaches(const KeyCaches&) = delete;
  KeyCaches& operator=(const KeyCaches&) = delete;
  // Bytes for all layers and sequences.
  static int64_t bytes(const ModelConfig& config, const CachePlan& plan, int64_t streams);

  const CachePlan& plan() const { return plan_; }
  const KeyCache& layer(int64_t index) const { return layers_[index]; }
  // (S, kConvolutionTaps, d), as ops/causal_convolution.h keeps them; empty without model.convolution.
  const Tensor& recent(int64_t layer) const { return recent_[layer]; }
  // All tensors of a layer. The first axis of each is the sequences.
  std::vector<Tensor> tensors(int64_t layer) const;
  int64_t layers() const { return static_cast<int64_t>(layers_.size()); }

 private:
  CachePlan plan_;
  std::vector<std::vector<HeadRows>> heads_;  // for each layer of the cycle
  std::vector<KeyCache> layers_;
  std::vector<Tensor> recent_;
  Arena arena_ = Arena::measuring({});
};

}  // namespace longstride

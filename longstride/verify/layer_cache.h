// The key cache of one layer, with its own memory, for checks and tests.
#pragma once

#include <vector>

#include "longstride/device/memory.h"
#include "longstride/ops/key_cache.h"
#include "longstride/verify/check_attention.h"

namespace longstride::verify {

class LayerCache {
 public:
  // For sequences of n positions. Rows in which nothing is stored hold NaN.
  LayerCache(const LayerPattern& layer, int64_t n, const AttentionShape& shape, Device device, DType keys,
             DType values);
  LayerCache(const LayerCache&) = delete;
  LayerCache& operator=(const LayerCache&) = delete;

  const KeyCache& operator*() const { return cache_; }
  // (B, rows, D) and (B, rows, Dv) as floats.
  std::vector<float> keys() const { return read(cache_.keys); }
  std::vector<float> values() const { return read(cache_.values); }

 private:
  std::vector<float> read(const Tensor& t) const;

  Device device_;
  std::vector<KeyStore> stores_;  // one for each head
  std::vector<HeadRows> heads_;
  Buffer keys_, values_;
  KeyCache cache_;
};

}  // namespace longstride::verify

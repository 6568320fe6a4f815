// Decoding on the CPU that is too little work for several threads. To wake them for each op costs more than
// they save, and many times more where other processes keep the cores busy.
#pragma once

#include <cstdint>

#include "longstride/device/device.h"
#include "longstride/model/config.h"

namespace longstride {

// The number of weights in all products.
int64_t product_weights(const ModelConfig& config);

// True if a pass is too small for several threads: one whose products have `weights` weights in all and
// `rows` rows of activations.
inline bool too_small_to_share(int64_t weights, int64_t rows) {
  // With few rows memory sets the pace, so the limit is on the weights that are read; with many, on
  // multiplications.
  constexpr int64_t kFewestWeights = int64_t{2} << 20, kFewestProducts = int64_t{16} << 20;
  return weights < kFewestWeights && rows * weights < kFewestProducts;
}

// If `one`, limits this thread's loops to one thread while it lives.
class ThreadLimit {
 public:
  explicit ThreadLimit(bool one) : before_(one ? threads() : 0) {
    if (before_ > 0) set_threads(1);
  }
  ~ThreadLimit() {
    if (before_ > 0) set_threads(before_);
  }
  ThreadLimit(const ThreadLimit&) = delete;
  ThreadLimit& operator=(const ThreadLimit&) = delete;

 private:
  int before_;
};

}  // namespace longstride

// Decoding on the CPU that is too little for several threads: waking them for each op of it costs more than
// they save, and many times more where other processes keep the cores busy.
#pragma once

#include <cstdint>

#include "longstride/device/device.h"
#include "longstride/model/config.h"

namespace longstride {

// Elements of the weights of all products.
int64_t product_weights(const ModelConfig& config);

// True if a pass over `weights` elements of products with `rows` rows of activations is too small to be worth
// several threads.
inline bool too_small_to_share(int64_t weights, int64_t rows) {
  // Few rows, where memory sets the pace: it reads fewer weights. Many: it multiplies less.
  constexpr int64_t kFewestWeights = int64_t{2} << 20, kFewestProducts = int64_t{16} << 20;
  return weights < kFewestWeights && rows * weights < kFewestProducts;
}

// One thread while it lives, if `one`.
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

// The short convolution where ranks share sequences: the first positions of a chunk look at the last ones of the
// chunk before, which another rank has.
#pragma once

#include <vector>

#include "longstride/model/sequence_ranks.h"
#include "longstride/ops/causal_convolution.h"

namespace longstride {

class SharedConvolution {
 public:
  // Rows before a chunk that its first positions look at.
  static constexpr int64_t kBefore = kConvolutionTaps - 1;

  struct Room {
    Tensor x, y;     // (chunks * (kBefore + positions of a chunk), d): each chunk behind the rows before it
    Tensor arrived;  // (chunks * kBefore, d)
  };

  SharedConvolution(const ModelConfig& config, int64_t batch, const SequenceRanks& ranks);
  Room allocate(DType product, Arena& arena) const;
  // `room` of allocate(), with memory.
  void use(Device device, const Room& room);

  // y (M, d) = the convolution of x (M, d), rows of this rank.
  void forward(const OpContext& context, const Tensor& x, const Tensor& weight, const Tensor& y) const;
  // Right after the forward of the same rows: dx (M, d) of dy (M, d); adds to the gradient of the weight.
  void backward(const OpContext& context, const Tensor& dy, const Tensor& weight, const Tensor& dx,
                const Tensor& weight_gradient) const;

 private:
  // One of this rank's chunks. Ranks of its neighbours; -1: it has none.
  struct Chunk {
    int64_t own, count;
    int before, after;
  };
  int64_t padded(size_t chunk) const {
    return static_cast<int64_t>(chunk) * (kBefore + chunks_[chunk].count);
  }

  int64_t width_;
  SequenceRanks ranks_;
  std::vector<Chunk> chunks_;
  std::vector<int32_t> last_rows_;  // of the chunks that have one after them, in the rank's rows
  Buffer numbers_;
  Tensor last_on_device_;
  Room room_;
};

}  // namespace longstride

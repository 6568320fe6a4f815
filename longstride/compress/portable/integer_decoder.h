// Incremental decoding in integers: what Decoder (decode/decoder.h) computes in floating point, for windows that
// go side by side, position by position. Its logits are the same bits for any number of threads, on every
// instruction set and beside any other windows, because sums of integers have no order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "longstride/compress/portable/integer_model.h"
#include "longstride/compress/predictor.h"
#include "longstride/decode/key_caches.h"

namespace longstride {

class IntegerDecoder final : public Predictor {
 public:
  // All memory is allocated here. `model` must outlive the decoder. `positions` are up to the model's context.
  IntegerDecoder(const IntegerModel& model, int64_t streams, int64_t positions);
  // What the constructor allocates at most. It does not depend on the number of threads, since a file that has its
  // model in it is refused where this is more than such a file may take.
  static int64_t bytes(const ModelConfig& config, int64_t streams, int64_t positions);

  int64_t streams() const override { return streams_; }
  int64_t positions() const override { return positions_; }
  int64_t context() const override { return model_.config().context; }
  // Logits are multiples of 2^-16 of less than 128 in size, which f32 holds exactly.
  Tensor step(std::span<const uint8_t> previous, int64_t position) override;

 private:
  // Keys and values of one layer, as integers with an exponent for each row: (streams, rows, D or Dv).
  struct Cache {
    std::vector<int16_t> keys, values;
    std::vector<int8_t> key_exponents, value_exponents;  // (streams, rows)
    std::vector<portable::Fixed> recent;                 // (streams, taps, d), as ops/causal_convolution.h
  };
  // Rows of a store that the present position reads.
  struct RowList {
    int64_t position = -1;
    std::vector<int32_t> rows;
  };
  struct AttentionWork {
    std::vector<int16_t> query;
    std::vector<int64_t> scores;         // of the rows that are read
    std::vector<int32_t> rows, factors;  // those whose weight is not 0
    std::vector<int64_t> sums;
  };

  void block(int64_t layer, int64_t count, int64_t position);
  void norm(const IntegerNorm& norm, int64_t count);
  // y (count, rows of w) = x (count, columns of w) w^T + bias.
  void product(const WholeMatrix& w, const std::vector<portable::Fixed>& x, int64_t count,
               std::vector<portable::Fixed>& y);
  void change_queries_and_keys(portable::Fixed* row, int64_t position) const;
  void store(int64_t layer, int64_t stream, int64_t position);
  void attend(int64_t layer, int64_t stream, int64_t head, AttentionWork& work);
  void convolve(int64_t layer, int64_t count, int64_t position);

  const IntegerModel& model_;
  const int64_t streams_, positions_;
  const CachePlan plan_;
  const std::vector<portable::Turn> rotation_;  // (positions, D / 2)
  int64_t share_ = 0;                           // model.value_residual, in units of 2^-20
  int64_t score_factor_ = 0;                    // log2(e) / sqrt(D), in units of 2^-28
  std::vector<Cache> caches_;                   // of each layer
  std::vector<RowList> lists_;                  // of each of the plan's stores
  // Rows of activations, one for each stream.
  std::vector<portable::Fixed> x_, normed_, qkv_, attended_, branch_, hidden_, first_values_, logits_fixed_;
  std::vector<int16_t> whole_;  // what enters a product
  std::vector<int> exponents_;
  std::vector<float> logits_;
  std::vector<AttentionWork> work_;  // of each thread
};

}  // namespace longstride

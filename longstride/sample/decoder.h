// Incremental decoding: one byte a step for several sequences side by side, with the keys and values of
// earlier positions kept. Each step reads exactly the keys that the pattern allows its position.
//
// The cache keeps the rows of all positions, context * (qk_width + width) elements a layer and sequence, also
// those that no later position may look at; a cache that keeps only what the pattern can still reach would be
// smaller. Elements have the dtype of the products: keys and values of bf16 products are kept in bf16. The
// rows of a head are neighbours, so that reading one run of positions reads one run of memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "longstride/model/quantized_parameters.h"
#include "longstride/model/transformer.h"

namespace longstride {

class Decoder {
 public:
  // Room for `streams` sequences of config.context bytes, allocated here; no step allocates tensors. The
  // memory behind `parameters` must outlive the decoder. Products run in the dtype of the parameters'
  // weights, all else in f32. If `quantized` is given, it must outlive the decoder too, and steps read these
  // weights instead, with x in f32; a parallel prefill still runs on `parameters`, which should hold what
  // the eight bits stand for.
  Decoder(const ModelConfig& config, const ModelParameters& parameters, Device device, int64_t streams,
          const QuantizedParameters* quantized = nullptr);
  // Stays where it is: its ops' context points at its scratch.
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // What the constructor allocates: cache, one row of activations a stream, scratch. `product` is the
  // weights' dtype.
  static int64_t bytes(const ModelConfig& config, Device device, DType product, int64_t streams);

  // Slot `position` of every sequence: previous (streams) are the bytes at position - 1 (not read at 0).
  // Returns the logits (streams, 256) f32 of the bytes at `position`, in CPU memory, valid until the next
  // call. Positions must come in order: each is at most one beyond the last; going back overwrites. Throws
  // Error otherwise, or beyond the context.
  Tensor step(std::span<const uint8_t> previous, int64_t position);

  // Fills the cache with positions 0..length-1 for tokens (streams, length) u8 in CPU memory; go on with
  // step(tokens[length-1], length). More than kParallelFrom positions run as one parallel forward over
  // `length` positions, a sequence at a time, in working memory that is allocated for this call; equal
  // sequences are computed once. Fewer run as steps.
  void prefill(const Tensor& tokens);
  static constexpr int64_t kParallelFrom = 16;

  // As if `positions` had been decoded, with arbitrary small numbers for keys and values: for timing late
  // positions without the hours before them. CPU only.
  void fill_with_noise(int64_t positions);

  int64_t streams() const { return streams_; }
  int64_t context() const { return config_.context; }
  // Positions in the cache.
  int64_t filled() const { return filled_; }

 private:
  struct Room {
    std::vector<Tensor> keys, values;    // a layer: (streams, H, context, D or Dv)
    Tensor previous;                     // (streams) u8
    Tensor x, normed, attended, branch;  // (streams, d)
    Tensor qkv;                          // (streams, 2 * qk + d)
    Tensor hidden;                       // (streams, ff)
    Tensor mean, rstd;                   // (streams)
    Tensor logits;                       // (streams, 256)
  };
  static Room lay_out(const ModelConfig& config, DType product, int64_t streams, Arena& arena);
  static int64_t scratch_bytes(const ModelConfig& config, Device device, DType product, int64_t streams);
  void block(int64_t layer, int64_t position);
  void product(const Tensor& x, const Tensor& w, const QuantizedMatrix& quantized, const Tensor& b,
               const Tensor& y) const;
  void prefill_in_parallel(const Tensor& tokens);

  ModelConfig config_;
  const ModelParameters parameters_;
  const QuantizedParameters* quantized_;  // or null
  Schedule schedule_;
  Device device_;
  DType product_;
  int64_t streams_;
  bool serial_;  // a step is too small to share out
  int64_t filled_ = 0;
  Arena arena_ = Arena::measuring({});
  Arena scratch_ = Arena::measuring({});
  Arena host_ = Arena::measuring({});
  Room room_;
  Tensor host_logits_, host_previous_;  // (streams, 256), (streams)
  OpContext context_;
};

}  // namespace longstride

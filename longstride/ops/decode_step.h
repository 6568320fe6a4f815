// Decoding on a GPU: one byte further for several sequences, the whole model as one piece of work, and
// drawing bytes where their probabilities are. On the CPU a step is run op by op.
//
// A sequence's probabilities are the same bits whatever stands beside it and by whichever way the step runs:
// every sum has an order of its own that depends on the model and on the sequence's position alone.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "longstride/ops/embedding.h"
#include "longstride/ops/key_cache.h"

namespace longstride {

// One block's parameters, as in model/parameters.h, and its cache.
struct DecodeLayer {
  Tensor norm1_gain, norm1_bias;              // (d) f32, as all but weights
  Tensor qkv_weight, qkv_bias;                // (2 * H * D + d, d)
  Tensor projection_weight, projection_bias;  // (d, d)
  Tensor norm2_gain, norm2_bias;
  Tensor up_weight, up_bias;      // (ff, d)
  Tensor down_weight, down_bias;  // (d, ff)
  KeyCache cache;
  // (kConvolutionTaps, d) f32 of ops/causal_convolution.h for what the feed-forward reads, and the ring of
  // rows (S, kConvolutionTaps, d) of the weights' type that it goes over; of all layers or of none.
  Tensor convolution = {}, recent = {};
};

// Weights are all f32, all bf16 or all f16; so are the caches' values, and keys are like them or f32.
struct DecodeModel {
  EmbeddingTables embedding;
  std::vector<DecodeLayer> layers;
  Tensor final_gain, final_bias;
  Tensor output_weight;                  // (256, d)
  float epsilon = 0, final_epsilon = 0;  // of the norms in blocks and of the last
  // Queries and keys, as in ops/query_key.h; caches hold keys that are normalised and turned.
  Tensor rotation;       // (positions, D), for all positions that are decoded; empty: nothing turns
  bool qk_norm = false;  // they are normalised
  // The part of the first layer's values in those of every later one (ops/value_mix.h); caches hold mixed
  // ones.
  float value_residual = 0;
};

// The sizes of a model that decide what decoding needs.
struct DecodeShape {
  int64_t layers = 0, heads = 0, head_width = 0, head_width_v = 0, feed_forward = 0;
  int64_t stores = 0;  // distinct key stores
  DType product = DType::f32;
  bool changes = false;  // queries and keys are normalised or turned
  bool mixes = false;    // values are mixed with those of the first layer
  bool convolves = false;
};

// Where one sequence stands and how its bytes are drawn.
struct DecodeSequence {
  int64_t position = 0;  // of the next byte
  uint8_t previous = 0;  // the byte before it; not read at 0
  int64_t count = 0;     // positions to go; 0: the sequence rests
  // How bytes are drawn (sample/sampler.h): by the random number (seed, stream, origin + position).
  double temperature = 1, top_p = 1;
  int64_t top_k = 0, origin = 0;
  uint64_t seed = 0;
  uint32_t stream = 0;
};

// How the stages of a step follow one another.
enum class DecodeSchedule {
  fastest,     // of those below, for this number of sequences
  persistent,  // one kernel for all steps of a call; its blocks wait for each other between stages
  graph        // a kernel a stage, queued as one graph a step
};

namespace cuda {

class DecodeSteps {
 public:
  // Room for `streams` sequences is allocated here. The model's tensors must outlive this object. Throws
  // Error for heads wider than 256 and what ops check elsewhere.
  DecodeSteps(const DecodeModel& model, int device_index, int64_t streams,
              DecodeSchedule schedule = DecodeSchedule::fastest);
  ~DecodeSteps();
  DecodeSteps(const DecodeSteps&) = delete;
  DecodeSteps& operator=(const DecodeSteps&) = delete;

  // Bytes of the GPU's memory that it would allocate.
  static int64_t bytes(const DecodeShape& shape, int64_t streams);

  // logits (streams, 256) f32 in CPU memory of the next byte of each sequence; its keys and values are kept.
  // Rows of sequences that rest mean nothing. Valid until the next call.
  const float* step(std::span<const DecodeSequence> sequences);

  // Draws sequences[s].count <= steps bytes of each: out (streams, steps), the rest of a row is left as it
  // is. Throws Error if a logit is NaN or +infinity.
  void advance(std::span<const DecodeSequence> sequences, int64_t steps, uint8_t* out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cuda

}  // namespace longstride

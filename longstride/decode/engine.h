// What each kind of device has to offer for decoding: one more byte for several sequences, through the whole
// model. Others use Decoder (decoder.h).
//
// A sequence's probabilities are the same bits whatever is beside it and whichever way a step runs: the
// order of every sum depends only on the model and on the sequence's own position.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "longstride/base/backends.h"
#include "longstride/decode/key_caches.h"
#include "longstride/decode/sampler.h"
#include "longstride/device/device.h"
#include "longstride/model/parameters.h"
#include "longstride/model/quantized_parameters.h"

namespace longstride {

// How the stages of a step follow one another on a GPU.
enum class DecodeSchedule {
  fastest,     // of those below, for this number of sequences
  persistent,  // one kernel for all steps of a call; its blocks wait for each other between stages
  graph        // one kernel for each stage; each step is queued as one graph
};

struct DecoderOptions {
  int64_t streams = 1;        // sequences side by side
  int64_t positions = 0;      // the most that a sequence may have, up to the model's context; 0: the context
  bool exact_scores = false;  // keys are kept in f32, so that products of queries and keys are f32 throughout
  DecodeSchedule gpu_schedule = DecodeSchedule::fastest;
};

// The position of one sequence and how it goes on.
struct Continuation {
  int64_t position = 0;  // of the first byte to draw
  uint8_t previous = 0;  // the byte before it; not read at 0
  int64_t count = 0;     // bytes to draw; 0: the sequence rests
  Draw draw = {};        // by positions from 0 on, as `position` counts them
};

class StepEngine {
 public:
  static constexpr int64_t kRests = -1;  // as a position: the sequence takes no part in this step
  virtual ~StepEngine() = default;
  // The logits (S, 256) f32 of the next byte of each sequence, in CPU memory, valid until the next call.
  // Keys and values of that position are kept. Rows of sequences that rest mean nothing.
  virtual Tensor step(std::span<const uint8_t> previous, std::span<const int64_t> positions) = 0;
  // out[s * steps + i] = byte i of sequence s, for i < continuations[s].count <= steps. Throws Error if a
  // logit is NaN or +infinity.
  virtual void advance(std::span<const Continuation> continuations, int64_t steps, uint8_t* out) = 0;
};

// What an engine is made of. All of it must outlive the engine.
struct EngineParts {
  const ModelConfig& config;
  const ModelParameters& parameters;
  const KeyCaches& caches;
  const QuantizedParameters* quantized;  // weights that a CPU reads instead, or null
};

// Needs `options` with positions > 0. Throws Error for a model that the device cannot decode.
std::unique_ptr<StepEngine> make_steps(Device device, const EngineParts& parts,
                                       const DecoderOptions& options);
// Bytes of the device's memory that an engine allocates, without the caches. `product` is the dtype of the
// weights.
int64_t steps_bytes(Device device, const ModelConfig& config, DType product, const DecoderOptions& options);

// What a backend implements, in its own file.
template <DeviceKind kind>
std::unique_ptr<StepEngine> make_steps_on(Device device, const EngineParts& parts,
                                          const DecoderOptions& options);
template <DeviceKind kind>
int64_t steps_bytes_on(const ModelConfig& config, DType product, const DecoderOptions& options);

}  // namespace longstride

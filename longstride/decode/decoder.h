// Incremental decoding: one byte after another, for several sequences side by side. It keeps the keys and
// values of earlier positions that the pattern can still reach. Each step reads exactly the keys that the
// pattern allows its position.
//
// Sequences are independent. Each has its own position, and its bytes and probabilities are the same bits
// alone and beside others. A GPU draws the bytes itself, many steps at a time; the CPU runs a step op by
// op.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "longstride/decode/engine.h"
#include "longstride/model/transformer.h"

namespace longstride {

class Decoder {
 public:
  static constexpr int64_t kRests = StepEngine::kRests;

  // All caches and workspace are allocated here; no step allocates. The memory behind `parameters` must
  // outlive the decoder. Products run in the dtype of the parameters' weights, all else in f32. If
  // `quantized` is given, it must outlive the decoder too, and steps on the CPU read these weights instead,
  // with x in f32. A parallel prefill and a GPU run on `parameters`, which should then hold the values that
  // the eight bits mean.
  Decoder(const ModelConfig& config, const ModelParameters& parameters, Device device,
          const DecoderOptions& options = {}, const QuantizedParameters* quantized = nullptr);
  ~Decoder();
  // Not moved: the context of its ops points at its scratch.
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // What the constructor allocates on the device: caches, rows of activations, scratch. `product` is the
  // dtype of the weights.
  static int64_t bytes(const ModelConfig& config, Device device, DType product,
                       const DecoderOptions& options);

  // The logits (streams, 256) f32 of the bytes at `positions`, in CPU memory, valid until the next call.
  // Those of sequences that rest mean nothing. previous (streams) are the bytes at positions - 1; they are
  // not read at position 0. Each position must be the next of its sequence, or 0, which begins the sequence
  // again. Throws Error otherwise, or beyond the decoder's positions.
  Tensor step(std::span<const uint8_t> previous, std::span<const int64_t> positions);
  // The same with one position for all sequences.
  Tensor step(std::span<const uint8_t> previous, int64_t position);

  // Draws continuations[s].count bytes of sequence s, at most `steps`, into out (streams, steps), row by row
  // =. The rest of a row is left as it is. The bytes are those that step() and draw() one by one give on
  // this device.
  void advance(std::span<const Continuation> continuations, int64_t steps, std::span<uint8_t> out);

  // Fills the cache of `sequence` with positions 0..size-1; go on at position `size`. More than
  // kParallelFrom positions run as one parallel forward. Its plans and working memory are kept for the next
  // prefill of the same length. Fewer positions run as steps.
  void prefill(int64_t sequence, std::span<const uint8_t> bytes);
  // tokens (streams, length) u8 in CPU memory, one row for each sequence; equal rows are computed once.
  void prefill(const Tensor& tokens);
  static constexpr int64_t kParallelFrom = 16;
  // The working memory on the device for a prefill of `positions`.
  static int64_t prefill_bytes(const ModelConfig& config, Device device, DType product, int64_t positions);

  // Copies the state of sequence `from` to sequence `to`.
  void copy_sequence(int64_t from, int64_t to);

  // Fills the caches as if `positions` had been decoded, with arbitrary small numbers for keys and values.
  // For timing late positions without the hours before them.
  void fill_with_noise(int64_t positions);

  int64_t streams() const { return options_.streams; }
  int64_t positions() const { return options_.positions; }  // that a sequence may have
  Device device() const { return device_; }
  const ModelConfig& config() const { return config_; }
  // Positions in the cache of a sequence.
  int64_t filled(int64_t sequence) const { return filled_[sequence]; }

 private:
  void check_next(int64_t sequence, int64_t position) const;
  void prefill_in_parallel(int64_t sequence, std::span<const uint8_t> bytes);
  // Keeps the last of a sequence's rows (N, d), positions 0..N-1, for the convolution.
  void keep_recent(int64_t layer, int64_t sequence, const Tensor& rows) const;

  ModelConfig config_;
  const ModelParameters parameters_;
  Device device_;
  DType product_;
  DecoderOptions options_;
  KeyCaches caches_;
  std::vector<int64_t> filled_;  // (streams)
  std::unique_ptr<StepEngine> engine_;
  struct Prefill;
  std::unique_ptr<Prefill> prefill_;  // for the length of the last one
};

}  // namespace longstride

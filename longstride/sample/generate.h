// Draws sequences of any length from a model. They take turns on the slots of one decoder.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "longstride/base/check.h"
#include "longstride/decode/decoder.h"
#include "longstride/decode/sampler.h"

namespace longstride {

// How a sequence goes on beyond the context. Window k shows the model positions k * hop to k * hop + context
// - 1. Each byte is drawn in the first window that includes its position, so windows depend on the position
// alone. The context - hop bytes that a window shares with the one before are given to it, not drawn.
struct Windows {
  int64_t context = 0;
  int64_t hop = 0;  // in [1, max(1, context - 1)]

  // The first position of the window in which `position` is drawn.
  int64_t origin(int64_t position) const {
    return position < context ? 0 : ((position - context) / hop + 1) * hop;
  }
  // The first position that this window draws, in a sequence whose first `prime` bytes are given.
  int64_t first_drawn(int64_t position, int64_t prime) const;
};

// Windows that hop by the fraction `hop` of the context, rounded down to a multiple of the last position axis
// where that leaves one; 1 keeps nothing of the past but the last byte. Throws Error unless 0 < hop <= 1.
Windows windows_of(const ModelConfig& config, double hop);

// A sequence that is to be drawn or is being drawn. Its bytes are a function of the model, its other fields
// and the windows.
struct Sequence {
  std::vector<uint8_t> bytes;  // the given beginning, and what has been drawn after it so far
  int64_t prime = 0;           // how many of them were given
  int64_t length = 0;          // of the whole
  SamplerConfig sampler;
  uint32_t stream = 0;  // byte p is drawn with the random number of (sampler.seed, stream, p)

  int64_t known() const { return static_cast<int64_t>(bytes.size()); }
  bool finished() const { return known() == length; }
  // Throws Error unless prime <= bytes.size() <= length and length >= 1; names sequence `index`.
  void check(int64_t index) const;
};

// A sequence of `length` bytes that begins with `prime`.
Sequence sequence_after(std::vector<uint8_t> prime, int64_t length, const SamplerConfig& sampler,
                        uint32_t stream);

// Bytes that had been drawn before came out differently.
class ReplayError : public Error {
 public:
  using Error::Error;
};

class Generator {
 public:
  // The decoder's sequences are the slots; it must outlive the generator. To bring the decoder into its
  // former state, the bytes that the present window of a sequence has drawn already are drawn again, and
  // must come out the same. Throws Error if a sequence does not fit the decoder's positions.
  Generator(Decoder& decoder, std::vector<Sequence> sequences, const Windows& windows);

  // Draws up to `steps` more bytes for each running sequence. When one ends, the next takes its slot at
  // once. Neither `steps` nor the number of slots changes any byte. Throws ReplayError.
  void advance(int64_t steps);

  const std::vector<Sequence>& sequences() const { return sequences_; }
  bool done() const { return left_ == 0; }
  int64_t drawn() const { return drawn_; }  // new bytes
  int64_t left() const { return left_; }    // bytes still to draw
  // True while the sequence still draws again what its window had drawn before.
  bool replaying(int64_t sequence) const { return replaying_[sequence]; }
  // True if any running sequence does.
  bool replaying() const;

 private:
  struct Slot {
    int64_t sequence = -1;  // -1: free
    int64_t origin = 0;     // of the window
    int64_t next = 0;       // position in the sequence
  };
  void fill_slots();
  bool needs_window(const Slot& slot) const;
  std::span<const uint8_t> given(const Slot& slot) const;
  int64_t run_of(const Slot& slot) const;
  void draw_run(int64_t steps);
  void take(Slot& slot, uint8_t byte);

  Decoder& decoder_;
  const Windows windows_;
  std::vector<Sequence> sequences_;
  std::vector<bool> replaying_;
  std::vector<Slot> slots_;
  int64_t pending_ = 0;  // the first sequence that has had no slot yet
  int64_t left_ = 0, drawn_ = 0;
  std::vector<Continuation> continuations_;
  std::vector<uint8_t> out_;
};

// The most positions that a window of these sequences is given at once.
int64_t longest_prefill(std::span<const Sequence> sequences, const Windows& windows);

// How many sequences to decode side by side: at most options.streams, and no more than fit `memory` bytes,
// but at least one.
int64_t streams_that_fit(const ModelConfig& config, Device device, DType product, DecoderOptions options,
                         int64_t memory);

}  // namespace longstride

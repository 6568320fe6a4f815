// The batches of training. Stateless: a batch is a pure function of (seed, step), so a run that resumes reads
// exactly what it would have read.
//
// A stream (text, audio) is cut anew in every epoch into consecutive windows of `context` bytes, the first
// beginning at a random phase in [0, context); a segment shorter than two contexts gives one window at a
// random place. Records (pictures) are whole. An epoch visits every window once, in the order of a keyed
// permutation. Example s of step t is number t * batch + s of all examples; an epoch ends in the middle of a
// batch where the numbers are so.
#pragma once

#include <cstdint>

#include "longstride/data/corpus.h"

namespace longstride {

// A permutation of [0, count), different for every key: a Feistel network over the next even power of two,
// walked until it lands inside. Random access, no table.
class KeyedPermutation {
 public:
  KeyedPermutation(int64_t count, uint64_t key);
  int64_t operator()(int64_t index) const;

 private:
  int64_t count_;
  uint64_t key_;
  int half_bits_;
};

// Windows that an epoch visits in `size` bytes of a stream, or of pictures of `context` bytes.
int64_t windows_in_epoch(int64_t size, int64_t context, bool pictures);

class BatchLoader {
 public:
  // Throws Error if the segment is shorter than one context or, for records, if context is not record_bytes.
  BatchLoader(Segment segment, int64_t context, int64_t batch, uint64_t seed);

  // tokens: (batch, context). Both throw InputError as Corpus::read does.
  void load(int64_t step, uint8_t* tokens) const { load(step, 0, batch_, tokens); }
  // Examples [first, first + count) of the step's batch, for one of several ranks; tokens: (count, context).
  void load(int64_t step, int64_t first, int64_t count, uint8_t* tokens) const;

  // The same with every window cut into `pieces` shorter sequences, a divisor of the context; tokens:
  // (batch * pieces, context / pieces). A step has one piece each of batch * pieces windows, and `pieces`
  // steps have all of them.
  void load_pieces(int64_t step, int64_t pieces, uint8_t* tokens) const {
    load_pieces(step, pieces, 0, batch_ * pieces, tokens);
  }
  // Sequences [first, first + count) of them, for one of several ranks.
  void load_pieces(int64_t step, int64_t pieces, int64_t first, int64_t count, uint8_t* tokens) const;

  // The offset in the corpus of the first byte of an example.
  int64_t start_of(int64_t example) const;

  int64_t windows_per_epoch() const { return windows_; }
  int64_t context() const { return context_; }
  int64_t batch() const { return batch_; }

 private:
  Segment segment_;
  int64_t context_, batch_;
  uint64_t seed_;
  int64_t windows_ = 0;
  int64_t phases_ = 1;  // how many places the first window may begin at
};

}  // namespace longstride

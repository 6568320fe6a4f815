// What the stages of a decoding step work on, in the GPU's memory.
#pragma once

#include <cstdint>

#include <vector_types.h>

#include "longstride/decode/sampler.h"
#include "longstride/pattern/key_store.h"

namespace longstride::cuda::decode {

inline constexpr int kThreads = 256;  // of every block
inline constexpr int kWarps = 8;
inline constexpr int kVocabulary = 256;
inline constexpr int kMostAxes = 8;
inline constexpr int kWidestHead = 256;

// A weight (rows, width) of the product's type and its bias (rows) f32, or null.
struct Weight {
  const void* w;
  const float* bias;
  int32_t rows, width;
  bool vectors;  // rows are whole depths of a product and can be read eight elements at a time
};

struct Norm {
  const float *gain, *bias;
  float epsilon;
};

struct Layer {
  Norm norm1, norm2;
  Weight qkv, projection, up, down;
  void *keys, *values;       // (S, rows, D), (S, rows, Dv)
  int64_t rows;              // of a sequence
  int32_t heads_from;        // this layer's heads begin there in Args::heads
  float value_share;         // of the first layer in its values; 0: nothing is mixed in
  const float* convolution;  // (kConvolutionTaps, d) of what the feed-forward reads; null: none
  void* recent;              // (S, kConvolutionTaps, d) of the product's type: rows that it goes over
};

struct Head {
  int32_t store;      // index into Args::stores
  int32_t first_row;  // in the layer's cache
  bool operator==(const Head&) const = default;
};

// Where a sequence stands. The sampling stage moves it on.
struct Sequence {
  Draw draw;
  int32_t position, left;  // left: positions to go; 0: it rests
  int32_t drawn;           // bytes of this call
  uint8_t previous;        // the byte before `position`
};

// A Reading of at most two runs of rows none of which is read twice, as nearly all are: candidates [0, count)
// stand in rows row[0] + j step[0], the others in the second run; rows from `ring` on, if it is not 0, begin
// at 0 again.
struct alignas(16) RowRuns {
  int32_t candidates, simple;  // simple: 0 if the reading is of another kind
  int32_t row[2], step[2], ring[2];
  int32_t count;
  int32_t pieces, length;  // in which the candidates are read, and how many each has
  int32_t own;             // the candidate that is the position's own key, or -1
};

// The rows in which a position's own key is kept; -1 ends them.
struct OwnRows {
  int32_t row[kMaxTerms + 1];
};

struct Embedding {
  const float *token, *start;
  const float* axes[kMostAxes];
  int32_t extent[kMostAxes];
  int32_t axis_count;
  bool before;  // PositionShift::before
};

// Division of numbers n by d where n * d < 2^32.
struct Divisor {
  uint32_t factor = 0;
  Divisor() = default;
  explicit Divisor(int32_t d) : factor(static_cast<uint32_t>(((uint64_t{1} << 32) + d - 1) / d)) {}
#ifdef __CUDACC__
  __device__ int quotient(int n) const {
    return factor == 0 ? n : static_cast<int>(__umulhi(static_cast<uint32_t>(n), factor));
  }
#endif
};

struct Args {
  // The model.
  Embedding embedding;
  const Layer* layers;
  const Head* heads;
  const KeyStore* stores;
  Norm final_norm;
  Weight output;
  int32_t layer_count, head_count, store_count;
  int32_t width, qk, feed_forward, head_width, head_width_v;
  Divisor head_width_divisor, head_width_v_divisor, x_stride_divisor;
  int32_t x_stride, hidden_stride;  // elements from row to row of what products read: padded by zeros
  float scale_log2;                 // of scores, for powers of two
  // The sequences.
  int32_t streams, most_pieces;
  int32_t lane_shift;       // 1 << lane_shift lanes of a warp read a cached row
  int32_t distinct_heads;   // entries of `heads`
  bool vectors, vectors_v;  // rows of D and of Dv elements can be read eight at a time
  bool wide_keys;           // keys are f32 whatever the product
  bool changes;             // queries and keys are normalised or turned, values are mixed, or `convolves`
  bool mixes;               // values are mixed with those of the first layer
  bool normalised;
  bool turn_vectors;      // halves of D elements can be read eight at a time
  const float* rotation;  // (positions, D): cosines, then sines; null: nothing turns
  Sequence* sequences;
  Reading* readings;                 // (stores, S): of the present position
  RowRuns* row_runs;                 // (stores, S): the same, where it is simple
  OwnRows* own_rows;                 // (stores, S)
  float *x, *q;                      // (S, d), (S, qk)
  float* k;                          // (S, qk) where queries and keys are changed: as projected, like q
  float* first_values;               // (S, d) of the first layer where values are mixed, else null
  float* sums;                       // (S, H, pieces, Dv): of exp2(score - highest) v
  float2* totals;                    // (S, H, pieces): highest and sum
  void *normed, *attended, *hidden;  // (S, x_stride), (S, x_stride), (S, hidden_stride) of the product's type
  float* logits;                     // (S, 256)
  uint8_t* out;                      // (S, out_stride)
  int32_t out_stride;
  int32_t* fault;     // 0, or 1 + the sequence whose logits cannot be drawn from
  uint32_t* arrived;  // blocks that have come to the barriers of a persistent kernel
  bool convolves;     // what the feed-forward reads is convolved over the last positions
};

// Candidates of a position are read in pieces, a block or a warp a piece; how many depends on the position
// alone.
inline constexpr int kCandidatesOfPiece = 128;
LONGSTRIDE_HOST_DEVICE inline int pieces_of(int candidates, int most) {
  const int pieces = (candidates + kCandidatesOfPiece - 1) / kCandidatesOfPiece;
  return pieces < most ? pieces : most;
}

}  // namespace longstride::cuda::decode

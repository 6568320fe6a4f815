// What the stages of a decoding step work on, in the GPU's memory.
#pragma once

#include <cstdint>

#include <vector_types.h>

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
  bool vectors;  // eight elements can be read at a time
};

struct Norm {
  const float *gain, *bias;
  float epsilon;
};

struct Layer {
  Norm norm1, norm2;
  Weight qkv, projection, up, down;
  void *keys, *values;  // (S, rows, D), (S, rows, Dv)
  int64_t rows;         // of a sequence
  int32_t heads_from;   // this layer's heads begin there in Args::heads
};

struct Head {
  int32_t store;      // index into Args::stores
  int32_t first_row;  // in the layer's cache
  bool operator==(const Head&) const = default;
};

// Where a sequence stands. The sampling stage moves it on.
struct Sequence {
  int64_t origin;
  uint64_t seed;
  double temperature, top_p;
  int32_t position, left, top_k;  // left: positions to go; 0: it rests
  int32_t drawn;                  // bytes of this call
  uint32_t stream;
  uint8_t previous;
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
  int32_t x_stride, hidden_stride;  // elements from row to row of what products read: padded by zeros
  float scale_log2;                 // of scores, for powers of two
  // The sequences.
  int32_t streams, most_pieces;
  int32_t lanes_of_row;     // lanes of a warp that read a cached row: a power of two
  int32_t distinct_heads;   // entries of `heads`
  bool vectors, vectors_v;  // rows of D and of Dv elements can be read eight at a time
  bool wide_keys;           // keys are f32 whatever the product
  Sequence* sequences;
  Reading* readings;                 // (stores, S): of the present position
  OwnRows* own_rows;                 // (stores, S)
  float *x, *q;                      // (S, d), (S, qk)
  float* sums;                       // (S, H, pieces, Dv): of exp2(score - highest) v
  float2* totals;                    // (S, H, pieces): highest and sum
  void *normed, *attended, *hidden;  // (S, x_stride), (S, x_stride), (S, hidden_stride) of the product's type
  float* logits;                     // (S, 256)
  uint8_t* out;                      // (S, out_stride)
  int32_t out_stride;
  int32_t* fault;     // 0, or 1 + the sequence whose logits cannot be drawn from
  uint32_t* arrived;  // blocks that have come to the barriers of a persistent kernel
};

// Candidates of a position are read in pieces, a block a piece; how many depends on the position alone.
inline constexpr int kCandidatesOfPiece = 64;
LONGSTRIDE_HOST_DEVICE inline int pieces_of(int candidates, int most) {
  const int pieces = (candidates + kCandidatesOfPiece - 1) / kCandidatesOfPiece;
  return pieces < most ? pieces : most;
}

}  // namespace longstride::cuda::decode

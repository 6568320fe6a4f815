// Changes queries and keys between their projection and the attention, one head at a time, in place. They
// are normalised, x / rms(x) (Henry and others, 2020, with the root mean square of Zhang, Sennrich, 2019,
// and no gain), and rotated by the position (Su and others, 2021). Channels i and i + D / 2 are one pair,
// and
//   (a, b) -> (a cos - b sin, b cos + a sin)
// by an angle that depends on the pair and the row's position. So products of queries and keys depend only
// on distances.
#pragma once

#include <span>

#include "longstride/ops/run.h"

namespace longstride {

struct QueryKey {
  // (M, 2 H D) f32, bf16 or, on a GPU, f16: queries of all heads, then keys; rows may be part of wider ones.
  Tensor x;
  int64_t heads = 1;  // H
  // (P, D) f32: the cosines of a position's D / 2 angles, then their sines; D is even. Row m of x is at
  // position m mod P. Empty: nothing is rotated.
  Tensor rotation;
  // (M, 2 H) f32: the reciprocal of rms(x) = sqrt(mean(x^2) + kQueryKeyEpsilon). Empty: nothing is
  // normalised.
  Tensor reciprocal_rms;
};

inline constexpr float kQueryKeyEpsilon = 1e-6f;

// x and reciprocal_rms =. Arithmetic is f32, and x is rounded once.
struct QueryKeyForward {
  QueryKey t;

  const char* name() const { return "query_key_forward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// The same for sampling: row m is at positions[m] instead.
struct QueryKeyAt {
  QueryKey t;
  std::span<const int64_t> positions;

  static constexpr bool kOnCpuOnly = true;
  const char* name() const { return "query_key_at"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// On entry dx, with the shape and type of x, holds the gradient of the forward's output; on return that of
// its input, in place. t is as the forward left it.
struct QueryKeyBackward {
  QueryKey t;
  Tensor dx;

  const char* name() const { return "query_key_backward"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

}  // namespace longstride

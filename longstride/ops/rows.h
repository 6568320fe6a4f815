// Rows of a matrix by their numbers: picked into a dense one, or placed back.
#pragma once

#include "longstride/ops/run.h"

namespace longstride {

// to[i] = from[numbers[i]]. Numbers (K) i32, each a row of `from` (R, w), whose rows may be part of wider ones; to
// (K, w), dense. All of one type: f32, bf16 or, on a GPU, f16. Numbers are not checked.
struct PickRows {
  Tensor from, numbers, to;

  const char* name() const { return "pick_rows"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

// to[numbers[i]] = from[i], or with `adds` to[numbers[i]] += from[i], in f32 and rounded once. No number comes twice.
struct PlaceRows {
  Tensor from, numbers, to;
  bool adds = false;

  const char* name() const { return "place_rows"; }
  OpWork work() const;
  void check(const Arguments& arguments) const;
};

}  // namespace longstride

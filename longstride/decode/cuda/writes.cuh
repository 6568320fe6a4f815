// What the products of a decoding step write, and where. A product (product.cuh) hands each of its results to
// write(sequence, output, value, early) of one of these, with what early() had read meanwhile.
#pragma once

#include "longstride/decode/cuda/attention.cuh"
#include "longstride/ops/cuda/arithmetic.cuh"

namespace longstride::cuda::decode {

// Nothing to read early.
struct NothingEarly {
  __device__ float early(int, int) const { return 0.0f; }
};

// kChanges: queries and keys stay as they are for the attention, which changes and keeps them; values may be
// mixed with those of the first layer, which keeps them aside.
template <class T, bool kChanges>
struct WriteQkv {
  const Args& a;
  const Layer& layer;
  const Head* heads;  // of the layer
  const OwnRows* own_rows;
  __device__ WriteQkv(const Args& args, const Layer& l, const Head* h, const OwnRows* rows)
      : a(args), layer(l), heads(h), own_rows(rows) {}
  // The value of the first layer that stands at the same place.
  __device__ float* first_value(int s, int output) const {
    return a.first_values + static_cast<int64_t>(s) * a.width + (output - 2 * a.qk);
  }
  // Products of f32 have no register left for what is read early.
  static constexpr bool kReadsEarly = kChanges && sizeof(T) == 2;
  __device__ float early(int s, int output) const {
    if constexpr (!kReadsEarly) return 0.0f;
    return layer.value_share > 0 && output >= 2 * a.qk ? __ldcg(first_value(s, output)) : 0.0f;
  }
  __device__ float mixed(int s, int output, float value, float first) const {
    const float share = layer.value_share;
    if (share > 0) {
      if constexpr (!kReadsEarly) first = __ldcg(first_value(s, output));
      return mixed_value(value, first, share, 1.0f - share);
    }
    *first_value(s, output) = value;
    return value;
  }
  __device__ void write(int s, int output, float value, float first) const {
    if (output < a.qk) {
      a.q[static_cast<int64_t>(s) * a.qk + output] = value;
      return;
    }
    const bool is_key = output < 2 * a.qk;
    if (kChanges && is_key) {
      a.k[static_cast<int64_t>(s) * a.qk + output - a.qk] = value;
      return;
    }
    if constexpr (kChanges) {
      if (a.mixes) value = mixed(s, output, value, first);
    }
    const int width = is_key ? a.head_width : a.head_width_v, from = output - (is_key ? a.qk : 2 * a.qk);
    const int h = (is_key ? a.head_width_divisor : a.head_width_v_divisor).quotient(from);
    const Head head = heads[h];
    const OwnRows& own = own_rows[head.store * a.streams + s];
    for (int i = 0; i <= kMaxTerms; ++i) {
      const int row = own.row[i];
      if (row < 0) break;
      const int64_t at = (s * layer.rows + head.first_row + row) * width + (from - h * width);
      if (is_key && a.wide_keys)
        static_cast<float*>(layer.keys)[at] = value;
      else
        static_cast<T*>(is_key ? layer.keys : layer.values)[at] = from_float<T>(value);
    }
  }
};

struct AddToStream {
  const Args& a;
  __device__ float* place(int s, int output) const {
    return a.x + static_cast<int64_t>(s) * a.width + output;
  }
  __device__ float early(int s, int output) const { return __ldcg(place(s, output)); }
  __device__ void write(int s, int output, float value, float x) const { *place(s, output) = x + value; }
};

template <class T>
struct WriteHidden : NothingEarly {
  const Args& a;
  __device__ explicit WriteHidden(const Args& args) : a(args) {}
  __device__ void write(int s, int output, float value, float) const {
    static_cast<T*>(a.hidden)[static_cast<int64_t>(s) * a.hidden_stride + output] =
        from_float<T>(activated(value));
  }
};

struct WriteLogits : NothingEarly {
  const Args& a;
  __device__ explicit WriteLogits(const Args& args) : a(args) {}
  __device__ void write(int s, int output, float value, float) const {
    a.logits[s * kVocabulary + output] = value;
  }
};

}  // namespace longstride::cuda::decode

// Attention of one small sequence in f32, for tests of what it does and of what it refuses.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "longstride/base/rng.h"
#include "longstride/ops/attention.h"

namespace longstride {

inline LayerPattern layer_of(const char* text) { return parse_schedule(text).layer(0); }

// One head of width 4. All outputs are NaN at first.
struct Problem {
  int64_t n, heads;
  std::vector<float> q, k, v, o, lse, d_o, dq, dk, dv;
  AttentionTensors tensors;
  AttentionGradients gradients;

  explicit Problem(int64_t n, int64_t heads = 1) : n(n), heads(heads) {
    for (std::vector<float>* input : {&q, &k, &v, &d_o}) {
      const RandomStream random{11, static_cast<uint32_t>(input - &q)};
      for (int64_t i = 0; i < n * heads * 4; ++i) input->push_back(static_cast<float>(random.normal(i)));
    }
    for (std::vector<float>* output : {&o, &dq, &dk, &dv})
      output->assign(q.size(), std::numeric_limits<float>::quiet_NaN());
    lse.assign(n * heads, std::numeric_limits<float>::quiet_NaN());
    tensors = {rows(q), rows(k), rows(v), rows(o), Tensor(lse.data(), DType::f32, {1, heads, n}), 0.5f};
    gradients = {rows(d_o), rows(dq), rows(dk), rows(dv)};
  }
  Tensor rows(std::vector<float>& data) const { return Tensor(data.data(), DType::f32, {1, n, heads, 4}); }
  void run(const char* pattern) {
    const AttentionPlan plan = plan_attention({}, layer_of(pattern), heads, n);
    Arena scratch({}, attention_scratch_bytes({}, plan, DType::f32, 1, heads, 4, 4));
    longstride::run({{}, &scratch}, AttentionForward{plan, tensors});
    longstride::run({{}, &scratch}, AttentionBackward{plan, tensors, gradients});
  }
};

}  // namespace longstride

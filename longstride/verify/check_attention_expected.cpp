// Inputs of attention's check and the expected results: by the definition, and by the plainest computation
// in 16 bits.
#include <algorithm>
#include <cmath>
#include <limits>

#include "longstride/base/rng.h"
#include "longstride/ops/reference/attention.h"
#include "longstride/pattern/pattern.h"
#include "longstride/verify/check_attention.h"

namespace longstride::verify {

namespace {

template <class T, int Rank>
View<T, Rank> contiguous(std::vector<T>& data, std::initializer_list<int64_t> shape) {
  View<T, Rank> view;
  view.data = data.data();
  std::copy(shape.begin(), shape.end(), view.shape);
  view.stride[Rank - 1] = 1;
  for (int axis = Rank - 1; axis > 0; --axis) view.stride[axis - 1] = view.stride[axis] * view.shape[axis];
  return view;
}

}  // namespace

float rounded_to(DType dtype, float value) {
  if (dtype == DType::bf16) return static_cast<float>(Bf16(value));
  return dtype == DType::f16 ? static_cast<float>(F16(value)) : value;
}

double rounding_of(DType dtype) { return dtype == DType::bf16 ? 0x1p-9 : dtype == DType::f16 ? 0x1p-11 : 0; }

AttentionValues<float> random_inputs(const AttentionCase& c) {
  const auto fill = [&](uint32_t stream, int64_t width, float gain) {
    const RandomStream random{static_cast<uint64_t>(c.n), stream};
    std::vector<float> values(c.shape.batch * c.n * c.shape.heads * width);
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = rounded_to(c.dtype, static_cast<float>(random.normal(i)) * gain);
    return values;
  };
  AttentionValues<float> values;
  values.q = fill(0, c.shape.width, c.gain), values.k = fill(1, c.shape.width, 1);
  values.v = fill(2, c.shape.v_width, 1), values.d_o = fill(3, c.shape.v_width, 1);
  return values;
}

template <class T>
AttentionValues<T> by_definition(const AttentionCase& c, const AttentionValues<float>& inputs) {
  const auto cast = [](const std::vector<float>& from) { return std::vector<T>(from.begin(), from.end()); };
  AttentionValues<T> r{cast(inputs.q), cast(inputs.k), cast(inputs.v), cast(inputs.d_o), {}, {}, {}, {}, {}};
  r.o.resize(r.v.size()), r.dq.resize(r.q.size()), r.dk.resize(r.q.size()), r.dv.resize(r.v.size());
  r.lse.resize(c.shape.batch * c.shape.heads * c.n);
  const auto by_width = [&](std::vector<T>& data) {
    return contiguous<T, 4>(data, {c.shape.batch, c.n, c.shape.heads, c.shape.width});
  };
  const auto by_v_width = [&](std::vector<T>& data) {
    return contiguous<T, 4>(data, {c.shape.batch, c.n, c.shape.heads, c.shape.v_width});
  };
  const auto lse = contiguous<T, 3>(r.lse, {c.shape.batch, c.shape.heads, c.n});
  const LayerPattern layer = parse_schedule(c.pattern).layer(0);
  reference::attention_forward<T>(layer, c.scale(), by_width(r.q), by_width(r.k), by_v_width(r.v),
                                  by_v_width(r.o), lse);
  reference::attention_backward<T>(layer, c.scale(), by_width(r.q), by_width(r.k), by_v_width(r.v),
                                   by_v_width(r.o), lse, by_v_width(r.d_o), by_width(r.dq), by_width(r.dk),
                                   by_v_width(r.dv));
  return r;
}

template AttentionValues<float> by_definition(const AttentionCase& c, const AttentionValues<float>& inputs);
template AttentionValues<double> by_definition(const AttentionCase& c, const AttentionValues<float>& inputs);

AttentionValues<float> naive_rounded(const AttentionCase& c, const AttentionValues<float>& inputs) {
  const int64_t batch = c.shape.batch, heads = c.shape.heads, width = c.shape.width,
                v_width = c.shape.v_width;
  const auto round = [&](float x) { return rounded_to(c.dtype, x); };
  AttentionValues<float> r = inputs;
  r.o.assign(r.v.size(), 0), r.dq.assign(r.q.size(), 0), r.dk = r.dq, r.dv = r.o;
  r.lse.assign(batch * heads * c.n, -std::numeric_limits<float>::infinity());
  const LayerPattern layer = parse_schedule(c.pattern).layer(0);
  for (int64_t bh = 0; bh < batch * heads; ++bh) {
    const int64_t b = bh / heads, h = bh % heads;
    const Pattern pattern = layer.for_head(h, heads);
    const auto row = [&](int64_t i) { return (b * c.n + i) * heads + h; };
    for (int64_t q = 0; q < c.n; ++q) {
      std::vector<int64_t> keys;
      std::vector<float> scores;
      for (int64_t k = 0; k <= q; ++k) {
        if (!pattern.allows(q, k)) continue;
        float score = 0;
        for (int64_t d = 0; d < width; ++d) score += r.q[row(q) * width + d] * r.k[row(k) * width + d];
        keys.push_back(k), scores.push_back(score * c.scale());
      }
      if (keys.empty()) continue;
      const float highest = *std::max_element(scores.begin(), scores.end());
      float sum = 0;
      float *o = &r.o[row(q) * v_width], *dq = &r.dq[row(q) * width];
      const float* d_o = &r.d_o[row(q) * v_width];
      for (size_t i = 0; i < keys.size(); ++i) {
        const float weight = std::exp(scores[i] - highest);
        sum += weight;
        for (int64_t d = 0; d < v_width; ++d) o[d] += round(weight) * r.v[row(keys[i]) * v_width + d];
      }
      const float lse = r.lse[bh * c.n + q] = highest + std::log(sum);
      float delta = 0;
      for (int64_t d = 0; d < v_width; ++d) o[d] = round(o[d] / sum), delta += o[d] * d_o[d];
      for (size_t i = 0; i < keys.size(); ++i) {
        const float weight = std::exp(scores[i] - lse);
        float d_weight = 0;
        for (int64_t d = 0; d < v_width; ++d) {
          d_weight += d_o[d] * r.v[row(keys[i]) * v_width + d];
          r.dv[row(keys[i]) * v_width + d] += round(weight) * d_o[d];
        }
        const float d_score = round(weight * (d_weight - delta) * c.scale());
        for (int64_t d = 0; d < width; ++d) {
          dq[d] += d_score * r.k[row(keys[i]) * width + d];
          r.dk[row(keys[i]) * width + d] += d_score * r.q[row(q) * width + d];
        }
      }
    }
  }
  for (std::vector<float>* values : {&r.dq, &r.dk, &r.dv})
    for (float& value : *values) value = round(value);
  return r;
}

}  // namespace longstride::verify

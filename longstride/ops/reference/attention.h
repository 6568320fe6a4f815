// Attention as in its definition, in any precision: one row of scores for each query, and allows() alone
// decides. The fast paths are measured against it. O(n^2), for small n. T is float, double or
// std::complex<double> (for complex-step derivatives).
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <functional>
#include <limits>
#include <type_traits>
#include <vector>

#include "longstride/base/tensor.h"
#include "longstride/pattern/pattern.h"

namespace longstride::reference {

template <class T>
auto real_part(const T& value) {
  if constexpr (std::is_floating_point_v<T>)
    return value;
  else
    return value.real();
}

template <class T>
T dot(const T* a, const T* b, int64_t width) {
  T sum{};
  for (int64_t i = 0; i < width; ++i) sum += a[i] * b[i];
  return sum;
}

// q, k (B, N, H, D), v and o (B, N, H, Dv), lse (B, H, N): o and lse =. `factor` is applied to a weight
// before it is multiplied, for computations that round there.
template <class T, class Factor = std::identity>
void attention_forward(const LayerPattern& layer, std::type_identity_t<T> scale, const View<T, 4>& q,
                       const View<T, 4>& k, const View<T, 4>& v, const View<T, 4>& o, const View<T, 3>& lse,
                       const Factor& factor = {}) {
  using std::exp, std::log;
  using Real = decltype(real_part(T{}));
  const int64_t n = q.shape[1], heads = q.shape[2], width = q.shape[3], v_width = v.shape[3];
  std::vector<T> scores;
  std::vector<int64_t> keys;
  for (int64_t b = 0; b < q.shape[0]; ++b) {
    for (int64_t h = 0; h < heads; ++h) {
      const Pattern pattern = layer.for_head(h, heads);
      for (int64_t i = 0; i < n; ++i) {
        scores.clear(), keys.clear();
        Real highest = -std::numeric_limits<Real>::infinity();
        for (int64_t j = 0; j <= i; ++j) {
          if (!pattern.allows(i, j)) continue;
          keys.push_back(j);
          scores.push_back(scale * dot(&q(b, i, h, 0), &k(b, j, h, 0), width));
          highest = std::max(highest, real_part(scores.back()));
        }
        for (int64_t d = 0; d < v_width; ++d) o(b, i, h, d) = T{};
        lse(b, h, i) = T(highest);
        if (keys.empty()) continue;
        T sum{};
        for (size_t j = 0; j < keys.size(); ++j) {
          const T weight = exp(scores[j] - highest);
          sum += weight;
          for (int64_t d = 0; d < v_width; ++d) o(b, i, h, d) += factor(weight) * v(b, keys[j], h, d);
        }
        for (int64_t d = 0; d < v_width; ++d) o(b, i, h, d) /= sum;
        lse(b, h, i) = highest + log(sum);
      }
    }
  }
}

// d_o and o (B, N, H, Dv), lse (B, H, N) from the forward; dq, dk (B, N, H, D) and dv (B, N, H, Dv) =.
// Weights are computed from lse, as in the contract. `factor` as above, also for gradients of scores.
template <class T, class Factor = std::identity>
void attention_backward(const LayerPattern& layer, std::type_identity_t<T> scale, const View<T, 4>& q,
                        const View<T, 4>& k, const View<T, 4>& v, const View<T, 4>& o, const View<T, 3>& lse,
                        const View<T, 4>& d_o, const View<T, 4>& dq, const View<T, 4>& dk,
                        const View<T, 4>& dv, const Factor& factor = {}) {
  using std::exp;
  const int64_t n = q.shape[1], heads = q.shape[2], width = q.shape[3], v_width = v.shape[3];
  for (int64_t b = 0; b < q.shape[0]; ++b) {
    for (int64_t h = 0; h < heads; ++h) {
      const Pattern pattern = layer.for_head(h, heads);
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t d = 0; d < width; ++d) dq(b, i, h, d) = dk(b, i, h, d) = T{};
        for (int64_t d = 0; d < v_width; ++d) dv(b, i, h, d) = T{};
        const T delta = dot(&o(b, i, h, 0), &d_o(b, i, h, 0), v_width);
        for (int64_t j = 0; j <= i; ++j) {
          if (!pattern.allows(i, j)) continue;
          const T weight = exp(scale * dot(&q(b, i, h, 0), &k(b, j, h, 0), width) - lse(b, h, i));
          const T d_weight = dot(&d_o(b, i, h, 0), &v(b, j, h, 0), v_width);
          const T d_score = factor(scale * weight * (d_weight - delta));
          for (int64_t d = 0; d < width; ++d) {
            dq(b, i, h, d) += d_score * k(b, j, h, d);
            dk(b, j, h, d) += d_score * q(b, i, h, d);
          }
          for (int64_t d = 0; d < v_width; ++d) dv(b, j, h, d) += factor(weight) * d_o(b, i, h, d);
        }
      }
    }
  }
}

}  // namespace longstride::reference

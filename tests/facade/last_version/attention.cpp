// Attention with a pattern on arrays of one's own, forward and backward. usage: attention [PATTERN]
#include <cmath>
#include <cstdio>
#include <iostream>
#include <vector>

#include <longstride/longstride.h>

int main(int argc, char** argv) try {
  constexpr int64_t kBatch = 1, kPositions = 64, kHeads = 2, kWidth = 16;
  const longstride::Attention attention(argc > 1 ? argv[1] : "fixed:16,4", kPositions, kHeads);

  // (batch, positions, heads, width), row by row
  const size_t size = kBatch * kPositions * kHeads * kWidth;
  std::vector<float> q(size), k(size), v(size), o(size), log_sum_exp(kBatch * kHeads * kPositions);
  for (size_t i = 0; i < size; ++i) {
    q[i] = std::sin(0.1f * static_cast<float>(i));
    k[i] = std::cos(0.3f * static_cast<float>(i));
    v[i] = std::cos(0.7f * static_cast<float>(i));
  }
  const auto array = [&](std::vector<float>& values) {
    return longstride::Array{.data = values.data(), .shape = {kBatch, kPositions, kHeads, kWidth}};
  };
  const longstride::AttentionArrays arrays{
      .q = array(q), .k = array(k), .v = array(v), .o = array(o), .log_sum_exp = log_sum_exp.data()};
  attention.forward(arrays);

  std::vector<float> d_o(size, 1.0f), dq(size), dk(size), dv(size);
  attention.backward(arrays, array(d_o), array(dq), array(dk), array(dv));

  // With a gradient of 1 everywhere each query hands out weights that sum to 1, so dv sums to the number of
  // outputs.
  double sum = 0;
  for (const float value : dv) sum += value;
  std::printf("%d pairs; o[0] = %.4f, which is v[0] = %.4f; dv sums to %.1f of %zu\n",
              static_cast<int>(attention.pairs()), o[0], v[0], sum, size);
} catch (const longstride::Error& error) {
  std::cerr << error.what() << "\n";
  return 1;
}

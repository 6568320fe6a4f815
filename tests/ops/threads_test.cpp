// The same bits for any number of threads, where an op promises it; and the same answers with every
// instruction set.
#include <cmath>
#include <cstring>

#include <hwy/targets.h>

#include "longstride/ops/activation.h"
#include "longstride/ops/adam.h"
#include "longstride/ops/attention.h"
#include "longstride/ops/causal_convolution.h"
#include "longstride/ops/cross_entropy.h"
#include "longstride/ops/dropout.h"
#include "longstride/ops/embedding.h"
#include "longstride/ops/layer_norm.h"
#include "longstride/ops/linear.h"
#include "longstride/ops/quantized_linear.h"
#include "longstride/ops/residual.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/layer_cache.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

std::vector<float> sample(uint32_t which, int64_t count) {
  const std::vector<double> values = normal_doubles(which, count);
  return {values.begin(), values.end()};
}

// Runs `op`, which returns all of its outputs in one vector, with 1, 2, 3 and 5 threads.
void expect_same_bits(const std::function<std::vector<float>()>& op) {
  set_threads(1);
  const std::vector<float> one = op();
  for (int count : {2, 3, 5}) {
    set_threads(count);
    const std::vector<float> many = op();
    ASSERT_EQ(one.size(), many.size());
    EXPECT_EQ(std::memcmp(one.data(), many.data(), one.size() * sizeof(float)), 0) << count << " threads";
  }
  set_threads(0);
}

void append(std::vector<float>& to, const std::vector<float>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

constexpr int64_t kRows = 301, kWidth = 130;

TEST(Threads, Dropout) {
  const std::vector<float> x = sample(1, 50001), branch = sample(2, 50001);
  expect_same_bits([&] {
    std::vector<float> base = x, added = branch, y(x.size(), NAN), d(x.size(), NAN);
    const Dropout dropout{{3, 4, 5}, 0.4};
    run({}, DropoutAddForward{flat(base), flat(added), dropout, flat(y)});
    run({}, DropoutBackward{flat(added), dropout, flat(d)});
    append(y, d);
    return y;
  });
}

TEST(Threads, Activation) {
  expect_same_bits([] {
    std::vector<float> x = sample(1, 50001), dy = sample(2, 50001), y(x.size(), NAN), dx(x.size(), NAN);
    run({}, ActivationForward{flat(x), flat(y)});
    run({}, ActivationBackward{flat(dy), flat(x), flat(dx)});
    append(y, dx);
    return y;
  });
}

TEST(Threads, CausalConvolution) {
  expect_same_bits([] {
    std::vector<float> x = sample(1, kRows * kWidth), dy = sample(2, kRows * kWidth), y(x.size(), NAN),
                       w = sample(3, kConvolutionTaps * kWidth), dw(w.size());
    Arena scratch({}, causal_convolution_scratch_bytes({}, kRows, kWidth));
    const Tensor taps = matrix(w, kConvolutionTaps, kWidth), rows = matrix(x, kRows, kWidth);
    run({}, CausalConvolutionForward{rows, taps, 43, matrix(y, kRows, kWidth)});
    run({{}, &scratch}, CausalConvolutionBackward{matrix(dy, kRows, kWidth), taps, 43, rows,
                                                  matrix(dw, kConvolutionTaps, kWidth)});
    append(y, x);
    append(y, dw);
    return y;
  });
}

TEST(Threads, LayerNorm) {
  expect_same_bits([] {
    std::vector<float> x = sample(1, kRows * kWidth), dy = sample(2, kRows * kWidth), y(x.size(), NAN),
                       dx(x.size());
    std::vector<float> gain = sample(3, kWidth), bias = sample(4, kWidth), dgain(kWidth), dbias(kWidth);
    std::vector<float> mean(kRows, NAN), rstd(kRows, NAN);
    Arena scratch({}, layer_norm_backward_scratch_bytes({}, kRows, kWidth));
    run({}, LayerNormForward{matrix(x, kRows, kWidth), flat(gain), flat(bias), 1e-5f,
                             matrix(y, kRows, kWidth), flat(mean), flat(rstd)});
    run({{}, &scratch},
        LayerNormBackward{matrix(dy, kRows, kWidth), matrix(x, kRows, kWidth), flat(gain), flat(mean),
                          flat(rstd), matrix(dx, kRows, kWidth), flat(dgain), flat(dbias)});
    for (const auto& part : {mean, rstd, dx, dgain, dbias}) append(y, part);
    return y;
  });
}

TEST(Threads, Residual) {
  expect_same_bits([] {
    std::vector<float> x = sample(1, kRows * kWidth), dx = sample(2, kRows * kWidth);
    std::vector<Bf16> branch, dy, dbranch(x.size());
    for (float value : sample(3, kRows * kWidth)) branch.emplace_back(value), dy.emplace_back(-value);
    std::vector<Bf16> normed(x.size());
    std::vector<float> gain = sample(4, kWidth), bias = sample(5, kWidth), dgain(kWidth), dbias(kWidth);
    std::vector<float> y(x.size(), NAN), mean(kRows, NAN), rstd(kRows, NAN);
    const Dropout dropout{{3, 4, 5}, 0.4};
    run({}, ResidualForward{matrix(x, kRows, kWidth), matrix(branch, kRows, kWidth), dropout, flat(gain),
                            flat(bias), 1e-5f, matrix(y, kRows, kWidth), matrix(normed, kRows, kWidth),
                            flat(mean), flat(rstd)});
    Arena scratch({}, layer_norm_backward_scratch_bytes({}, kRows, kWidth));
    run({{}, &scratch}, ResidualBackward{matrix(dy, kRows, kWidth), matrix(y, kRows, kWidth), flat(gain),
                                         flat(mean), flat(rstd), matrix(dx, kRows, kWidth), flat(dgain),
                                         flat(dbias), dropout, matrix(dbranch, kRows, kWidth)});
    for (const auto& part : {mean, rstd, dx, dgain, dbias}) append(y, part);
    for (size_t i = 0; i < normed.size(); ++i) {
      y.push_back(static_cast<float>(normed[i]));
      y.push_back(static_cast<float>(dbranch[i]));
    }
    return y;
  });
}

TEST(Threads, CrossEntropy) {
  expect_same_bits([] {
    std::vector<float> logits = sample(1, kRows * kWidth), loss(kRows, NAN), d(logits.size(), NAN);
    std::vector<uint8_t> targets(kRows);
    for (int64_t i = 0; i < kRows; ++i) targets[i] = static_cast<uint8_t>(i % kWidth);
    run({}, CrossEntropyBackward{matrix(logits, kRows, kWidth), flat(targets), 0.1f, flat(loss),
                                 matrix(d, kRows, kWidth)});
    append(d, loss);
    return d;
  });
}

TEST(Threads, Embedding) {
  expect_same_bits([] {
    std::vector<float> token(256 * kWidth), start(kWidth), axis(kRows * kWidth),
        dy = sample(1, kRows * kWidth);
    std::vector<uint8_t> tokens(kRows);
    for (int64_t i = 0; i < kRows; ++i) tokens[i] = static_cast<uint8_t>(i * i);
    const EmbeddingTables tables{matrix(token, 256, kWidth), flat(start), {matrix(axis, kRows, kWidth)}};
    run({}, EmbeddingBackward{matrix(tokens, 1, kRows), matrix(dy, kRows, kWidth), tables});
    append(token, start);
    append(token, axis);
    return token;
  });
}

TEST(Threads, AdamAndSumOfSquares) {
  expect_same_bits([] {
    std::vector<float> w = sample(1, 100003), g = sample(2, 100003), m(w.size()), v(w.size());
    run({}, AdamUpdate{{}, flat(w), flat(g), flat(m), flat(v), {}, {}});
    const double sum = sum_of_squares({}, flat(g));
    float halves[2];
    std::memcpy(halves, &sum, sizeof(sum));
    w.push_back(halves[0]);
    w.push_back(halves[1]);
    return w;
  });
}

TEST(Threads, LinearBias) {
  expect_same_bits([] {
    std::vector<float> dy = sample(1, kRows * kWidth), x = sample(2, kRows), dw(kWidth), db(kWidth);
    run({}, LinearBackwardWeight{matrix(dy, kRows, kWidth), matrix(x, kRows, 1), DType::f32,
                                 matrix(dw, kWidth, 1), flat(db)});
    return db;
  });
  expect_same_bits([] {
    std::vector<Bf16> dy, x;
    for (float value : sample(1, kRows * kWidth)) dy.emplace_back(value);
    for (float value : sample(2, kRows)) x.emplace_back(value);
    std::vector<float> dw(kWidth), db(kWidth);
    Arena scratch({}, linear_scratch_bytes({}, kRows, 1, kWidth, DType::bf16, DType::bf16));
    run({{}, &scratch}, LinearBackwardWeight{matrix(dy, kRows, kWidth), matrix(x, kRows, 1), DType::bf16,
                                             matrix(dw, kWidth, 1), flat(db)});
    return db;
  });
}

// As in steps of sampling: each row as if it were alone, which is a product of few rows.
TEST(Threads, LinearOfEachRow) {
  const int64_t in = 301, out = 405, most = 19;
  std::vector<float> x = sample(1, most * in), w = sample(2, in * out), b = sample(3, out), scales(out);
  std::vector<Bf16> half(w.begin(), w.end());
  std::vector<int8_t> values(w.size());
  const QuantizedMatrix quantized{matrix(values, out, in), flat(scales)};
  run({}, Quantize{matrix(w, out, in), quantized});
  Arena scratch({}, linear_scratch_bytes({}, most, in, out, DType::bf16));
  LinearEachRow* const each_row = nullptr;  // only their types are used
  LinearForward* const forward = nullptr;
  const auto products = [&]<class Linear>(int64_t first, int64_t rows, Linear*) {
    const Tensor from = matrix(x, most, in).rows(first, first + rows);
    std::vector<float> y(3 * rows * out, NAN);
    const Tensor to = matrix(y, 3 * rows, out);
    run({}, Linear{from, matrix(w, out, in), flat(b), to.rows(0, rows)});
    run({{}, &scratch}, Linear{from, matrix(half, out, in), flat(b), to.rows(rows, 2 * rows)});
    run({}, QuantizedLinearForward{from, quantized, flat(b), to.rows(2 * rows, 3 * rows)});
    return y;
  };
  for (const int64_t rows : {int64_t{7}, int64_t{8}, most}) {
    expect_same_bits([&] { return products(0, rows, each_row); });
    const std::vector<float> all = products(0, rows, each_row);
    for (int64_t row = 0; row < rows; ++row) {
      const std::vector<float> alone = products(row, 1, forward);
      for (int64_t kind = 0; kind < 3; ++kind)
        EXPECT_EQ(std::memcmp(&alone[kind * out], &all[(kind * rows + row) * out], out * sizeof(float)), 0)
            << row << " of " << rows;
    }
  }
}

TEST(Threads, AttentionOfOneQuery) {
  // Keys of more than two pieces.
  const int64_t n = 2500, heads = 3, width = 20;
  std::vector<float> q = sample(1, heads * width), k = sample(2, n * heads * width),
                     v = sample(3, n * heads * width);
  const verify::LayerCache cache(parse_schedule("dense").layer(0), n, {1, heads, width, width}, {},
                                 DType::f32, DType::f32);
  expect_same_bits([&] {
    std::vector<float> o(heads * width, NAN);
    run({}, StoreKeys{*cache, 0, 0, Tensor(k.data(), DType::f32, {n, heads, width}),
                      Tensor(v.data(), DType::f32, {n, heads, width})});
    run({}, AttentionOne{*cache, std::vector<int64_t>{n - 1}, Tensor(q.data(), DType::f32, {1, heads, width}),
                         0.3f, Tensor(o.data(), DType::f32, {1, heads, width})});
    return o;
  });
}

// After a change of the number of threads in the middle of a run, a product that was prepared for the old
// number must not be used.
TEST(Threads, LinearWorksAfterAChangeOfTheirNumber) {
  for (int count : {1, 4, 2, 0}) {
    set_threads(count);
    expect_all_pass(verify::check_linear({}, verify::Effort::quick));
  }
}

TEST(InstructionSets, AllAgreeWithTheReference) {
  const int64_t supported = hwy::SupportedTargets();
  int tried = 0;
  for (int64_t rest = supported; rest != 0; rest &= rest - 1) {
    const int64_t target = rest & -rest;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    SCOPED_TRACE(hwy::TargetName(target));
    for (const auto& check : {verify::check_activation, verify::check_layer_norm, verify::check_cross_entropy,
                              verify::check_dropout, verify::check_residual, verify::check_query_key,
                              verify::check_value_mix, verify::check_causal_convolution, verify::check_adam,
                              verify::check_linear, verify::check_quantized_linear})
      expect_all_pass(check({}, verify::Effort::quick));
    ++tried;
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  EXPECT_GE(tried, 1);
}

}  // namespace
}  // namespace longstride

// Attention through longstride.h, against its definition in double.
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <longstride/longstride.h>

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using testing::HasSubstr;

constexpr int64_t kBatch = 2, kHeads = 2, kWidth = 8, kValueWidth = 5;

// Values of an array, and the array.
struct Values {
  std::vector<float> values;
  std::array<int64_t, 4> shape;

  Values(int64_t positions, int64_t width, float seed)
      : values(static_cast<size_t>(kBatch * positions * kHeads * width)),
        shape{kBatch, positions, kHeads, width} {
    for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(seed * static_cast<float>(i + 1));
  }
  Array array() { return {.data = values.data(), .shape = shape}; }
  double at(int64_t b, int64_t n, int64_t h, int64_t d) const {
    return values[static_cast<size_t>(((b * shape[1] + n) * shape[2] + h) * shape[3] + d)];
  }
};

struct Problem {
  explicit Problem(int64_t n)
      : n(n),
        q(n, kWidth, 0.3f),
        k(n, kWidth, 0.7f),
        v(n, kValueWidth, 1.1f),
        o(n, kValueWidth, 0),
        lse(static_cast<size_t>(kBatch * kHeads * n)) {}
  AttentionArrays arrays() {
    return {.q = q.array(), .k = k.array(), .v = v.array(), .o = o.array(), .log_sum_exp = lse.data()};
  }
  int64_t n;
  Values q, k, v, o;
  std::vector<float> lse;
};

// o and the log-sum-exp of one query by definition.
std::vector<double> expected(const Problem& p, const Attention& attention, int64_t b, int64_t h,
                             int64_t query, double* lse) {
  std::vector<double> o(kValueWidth);
  double sum = 0;
  for (int64_t key = 0; key < p.n; ++key) {
    if (!attention.allows(h, query, key)) continue;
    double score = 0;
    for (int64_t d = 0; d < kWidth; ++d) score += p.q.at(b, query, h, d) * p.k.at(b, key, h, d);
    const double weight = std::exp(score / std::sqrt(static_cast<double>(kWidth)));
    sum += weight;
    for (int64_t d = 0; d < kValueWidth; ++d) o[static_cast<size_t>(d)] += weight * p.v.at(b, key, h, d);
  }
  for (double& value : o) value = sum > 0 ? value / sum : 0;
  *lse = std::log(sum);
  return o;
}

// The sum over all outputs, whose gradient is 1 everywhere.
double total(const Problem& p, const Attention& attention) {
  double sum = 0, lse = 0;
  for (int64_t b = 0; b < kBatch; ++b)
    for (int64_t h = 0; h < kHeads; ++h)
      for (int64_t query = 0; query < p.n; ++query)
        for (const double value : expected(p, attention, b, h, query, &lse)) sum += value;
  return sum;
}

TEST(FacadeAttention, IsWhatItsDefinitionSays) {
  for (const char* pattern : {"dense", "fixed:8,2", "window:5|stride:4", "summary:8,2"}) {
    for (const int64_t n : {1, 37}) {
      SCOPED_TRACE(pattern);
      const Attention attention(pattern, n, kHeads);
      Problem p(n);
      p.o.values.assign(p.o.values.size(), std::numeric_limits<float>::quiet_NaN());
      attention.forward(p.arrays());
      int64_t pairs = 0;
      for (int64_t b = 0; b < kBatch; ++b)
        for (int64_t h = 0; h < kHeads; ++h)
          for (int64_t query = 0; query < n; ++query) {
            double lse = 0;
            const std::vector<double> o = expected(p, attention, b, h, query, &lse);
            for (int64_t d = 0; d < kValueWidth; ++d)
              ASSERT_NEAR(p.o.at(b, query, h, d), o[static_cast<size_t>(d)], 1e-5);
            const float got = p.lse[static_cast<size_t>((b * kHeads + h) * n + query)];
            if (std::isinf(lse))
              ASSERT_EQ(got, -std::numeric_limits<float>::infinity());
            else
              ASSERT_NEAR(got, lse, 1e-5);
            for (int64_t key = 0; b == 0 && key < n; ++key) pairs += attention.allows(h, query, key) ? 1 : 0;
          }
      EXPECT_EQ(attention.pairs(), pairs);
    }
  }
}

TEST(FacadeAttention, GradientsAreThoseOfDifferences) {
  const Attention attention("fixed:8,2", 20, kHeads);
  Problem p(20);
  attention.forward(p.arrays());
  Values d_o(20, kValueWidth, 0), dq(20, kWidth, 1), dk(20, kWidth, 1), dv(20, kValueWidth, 1);
  d_o.values.assign(d_o.values.size(), 1);
  attention.backward(p.arrays(), d_o.array(), dq.array(), dk.array(), dv.array());
  const float step = 1e-2f;
  const auto check = [&](std::vector<float>& values, const std::vector<float>& gradient) {
    for (size_t i = 0; i < values.size(); i += 61) {
      const float before = values[i];
      values[i] = before + step;
      const double above = total(p, attention);
      values[i] = before - step;
      const double below = total(p, attention);
      values[i] = before;
      EXPECT_NEAR((above - below) / (2 * step), gradient[i], 1e-3);
    }
  };
  check(p.q.values, dq.values);
  check(p.k.values, dk.values);
  check(p.v.values, dv.values);
}

TEST(FacadeAttention, TakesHeadsBeforePositions) {
  constexpr int64_t kN = 21;
  const Attention attention("window:5|stride:4", kN, kHeads);
  Problem p(kN);
  attention.forward(p.arrays());
  // (batch, heads, positions, width) in memory
  const auto turned = [](const Values& from) {
    const auto [batch, positions, heads, width] = from.shape;
    std::vector<float> to(from.values.size());
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t n = 0; n < positions; ++n)
          for (int64_t d = 0; d < width; ++d)
            to[static_cast<size_t>(((b * heads + h) * positions + n) * width + d)] =
                static_cast<float>(from.at(b, n, h, d));
    return to;
  };
  const auto array = [](std::vector<float>& values, const Values& like) {
    const int64_t width = like.shape[3];
    return Array{
        .data = values.data(), .shape = like.shape, .stride = {kHeads * kN * width, width, kN * width, 1}};
  };
  std::vector<float> q = turned(p.q), k = turned(p.k), v = turned(p.v), o(p.o.values.size());
  std::vector<float> d_o(o.size(), 1), dq(q.size()), dk(k.size()), dv(v.size());
  const AttentionArrays arrays{.q = array(q, p.q),
                               .k = array(k, p.k),
                               .v = array(v, p.v),
                               .o = array(o, p.o),
                               .log_sum_exp = p.lse.data()};
  attention.forward(arrays);
  EXPECT_EQ(o, turned(p.o));
  attention.backward(arrays, array(d_o, p.o), array(dq, p.q), array(dk, p.k), array(dv, p.v));
  Values ones(kN, kValueWidth, 0), plain_dq(kN, kWidth, 0), plain_dk(kN, kWidth, 0),
      plain_dv(kN, kValueWidth, 0);
  ones.values.assign(ones.values.size(), 1);
  attention.backward(p.arrays(), ones.array(), plain_dq.array(), plain_dk.array(), plain_dv.array());
  EXPECT_EQ(dq, turned(plain_dq));
  EXPECT_EQ(dk, turned(plain_dk));
  EXPECT_EQ(dv, turned(plain_dv));
}

TEST(FacadeAttention, DoesWithoutLogSumExpAndTakesAScale) {
  const Attention attention("dense", 9, kHeads);
  Problem p(9);
  AttentionArrays arrays = p.arrays();
  attention.forward(arrays);
  const std::vector<float> plain = p.o.values;
  arrays.log_sum_exp = nullptr;
  arrays.scale = 1 / std::sqrt(static_cast<float>(kWidth));
  attention.forward(arrays);
  EXPECT_EQ(p.o.values, plain);
  arrays.scale = 2;
  attention.forward(arrays);
  EXPECT_NE(p.o.values, plain);
}

TEST(FacadeAttention, RefusesArraysThatDoNotFit) {
  const Attention attention("dense", 9, kHeads);
  Problem p(9), longer(10);
  const auto refusal = [&](auto change) {
    AttentionArrays arrays = p.arrays();
    change(arrays);
    return message_of<Error>([&] { attention.forward(arrays); });
  };
  EXPECT_THAT(refusal([](auto& a) { a.q.type = a.k.type = a.v.type = a.o.type = ElementType::f16; }),
              HasSubstr("f16"));
  EXPECT_THAT(refusal([](auto& a) { a.k.type = ElementType::bf16; }), HasSubstr("k is bf16"));
  EXPECT_THAT(refusal([](auto& a) { a.q.type = static_cast<ElementType>(9); }), HasSubstr("number 9"));
  EXPECT_THAT(refusal([](auto& a) { a.k.shape[3] = 4; }),
              HasSubstr("k is f32 (2, 9, 2, 4), must be f32 (2, 9, 2, 8)"));
  EXPECT_THAT(refusal([](auto& a) { a.v.shape[2] = 1; }), HasSubstr("v is f32 (2, 9, 1, 5)"));
  EXPECT_THAT(refusal([](auto& a) { a.o.shape[3] = 8; }), HasSubstr("o is f32"));
  EXPECT_THAT(refusal([](auto& a) { a.q.shape[2] = a.k.shape[2] = a.v.shape[2] = a.o.shape[2] = 1; }),
              HasSubstr("2 heads"));
  EXPECT_THAT(refusal([&](auto& a) { a = longer.arrays(); }), HasSubstr("9 positions"));
  EXPECT_THAT(refusal([](auto& a) { a.q.shape[0] = 0; }), HasSubstr("must be positive"));
  EXPECT_THAT(refusal([](auto& a) { a.q.shape[0] = INT64_MAX; }), HasSubstr("must be positive"));
  EXPECT_THAT(refusal([](auto& a) { a.v.data = nullptr; }), HasSubstr("v has no memory"));
  EXPECT_THAT(refusal([](auto& a) { a.q.stride = {144, 16, -8, 1}; }), HasSubstr("strides"));
  EXPECT_THAT(refusal([](auto& a) { a.q.stride = {288, 32, 16, 2}; }), HasSubstr("must be 1"));
  EXPECT_THAT(refusal([](auto& a) { a.scale = 0.0f; }), HasSubstr("scale is 0"));
  EXPECT_THAT(refusal([](auto& a) { a.scale = std::nanf(""); }), HasSubstr("scale"));

  Values d_o(9, kValueWidth, 1), dq(9, kWidth, 1), dk(9, kWidth, 1), dv(9, kValueWidth, 1), wrong(9, 3, 1);
  AttentionArrays arrays = p.arrays();
  EXPECT_THAT(message_of<Error>(
                  [&] { attention.backward(arrays, d_o.array(), dq.array(), wrong.array(), dv.array()); }),
              HasSubstr("dk is"));
  arrays.log_sum_exp = nullptr;
  EXPECT_THAT(
      message_of<Error>([&] { attention.backward(arrays, d_o.array(), dq.array(), dk.array(), dv.array()); }),
      HasSubstr("log_sum_exp"));
}

TEST(FacadeAttention, RefusesPatternsThatAreNone) {
  const auto refusal = [](const char* pattern, int64_t positions = 9, int64_t heads = 2,
                          const char* device = "cpu") {
    return message_of<Error>([&] { Attention(pattern, positions, heads, device); });
  };
  EXPECT_THAT(refusal("dense+blok:3"), testing::AllOf(HasSubstr("unknown name 'blok', did you mean 'block'?"),
                                                      testing::EndsWith("\n  dense+blok:3\n        ^^^^")));
  EXPECT_THAT(refusal("window:x"), testing::EndsWith("\n  window:x\n         ^"));
  EXPECT_THAT(refusal("window:4+"), testing::EndsWith("\n  window:4+\n           ^"));
  EXPECT_THAT(refusal("window:4)"), testing::EndsWith("\n  window:4)\n          ^"));
  EXPECT_THAT(refusal("dense+fixed:4,9"), testing::EndsWith("\n  dense+fixed:4,9\n        ^^^^^^^^^"));
  EXPECT_THAT(refusal(""), HasSubstr("is empty"));
  // A text that no line could show has no line.
  EXPECT_THAT(refusal("a\nb"), testing::Not(HasSubstr("^")));
  EXPECT_THAT(refusal("dense,window:4"), HasSubstr("2 layers"));
  EXPECT_THAT(refusal("dense|window:2|window:3"), HasSubstr("2 heads cannot share 3 patterns"));
  EXPECT_THAT(refusal("dense", 0), HasSubstr("0 positions"));
  EXPECT_THAT(refusal("dense", 9, 0), HasSubstr("0 heads"));
  EXPECT_THAT(refusal("dense", 9, 2, "abacus"), HasSubstr("unknown device 'abacus'"));
  const Attention attention("dense", 9, 2);
  EXPECT_THAT(message_of<Error>([&] { attention.allows(2, 0, 0); }), HasSubstr("head 2 of 2"));
  EXPECT_THAT(message_of<Error>([&] { attention.allows(0, 9, 0); }), HasSubstr("9 positions"));
}

}  // namespace
}  // namespace longstride

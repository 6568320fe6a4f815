#include "longstride/ops/causal_convolution.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "longstride/ops/reference/causal_convolution.h"
#include "longstride/verify/checks.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

TEST(CausalConvolution, AgreesWithTheReference) {
  expect_all_pass(verify::check_causal_convolution({}, verify::Effort::thorough));
}

TEST(CausalConvolution, ReferenceGradientIsTheDerivative) {
  constexpr int64_t kSequences = 2, kPositions = 6, kWidth = 3, kCount = kSequences * kPositions * kWidth;
  const std::vector<double> x = normal_doubles(1, kCount), w = normal_doubles(2, kConvolutionTaps * kWidth),
                            dy = normal_doubles(3, kCount);
  const auto loss = [&](const std::vector<Complex>& rows, const std::vector<Complex>& taps) {
    std::vector<Complex> y(kCount);
    reference::causal_convolution_forward(rows.data(), taps.data(), kConvolutionTaps, kSequences, kPositions,
                                          kWidth, y.data());
    return dot(y, complexified(dy));
  };
  std::vector<double> dx(kCount), dw(w.size());
  reference::causal_convolution_backward(dy.data(), x.data(), w.data(), kConvolutionTaps, kSequences,
                                         kPositions, kWidth, dx.data(), dw.data());
  expect_near_all(dx, complex_step_gradient([&](const auto& at) { return loss(at, complexified(w)); }, x),
                  1e-13);
  expect_near_all(dw, complex_step_gradient([&](const auto& at) { return loss(complexified(x), at); }, w),
                  1e-13);
}

// Two sequences of three positions and one channel.
TEST(CausalConvolution, KnownValues) {
  std::vector<float> x{1, 2, 4, 8, 0, 1}, w{1, 10, 100, 1000}, y(6, NAN), dy{1, 0, 0, 0, 0, 1},
      dw{0, 0, 0, 5};
  run({}, CausalConvolutionForward{matrix(x, 6, 1), matrix(w, 4, 1), 3, matrix(y, 6, 1)});
  EXPECT_THAT(y, testing::ElementsAre(2, 14, 128, 16, 80, 802));
  Arena scratch({}, causal_convolution_scratch_bytes({}, 6, 1));
  run({{}, &scratch},
      CausalConvolutionBackward{matrix(dy, 6, 1), matrix(w, 4, 1), 3, matrix(x, 6, 1), matrix(dw, 4, 1)});
  EXPECT_THAT(x, testing::ElementsAre(2, 0, 0, 100, 10, 2));
  EXPECT_THAT(dw, testing::ElementsAre(2, 0, 8, 5));
}

// A number that is not finite stays in its sequence, and does not reach earlier positions.
TEST(CausalConvolution, SequencesDoNotMeet) {
  const float bad = std::numeric_limits<float>::infinity();
  std::vector<float> x{1, 1, 1, bad, 1, 1, 1, 1}, w(4), y(8, NAN), dy{1, 1, 1, 1, bad, 1, 1, 1}, dw(4);
  run({}, CausalConvolutionForward{matrix(x, 8, 1), matrix(w, 4, 1), 4, matrix(y, 8, 1)});
  for (const int at : {0, 1, 2, 4, 5, 6, 7}) EXPECT_EQ(y[at], 1) << at;
  std::fill(x.begin(), x.end(), 1.0f);
  Arena scratch({}, causal_convolution_scratch_bytes({}, 8, 1));
  run({{}, &scratch},
      CausalConvolutionBackward{matrix(dy, 8, 1), matrix(w, 4, 1), 4, matrix(x, 8, 1), matrix(dw, 4, 1)});
  for (const int at : {0, 1, 2, 3, 5, 6, 7}) EXPECT_EQ(x[at], 1) << at;
}

TEST(CausalConvolution, RefusesWrongTensors) {
  std::vector<float> x(12), y(12), w(8);
  const auto message = [&](const Tensor& from, const Tensor& taps, int64_t positions, const Tensor& to) {
    return error_of([&] { run({}, CausalConvolutionForward{from, taps, positions, to}); });
  };
  EXPECT_THAT(message(matrix(x, 6, 2), matrix(w, 4, 2), 4, matrix(y, 6, 2)),
              testing::HasSubstr("6 rows are no whole sequences of 4 positions"));
  EXPECT_THAT(message(matrix(x, 6, 2), matrix(w, 2, 4), 3, matrix(y, 6, 2)),
              testing::HasSubstr("w is f32 (2, 4), must be f32 (4, 2)"));
  EXPECT_THAT(message(matrix(x, 6, 2), matrix(w, 4, 2), 3, matrix(x, 6, 2)),
              testing::HasSubstr("y may not be x"));
  EXPECT_THAT(message(matrix(x, 6, 2), matrix(w, 4, 2), 3, matrix(y, 4, 3)),
              testing::HasSubstr("y is f32 (4, 3), must be f32 (6, 2)"));
}

}  // namespace
}  // namespace longstride

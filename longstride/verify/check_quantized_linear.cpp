#include <algorithm>
#include <cmath>

#include "longstride/ops/quantized_linear.h"
#include "longstride/ops/reference/linear.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

struct Case {
  int64_t m, k, n;
  int64_t padding;  // columns beside the rows of x and y
  bool bias;
};

// The product with the values that the eight bits mean, so that only the arithmetic is judged.
template <class T>
std::vector<T> run_reference(const Case& c, const Floats& x, const std::vector<int8_t>& values,
                             const Floats& scales, const Floats& b) {
  std::vector<T> w;
  for (int64_t i = 0; i < c.n * c.k; ++i) w.push_back(static_cast<T>(scales[i / c.k]) * values[i]);
  const std::vector<T> as_x(x.begin(), x.end()), as_b(b.begin(), b.end());
  std::vector<T> y(c.m * c.n);
  reference::linear_forward(as_x.data(), w.data(), c.bias ? as_b.data() : nullptr, c.m, c.k, c.n, y.data());
  return y;
}

void check_case(Device device, const Case& c, CheckList& list) {
  const std::string name = fmt::format("M {} K {} N {}{}{}", c.m, c.k, c.n, c.padding ? ", strided" : "",
                                       c.bias ? "" : ", no bias");
  Floats weights = normal_values(2, c.n * c.k);
  std::fill_n(weights.begin() + (c.n - 1) * c.k, c.k, 0.0f);  // a row without a scale
  const Floats x = normal_values(1, c.m * c.k), b = normal_values(3, c.n);
  Workbench bench(device);
  const Tensor w = bench.put(weights, {c.n, c.k});
  const QuantizedMatrix q{bench.poisoned(DType::i8, {c.n, c.k}), bench.poisoned(DType::f32, {c.n})};
  run(bench.context(), Quantize{w, q});
  std::vector<int8_t> values(c.n * c.k);
  copy(q.values, Tensor(values.data(), DType::i8, {c.n * c.k}));
  const Floats scales = bench.get(q.scales);

  // Rounding to the nearest is wrong by half a step at most.
  double worst = 0;
  for (int64_t i = 0; i < c.n * c.k; ++i) {
    const double scale = scales[i / c.k], wrong = std::abs(scale * values[i] - weights[i]);
    worst = std::max(worst, scale > 0 ? wrong / scale : wrong == 0 ? 0 : INFINITY);
  }
  list.require("quantize rounds to the nearest, " + name, worst <= 0.5 + 1e-5);
  for (const DType dtype : stored_dtypes(device)) {
    const Tensor back = bench.poisoned(dtype, {c.n, c.k});
    run(bench.context(), Dequantize{q, back});
    Floats expected;
    for (int64_t i = 0; i < c.n * c.k; ++i)
      expected.push_back(scales[i / c.k] * static_cast<float>(values[i]));
    list.same_bits(fmt::format("dequantize to {}, {}", name_of(dtype), name), bench.get(back),
                   as_stored(expected, dtype));
  }

  const auto product = [&](int64_t first = 0) {
    const Tensor y = bench.poisoned_rows(DType::f32, c.m - first, c.n, c.padding);
    const Floats some(x.begin() + first * c.k, x.end());
    run(bench.context(), QuantizedLinearForward{bench.put_rows(some, c.m - first, c.k, c.padding), q,
                                                c.bias ? bench.put(b, {c.n}) : Tensor(), y});
    list.require("quantized linear writes its columns alone, " + name, bench.padding_is_intact(y, c.padding));
    return bench.get(y);
  };
  const Floats ours = product();
  list.compare("quantized linear y, " + name, ours, run_reference<float>(c, x, values, scales, b),
               run_reference<double>(c, x, values, scales, b));
  list.same_bits("quantized linear y twice, " + name, ours, product());
  list.same_bits("quantized linear y of the last row alone, " + name,
                 std::span(ours).last(static_cast<size_t>(c.n)), product(c.m - 1));
}

}  // namespace

std::vector<Check> check_quantized_linear(Device device, Effort effort) {
  CheckList list;
  check_case(device, {1, 64, 33, 0, true}, list);
  check_case(device, {3, 37, 9, 5, false}, list);
  if (effort == Effort::quick) return list.take();
  for (int64_t m : {1, 2, 4, 5, 7, 11})
    for (int64_t k : {1, 5, 63, 130, 513})
      for (int64_t n : {1, 3, 70}) check_case(device, {m, k, n, (m + k) % 2 == 0 ? 3 : 0, m != 4}, list);
  return list.take();
}

}  // namespace longstride::verify

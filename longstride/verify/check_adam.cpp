#include <bit>
#include <cmath>
#include <limits>

#include "longstride/ops/adam.h"
#include "longstride/ops/reference/adam.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

AdamStep sample_step(int64_t t) {
  AdamStep step;
  step.step = t;
  step.rate = 1e-2 / std::sqrt(static_cast<double>(t));
  step.decay = 0.1;
  step.ema = 0.9;
  step.gradient_scale = 0.25;
  return step;
}

template <class T>
struct State {
  std::vector<T> w, m, v, average;
};

template <class T>
void reference_step(const AdamStep& step, const Floats& g, State<T>& state) {
  const std::vector<T> gradient(g.begin(), g.end());
  reference::adam_step(step, static_cast<int64_t>(g.size()), state.w.data(), gradient.data(), state.m.data(),
                       state.v.data(), state.average.data());
}

void check_steps(Device device, int64_t count, int64_t steps, double deviation, DType copied,
                 CheckList& list) {
  const Floats start = normal_values(1, count);
  const Floats zeros(start.size());
  State<float> naive{start, zeros, zeros, start};
  State<double> truth{widened(start), widened(zeros), widened(zeros), widened(start)};
  Workbench bench(device), twin(device);
  const auto put = [&](Workbench& on, const Floats& values) { return on.put(values, {count}); };
  const Tensor w = put(bench, start), m = put(bench, zeros), v = put(bench, zeros),
               average = put(bench, start);
  const Tensor w2 = put(twin, start), m2 = put(twin, zeros), v2 = put(twin, zeros);
  const Tensor compute = bench.poisoned(copied, {count});
  for (int64_t t = 1; t <= steps; ++t) {
    const Floats g = normal_values(static_cast<uint32_t>(10 + t), count, deviation);
    reference_step(sample_step(t), g, naive);
    reference_step(sample_step(t), g, truth);
    run(bench.context(), AdamUpdate{sample_step(t), w, put(bench, g), m, v, average, compute});
    run(twin.context(), AdamUpdate{sample_step(t), w2, put(twin, g), m2, v2, {}, {}});
  }
  const std::string name =
      fmt::format("{}, count {}, {} steps, gradients of {}", name_of(copied), count, steps, deviation);
  list.compare("adam w, " + name, bench.get(w), naive.w, truth.w);
  list.compare("adam m, " + name, bench.get(m), naive.m, truth.m);
  list.compare("adam v, " + name, bench.get(v), naive.v, truth.v);
  list.compare("adam average, " + name, bench.get(average), naive.average, truth.average);
  list.same_bits("adam rounded copy, " + name, bench.get(compute), as_stored(bench.get(w), copied));
  list.same_bits("adam without average and copy, " + name, bench.get(w), twin.get(w2));
}

void check_sum_of_squares(Device device, int64_t count, CheckList& list) {
  const Floats x = normal_values(3, count, 100);
  double truth = 0;
  for (float value : x) truth += static_cast<double>(value) * value;
  Workbench bench(device);
  const double ours = sum_of_squares(bench.context(), bench.put(x, {count}));
  list.require(fmt::format("sum_of_squares, count {}", count), std::abs(ours - truth) <= 1e-12 * truth);
  Floats broken = x;
  broken[static_cast<size_t>(count / 2)] = std::numeric_limits<float>::quiet_NaN();
  list.require(fmt::format("sum_of_squares with NaN, count {}", count),
               !std::isfinite(sum_of_squares(bench.context(), bench.put(broken, {count}))));
}

// Replaces every NaN by the same one: there are many NaNs, and a conversion may give another one.
Floats with_one_nan(Floats values) {
  for (float& value : values)
    if (std::isnan(value)) value = std::numeric_limits<float>::quiet_NaN();
  return values;
}

// Bit patterns that are easily rounded wrongly (ties, carries into the exponent, overflow, subnormals, NaN),
// then all values of the upper half with a few lower halves.
void check_convert(Device device, Effort effort, CheckList& list) {
  Floats x;
  const uint32_t step = effort == Effort::quick ? 257 : 1;
  for (uint32_t upper = 0; upper < 0x10000u; upper += step)
    for (uint32_t lower : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      x.push_back(std::bit_cast<float>(upper << 16 | lower));
  const int64_t count = static_cast<int64_t>(x.size());
  for (DType source : stored_dtypes(device))
    for (DType target : stored_dtypes(device)) {
      Workbench bench(device);
      const Tensor to = bench.poisoned(target, {count});
      run(bench.context(), Convert{bench.put(x, {count}, source), to});
      list.same_bits(fmt::format("convert {} to {}", name_of(source), name_of(target)),
                     with_one_nan(bench.get(to)), with_one_nan(as_stored(as_stored(x, source), target)));
    }
}

}  // namespace

std::vector<Check> check_adam(Device device, Effort effort) {
  CheckList list;
  const std::vector<int64_t> counts =
      effort == Effort::quick ? std::vector<int64_t>{17} : std::vector<int64_t>{1, 5, 17, 500};
  for (int64_t count : counts)
    for (double deviation : {1.0, 1e-6, 1e4})
      for (DType copied : stored_dtypes(device))
        if (copied != DType::f32) check_steps(device, count, 50, deviation, copied, list);
  if (effort == Effort::thorough) check_steps(device, 40003, 3, 1.0, DType::bf16, list);
  const std::vector<int64_t> sizes = effort == Effort::quick
                                         ? std::vector<int64_t>{1, 20000}
                                         : std::vector<int64_t>{1, 3, 33, 16384, 16385, 300001};
  for (int64_t count : sizes) check_sum_of_squares(device, count, list);
  check_convert(device, effort, list);
  return list.take();
}

}  // namespace longstride::verify

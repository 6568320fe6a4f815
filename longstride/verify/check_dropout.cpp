#include <algorithm>
#include <cmath>
#include <cstring>

#include "longstride/ops/dropout.h"
#include "longstride/ops/reference/dropout.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

Dropout sample_dropout(double probability, uint32_t step, int64_t first = 0) {
  return {RandomStream{0x123456789abcdefull, random_stream::kDropout + 3, step}, probability, nullptr, first};
}

void check_case(Device device, int64_t count, double probability, DType dtype, CheckList& list) {
  // The first element is at the beginning of a Philox block, or inside one.
  const int64_t first = count % 2 == 0 ? 8 * count : (int64_t{1} << 33) + 13 * count;
  const Dropout dropout = sample_dropout(probability, static_cast<uint32_t>(count), first);
  const Floats x = normal_values(1, count), branch = as_stored(normal_values(2, count), dtype);
  const std::string name = fmt::format("{}, count {}, p {}", name_of(dtype), count, probability);
  Workbench bench(device);

  const Tensor base = bench.put(x, {count}), added = bench.put(branch, {count}, dtype);
  const Tensor y = bench.poisoned(DType::f32, {count});
  run(bench.context(), DropoutAddForward{base, added, dropout, y});
  Floats naive(x.size());
  Doubles truth(x.size());
  reference::dropout_add_forward(x.data(), branch.data(), dropout, count, naive.data());
  reference::dropout_add_forward(widened(x).data(), widened(branch).data(), dropout, count, truth.data());
  const Floats ours = bench.get(y);
  list.compare("dropout forward, " + name, ours, naive, truth);
  const Tensor target = dtype == DType::f32 ? added : base;
  run(bench.context(), DropoutAddForward{base, added, dropout, target});
  list.same_bits("dropout forward in place, " + name, ours, bench.get(target));

  const Floats dy = normal_values(3, count);
  const Tensor d_out = bench.put(dy, {count}), dbranch = bench.poisoned(dtype, {count});
  run(bench.context(), DropoutBackward{d_out, dropout, dbranch});
  reference::dropout_backward(dy.data(), dropout, count, naive.data());
  reference::dropout_backward(widened(dy).data(), dropout, count, truth.data());
  list.compare("dropout backward, " + name, bench.get(dbranch), as_stored(naive, dtype), truth);
  if (dtype == DType::f32) {
    const Floats apart = bench.get(dbranch);
    run(bench.context(), DropoutBackward{d_out, dropout, d_out});
    list.same_bits("dropout backward in place, " + name, apart, bench.get(d_out));
  }

  // The step may be in the device's memory, and memory may be unaligned.
  Workbench elsewhere(device, 0, 1);
  Bytes step(sizeof(uint32_t));
  std::memcpy(step.data(), &dropout.stream.step, step.size());
  Workbench aligned(device);
  Dropout replayed = dropout;
  replayed.stream.step = 77;
  replayed.step_from = static_cast<const uint32_t*>(aligned.put(step, {4}).data);
  const Tensor y_too = elsewhere.poisoned(DType::f32, {count}),
               dbranch_too = elsewhere.poisoned(dtype, {count});
  run(elsewhere.context(),
      DropoutAddForward{elsewhere.put(x, {count}), elsewhere.put(branch, {count}, dtype), replayed, y_too});
  run(elsewhere.context(), DropoutBackward{elsewhere.put(dy, {count}), replayed, dbranch_too});
  list.same_bits("dropout forward of a step in memory, " + name, ours, elsewhere.get(y_too));
  list.same_bits("dropout backward of a step in memory, " + name, bench.get(dbranch),
                 elsewhere.get(dbranch_too));

  // A gradient of ones shows the mask itself.
  const Tensor ones = bench.put(Floats(x.size(), 1.0f), {count});
  run(bench.context(), DropoutBackward{ones, dropout, dbranch});
  Floats expected(x.size());
  for (int64_t i = 0; i < count; ++i)
    expected[i] = dropout.keeps(static_cast<uint64_t>(i)) ? dropout.scale() : 0.0f;
  list.same_bits("dropout mask, " + name, as_stored(expected, dtype), bench.get(dbranch));
}

// A part of a batch has the same masks as in the whole, wherever it begins.
void check_parts(Device device, int64_t count, int64_t part, CheckList& list) {
  Workbench bench(device);
  const auto mask = [&](int64_t first, int64_t size) {
    const Tensor dy = bench.put(Floats(static_cast<size_t>(size), 1.0f), {size});
    run(bench.context(), DropoutBackward{dy, sample_dropout(0.3, 5, first), dy});
    return bench.get(dy);
  };
  const Floats whole = mask(0, count);
  Floats parts;
  for (int64_t first = 0; first < count; first += part) {
    const Floats one = mask(first, std::min(part, count - first));
    parts.insert(parts.end(), one.begin(), one.end());
  }
  list.same_bits(fmt::format("dropout mask of {} elements by {}", count, part), whole, parts);
}

// The share of dropped elements is within six standard deviations.
void check_rate(Device device, int64_t count, double probability, CheckList& list) {
  Workbench bench(device);
  const Tensor dy = bench.put(Floats(static_cast<size_t>(count), 1.0f), {count});
  run(bench.context(), DropoutBackward{dy, sample_dropout(probability, 0), dy});
  int64_t dropped = 0;
  for (float value : bench.get(dy)) dropped += value == 0;
  const double deviation = std::sqrt(probability * (1 - probability) / static_cast<double>(count));
  const double rate = static_cast<double>(dropped) / static_cast<double>(count);
  list.require(fmt::format("dropout rate {} for p {}", rate, probability),
               std::abs(rate - probability) <= 6 * deviation + 0x1p-17);
}

}  // namespace

std::vector<Check> check_dropout(Device device, Effort effort) {
  CheckList list;
  const bool quick = effort == Effort::quick;
  const std::vector<int64_t> counts =
      quick ? std::vector<int64_t>{1, 1001}
            : std::vector<int64_t>{1, 7, 8, 9, 127, 128, 129, 1001, 16384, 40003};
  for (int64_t count : counts)
    for (double probability : {0.0, 1e-4, 0.4, 0.999})
      for (DType dtype : stored_dtypes(device)) check_case(device, count, probability, dtype, list);
  for (const int64_t part : {8, 13, 200, 1000}) check_parts(device, 1001, part, list);
  for (double probability : {0.0, 0.1, 0.4, 0.999})
    check_rate(device, quick ? 20000 : 500000, probability, list);
  return list.take();
}

}  // namespace longstride::verify

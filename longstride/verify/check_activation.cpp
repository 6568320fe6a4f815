#include "longstride/ops/activation.h"
#include "longstride/ops/reference/activation.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

void check_case(Device device, int64_t count, double deviation, DType dtype, CheckList& list) {
  Floats x = normal_values(1, count, deviation);
  // Where the exponential overflows or vanishes, and zero.
  const Floats corners{0, 100, -100, 87, -87, 51.8f, -51.8f, 1e-30f, -1e-30f};
  for (size_t i = 0; i < corners.size() && static_cast<int64_t>(i) + 1 < count; ++i) x[i] = corners[i];
  x = as_stored(x, dtype);
  const Floats dy = as_stored(normal_values(2, count), dtype);

  Floats naive(x.size());
  Doubles truth(x.size());
  const std::string name = fmt::format("{}, count {}, deviation {}", name_of(dtype), count, deviation);
  const auto forward = [&](DType as) {
    Workbench bench(device);
    const Tensor y = bench.poisoned(as, {count});
    activation_forward(bench.context(), bench.put(x, {count}, as), y);
    return bench.get(y);
  };
  reference::activation_forward(x.data(), count, naive.data());
  reference::activation_forward(widened(x).data(), count, truth.data());
  const Floats y = forward(dtype);
  list.compare("activation forward, " + name, y, as_stored(naive, dtype), truth);
  list.same_bits("activation forward twice, " + name, y, forward(dtype));
  list.same_bits("activation forward rounds once, " + name, y, as_stored(forward(DType::f32), dtype));

  const auto backward = [&](DType as, bool in_place) {
    Workbench bench(device);
    const Tensor d_out = bench.put(dy, {count}, as);
    const Tensor dx = in_place ? d_out : bench.poisoned(as, {count});
    const Tensor again = bench.poisoned(as, {count});
    activation_backward(bench.context(), d_out, bench.put(x, {count}, as), dx, in_place ? again : Tensor());
    if (in_place) list.same_bits("activation of the backward, " + name, y, bench.get(again));
    return bench.get(dx);
  };
  reference::activation_backward(dy.data(), x.data(), count, naive.data());
  reference::activation_backward(widened(dy).data(), widened(x).data(), count, truth.data());
  const Floats dx = backward(dtype, false);
  list.compare("activation backward, " + name, dx, as_stored(naive, dtype), truth);
  list.same_bits("activation backward in place, " + name, dx, backward(dtype, true));
  list.same_bits("activation backward rounds once, " + name, dx,
                 as_stored(backward(DType::f32, false), dtype));
}

}  // namespace

std::vector<Check> check_activation(Device device, Effort effort) {
  CheckList list;
  const std::vector<int64_t> counts =
      effort == Effort::quick ? std::vector<int64_t>{1, 1000}
                              : std::vector<int64_t>{1, 2, 3, 5, 15, 16, 17, 33, 1000, 16384, 16385, 40003};
  for (int64_t count : counts)
    for (double deviation : {1.0, 1e-3, 10.0})
      for (DType dtype : {DType::f32, DType::bf16}) check_case(device, count, deviation, dtype, list);
  return list.take();
}

}  // namespace longstride::verify

#include "longstride/ops/activation.h"
#include "longstride/ops/reference/activation.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

void check_case(Device device, int64_t count, double deviation, CheckList& list) {
  Floats x = normal_values(1, count, deviation);
  // Where the exponential overflows or vanishes, and zero.
  const Floats corners{0, 100, -100, 87, -87, 51.8f, -51.8f, 1e-30f, -1e-30f};
  for (size_t i = 0; i < corners.size() && static_cast<int64_t>(i) + 1 < count; ++i) x[i] = corners[i];
  const Floats dy = normal_values(2, count);

  Floats naive(x.size());
  Doubles truth(x.size());
  const std::string name = fmt::format("count {}, deviation {}", count, deviation);
  const auto forward = [&] {
    Workbench bench(device);
    const Tensor y = bench.poisoned(DType::f32, {count});
    activation_forward(bench.context(), bench.put(x, {count}), y);
    return bench.get(y);
  };
  reference::activation_forward(x.data(), count, naive.data());
  reference::activation_forward(widened(x).data(), count, truth.data());
  const Floats y = forward();
  list.compare("activation forward, " + name, y, naive, truth);
  list.same_bits("activation forward twice, " + name, y, forward());

  const auto backward = [&](bool in_place) {
    Workbench bench(device);
    const Tensor d_out = bench.put(dy, {count});
    const Tensor dx = in_place ? d_out : bench.poisoned(DType::f32, {count});
    activation_backward(bench.context(), d_out, bench.put(x, {count}), dx);
    return bench.get(dx);
  };
  reference::activation_backward(dy.data(), x.data(), count, naive.data());
  reference::activation_backward(widened(dy).data(), widened(x).data(), count, truth.data());
  const Floats dx = backward(false);
  list.compare("activation backward, " + name, dx, naive, truth);
  list.same_bits("activation backward in place, " + name, dx, backward(true));
}

}  // namespace

std::vector<Check> check_activation(Device device, Effort effort) {
  CheckList list;
  const std::vector<int64_t> counts =
      effort == Effort::quick ? std::vector<int64_t>{1, 1000}
                              : std::vector<int64_t>{1, 2, 3, 5, 15, 16, 17, 33, 1000, 16384, 16385, 40003};
  for (int64_t count : counts)
    for (double deviation : {1.0, 1e-3, 10.0}) check_case(device, count, deviation, list);
  return list.take();
}

}  // namespace longstride::verify

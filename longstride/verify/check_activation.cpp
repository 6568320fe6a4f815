#include "longstride/ops/activation.h"
#include "longstride/ops/reference/activation.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

void check_case(Device device, int64_t count, double deviation, DType dtype, CheckList& list) {
  Floats x = normal_values(1, count, deviation);
  // Values at which the exponential overflows or vanishes, and zero.
  const Floats corners{0, 100, -100, 87, -87, 51.8f, -51.8f, 1e-30f, -1e-30f};
  for (size_t i = 0; i < corners.size() && static_cast<int64_t>(i) + 1 < count; ++i) x[i] = corners[i];
  x = as_stored(x, dtype);
  const Floats dy = as_stored(normal_values(2, count), dtype);

  Floats naive(x.size());
  Doubles truth(x.size());
  const std::string name = fmt::format("{}, count {}, deviation {}", name_of(dtype), count, deviation);
  const auto forward = [&](DType as, int64_t offset = 0) {
    Workbench bench(device, 0, offset);
    const Tensor y = bench.poisoned(as, {count});
    run(bench.context(), ActivationForward{bench.put(x, {count}, as), y});
    return bench.get(y);
  };
  reference::activation_forward(x.data(), count, naive.data());
  reference::activation_forward(widened(x).data(), count, truth.data());
  const Floats y = forward(dtype);
  list.compare("activation forward, " + name, y, as_stored(naive, dtype), truth);
  list.same_bits("activation forward twice, " + name, y, forward(dtype));
  list.same_bits("activation forward of unaligned memory, " + name, y, forward(dtype, 1));
  list.same_bits("activation forward rounds once, " + name, y, as_stored(forward(DType::f32), dtype));

  // In place, dx is written over dy. y is another tensor or, with over_x, x itself.
  enum class How { apart, in_place, over_x };
  const auto backward = [&](DType as, How how, int64_t offset = 0) {
    Workbench bench(device, 0, offset);
    const Tensor d_out = bench.put(dy, {count}, as), from = bench.put(x, {count}, as);
    const Tensor dx = how == How::apart ? bench.poisoned(as, {count}) : d_out;
    const Tensor again = how == How::over_x ? from : bench.poisoned(as, {count});
    run(bench.context(), ActivationBackward{d_out, from, dx, how == How::apart ? Tensor() : again});
    if (how != How::apart) list.same_bits("activation of the backward, " + name, y, bench.get(again));
    return bench.get(dx);
  };
  reference::activation_backward(dy.data(), x.data(), count, naive.data());
  reference::activation_backward(widened(dy).data(), widened(x).data(), count, truth.data());
  const Floats dx = backward(dtype, How::apart);
  list.compare("activation backward, " + name, dx, as_stored(naive, dtype), truth);
  list.same_bits("activation backward in place, " + name, dx, backward(dtype, How::in_place));
  list.same_bits("activation backward over x, " + name, dx, backward(dtype, How::over_x));
  list.same_bits("activation backward of unaligned memory, " + name, dx, backward(dtype, How::in_place, 1));
  list.same_bits("activation backward rounds once, " + name, dx,
                 as_stored(backward(DType::f32, How::apart), dtype));
}

}  // namespace

std::vector<Check> check_activation(Device device, Effort effort) {
  CheckList list;
  const std::vector<int64_t> counts =
      effort == Effort::quick ? std::vector<int64_t>{1, 1000}
                              : std::vector<int64_t>{1, 2, 3, 5, 15, 16, 17, 33, 1000, 16384, 16385, 40003};
  for (int64_t count : counts)
    for (double deviation : {1.0, 1e-3, 10.0})
      for (DType dtype : stored_dtypes(device)) check_case(device, count, deviation, dtype, list);
  return list.take();
}

}  // namespace longstride::verify

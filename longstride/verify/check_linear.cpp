#include <array>

#include "longstride/ops/linear.h"
#include "longstride/ops/reference/linear.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

struct Case {
  int64_t m, k, n;
  DType product, stored_x, stored_y;  // the last two are of x and dx, and of y and dy
  int64_t padding;                    // columns beside the rows of every matrix but w and dw
  bool bias;
};

struct Inputs {
  Floats x, w, b, dy, dw, db;  // gradients are added to dw and db
};

template <class T>
struct Results {
  std::vector<T> y, dx, dw, db;
};

// With 16-bit products the inputs are rounded first: rounding them is part of the op's contract, and its
// error would hide others. Sums of db are of dy as it is stored.
template <class T>
Results<T> run_reference(const Case& c, const Inputs& in) {
  const auto as = [](const Floats& values) { return std::vector<T>(values.begin(), values.end()); };
  const auto factor = [&](const Floats& values) { return as(as_stored(values, c.product)); };
  const std::vector<T> x = factor(in.x), w = factor(in.w), b = as(in.b), dy = factor(in.dy);
  Results<T> out{std::vector<T>(c.m * c.n), std::vector<T>(c.m * c.k), as(in.dw), as(in.db)};
  reference::linear_forward(x.data(), w.data(), c.bias ? b.data() : nullptr, c.m, c.k, c.n, out.y.data());
  reference::linear_backward_input(dy.data(), w.data(), c.m, c.k, c.n, out.dx.data());
  reference::linear_backward_weight(dy.data(), x.data(), c.m, c.k, c.n, out.dw.data());
  if (c.bias)
    reference::linear_backward_bias(as(as_stored(in.dy, c.stored_y)).data(), c.m, c.n, out.db.data());
  return out;
}

Results<float> run_ours(Device device, const Case& c, const Inputs& in, bool* padding_intact) {
  Workbench bench(device, linear_scratch_bytes(device, c.m, c.k, c.n, c.product,
                                               c.stored_x == c.stored_y ? c.stored_x : DType::f32));
  const Tensor x = bench.put_rows(in.x, c.m, c.k, c.padding, c.stored_x),
               dy = bench.put_rows(in.dy, c.m, c.n, c.padding, c.stored_y);
  const Tensor w = bench.put(in.w, {c.n, c.k}, c.product), dw = bench.put(in.dw, {c.n, c.k});
  const Tensor b = c.bias ? bench.put(in.b, {c.n}) : Tensor(), db = bench.put(in.db, {c.n});
  const Tensor y = bench.poisoned_rows(c.stored_y, c.m, c.n, c.padding);
  const Tensor dx = bench.poisoned_rows(c.stored_x, c.m, c.k, c.padding);
  run(bench.context(), LinearForward{x, w, b, y});
  run(bench.context(), LinearBackwardInput{dy, w, dx});
  run(bench.context(), LinearBackwardWeight{dy, x, c.product, dw, c.bias ? db : Tensor()});
  *padding_intact = bench.padding_is_intact(y, c.padding) && bench.padding_is_intact(dx, c.padding);
  return {bench.get(y), bench.get(dx), bench.get(dw), bench.get(db)};
}

void check_case(Device device, const Case& c, CheckList& list) {
  const Inputs in{normal_values(1, c.m * c.k), normal_values(2, c.n * c.k), normal_values(3, c.n),
                  normal_values(4, c.m * c.n), normal_values(5, c.n * c.k), normal_values(6, c.n)};
  const std::string name = fmt::format("{} of x {} y {}, M {} K {} N {}{}{}", name_of(c.product),
                                       name_of(c.stored_x), name_of(c.stored_y), c.m, c.k, c.n,
                                       c.padding ? ", strided" : "", c.bias ? "" : ", no bias");
  bool intact = false, intact_again = false;
  const Results<float> ours = run_ours(device, c, in, &intact),
                       again = run_ours(device, c, in, &intact_again);
  const Results<float> naive = run_reference<float>(c, in);
  const Results<double> truth = run_reference<double>(c, in);
  // The GPU adds a bias that was rounded to y's dtype, which costs up to one more rounding.
  double floor = 1e-6;
  if (device.kind == DeviceKind::cuda && c.bias)
    floor += c.stored_y == DType::bf16 ? 0x1p-9 : c.stored_y == DType::f16 ? 0x1p-12 : 0;
  list.compare("linear y, " + name, ours.y, as_stored(naive.y, c.stored_y), truth.y, floor);
  list.compare("linear dx, " + name, ours.dx, as_stored(naive.dx, c.stored_x), truth.dx);
  list.compare("linear dw, " + name, ours.dw, naive.dw, truth.dw);
  list.compare("linear db, " + name, ours.db, naive.db, truth.db);
  list.require("linear writes its columns alone, " + name, intact && intact_again);
  list.same_bits("linear y twice, " + name, ours.y, again.y);
  list.same_bits("linear dx twice, " + name, ours.dx, again.dx);
  list.same_bits("linear dw twice, " + name, ours.dw, again.dw);
  list.same_bits("linear db twice, " + name, ours.db, again.db);
}

}  // namespace

std::vector<Check> check_linear(Device device, Effort effort) {
  CheckList list;
  const DType f32 = DType::f32;
  std::vector<std::array<DType, 3>> dtypes{{f32, f32, f32}};
  for (DType half : stored_dtypes(device))
    if (half != f32) {
      const std::array<DType, 3> mixtures[] = {
          {half, f32, f32}, {half, half, half}, {half, f32, half}, {half, half, f32}};
      dtypes.insert(dtypes.end(), std::begin(mixtures), std::end(mixtures));
    }
  for (const auto& [product, in, out] : dtypes) {
    check_case(device, {17, 64, 33, product, in, out, 3, true}, list);
    check_case(device, {1, 32, 5, product, in, out, 0, false}, list);
    if (effort == Effort::quick) continue;
    for (int64_t m : {1, 3, 17, 130})
      for (int64_t k : {1, 2, 5, 64})
        for (int64_t n : {1, 3, 65}) {
          const bool strided = (m + k + n) % 2 == 0;
          check_case(device, {m, k, n, product, in, out, strided ? 7 : 0, m != 3}, list);
        }
    // The smallest numbers of rows have a product of their own.
    for (int64_t m : {2, 4, 5, 7, 8, 9})
      for (int64_t k : {37, 130, 513})
        for (int64_t n : {9, 70})
          check_case(device, {m, k, n, product, in, out, k == 37 ? 3 : 0, m != 7}, list);
    check_case(device, {130, 513, 257, product, in, out, 5, true}, list);
    check_case(device, {513, 130, 64, product, in, out, 0, false}, list);
    check_case(device, {300, 64, 512, product, in, out, 64, true}, list);
  }
  return list.take();
}

}  // namespace longstride::verify

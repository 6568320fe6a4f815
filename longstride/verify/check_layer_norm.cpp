#include <algorithm>
#include <cmath>

#include "longstride/ops/layer_norm.h"
#include "longstride/ops/reference/layer_norm.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

struct Kind {
  const char* name;
  double mean, deviation;
};

template <class T>
struct Results {
  std::vector<T> y, mean, rstd, dx, dgain, dbias;
};

constexpr float kEpsilon = 1e-5f;

struct Inputs {
  int64_t rows, width;
  DType dtype;                                 // of y and dy
  Floats x, gain, bias, dy, dx, dgain, dbias;  // gradients are added to the last three
};

template <class T>
Results<T> run_reference(const Inputs& in) {
  const auto as = [](const Floats& values) { return std::vector<T>(values.begin(), values.end()); };
  Results<T> out{as(in.x),    std::vector<T>(in.rows), std::vector<T>(in.rows), as(in.dx), as(in.dgain),
                 as(in.dbias)};
  reference::layer_norm_forward(as(in.x).data(), as(in.gain).data(), as(in.bias).data(), T(kEpsilon), in.rows,
                                in.width, out.y.data(), out.mean.data(), out.rstd.data());
  reference::layer_norm_backward(as(in.dy).data(), as(in.x).data(), as(in.gain).data(), out.mean.data(),
                                 out.rstd.data(), in.rows, in.width, out.dx.data(), out.dgain.data(),
                                 out.dbias.data());
  return out;
}

Results<float> run_ours(Device device, const Inputs& in, Floats* applied, int64_t offset = 0) {
  Workbench bench(device, layer_norm_backward_scratch_bytes(device, in.rows, in.width), offset);
  const auto matrix = [&](const Floats& values) { return bench.put(values, {in.rows, in.width}); };
  const Tensor x = matrix(in.x), gain = bench.put(in.gain, {in.width}), bias = bench.put(in.bias, {in.width});
  const Tensor y = bench.poisoned(in.dtype, {in.rows, in.width}),
               again = bench.poisoned(in.dtype, {in.rows, in.width});
  const Tensor mean = bench.poisoned(DType::f32, {in.rows}), rstd = bench.poisoned(DType::f32, {in.rows});
  run(bench.context(), LayerNormForward{x, gain, bias, kEpsilon, y, mean, rstd});
  run(bench.context(), LayerNormApply{x, gain, bias, mean, rstd, again});
  const Tensor dx = matrix(in.dx), dgain = bench.put(in.dgain, {in.width}),
               dbias = bench.put(in.dbias, {in.width});
  run(bench.context(), LayerNormBackward{bench.put(in.dy, {in.rows, in.width}, in.dtype), x, gain, mean, rstd,
                                         dx, dgain, dbias});
  *applied = bench.get(again);
  return {bench.get(y), bench.get(mean), bench.get(rstd), bench.get(dx), bench.get(dgain), bench.get(dbias)};
}

void check_case(Device device, const Kind& kind, int64_t rows, int64_t width, DType dtype, CheckList& list) {
  Inputs in{rows,
            width,
            dtype,
            normal_values(1, rows * width, kind.deviation, kind.mean),
            normal_values(2, width, 0.5, 1),
            normal_values(3, width),
            as_stored(normal_values(4, rows * width), dtype),
            normal_values(5, rows * width),
            normal_values(6, width),
            normal_values(7, width)};
  const std::string name = fmt::format("{}, {}, {} x {}", name_of(dtype), kind.name, rows, width);
  Floats applied, applied_again;
  // The same again with unaligned memory.
  const Results<float> ours = run_ours(device, in, &applied), again = run_ours(device, in, &applied_again, 1);
  const Results<float> naive = run_reference<float>(in);
  const Results<double> truth = run_reference<double>(in);
  // The mean is kept in f32, so the centred values lose up to half a unit in its last place.
  const double floor = 1e-6 + 1.2e-7 * kind.mean / std::max(kind.deviation, 1e-2);
  list.compare("layer_norm y, " + name, ours.y, as_stored(naive.y, dtype), truth.y, floor);
  // Values cancel in a mean, so its error is measured against theirs.
  double largest_value = 0, largest_mean = 1e-30;
  for (float x : in.x) largest_value = std::max(largest_value, std::abs(static_cast<double>(x)));
  for (double mean : truth.mean) largest_mean = std::max(largest_mean, std::abs(mean));
  list.compare("layer_norm mean, " + name, ours.mean, naive.mean, truth.mean,
               1e-6 + 0x1p-24 * largest_value / largest_mean);
  list.compare("layer_norm rstd, " + name, ours.rstd, naive.rstd, truth.rstd, floor);
  list.compare("layer_norm dx, " + name, ours.dx, naive.dx, truth.dx, floor);
  list.compare("layer_norm dgain, " + name, ours.dgain, naive.dgain, truth.dgain, floor);
  list.compare("layer_norm dbias, " + name, ours.dbias, naive.dbias, truth.dbias);
  if (dtype != DType::f32) {
    in.dtype = DType::f32;
    Floats unrounded;
    run_ours(device, in, &unrounded);
    list.same_bits("layer_norm y rounds once, " + name, ours.y, as_stored(unrounded, dtype));
  }
  list.same_bits("layer_norm_apply, " + name, ours.y, applied);
  list.same_bits("layer_norm y twice, " + name, ours.y, again.y);
  list.same_bits("layer_norm dx twice, " + name, ours.dx, again.dx);
  list.same_bits("layer_norm dgain twice, " + name, ours.dgain, again.dgain);
  list.same_bits("layer_norm dbias twice, " + name, ours.dbias, again.dbias);
}

}  // namespace

std::vector<Check> check_layer_norm(Device device, Effort effort) {
  CheckList list;
  const bool quick = effort == Effort::quick;
  const std::vector<int64_t> row_counts =
      quick ? std::vector<int64_t>{3} : std::vector<int64_t>{1, 3, 17, 130};
  const std::vector<int64_t> widths =
      quick ? std::vector<int64_t>{64, 513} : std::vector<int64_t>{1, 2, 5, 16, 31, 64, 100, 513};
  for (const Kind& kind : {Kind{"normal", 0, 1}, Kind{"small", 0, 1e-4}, Kind{"large", 0, 1e4},
                           Kind{"mean 1000", 1000, 1}, Kind{"constant rows", 3, 0}})
    for (int64_t rows : row_counts)
      for (int64_t width : widths)
        for (DType dtype : stored_dtypes(device)) check_case(device, kind, rows, width, dtype, list);
  if (quick) return list.take();
  check_case(device, {"normal", 0, 1}, 5000, 24, DType::f32, list);
  for (int64_t width : {512, 1000, 1024, 1100, 2048, 2052, 3000})
    for (DType dtype : stored_dtypes(device)) check_case(device, {"mean 10", 10, 1}, 21, width, dtype, list);
  return list.take();
}

}  // namespace longstride::verify

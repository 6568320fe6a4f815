#include "longstride/ops/layer_norm.h"
#include "longstride/ops/reference/dropout.h"
#include "longstride/ops/reference/layer_norm.h"
#include "longstride/ops/residual.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

struct Case {
  int64_t rows, width;
  DType dtype;  // of what lies on branches
  Dropout dropout;
};

constexpr float kEpsilon = 1e-5f;

struct Inputs {
  Floats x, branch, gain, bias, dy, dx, dgain, dbias;  // gradients are added to the last three
};

template <class T>
struct Results {
  std::vector<T> y, normed, mean, rstd, dx, dgain, dbias, dbranch;
};

// The backward goes through the norm of the forward's y.
template <class T>
Results<T> run_reference(const Case& c, const Inputs& in) {
  const auto as = [](const Floats& values) { return std::vector<T>(values.begin(), values.end()); };
  const int64_t count = c.rows * c.width;
  Results<T> out{
      std::vector<T>(count), std::vector<T>(count), std::vector<T>(c.rows), std::vector<T>(c.rows), as(in.dx),
      as(in.dgain),          as(in.dbias),          std::vector<T>(count)};
  reference::dropout_add_forward(as(in.x).data(), as(in.branch).data(), c.dropout, count, out.y.data());
  reference::layer_norm_forward(out.y.data(), as(in.gain).data(), as(in.bias).data(), T(kEpsilon), c.rows,
                                c.width, out.normed.data(), out.mean.data(), out.rstd.data());
  reference::layer_norm_backward(as(in.dy).data(), out.y.data(), as(in.gain).data(), out.mean.data(),
                                 out.rstd.data(), c.rows, c.width, out.dx.data(), out.dgain.data(),
                                 out.dbias.data());
  reference::dropout_backward(out.dx.data(), c.dropout, count, out.dbranch.data());
  return out;
}

enum class How { fused, in_place, apart, unaligned };

Results<float> run_ours(Device device, const Case& c, const Inputs& in, How how) {
  Workbench bench(device, layer_norm_backward_scratch_bytes(device, c.rows, c.width),
                  how == How::unaligned ? 1 : 0);
  const bool in_place = how == How::in_place;
  const auto matrix = [&](const Floats& values, DType dtype) {
    return bench.put(values, {c.rows, c.width}, dtype);
  };
  const auto poisoned = [&](DType dtype) { return bench.poisoned(dtype, {c.rows, c.width}); };
  ResidualForward f;
  f.x = matrix(in.x, DType::f32), f.branch = matrix(in.branch, c.dtype), f.dropout = c.dropout;
  f.gain = bench.put(in.gain, {c.width}), f.bias = bench.put(in.bias, {c.width}), f.epsilon = kEpsilon;
  f.y = in_place ? f.x : poisoned(DType::f32), f.normed = in_place ? f.branch : poisoned(c.dtype);
  f.mean = bench.poisoned(DType::f32, {c.rows}), f.rstd = bench.poisoned(DType::f32, {c.rows});
  ResidualBackward b;
  b.dy = matrix(in.dy, c.dtype), b.x = f.y, b.gain = f.gain, b.mean = f.mean, b.rstd = f.rstd;
  b.dx = matrix(in.dx, DType::f32), b.dropout = c.dropout, b.dbranch = in_place ? b.dy : poisoned(c.dtype);
  b.dgain = bench.put(in.dgain, {c.width}), b.dbias = bench.put(in.dbias, {c.width});
  if (how == How::apart) {
    run(bench.context(), DropoutAddForward{f.x, f.branch, f.dropout, f.y});
    run(bench.context(), LayerNormForward{f.y, f.gain, f.bias, kEpsilon, f.normed, f.mean, f.rstd});
    run(bench.context(), LayerNormBackward{b.dy, b.x, b.gain, b.mean, b.rstd, b.dx, b.dgain, b.dbias});
    run(bench.context(), DropoutBackward{b.dx, b.dropout, b.dbranch});
  } else {
    run(bench.context(), f);
    run(bench.context(), b);
  }
  return {bench.get(f.y),  bench.get(f.normed), bench.get(f.mean),  bench.get(f.rstd),
          bench.get(b.dx), bench.get(b.dgain),  bench.get(b.dbias), bench.get(b.dbranch)};
}

void check_case(Device device, const Case& c, CheckList& list) {
  const int64_t count = c.rows * c.width;
  const Inputs in{normal_values(1, count),
                  as_stored(normal_values(2, count), c.dtype),
                  normal_values(3, c.width, 0.5, 1),
                  normal_values(4, c.width),
                  as_stored(normal_values(5, count), c.dtype),
                  normal_values(6, count),
                  normal_values(7, c.width),
                  normal_values(8, c.width)};
  const std::string name =
      fmt::format("{}, {} x {}, p {}", name_of(c.dtype), c.rows, c.width, c.dropout.probability);
  const Results<float> ours = run_ours(device, c, in, How::fused);
  const Results<float> naive = run_reference<float>(c, in);
  const Results<double> truth = run_reference<double>(c, in);
  list.compare("residual y, " + name, ours.y, naive.y, truth.y);
  list.compare("residual normed, " + name, ours.normed, as_stored(naive.normed, c.dtype), truth.normed);
  list.compare("residual mean, " + name, ours.mean, naive.mean, truth.mean);
  list.compare("residual rstd, " + name, ours.rstd, naive.rstd, truth.rstd);
  list.compare("residual dx, " + name, ours.dx, naive.dx, truth.dx);
  list.compare("residual dgain, " + name, ours.dgain, naive.dgain, truth.dgain);
  list.compare("residual dbias, " + name, ours.dbias, naive.dbias, truth.dbias);
  list.compare("residual dbranch, " + name, ours.dbranch, as_stored(naive.dbranch, c.dtype), truth.dbranch);
  for (const auto& [how, which] : {std::pair{How::fused, "twice"},
                                   {How::in_place, "in place"},
                                   {How::apart, "by two ops"},
                                   {How::unaligned, "in unaligned memory"}}) {
    const Results<float> again = run_ours(device, c, in, how);
    const auto same = [&, which = which](const char* what, const Floats& a, const Floats& b) {
      list.same_bits(fmt::format("residual {} {}, {}", what, which, name), a, b);
    };
    same("y", ours.y, again.y);
    same("normed", ours.normed, again.normed);
    same("mean", ours.mean, again.mean);
    same("rstd", ours.rstd, again.rstd);
    same("dx", ours.dx, again.dx);
    same("dgain", ours.dgain, again.dgain);
    same("dbias", ours.dbias, again.dbias);
    same("dbranch", ours.dbranch, again.dbranch);
  }
}

}  // namespace

std::vector<Check> check_residual(Device device, Effort effort) {
  CheckList list;
  const bool quick = effort == Effort::quick;
  const std::vector<int64_t> row_counts =
      quick ? std::vector<int64_t>{17} : std::vector<int64_t>{1, 8, 17, 130, 4100};
  const std::vector<int64_t> widths = quick ? std::vector<int64_t>{33} : std::vector<int64_t>{1, 5, 33, 512};
  for (int64_t rows : row_counts)
    for (int64_t width : widths) {
      if (rows * width > 100000) continue;
      for (double probability : {0.0, 0.3})
        for (DType dtype : stored_dtypes(device))
          check_case(device, {rows, width, dtype, {{0x123456789abcdefull, 4, 5}, probability}}, list);
    }
  if (quick) return list.take();
  for (int64_t width : {1000, 1100, 2052})
    for (DType dtype : stored_dtypes(device))
      check_case(device, {21, width, dtype, {{0x123456789abcdefull, 4, 5}, 0.3}}, list);
  return list.take();
}

}  // namespace longstride::verify

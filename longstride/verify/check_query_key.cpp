#include <algorithm>
#include <cmath>

#include "longstride/ops/query_key.h"
#include "longstride/ops/reference/query_key.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

struct Case {
  int64_t sequences, positions, heads, width;
  bool rotates, normalises;
  DType dtype;
  double deviation;

  int64_t rows() const { return sequences * positions; }
  int64_t columns() const { return 2 * heads * width; }
  std::string name() const {
    return fmt::format("{}, {} x {} positions, {} heads of {}{}{}, deviation {}", name_of(dtype), sequences,
                       positions, heads, width, rotates ? ", rotated" : "", normalises ? ", normalised" : "",
                       deviation);
  }
};

struct Inputs {
  Floats x, dy;
  Floats rotation;  // (positions, width): cosines, then sines
};

template <class T>
struct Results {
  std::vector<T> y, reciprocal_rms, dx;
};

// `stored`: the forward's result is rounded to this type before the backward pass reads it.
template <class T>
Results<T> run_reference(const Case& c, const Inputs& in, DType stored) {
  Results<T> out;
  out.dx.resize(c.rows() * c.columns());
  std::vector<Floats> turns;
  for (int64_t row = 0; row < c.rows(); ++row)
    for (int64_t head = 0; head < 2 * c.heads; ++head) {
      const int64_t at = row * c.columns() + head * c.width;
      const float* cosines = in.rotation.data() + row % c.positions * c.width;
      const float* sines = cosines + c.width / 2;
      std::vector<T> y(in.x.begin() + at, in.x.begin() + at + c.width);
      T reciprocal(1);
      if (c.normalises) {
        reciprocal = reference::head_norm_forward(y.data(), c.width, T(kQueryKeyEpsilon), y.data());
        out.reciprocal_rms.push_back(reciprocal);
      }
      if (c.rotates) reference::rotate(y.data(), c.width, cosines, sines, false);
      out.y.insert(out.y.end(), y.begin(), y.end());
      if (stored != DType::f32) {
        const Floats rounded = as_stored(Floats(y.begin(), y.end()), stored);
        y.assign(rounded.begin(), rounded.end());
      }
      std::vector<T> dx(in.dy.begin() + at, in.dy.begin() + at + c.width);
      if (c.rotates) {
        reference::rotate(y.data(), c.width, cosines, sines, true);
        reference::rotate(dx.data(), c.width, cosines, sines, true);
      }
      if (c.normalises) reference::head_norm_backward(dx.data(), y.data(), reciprocal, c.width, dx.data());
      std::copy(dx.begin(), dx.end(), out.dx.begin() + at);
    }
  return out;
}

enum class How { training, unaligned, one_by_one };

Results<float> run_ours(Device device, const Case& c, const Inputs& in, How how, CheckList& list) {
  // Values come after queries and keys, so rows are parts of wider ones.
  const int64_t padding = how == How::unaligned ? 3 : 16;
  Workbench bench(device, 0, how == How::unaligned ? 1 : 0);
  QueryKey t;
  t.heads = c.heads;
  t.x = bench.put_rows(in.x, c.rows(), c.columns(), padding, c.dtype);
  if (c.rotates) t.rotation = bench.put(in.rotation, {c.positions, c.width});
  if (c.normalises) t.reciprocal_rms = bench.poisoned(DType::f32, {c.rows(), 2 * c.heads});
  if (how == How::one_by_one) {
    std::vector<int64_t> positions(c.rows());
    for (int64_t row = 0; row < c.rows(); ++row) positions[row] = row % c.positions;
    run(bench.context(), QueryKeyAt{t, positions});
  } else {
    run(bench.context(), QueryKeyForward{t});
  }
  const Tensor dx = bench.put_rows(in.dy, c.rows(), c.columns(), padding, c.dtype);
  run(bench.context(), QueryKeyBackward{t, dx});
  list.require("query_key leaves what lies beside its rows, " + c.name(),
               bench.padding_is_intact(t.x, padding) && bench.padding_is_intact(dx, padding));
  return {bench.get(t.x), c.normalises ? bench.get(t.reciprocal_rms) : Floats{}, bench.get(dx)};
}

void check_case(Device device, const Case& c, CheckList& list) {
  Inputs in{as_stored(normal_values(1, c.rows() * c.columns(), c.deviation), c.dtype),
            as_stored(normal_values(2, c.rows() * c.columns()), c.dtype),
            {}};
  in.rotation.resize(c.positions * c.width);
  for (int64_t i = 0; i < c.positions; ++i)
    for (int64_t pair = 0; pair < c.width / 2; ++pair) {
      const double angle =
          static_cast<double>(i) * std::pow(100.0, -2.0 * static_cast<double>(pair) / c.width);
      in.rotation[i * c.width + pair] = static_cast<float>(std::cos(angle));
      in.rotation[i * c.width + c.width / 2 + pair] = static_cast<float>(std::sin(angle));
    }
  const Results<float> ours = run_ours(device, c, in, How::training, list);
  const Results<float> naive = run_reference<float>(c, in, c.dtype);
  const Results<double> truth = run_reference<double>(c, in, DType::f32);
  list.compare("query_key y, " + c.name(), ours.y, as_stored(naive.y, c.dtype), truth.y);
  list.compare("query_key reciprocal_rms, " + c.name(), ours.reciprocal_rms, naive.reciprocal_rms,
               truth.reciprocal_rms);
  const double floor = c.dtype == DType::bf16 ? 0x1p-9 : c.dtype == DType::f16 ? 0x1p-12 : 1e-6;
  list.compare("query_key dx, " + c.name(), ours.dx, as_stored(naive.dx, c.dtype), truth.dx, floor);

  const auto same = [&](const char* what, How how) {
    const Results<float> again = run_ours(device, c, in, how, list);
    list.same_bits(fmt::format("query_key y {}, {}", what, c.name()), ours.y, again.y);
    list.same_bits(fmt::format("query_key dx {}, {}", what, c.name()), ours.dx, again.dx);
  };
  same("of unaligned memory", How::unaligned);
  if (device.kind == DeviceKind::cpu) same("at given positions", How::one_by_one);
}

}  // namespace

std::vector<Check> check_query_key(Device device, Effort effort) {
  CheckList list;
  const auto add = [&](Case c) {
    for (const DType dtype : stored_dtypes(device)) {
      c.dtype = dtype;
      check_case(device, c, list);
    }
  };
  for (const auto& [rotates, normalises] : {std::pair{true, true}, {true, false}, {false, true}}) {
    add({2, 5, 2, 64, rotates, normalises, DType::f32, 1});
    if (effort == Effort::quick) continue;
    for (const int64_t width : {2, 6, 16, 34, 48, 128, 256, 600, 1100})
      add({2, 3, 3, width, rotates, normalises, DType::f32, 1});
    add({3, 70, 4, 32, rotates, normalises, DType::f32, 10});
    // Small enough for epsilon to show.
    add({1, 9, 2, 64, rotates, normalises, DType::f32, 1e-3});
  }
  if (effort == Effort::quick) return list.take();
  for (const int64_t width : {1, 3, 17, 65}) add({1, 4, 2, width, false, true, DType::f32, 1});
  return list.take();
}

}  // namespace longstride::verify

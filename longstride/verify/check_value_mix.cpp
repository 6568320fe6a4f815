#include "longstride/ops/reference/value_mix.h"
#include "longstride/ops/value_mix.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

struct Case {
  int64_t rows, width;
  float share;
  DType dtype;

  int64_t count() const { return rows * width; }
  std::string name() const {
    return fmt::format("{}, {} x {}, share {}", name_of(dtype), rows, width, share);
  }
};

// The forward of one block, the backward of two, and the gradient that these give the first block.
struct Inputs {
  Floats x, first, dy, dy_before, d_own;
};

template <class T>
struct Results {
  std::vector<T> y, kept, dx, dx_before, d_first, d_own;
};

template <class T>
Results<T> run_reference(const Case& c, const Inputs& in) {
  const auto as = [](const Floats& values) { return std::vector<T>(values.begin(), values.end()); };
  Results<T> out{as(in.x),    as(in.first), as(in.dy), as(in.dy_before), std::vector<T>(c.count()),
                 as(in.d_own)};
  reference::value_mix_forward(out.kept.data(), T(c.share), c.count(), out.y.data());
  reference::value_mix_backward(T(c.share), c.count(), out.dx.data(), out.d_first.data());
  reference::value_mix_backward(T(c.share), c.count(), out.dx_before.data(), out.d_first.data());
  for (int64_t i = 0; i < c.count(); ++i) out.d_own[i] += out.d_first[i];
  return out;
}

Results<float> run_ours(Device device, const Case& c, const Inputs& in, bool unaligned, CheckList& list) {
  // Queries and keys come before values, so rows are parts of wider ones.
  const int64_t padding = unaligned ? 3 : 16;
  Workbench bench(device, 0, unaligned ? 1 : 0);
  const auto rows_of = [&](const Floats& values) {
    return bench.put_rows(values, c.rows, c.width, padding, c.dtype);
  };
  const Tensor x = rows_of(in.x), first = rows_of(in.first), dx = rows_of(in.dy),
               dx_before = rows_of(in.dy_before), d_own = rows_of(in.d_own);
  const Tensor kept = bench.poisoned(c.dtype, {c.rows, c.width});
  const Tensor d_first = bench.poisoned(DType::f32, {c.rows, c.width});
  const OpContext context = bench.context();
  run(context, ValueMixKeep{first, kept});
  run(context, ValueMixForward{kept, c.share, x});
  run(context, ValueMixBackward{c.share, false, dx, d_first});
  run(context, ValueMixBackward{c.share, true, dx_before, d_first});
  run(context, ValueMixBackwardFirst{d_first, d_own});
  bool intact = true;
  for (const Tensor& t : {x, first, dx, dx_before, d_own})
    intact = intact && bench.padding_is_intact(t, padding);
  list.require("value_mix leaves what lies beside its rows, " + c.name(), intact);
  return {bench.get(x),         bench.get(kept),    bench.get(dx),
          bench.get(dx_before), bench.get(d_first), bench.get(d_own)};
}

void check_case(Device device, const Case& c, CheckList& list) {
  const auto values = [&](uint32_t which) { return as_stored(normal_values(which, c.count()), c.dtype); };
  const Inputs in{values(1), values(2), values(3), values(4), values(5)};
  const Results<float> ours = run_ours(device, c, in, false, list);
  const Results<float> naive = run_reference<float>(c, in);
  const Results<double> truth = run_reference<double>(c, in);
  list.compare("value_mix y, " + c.name(), ours.y, as_stored(naive.y, c.dtype), truth.y);
  list.same_bits("value_mix kept, " + c.name(), ours.kept, in.first);
  list.compare("value_mix dx, " + c.name(), ours.dx, as_stored(naive.dx, c.dtype), truth.dx);
  list.compare("value_mix dx of the block before, " + c.name(), ours.dx_before,
               as_stored(naive.dx_before, c.dtype), truth.dx_before);
  list.compare("value_mix d_first, " + c.name(), ours.d_first, naive.d_first, truth.d_first);
  list.compare("value_mix dx of the first block, " + c.name(), ours.d_own, as_stored(naive.d_own, c.dtype),
               truth.d_own);

  const Results<float> again = run_ours(device, c, in, true, list);
  list.same_bits("value_mix y of unaligned memory, " + c.name(), ours.y, again.y);
  list.same_bits("value_mix kept of unaligned memory, " + c.name(), ours.kept, again.kept);
  list.same_bits("value_mix dx of unaligned memory, " + c.name(), ours.dx_before, again.dx_before);
  list.same_bits("value_mix d_first of unaligned memory, " + c.name(), ours.d_first, again.d_first);
  list.same_bits("value_mix dx of the first block of unaligned memory, " + c.name(), ours.d_own, again.d_own);
}

}  // namespace

std::vector<Check> check_value_mix(Device device, Effort effort) {
  CheckList list;
  const bool quick = effort == Effort::quick;
  const std::vector<int64_t> widths =
      quick ? std::vector<int64_t>{40} : std::vector<int64_t>{1, 3, 8, 40, 130, 512, 2056, 2500};
  for (const DType dtype : stored_dtypes(device))
    for (const int64_t width : widths) {
      check_case(device, {17, width, 0.3f, dtype}, list);
      if (quick) continue;
      check_case(device, {1, width, 0.5f, dtype}, list);
      check_case(device, {70, width, 0.0f, dtype}, list);
    }
  return list.take();
}

}  // namespace longstride::verify

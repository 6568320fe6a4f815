#include <algorithm>

#include "longstride/ops/causal_convolution.h"
#include "longstride/ops/on_device.h"
#include "longstride/ops/reference/causal_convolution.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

struct Case {
  int64_t sequences, positions, width;
  DType dtype;

  int64_t rows() const { return sequences * positions; }
  int64_t count() const { return rows() * width; }
  std::string name() const {
    return fmt::format("{}, {} x {} x {}", name_of(dtype), sequences, positions, width);
  }
};

struct Inputs {
  Floats x, dy, w, dw;  // dw is accumulated into
};

template <class T>
struct Results {
  std::vector<T> y, dx, dw;
};

template <class T>
Results<T> run_reference(const Case& c, const Inputs& in) {
  const auto as = [](const Floats& values) { return std::vector<T>(values.begin(), values.end()); };
  Results<T> out{std::vector<T>(c.count()), std::vector<T>(c.count()), as(in.dw)};
  reference::causal_convolution_forward(as(in.x).data(), as(in.w).data(), kConvolutionTaps, c.sequences,
                                        c.positions, c.width, out.y.data());
  reference::causal_convolution_backward(as(in.dy).data(), as(in.x).data(), as(in.w).data(), kConvolutionTaps,
                                         c.sequences, c.positions, c.width, out.dx.data(), out.dw.data());
  return out;
}

Results<float> run_ours(Device device, const Case& c, const Inputs& in, bool unaligned) {
  Workbench bench(device, causal_convolution_scratch_bytes(device, c.rows(), c.width), unaligned ? 1 : 0);
  const auto matrix = [&](const Floats& values) { return bench.put(values, {c.rows(), c.width}, c.dtype); };
  const Tensor x = matrix(in.x), dy = matrix(in.dy), w = bench.put(in.w, {kConvolutionTaps, c.width}),
               dw = bench.put(in.dw, {kConvolutionTaps, c.width});
  const Tensor y = bench.poisoned(c.dtype, {c.rows(), c.width});
  run(bench.context(), CausalConvolutionForward{x, w, c.positions, y});
  run(bench.context(), CausalConvolutionBackward{dy, w, c.positions, x, dw});
  return {bench.get(y), bench.get(x), bench.get(dw)};
}

// One position after another, with the sequences in reverse order, so that row m does not belong to sequence
// m.
Floats run_stepwise(const Case& c, const Inputs& in) {
  Workbench bench({}, 0);
  const Tensor w = bench.put(in.w, {kConvolutionTaps, c.width}),
               recent = bench.poisoned(DType::f32, {c.sequences, kConvolutionTaps, c.width});
  Floats y(c.count());
  std::vector<int64_t> sequences, positions(c.sequences);
  for (int64_t s = c.sequences; s-- > 0;) sequences.push_back(s);
  for (int64_t position = 0; position < c.positions; ++position) {
    Floats rows;
    for (const int64_t s : sequences) {
      const auto from = in.x.begin() + (s * c.positions + position) * c.width;
      rows.insert(rows.end(), from, from + c.width);
    }
    positions.assign(c.sequences, position);
    const Tensor out = bench.poisoned(DType::f32, {c.sequences, c.width});
    run(bench.context(),
        CausalConvolutionAt{bench.put(rows, {c.sequences, c.width}), w, sequences, positions, recent, out});
    const Floats got = bench.get(out);
    for (int64_t m = 0; m < c.sequences; ++m)
      std::copy_n(got.begin() + m * c.width, c.width,
                  y.begin() + (sequences[m] * c.positions + position) * c.width);
  }
  return y;
}

void check_case(Device device, const Case& c, CheckList& list) {
  const Inputs in{
      as_stored(normal_values(1, c.count()), c.dtype), as_stored(normal_values(2, c.count()), c.dtype),
      normal_values(3, kConvolutionTaps * c.width, 0.5), normal_values(4, kConvolutionTaps * c.width)};
  const Results<float> ours = run_ours(device, c, in, false);
  const Results<float> naive = run_reference<float>(c, in);
  const Results<double> truth = run_reference<double>(c, in);
  list.compare("causal_convolution y, " + c.name(), ours.y, as_stored(naive.y, c.dtype), truth.y);
  list.compare("causal_convolution dx, " + c.name(), ours.dx, as_stored(naive.dx, c.dtype), truth.dx);
  list.compare("causal_convolution dw, " + c.name(), ours.dw, naive.dw, truth.dw);

  const Results<float> again = run_ours(device, c, in, true);
  list.same_bits("causal_convolution y of unaligned memory, " + c.name(), ours.y, again.y);
  list.same_bits("causal_convolution dx of unaligned memory, " + c.name(), ours.dx, again.dx);
  list.same_bits("causal_convolution dw of unaligned memory, " + c.name(), ours.dw, again.dw);
  if (!on_gpu(device) && c.dtype == DType::f32)
    list.same_bits("causal_convolution y one position after another, " + c.name(), ours.y,
                   run_stepwise(c, in));

  // With weights of zero, rows and gradients pass unchanged.
  Inputs none = in;
  std::fill(none.w.begin(), none.w.end(), 0.0f);
  const Results<float> plain = run_ours(device, c, none, false);
  list.same_bits("causal_convolution y of no weights, " + c.name(), plain.y, in.x);
  list.same_bits("causal_convolution dx of no weights, " + c.name(), plain.dx, in.dy);
}

}  // namespace

std::vector<Check> check_causal_convolution(Device device, Effort effort) {
  CheckList list;
  const bool quick = effort == Effort::quick;
  const std::vector<int64_t> widths =
      quick ? std::vector<int64_t>{40} : std::vector<int64_t>{1, 3, 8, 40, 130, 512, 2056};
  for (const DType dtype : stored_dtypes(device))
    for (const int64_t width : widths) {
      check_case(device, {3, 17, width, dtype}, list);
      if (quick) continue;
      for (const auto& [sequences, positions] : {std::pair{1, 1}, {5, 1}, {9, 2}, {6, 3}, {2, 4}, {1, 301}})
        check_case(device, {sequences, positions, width, dtype}, list);
    }
  // Stretches of rows that begin in the middle of sequences.
  if (!quick)
    for (const DType dtype : stored_dtypes(device)) check_case(device, {7, 701, 264, dtype}, list);
  return list.take();
}

}  // namespace longstride::verify

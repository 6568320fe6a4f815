// Compares Newton-Schulz and the step of Muon with the reference: matrices of both orientations, several of
// one shape and odd ones, clipping, loss scale, copies, and steps that must change nothing.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "longstride/ops/muon.h"
#include "longstride/ops/reference/adam.h"
#include "longstride/ops/reference/muon.h"
#include "longstride/ops/update.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

struct Shape {
  int64_t rows, columns;
  int64_t count() const { return rows * columns; }
};

// The form in which the naive computation keeps values between products.
auto stored_as(DType dtype) {
  return [dtype](float value) { return as_stored({value}, dtype)[0]; };
}
double exact(double value) { return value; }

// The rounding of X leaves errors in its smallest singular values, which the steps multiply by up to 485.
double floor_of(DType dtype) { return dtype == DType::f32 ? 3e-5 : dtype == DType::f16 ? 3e-3 : 2e-2; }

// For matrices of one singular value: all other directions hold only rounding errors, and the steps multiply
// those.
double floor_of_one_value(DType dtype) { return dtype == DType::f32 ? 1e-2 : 0.2; }

// `count` matrices of norm 1.
Floats unit_matrices(uint32_t which, int64_t count, Shape shape) {
  Floats x = normal_values(which, count * shape.count());
  for (int64_t i = 0; i < count; ++i) {
    float* const matrix = x.data() + i * shape.count();
    double squares = 0;
    for (int64_t j = 0; j < shape.count(); ++j) squares += static_cast<double>(matrix[j]) * matrix[j];
    for (int64_t j = 0; j < shape.count(); ++j) matrix[j] /= static_cast<float>(std::sqrt(squares));
  }
  return x;
}

const char* name_of(NewtonSchulz kind) { return kind == NewtonSchulz::jordan ? "jordan" : "polar"; }

// The same row throughout. Its singular value, 1, is the largest that the steps are made for, and rounding
// takes it beyond.
Floats unit_rows(Shape shape) {
  Floats x = unit_matrices(1, 1, {1, shape.columns});
  for (float& value : x) value /= static_cast<float>(std::sqrt(static_cast<double>(shape.rows)));
  Floats all;
  for (int64_t row = 0; row < shape.rows; ++row) all.insert(all.end(), x.begin(), x.end());
  return all;
}

void check_newton_schulz(Device device, NewtonSchulz kind, DType dtype, int64_t count, Shape shape,
                         const Floats& matrices, double floor, CheckList& list) {
  const auto [rows, columns] = shape;
  const Floats x = as_stored(matrices, dtype);
  Floats naive;
  Doubles truth;
  for (int64_t i = 0; i < count; ++i) {
    const Floats one(x.begin() + i * shape.count(), x.begin() + (i + 1) * shape.count());
    const Floats rough = reference::newton_schulz(kind, one, rows, columns, stored_as(dtype));
    const Doubles fine = reference::newton_schulz(kind, widened(one), rows, columns, exact);
    naive.insert(naive.end(), rough.begin(), rough.end());
    truth.insert(truth.end(), fine.begin(), fine.end());
  }
  const int64_t scratch =
      scratch_bytes(device, Orthogonalize{kind, Tensor(nullptr, dtype, {count, rows, columns}, device.kind)});
  Workbench bench(device, scratch), twin(device, scratch);
  const Tensor ours = bench.put(x, {count, rows, columns}, dtype);
  const Tensor again = twin.put(x, {count, rows, columns}, dtype);
  run(bench.context(), Orthogonalize{kind, ours});
  run(twin.context(), Orthogonalize{kind, again});
  const std::string name = fmt::format("newton_schulz, {}, {}, {} of ({}, {})", name_of(kind),
                                       longstride::name_of(dtype), count, rows, columns);
  list.compare(name, bench.get(ours), naive, truth, floor);
  list.same_bits(name + ", twice", bench.get(ours), twin.get(again));
}

template <class T>
struct State {
  std::vector<T> w, m, v, average;  // the last may be empty
};

// First what Adam moves, then the matrices close to each other, from an odd element on.
struct Layout {
  std::vector<ParameterSlice> slices;
  std::vector<MuonMatrix> matrices;
  int64_t flat = 0, second = 0, products = 0;  // elements of the buffers
};

Layout layout_of(std::initializer_list<Shape> shapes) {
  Layout layout;
  for (const int64_t count : {300, 9001}) {
    layout.slices.push_back({layout.flat, count, true, -1, layout.second + 16});
    layout.flat += (count + 16) / 16 * 16, layout.second += (count + 32) / 16 * 16;
  }
  layout.second += 16;
  layout.flat += 3, layout.products += 8;
  for (const Shape& shape : shapes) {
    layout.matrices.push_back({layout.flat, shape.rows, shape.columns, layout.products});
    layout.flat += shape.count(), layout.products += shape.count();
  }
  return layout;
}

// The values that a step changes; gaps between them are not looked at.
template <class T>
std::vector<T> packed(const std::vector<T>& flat, const Layout& layout, bool second = false) {
  std::vector<T> values;
  const auto add = [&](int64_t offset, int64_t count) {
    values.insert(values.end(), flat.begin() + offset, flat.begin() + offset + count);
  };
  for (const ParameterSlice& slice : layout.slices) add(second ? slice.second() : slice.offset, slice.count);
  if (second) return values;
  for (const MuonMatrix& matrix : layout.matrices) add(matrix.offset, matrix.count());
  return values;
}

double norm_of(const Layout& layout, const UpdateControl& control, const Floats& g) {
  double squares = 0;
  for (float value : packed(g, layout)) squares += static_cast<double>(value) * value;
  return std::sqrt(squares) / control.loss_scale;
}

template <class T, class Stored>
void reference_update(const Layout& layout, NewtonSchulz kind, const UpdateControl& control, const Floats& g,
                      State<T>& state, const Stored& stored) {
  AdamStep adam = control.adam;
  adam.gradient_scale = 1.0 / control.loss_scale;
  if (control.clip > 0) adam.gradient_scale *= std::min(1.0, control.clip / norm_of(layout, control, g));
  const std::vector<T> gradient(g.begin(), g.end());
  const auto average = [&](int64_t i) { return state.average.empty() ? nullptr : state.average.data() + i; };
  for (const ParameterSlice& slice : layout.slices) {
    const int64_t i = slice.offset;
    reference::adam_step(adam, slice.count, state.w.data() + i, gradient.data() + i, state.m.data() + i,
                         state.v.data() + slice.second(), average(i));
  }
  for (const MuonMatrix& matrix : layout.matrices) {
    const int64_t i = matrix.offset;
    reference::muon_step(control.muon, kind, adam.gradient_scale, adam.ema, matrix.rows, matrix.columns,
                         state.w.data() + i, gradient.data() + i, state.m.data() + i, average(i), stored);
  }
}

class MuonCase {
 public:
  MuonCase(Device device, Layout layout, NewtonSchulz kind, bool average, DType product)
      : device_(device),
        layout_(std::move(layout)),
        kind_(kind),
        orthogonal_(newton_schulz_dtype(device, product)),
        table_(device, layout_.slices, layout_.matrices, orthogonal_, kind),
        bench_(device, update_scratch_bytes(device, table_.matrices(), orthogonal_)),
        control_(device, sizeof(UpdateControl)) {
    const Floats start = normal_values(50, layout_.flat), zeros(layout_.flat), seconds(layout_.second);
    naive_ = {start, zeros, seconds, {}};
    truth_ = {widened(start), widened(zeros), widened(seconds), {}};
    const std::initializer_list<int64_t> shape{layout_.flat};
    t_.w = bench_.put(start, shape), t_.g = bench_.poisoned(DType::f32, shape);
    t_.m = bench_.put(zeros, shape), t_.v = bench_.put(seconds, {layout_.second});
    if (average) t_.average = bench_.put(start, shape), naive_.average = start, truth_.average = truth_.w;
    if (product != DType::f32) t_.products = bench_.poisoned(product, {layout_.products});
    name_ = fmt::format("muon, {}, {}{}, {} elements, ", name_of(kind), longstride::name_of(product),
                        average ? "" : ", no average", layout_.flat);
  }

  void check(CheckList& list) {
    // Clipped, not clipped, with clipping off, and with a loss scale.
    for (int64_t step = 1; step <= 4; ++step) check_step(step, step == 2 ? 1e9 : step == 3 ? 0 : 1, list);
    check_values(list);
    check_refusals(list);
  }

 private:
  UpdateControl run(UpdateControl control, const Floats& g, float loss) {
    auto* there = static_cast<UpdateControl*>(control_.data());
    const auto as_bytes = [](void* data, DeviceKind kind) {
      return Tensor(data, DType::u8, {static_cast<int64_t>(sizeof(UpdateControl))}, kind);
    };
    copy(as_bytes(&control, DeviceKind::cpu), as_bytes(there, device_.kind));
    copy(Tensor(const_cast<float*>(g.data()), DType::f32, {layout_.flat}), t_.g);
    longstride::run(bench_.context(), AddLosses{bench_.put(Floats{loss}, {1}), there});
    update_parameters(bench_.context(), table_, t_, there);
    copy(as_bytes(there, device_.kind), as_bytes(&control, DeviceKind::cpu));
    return control;
  }

  static UpdateControl told(int64_t step) {
    UpdateControl control;
    control.adam.step = step;
    control.adam.rate = 1e-2, control.adam.decay = 0.1, control.adam.ema = 0.9;
    // Large enough for the direction to show in the weights.
    control.muon.rate = 0.5, control.muon.momentum = 0.8, control.muon.decay = 0.1;
    control.loss_scale = step == 4 ? 1024 : 1;
    return control;
  }

  void check_step(int64_t step, double clip, CheckList& list) {
    UpdateControl control = told(step);
    if (!t_.average) control.adam.ema = 0;
    control.clip = clip;
    const Floats g = normal_values(static_cast<uint32_t>(100 * step), layout_.flat, 2 * control.loss_scale);
    reference_update(layout_, kind_, control, g, naive_, stored_as(orthogonal_));
    reference_update(layout_, kind_, control, g, truth_, exact);
    const UpdateControl done = run(control, g, 5);
    const double norm = norm_of(layout_, control, g);
    list.require(name_ + "applied", done.applied == 1);
    list.require(name_ + "norm", std::abs(done.norm - norm) <= 1e-12 * norm);
    check_gradients(list);
  }

  void check_gradients(CheckList& list) {
    const Floats g = packed(bench_.get(t_.g), layout_);
    list.same_bits(name_ + "gradients afterwards", g, Floats(g.size()));
  }

  void check_values(CheckList& list) const {
    const auto compare = [&](const char* what, const Tensor& ours, const Floats& plain, const Doubles& fine,
                             double floor, bool second = false) {
      list.compare(name_ + what, packed(bench_.get(ours), layout_, second), packed(plain, layout_, second),
                   packed(fine, layout_, second), floor);
    };
    compare("w", t_.w, naive_.w, truth_.w, floor_of(orthogonal_));
    compare("m", t_.m, naive_.m, truth_.m, 1e-6);
    compare("v", t_.v, naive_.v, truth_.v, 1e-6, true);
    if (t_.average) compare("average", t_.average, naive_.average, truth_.average, floor_of(orthogonal_));
    if (!t_.products) return;
    const Floats w = bench_.get(t_.w), copies = bench_.get(t_.products);
    for (const MuonMatrix& matrix : layout_.matrices) {
      const auto part = [&](const Floats& values, int64_t offset) {
        return Floats(values.begin() + offset, values.begin() + offset + matrix.count());
      };
      list.same_bits(fmt::format("{}copy of ({}, {})", name_, matrix.rows, matrix.columns),
                     part(copies, matrix.product_offset),
                     as_stored(part(w, matrix.offset), t_.products.dtype));
    }
  }

  // Steps that are not finite change nothing but the gradients, which are used up. A step without a gradient
  // has no direction and only decays.
  void check_refusals(CheckList& list) {
    const std::pair<const char*, Tensor> kept[] = {
        {"w", t_.w}, {"m", t_.m}, {"v", t_.v}, {"average", t_.average}, {"products", t_.products}};
    std::vector<Floats> before;
    for (const auto& [what, tensor] : kept) before.push_back(tensor ? bench_.get(tensor) : Floats{});
    const Floats plain = normal_values(300, layout_.flat);
    Floats overflowed = plain;
    overflowed[layout_.matrices.back().offset] = std::numeric_limits<float>::infinity();
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const bool refused = run(told(5), overflowed, 5).applied == 0 && run(told(5), plain, nan).applied == 0;
    list.require(name_ + "what is not finite is refused", refused);
    for (size_t i = 0; i < before.size(); ++i)
      if (kept[i].second)
        list.same_bits(name_ + kept[i].first + " after a refusal", bench_.get(kept[i].second), before[i]);
    check_gradients(list);
  }

  Device device_;
  Layout layout_;
  NewtonSchulz kind_;
  DType orthogonal_;
  UpdateTable table_;
  Workbench bench_;
  UpdateTensors t_;
  Buffer control_;
  State<float> naive_;
  State<double> truth_;
  std::string name_;
};

}  // namespace

std::vector<Check> check_muon(Device device, Effort effort) {
  CheckList list;
  std::vector<DType> dtypes{DType::f32};
  for (const DType product : stored_dtypes(device)) {
    const DType dtype = newton_schulz_dtype(device, product);
    if (std::ranges::find(dtypes, dtype) == dtypes.end()) dtypes.push_back(dtype);
  }
  if (device.kind == DeviceKind::cuda) dtypes.push_back(DType::bf16);
  std::vector<Shape> shapes{{64, 64}, {48, 16}, {16, 80}};
  if (effort == Effort::thorough)
    for (const Shape& shape : {Shape{1, 1},
                               {1, 9},
                               {9, 1},
                               {5, 7},
                               {33, 31},
                               {128, 256},
                               {300, 72},
                               {128, 128},
                               {136, 192},
                               {192, 136}})
      shapes.push_back(shape);
  constexpr NewtonSchulz kKinds[] = {NewtonSchulz::polar, NewtonSchulz::jordan};
  for (const NewtonSchulz kind : kKinds)
    for (const DType dtype : dtypes)
      for (const Shape& shape : shapes) {
        for (const int64_t count : {1, 5})
          check_newton_schulz(device, kind, dtype, count, shape, unit_matrices(1, count, shape),
                              floor_of(dtype), list);
        check_newton_schulz(device, kind, dtype, 1, shape, unit_rows(shape), floor_of_one_value(dtype), list);
      }
  const Layout layout = layout_of({{16, 24}, {16, 24}, {31, 24}, {96, 24}, {24, 24}, {24, 96}, {130, 66}});
  for (const NewtonSchulz kind : kKinds)
    for (const DType product : stored_dtypes(device))
      for (const bool average : {true, false}) MuonCase(device, layout, kind, average, product).check(list);
  return list.take();
}

}  // namespace longstride::verify

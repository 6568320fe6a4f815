// The update of all parameters against the reference of Adam, parameter by parameter: clipping, loss scale,
// copies, and steps that must change nothing.
#include <cmath>
#include <limits>

#include "longstride/ops/reference/adam.h"
#include "longstride/ops/update.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

template <class T>
struct State {
  std::vector<T> w, m, v, average;
};

// Parameters one after the other with holes between them, in flat buffers.
struct Layout {
  std::vector<ParameterSlice> slices;
  int64_t flat = 0, products = 0;  // elements of the buffers
};

Layout layout_of(std::initializer_list<int64_t> counts) {
  Layout layout;
  for (int64_t count : counts) {
    const bool product = layout.slices.size() % 2 == 1;
    layout.slices.push_back({layout.flat, count, product, product ? layout.products : -1});
    layout.flat += (count + 16) / 16 * 16;
    if (product) layout.products += (count + 32) / 32 * 32;
  }
  return layout;
}

// The parameters' elements of a flat buffer, without the holes.
template <class T>
std::vector<T> packed(const std::vector<T>& flat, const Layout& layout, bool products = false) {
  std::vector<T> values;
  for (const ParameterSlice& slice : layout.slices) {
    if (products && slice.product_offset < 0) continue;
    const auto begin = flat.begin() + (products ? slice.product_offset : slice.offset);
    values.insert(values.end(), begin, begin + slice.count);
  }
  return values;
}

// The inverse, with NaN in the holes.
Floats with_holes(const Layout& layout, uint32_t which, double deviation) {
  Floats flat(layout.flat, std::numeric_limits<float>::quiet_NaN());
  for (const ParameterSlice& slice : layout.slices) {
    const Floats values = normal_values(which++, slice.count, deviation);
    std::copy(values.begin(), values.end(), flat.begin() + slice.offset);
  }
  return flat;
}

Floats zeros_with_holes(const Layout& layout) { return with_holes(layout, 1, 0); }

// What one step should do, with numbers of type T.
template <class T>
void reference_update(const Layout& layout, const UpdateControl& control, const Floats& g, State<T>& state) {
  double squares = 0;
  for (float value : packed(g, layout)) squares += static_cast<double>(value) * value;
  const double norm = std::sqrt(squares) / control.loss_scale;
  AdamStep adam = control.adam;
  adam.gradient_scale = std::min(1.0, control.clip / norm) / control.loss_scale;
  const std::vector<T> gradient(g.begin(), g.end());
  for (const ParameterSlice& slice : layout.slices) {
    adam.decay = slice.decay ? control.adam.decay : 0;
    const int64_t i = slice.offset;
    reference::adam_step(adam, slice.count, state.w.data() + i, gradient.data() + i, state.m.data() + i,
                         state.v.data() + i, state.average.data() + i);
  }
}

void check_layout(Device device, const Layout& layout, DType product, CheckList& list) {
  Workbench bench(device);
  const Floats start = with_holes(layout, 50, 1), zeros = zeros_with_holes(layout);
  const std::initializer_list<int64_t> shape{layout.flat};
  const UpdateTensors t{bench.put(start, shape), bench.poisoned(DType::f32, shape),
                        bench.put(zeros, shape), bench.put(zeros, shape),
                        bench.put(start, shape), bench.poisoned(product, {layout.products})};
  const UpdateTable table(device, layout.slices);
  const Buffer memory(device, sizeof(UpdateControl));
  auto* there = static_cast<UpdateControl*>(memory.data());
  const auto as_bytes = [](void* data, DeviceKind kind) {
    return Tensor(data, DType::u8, {static_cast<int64_t>(sizeof(UpdateControl))}, kind);
  };
  const Floats losses = normal_values(7, 3001, 1, 5);
  double sum_of_losses = 0;
  for (float loss : losses) sum_of_losses += loss;

  // Runs one step with these gradients and returns what it decided.
  const auto run = [&](UpdateControl control, const Floats& g, const Floats& step_losses) {
    copy(as_bytes(&control, DeviceKind::cpu), as_bytes(there, device.kind));
    copy(Tensor(const_cast<float*>(g.data()), DType::f32, {layout.flat}), t.g);
    const int64_t count = static_cast<int64_t>(step_losses.size());
    const Tensor on_device = bench.put(step_losses, {count});
    add_losses(bench.context(), on_device, there);
    add_losses(bench.context(), on_device, there);
    update_parameters(bench.context(), table, t, there);
    copy(as_bytes(there, device.kind), as_bytes(&control, DeviceKind::cpu));
    return control;
  };

  State<float> naive{start, zeros, zeros, start};
  State<double> truth{widened(start), widened(zeros), widened(zeros), widened(start)};
  const std::string name = fmt::format("update, {}, {} elements, ", name_of(product), layout.flat);
  for (int64_t step = 1; step <= 3; ++step) {
    UpdateControl control;
    control.adam.step = step;
    control.adam.rate = 1e-2, control.adam.decay = 0.1, control.adam.ema = 0.9;
    control.clip = step == 2 ? 1e9 : 1;
    control.loss_scale = step == 3 ? 1024 : 1;
    const Floats g = with_holes(layout, static_cast<uint32_t>(100 * step), 2 * control.loss_scale);
    reference_update(layout, control, g, naive);
    reference_update(layout, control, g, truth);
    const UpdateControl done = run(control, g, losses);
    double squares = 0;
    for (float value : packed(g, layout)) squares += static_cast<double>(value) * value;
    const double norm = std::sqrt(squares) / control.loss_scale;
    list.require(name + "applied", done.applied == 1);
    list.require(name + "norm", std::abs(done.norm - norm) <= 1e-12 * norm);
    list.require(name + "losses",
                 std::abs(done.losses - 2 * sum_of_losses) <= 1e-12 * std::abs(sum_of_losses));
  }
  const auto compare = [&](const char* what, const Tensor& ours, const Floats& plain, const Doubles& exact) {
    list.compare(name + what, packed(bench.get(ours), layout), packed(plain, layout), packed(exact, layout));
  };
  compare("w", t.w, naive.w, truth.w);
  compare("m", t.m, naive.m, truth.m);
  compare("v", t.v, naive.v, truth.v);
  compare("average", t.average, naive.average, truth.average);
  Layout copied = layout;
  std::erase_if(copied.slices, [](const ParameterSlice& slice) { return slice.product_offset < 0; });
  list.same_bits(name + "copy", packed(bench.get(t.products), layout, true),
                 as_stored(packed(bench.get(t.w), copied), product));
  list.same_bits(name + "gradients afterwards", packed(bench.get(t.g), layout), packed(zeros, layout));

  const Floats before = bench.get(t.w), moment = bench.get(t.m);
  Floats overflowed = with_holes(layout, 300, 1);
  overflowed[layout.slices.back().offset] = std::numeric_limits<float>::infinity();
  Floats lost = losses;
  lost[2000] = std::numeric_limits<float>::quiet_NaN();
  const bool refused =
      run({}, overflowed, losses).applied == 0 && run({}, with_holes(layout, 300, 1), lost).applied == 0;
  list.require(name + "what is not finite is refused", refused);
  list.same_bits(name + "w after a refusal", bench.get(t.w), before);
  list.same_bits(name + "m after a refusal", bench.get(t.m), moment);
  list.same_bits(name + "gradients after a refusal", packed(bench.get(t.g), layout), packed(zeros, layout));
}

}  // namespace

std::vector<Check> check_update(Device device, Effort effort) {
  CheckList list;
  for (const DType product : stored_dtypes(device)) {
    if (product == DType::f32) continue;
    check_layout(device, layout_of({1, 7, 300, 8192, 20001}), product, list);
    if (effort == Effort::thorough) check_layout(device, layout_of({16384, 33, 8193, 5}), product, list);
  }
  return list.take();
}

}  // namespace longstride::verify

// Compares the update of all parameters with the reference of Adam, parameter by parameter: clipping, loss
// scale, copies, and steps that must change nothing.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "longstride/ops/reference/adam.h"
#include "longstride/ops/update.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

namespace longstride::verify {

namespace {

template <class T>
struct State {
  std::vector<T> w, m, v, average;  // the last may be empty
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

double norm_of(const Layout& layout, const UpdateControl& control, const Floats& g) {
  double squares = 0;
  for (float value : packed(g, layout)) squares += static_cast<double>(value) * value;
  return std::sqrt(squares) / control.loss_scale;
}

// What one step should do, with numbers of type T.
template <class T>
void reference_update(const Layout& layout, const UpdateControl& control, const Floats& g, State<T>& state) {
  AdamStep adam = control.adam;
  adam.gradient_scale = 1.0 / control.loss_scale;
  if (control.clip > 0) adam.gradient_scale *= std::min(1.0, control.clip / norm_of(layout, control, g));
  const std::vector<T> gradient(g.begin(), g.end());
  for (const ParameterSlice& slice : layout.slices) {
    adam.decay = slice.decay ? control.adam.decay : 0;
    const int64_t i = slice.offset;
    reference::adam_step(adam, slice.count, state.w.data() + i, gradient.data() + i, state.m.data() + i,
                         state.v.data() + i, state.average.empty() ? nullptr : state.average.data() + i);
  }
}

// One set of parameters on one device, with or without an average and a copy for products.
class UpdateCase {
 public:
  UpdateCase(Device device, Layout layout, bool average, std::optional<DType> product)
      : device_(device), layout_(std::move(layout)), bench_(device), table_(device, layout_.slices) {
    const Floats start = with_holes(layout_, 50, 1), zeros = zeros_with_holes(layout_);
    naive_ = {start, zeros, zeros, {}};
    truth_ = {widened(start), widened(zeros), widened(zeros), {}};
    const std::initializer_list<int64_t> shape{layout_.flat};
    t_.w = bench_.put(start, shape), t_.g = bench_.poisoned(DType::f32, shape);
    t_.m = bench_.put(zeros, shape), t_.v = bench_.put(zeros, shape);
    if (average) t_.average = bench_.put(start, shape), naive_.average = start, truth_.average = truth_.w;
    if (product) t_.products = bench_.poisoned(*product, {layout_.products});
    control_ = Buffer(device, sizeof(UpdateControl));
    name_ = fmt::format("update, {}{}, {} elements, ", product ? name_of(*product) : "no products",
                        average ? "" : ", no average", layout_.flat);
    for (float loss : losses_) sum_of_losses_ += loss;
  }

  void check(CheckList& list) {
    // Clipped, not clipped, with clipping off, and with a loss scale.
    for (int64_t step = 1; step <= 4; ++step) check_step(step, step == 2 ? 1e9 : step == 3 ? 0 : 1, list);
    check_values(list);
    check_refusals(list);
  }

 private:
  // Runs one step with these gradients and returns what it decided.
  UpdateControl run(UpdateControl control, const Floats& g, const Floats& losses) {
    auto* there = static_cast<UpdateControl*>(control_.data());
    const auto as_bytes = [](void* data, DeviceKind kind) {
      return Tensor(data, DType::u8, {static_cast<int64_t>(sizeof(UpdateControl))}, kind);
    };
    copy(as_bytes(&control, DeviceKind::cpu), as_bytes(there, device_.kind));
    copy(Tensor(const_cast<float*>(g.data()), DType::f32, {layout_.flat}), t_.g);
    const Tensor on_device = bench_.put(losses, {static_cast<int64_t>(losses.size())});
    longstride::run(bench_.context(), AddLosses{on_device, there});
    longstride::run(bench_.context(), AddLosses{on_device, there});
    update_parameters(bench_.context(), table_, t_, there);
    copy(as_bytes(there, device_.kind), as_bytes(&control, DeviceKind::cpu));
    return control;
  }

  void check_step(int64_t step, double clip, CheckList& list) {
    UpdateControl control;
    control.adam.step = step;
    control.adam.rate = 1e-2, control.adam.decay = 0.1, control.adam.ema = t_.average ? 0.9 : 0;
    control.clip = clip;
    control.loss_scale = step == 4 ? 1024 : 1;
    const Floats g = with_holes(layout_, static_cast<uint32_t>(100 * step), 2 * control.loss_scale);
    reference_update(layout_, control, g, naive_);
    reference_update(layout_, control, g, truth_);
    const UpdateControl done = run(control, g, losses_);
    const double norm = norm_of(layout_, control, g);
    list.require(name_ + "applied", done.applied == 1);
    list.require(name_ + "norm", std::abs(done.norm - norm) <= 1e-12 * norm);
    list.require(name_ + "losses",
                 std::abs(done.losses - 2 * sum_of_losses_) <= 1e-12 * std::abs(sum_of_losses_));
  }

  void check_values(CheckList& list) const {
    const auto compare = [&](const char* what, const Tensor& ours, const Floats& plain,
                             const Doubles& exact) {
      list.compare(name_ + what, packed(bench_.get(ours), layout_), packed(plain, layout_),
                   packed(exact, layout_));
    };
    compare("w", t_.w, naive_.w, truth_.w);
    compare("m", t_.m, naive_.m, truth_.m);
    compare("v", t_.v, naive_.v, truth_.v);
    if (t_.average) compare("average", t_.average, naive_.average, truth_.average);
    if (!t_.products) return;
    Layout copied = layout_;
    std::erase_if(copied.slices, [](const ParameterSlice& slice) { return slice.product_offset < 0; });
    list.same_bits(name_ + "copy", packed(bench_.get(t_.products), layout_, true),
                   as_stored(packed(bench_.get(t_.w), copied), t_.products.dtype));
  }

  // Steps that are not finite change nothing but the gradients, which are used up.
  void check_refusals(CheckList& list) {
    const std::pair<const char*, Tensor> kept[] = {
        {"w", t_.w}, {"m", t_.m}, {"v", t_.v}, {"average", t_.average}, {"products", t_.products}};
    std::vector<Floats> before;
    for (const auto& [what, tensor] : kept) before.push_back(tensor ? bench_.get(tensor) : Floats{});
    Floats overflowed = with_holes(layout_, 300, 1);
    overflowed[layout_.slices.back().offset] = std::numeric_limits<float>::infinity();
    Floats lost = losses_;
    lost[2000] = std::numeric_limits<float>::quiet_NaN();
    const bool refused =
        run({}, overflowed, losses_).applied == 0 && run({}, with_holes(layout_, 300, 1), lost).applied == 0;
    list.require(name_ + "what is not finite is refused", refused);
    UpdateControl limited;
    limited.most_losses = 2 * sum_of_losses_ - 1;  // run() adds them twice
    list.require(name_ + "more than the largest losses are refused",
                 run(limited, with_holes(layout_, 300, 1), losses_).applied == 0);
    for (size_t i = 0; i < before.size(); ++i)
      if (kept[i].second)
        list.same_bits(name_ + kept[i].first + " after a refusal", bench_.get(kept[i].second), before[i]);
    list.same_bits(name_ + "gradients afterwards", packed(bench_.get(t_.g), layout_),
                   packed(zeros_with_holes(layout_), layout_));
  }

  Device device_;
  Layout layout_;
  Workbench bench_;
  UpdateTable table_;
  UpdateTensors t_;
  Buffer control_;
  State<float> naive_;
  State<double> truth_;
  Floats losses_ = normal_values(7, 3001, 1, 5);
  double sum_of_losses_ = 0;
  std::string name_;
};

}  // namespace

std::vector<Check> check_update(Device device, Effort effort) {
  std::vector<std::optional<DType>> products{std::nullopt};
  for (const DType product : stored_dtypes(device))
    if (product != DType::f32) products.push_back(product);
  CheckList list;
  for (const std::optional<DType> product : products)
    for (const bool average : {true, false}) {
      UpdateCase(device, layout_of({1, 7, 300, 8192, 20001}), average, product).check(list);
      if (effort == Effort::thorough)
        UpdateCase(device, layout_of({16384, 33, 8193, 5}), average, product).check(list);
    }
  return list.take();
}

}  // namespace longstride::verify

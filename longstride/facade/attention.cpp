#include "longstride/ops/attention.h"

#include <cmath>
#include <utility>

#include "longstride/base/check.h"
#include "longstride/device/backend.h"
#include "longstride/longstride.h"
#include "longstride/pattern/pattern.h"

namespace longstride {

struct AttentionState {
  Device device;
  LayerPattern layer;
  AttentionPlan plan;
};

namespace {

LayerPattern parse_layer(std::string_view text) {
  try {
    const Schedule schedule = parse_schedule(text);
    LONGSTRIDE_CHECK(schedule.cycle.size() == 1,
                     "pattern '{}' is that of {} layers, attention is one layer's", text,
                     schedule.cycle.size());
    return schedule.cycle[0];
  } catch (const PatternError& error) {
    throw Error(error.with_caret());
  }
}

DType dtype_of(const char* name, ElementType type) {
  switch (type) {
    case ElementType::f32:
      return DType::f32;
    case ElementType::bf16:
      return DType::bf16;
    case ElementType::f16:
      return DType::f16;
  }
  fail("attention: {} has an element type of number {}, which is none", name, static_cast<int>(type));
}

Tensor tensor_of(const char* name, const ConstArray& array, Device device) {
  int64_t elements = 1;
  for (const int64_t extent : array.shape) {
    LONGSTRIDE_CHECK(
        extent > 0 && !__builtin_mul_overflow(elements, extent, &elements) && elements <= int64_t{1} << 56,
        "attention: {} is ({}, {}, {}, {}), each must be positive and all within memory", name,
        array.shape[0], array.shape[1], array.shape[2], array.shape[3]);
  }
  LONGSTRIDE_CHECK(array.data != nullptr, "attention: {} has no memory: its data is null", name);
  const auto& [batch, positions, heads, width] = array.shape;
  // An op that only reads a tensor does not write to it.
  Tensor tensor(const_cast<void*>(array.data), dtype_of(name, array.type), {batch, positions, heads, width},
                device.kind);
  if (array.stride == std::array<int64_t, 4>{}) return tensor;
  for (const int64_t stride : array.stride)
    LONGSTRIDE_CHECK(stride > 0,
                     "attention: {} has strides ({}, {}, {}, {}), each must be positive, or all 0", name,
                     array.stride[0], array.stride[1], array.stride[2], array.stride[3]);
  tensor.stride = array.stride;
  return tensor;
}

AttentionTensors tensors_of(const AttentionArrays& arrays, Device device) {
  AttentionTensors t;
  t.q = tensor_of("q", arrays.q, device);
  t.k = tensor_of("k", arrays.k, device);
  t.v = tensor_of("v", arrays.v, device);
  t.o = tensor_of("o", arrays.o, device);
  t.lse = Tensor(arrays.log_sum_exp, DType::f32, {t.q.shape[0], t.q.shape[2], t.q.shape[1]}, device.kind);
  t.scale = arrays.scale.value_or(1 / std::sqrt(static_cast<float>(t.q.shape[3])));
  LONGSTRIDE_CHECK(t.scale > 0 && std::isfinite(t.scale),
                   "attention: scale is {}, must be positive and finite", t.scale);
  return t;
}

template <class Call>
void run_on(Device device, const Call& call, const AttentionStream* on) {
  const Backend& backend = longstride::backend(device);
  backend.use(device.index);
  if (on == nullptr) {
    const Arguments arguments(call.name(), device);
    call.check(arguments);
    Arena scratch(device, scratch_bytes(device, call));
    run(OpContext{device, &scratch}, call);
    // The scratch is given back when the work is done.
    return backend.synchronize();
  }
  Arena scratch(device, on->scratch, on->scratch_bytes);
  backend.run_on(on->stream, [&] { run(OpContext{device, &scratch}, call); });
}

void run_forward(const AttentionState& state, const AttentionArrays& arrays, const AttentionStream* on) {
  AttentionTensors tensors = tensors_of(arrays, state.device);
  Buffer own;
  if (arrays.log_sum_exp == nullptr) {
    LONGSTRIDE_CHECK(on == nullptr, "attention: on a stream forward writes log_sum_exp, and it is null");
    own = Buffer(state.device, tensors.lse.bytes());
    tensors.lse.data = own.data();
  }
  run_on(state.device, AttentionForward{state.plan, tensors}, on);
}

void run_backward(const AttentionState& state, const AttentionArrays& arrays, const ConstArray& d_o,
                  const Array& dq, const Array& dk, const Array& dv, const AttentionStream* on) {
  const Device device = state.device;
  const AttentionTensors tensors = tensors_of(arrays, device);
  LONGSTRIDE_CHECK(arrays.log_sum_exp != nullptr,
                   "attention: backward reads the log_sum_exp that forward wrote, and it is null");
  AttentionGradients gradients;
  gradients.d_o = tensor_of("d_o", d_o, device);
  gradients.dq = tensor_of("dq", dq, device);
  gradients.dk = tensor_of("dk", dk, device);
  gradients.dv = tensor_of("dv", dv, device);
  run_on(device, AttentionBackward{state.plan, tensors, gradients}, on);
}

}  // namespace

Attention::Attention(std::string_view pattern, int64_t positions, int64_t heads, const std::string& device) {
  constexpr int64_t kMostHeads = 1 << 20, kMostPositions = int64_t{1} << 30;
  LONGSTRIDE_CHECK(positions > 0 && positions <= kMostPositions,
                   "attention of {} positions, from 1 to {} can be", positions, kMostPositions);
  LONGSTRIDE_CHECK(heads > 0 && heads <= kMostHeads, "attention of {} heads, from 1 to {} can be", heads,
                   kMostHeads);
  auto state = std::make_shared<AttentionState>();
  state->layer = parse_layer(pattern);
  state->device = parse_device(device);
  state->plan = plan_attention(state->device, state->layer, heads, positions);
  state_ = std::move(state);
}

bool Attention::allows(int64_t head, int64_t query, int64_t key) const {
  const AttentionPlan& plan = state_->plan;
  LONGSTRIDE_CHECK(head >= 0 && head < std::ssize(plan.plan_of_head), "head {} of {}", head,
                   plan.plan_of_head.size());
  LONGSTRIDE_CHECK(query >= 0 && query < plan.n && key >= 0 && key < plan.n,
                   "query {} and key {} of {} positions", query, key, plan.n);
  return plan.head(head).pattern.allows(query, key);
}

int64_t Attention::pairs() const { return state_->plan.pairs; }

void Attention::forward(const AttentionArrays& arrays) const { run_forward(*state_, arrays, nullptr); }

void Attention::forward(const AttentionArrays& arrays, const AttentionStream& on) const {
  run_forward(*state_, arrays, &on);
}

void Attention::backward(const AttentionArrays& arrays, const ConstArray& d_o, const Array& dq,
                         const Array& dk, const Array& dv) const {
  run_backward(*state_, arrays, d_o, dq, dk, dv, nullptr);
}

void Attention::backward(const AttentionArrays& arrays, const ConstArray& d_o, const Array& dq,
                         const Array& dk, const Array& dv, const AttentionStream& on) const {
  run_backward(*state_, arrays, d_o, dq, dk, dv, &on);
}

int64_t Attention::scratch_bytes(const AttentionArrays& arrays) const {
  const auto& [batch, positions, heads, width] = arrays.q.shape;
  return attention_scratch_bytes(state_->device, state_->plan, dtype_of("q", arrays.q.type), batch, heads,
                                 width, arrays.v.shape[3]);
}

}  // namespace longstride

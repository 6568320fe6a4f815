// Attention: checks of arguments, plans, and the choice of an implementation by device.
#include <algorithm>
#include <utility>

#include <fmt/ranges.h>

#include "longstride/ops/attention.h"
#include "longstride/ops/cpu/attention.h"
#include "longstride/ops/cuda/attention_lists.h"
#include "longstride/ops/cuda/ops.h"
#include "longstride/ops/on_device.h"
#include "longstride/ops/profile.h"

namespace longstride {

namespace {

// A tensor of this type and shape whose rows may lie apart.
void check_tensor(const char* op, const char* name, Device device, const Tensor& t, DType dtype,
                  std::initializer_list<int64_t> shape) {
  const bool same = t.dtype == dtype && t.rank == static_cast<int>(shape.size()) &&
                    std::equal(shape.begin(), shape.end(), t.shape.begin());
  LONGSTRIDE_CHECK(same, "{}: {} is {}, must be {} ({})", op, name, t.describe(), name_of(dtype),
                   fmt::join(shape, ", "));
  LONGSTRIDE_CHECK(t.device == device.kind, "{}: {} lies on another device than {}", op, name,
                   name_of(device));
  LONGSTRIDE_CHECK(t.data != nullptr || t.count() == 0, "{}: {} {} has no memory", op, name, t.describe());
  LONGSTRIDE_CHECK(t.stride[t.rank - 1] == 1 || t.shape[t.rank - 1] <= 1,
                   "{}: neighbours in the last axis of {} {} are {} elements apart, must be 1", op, name,
                   t.describe(), t.stride[t.rank - 1]);
}

// The tensors and `bytes` more; FLOPs of `qk_products` products over the width of q and k and `v_products`
// over that of v, a pair.
OpWork pair_work(const AttentionPlan& plan, const AttentionTensors& t, int qk_products, int v_products,
                 int64_t bytes) {
  for (const Tensor* tensor : {&t.q, &t.k, &t.v, &t.o, &t.lse}) bytes += tensor->bytes();
  const int64_t a_pair = 2 * (qk_products * t.q.shape[3] + v_products * t.v.shape[3]);
  return {bytes, static_cast<double>(t.q.shape[0] * plan.pairs) * static_cast<double>(a_pair)};
}

// A GPU's kernels number sequences and heads by the second and third dimension of a grid.
void check_grid(const char* op, Device device, int64_t batch, int64_t heads) {
  constexpr int64_t kMost = 65535;
  LONGSTRIDE_CHECK(!on_gpu(device) || (batch <= kMost && heads <= kMost),
                   "{}: {} sequences of {} heads, a GPU takes up to {} of each at a time; split the batch",
                   op, batch, heads, kMost);
}

void check_tensors(const char* op, const OpContext& context, const AttentionPlan& plan,
                   const AttentionTensors& t) {
  check_device(op, context.device);
  LONGSTRIDE_CHECK(t.q.rank == 4 && t.v.rank == 4,
                   "{}: q is {} and v is {}, must be (B, N, H, D) and (B, N, H, Dv)", op, t.q.describe(),
                   t.v.describe());
  const int64_t batch = t.q.shape[0], n = t.q.shape[1], heads = t.q.shape[2];
  const int64_t width = t.q.shape[3], v_width = t.v.shape[3];
  LONGSTRIDE_CHECK(batch > 0 && n > 0 && heads > 0 && width > 0 && v_width > 0,
                   "{}: q is {} and v is {}, must not be empty", op, t.q.describe(), t.v.describe());
  check_grid(op, context.device, batch, heads);
  LONGSTRIDE_CHECK(plan.n == n, "{}: the plan is for {} positions, q is {}", op, plan.n, t.q.describe());
  LONGSTRIDE_CHECK(
      !on_gpu(context.device) || plan.on_gpu != nullptr,
      "{}: the plan's lists are not in the GPU's memory; plan_attention() for that device uploads "
      "them",
      op);
  LONGSTRIDE_CHECK(static_cast<int64_t>(plan.plan_of_head.size()) == heads,
                   "{}: the plan is for {} heads, q is {}", op, plan.plan_of_head.size(), t.q.describe());
  const DType dtype = t.q.dtype;
  LONGSTRIDE_CHECK(is_product_dtype(context.device, dtype), "{}: q is {}, must be {}", op, t.q.describe(),
                   product_dtypes(context.device));
  check_tensor(op, "q", context.device, t.q, dtype, {batch, n, heads, width});
  check_tensor(op, "k", context.device, t.k, dtype, {batch, n, heads, width});
  check_tensor(op, "v", context.device, t.v, dtype, {batch, n, heads, v_width});
  check_tensor(op, "o", context.device, t.o, dtype, {batch, n, heads, v_width});
  check_tensor(op, "lse", context.device, t.lse, DType::f32, {batch, heads, n});
  LONGSTRIDE_CHECK(t.scale > 0, "{}: scale is {}, must be positive", op, t.scale);
  LONGSTRIDE_CHECK(context.scratch != nullptr, "{}: no scratch, needs attention_scratch_bytes()", op);
}

}  // namespace

AttentionPlan plan_attention(Device device, const LayerPattern& layer, int64_t heads, int64_t n,
                             bool upload) {
  const OpTimer timer("plan_attention", {});
  check_device("plan_attention", device);
  LONGSTRIDE_CHECK(heads > 0, "plan_attention: {} heads, must be positive", heads);
  AttentionPlan plan;
  plan.n = n;
  for (int64_t h = 0; h < heads; ++h) {
    const Pattern pattern = layer.for_head(h, heads);
    const auto known = std::find_if(plan.plans.begin(), plan.plans.end(),
                                    [&](const Plan& other) { return other.pattern == pattern; });
    plan.plan_of_head.push_back(static_cast<int>(known - plan.plans.begin()));
    if (known == plan.plans.end())
      plan.plans.push_back(make_plan(pattern, n, cpu::kAttentionTile, cpu::kAttentionTile));
    plan.pairs += plan.head(h).pairs;
  }
  for (const Plan& p : plan.plans) {
    std::vector<TileMasks>& masks = plan.masks.emplace_back();
    for (const Pass& pass : p.passes) masks.push_back(make_tile_masks(pass));
  }
  return upload && on_gpu(device) ? uploaded(std::move(plan), device) : plan;
}

AttentionPlan uploaded(AttentionPlan plan, Device device) {
  plan.on_gpu = cuda::upload_lists(plan, device.index);
  return plan;
}

int64_t attention_plan_bytes(Device device, const AttentionPlan& attention) {
  if (attention.on_gpu != nullptr) return attention.on_gpu->bytes();
  if (on_gpu(device)) return cuda::attention_list_bytes(attention);
  int64_t bytes = 0;
  for (const Plan& plan : attention.plans)
    for (const Pass& pass : plan.passes)
      for (const TileLists* lists : {&pass.rows, &pass.columns})
        bytes += static_cast<int64_t>(lists->offsets.capacity() * sizeof(int64_t) +
                                      lists->runs.capacity() * sizeof(TileRun));
  return bytes;
}

void attention_forward(const OpContext& context, const AttentionPlan& plan, const AttentionTensors& t) {
  const OpTimer timer("attention_forward", pair_work(plan, t, 1, 1, 0));
  check_tensors("attention_forward", context, plan, t);
  if (on_gpu(context.device)) return cuda::attention_forward(context, plan, t);
  cpu::attention_forward(context, plan, t);
}

void attention_backward(const OpContext& context, const AttentionPlan& plan, const AttentionTensors& t,
                        const AttentionGradients& gradients) {
  const char* op = "attention_backward";
  const OpTimer timer(op, pair_work(plan, t, 3, 2,
                                    gradients.d_o.bytes() + gradients.dq.bytes() + gradients.dk.bytes() +
                                        gradients.dv.bytes()));
  check_tensors(op, context, plan, t);
  const int64_t batch = t.q.shape[0], n = t.q.shape[1], heads = t.q.shape[2];
  const int64_t width = t.q.shape[3], v_width = t.v.shape[3];
  check_tensor(op, "d_o", context.device, gradients.d_o, t.q.dtype, {batch, n, heads, v_width});
  check_tensor(op, "dq", context.device, gradients.dq, t.q.dtype, {batch, n, heads, width});
  check_tensor(op, "dk", context.device, gradients.dk, t.q.dtype, {batch, n, heads, width});
  check_tensor(op, "dv", context.device, gradients.dv, t.q.dtype, {batch, n, heads, v_width});
  if (on_gpu(context.device)) return cuda::attention_backward(context, plan, t, gradients);
  cpu::attention_backward(context, plan, t, gradients);
}

int64_t attention_scratch_bytes(Device device, const AttentionPlan& plan, int64_t batch, int64_t heads,
                                int64_t qk_width, int64_t v_width) {
  check_device("attention_scratch_bytes", device);
  if (on_gpu(device)) return cuda::attention_scratch_bytes(plan, batch, heads, qk_width, v_width);
  return cpu::attention_scratch_bytes(plan, batch, heads, qk_width, v_width);
}

}  // namespace longstride

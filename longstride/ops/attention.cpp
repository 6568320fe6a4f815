#include "longstride/ops/attention.h"

#include <algorithm>
#include <utility>

#include "longstride/pattern/part.h"

namespace longstride {

namespace {

// Bytes: the tensors and `bytes` more. FLOPs for each pair: `qk_products` products over the width of q and
// k, and `v_products` over that of v.
OpWork pair_work(const AttentionPlan& plan, const AttentionTensors& t, int qk_products, int v_products,
                 int64_t bytes) {
  for (const Tensor* tensor : {&t.q, &t.k, &t.v, &t.o, &t.lse}) bytes += tensor->bytes();
  const int64_t a_pair = 2 * (qk_products * t.q.shape[3] + v_products * t.v.shape[3]);
  return {bytes, static_cast<double>(t.q.shape[0] * plan.pairs) * static_cast<double>(a_pair)};
}

// A GPU's kernels use the second and third dimension of a grid for sequences and heads.
void check_grid(const char* op, Device device, int64_t batch, int64_t heads) {
  constexpr int64_t kMost = 65535;
  LONGSTRIDE_CHECK(!on_gpu(device) || (batch <= kMost && heads <= kMost),
                   "{}: {} sequences of {} heads, a GPU takes up to {} of each at a time; split the batch",
                   op, batch, heads, kMost);
}

void check_tensors(const Arguments& arguments, const AttentionPlan& plan, const AttentionTensors& t) {
  const char* op = arguments.op();
  const Device device = arguments.device();
  LONGSTRIDE_CHECK(t.q.rank == 4 && t.v.rank == 4,
                   "{}: q is {} and v is {}, must be (B, N, H, D) and (B, N, H, Dv)", op, t.q.describe(),
                   t.v.describe());
  const int64_t batch = t.q.shape[0], n = t.q.shape[1], heads = t.q.shape[2];
  const int64_t width = t.q.shape[3], v_width = t.v.shape[3];
  LONGSTRIDE_CHECK(batch > 0 && n > 0 && heads > 0 && width > 0 && v_width > 0,
                   "{}: q is {} and v is {}, must not be empty", op, t.q.describe(), t.v.describe());
  check_grid(op, device, batch, heads);
  LONGSTRIDE_CHECK(plan.n == n, "{}: the plan is for {} positions, q is {}", op, plan.n, t.q.describe());
  LONGSTRIDE_CHECK(
      !on_gpu(device) || plan.on_device != nullptr,
      "{}: the plan's lists are not in the GPU's memory; plan_attention() for that device uploads "
      "them",
      op);
  LONGSTRIDE_CHECK(static_cast<int64_t>(plan.plan_of_head.size()) == heads,
                   "{}: the plan is for {} heads, q is {}", op, plan.plan_of_head.size(), t.q.describe());
  const DType dtype = t.q.dtype;
  LONGSTRIDE_CHECK(is_product_dtype(device, dtype), "{}: q is {}, must be {}", op, t.q.describe(),
                   product_dtypes(device));
  arguments.rows("q", t.q, dtype, {batch, n, heads, width});
  arguments.rows("k", t.k, dtype, {batch, n, heads, width});
  arguments.rows("v", t.v, dtype, {batch, n, heads, v_width});
  arguments.rows("o", t.o, dtype, {batch, n, heads, v_width});
  arguments.dense("lse", t.lse, DType::f32, {batch, heads, n});
  LONGSTRIDE_CHECK(t.scale > 0, "{}: scale is {}, must be positive", op, t.scale);
}

}  // namespace

namespace {

void find_masks(AttentionPlan& plan) {
  plan.masks.clear();
  for (const Plan& p : plan.plans) {
    std::vector<TileMasks>& masks = plan.masks.emplace_back();
    for (const Pass& pass : p.passes) masks.push_back(make_tile_masks(pass));
  }
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
    if (known == plan.plans.end()) plan.plans.push_back(make_plan(pattern, n, kMaskTile, kMaskTile));
    plan.pairs += plan.head(h).pairs;
  }
  find_masks(plan);
  return upload && on_gpu(device) ? uploaded(std::move(plan), device) : plan;
}

AttentionPlan plan_of_queries(const AttentionPlan& whole, std::span<const IndexRange> ranges) {
  AttentionPlan part = whole;
  part.on_device.reset();
  part.pairs = 0;
  for (Plan& plan : part.plans) plan = plan_of_queries(std::move(plan), ranges);
  for (size_t head = 0; head < part.plan_of_head.size(); ++head)
    part.pairs += part.head(static_cast<int64_t>(head)).pairs;
  find_masks(part);
  return part;
}

AttentionPlan uploaded(AttentionPlan plan, Device device) {
  int64_t bytes = 0;
  dispatch(OpContext{device}, ListTiles{plan, &bytes, &plan.on_device});
  return plan;
}

int64_t attention_plan_bytes(Device device, const AttentionPlan& plan) {
  if (plan.on_device != nullptr) return plan.on_device->bytes();
  int64_t bytes = 0;
  dispatch(OpContext{device}, ListTiles{plan, &bytes, nullptr});
  return bytes;
}

OpWork AttentionForward::work() const { return pair_work(plan, t, 1, 1, 0); }

void AttentionForward::check(const Arguments& arguments) const { check_tensors(arguments, plan, t); }

OpWork AttentionBackward::work() const {
  const AttentionGradients& d = gradients;
  return pair_work(plan, t, 3, 2, d.d_o.bytes() + d.dq.bytes() + d.dk.bytes() + d.dv.bytes());
}

void AttentionBackward::check(const Arguments& arguments) const {
  check_tensors(arguments, plan, t);
  const int64_t batch = t.q.shape[0], n = t.q.shape[1], heads = t.q.shape[2];
  const int64_t width = t.q.shape[3], v_width = t.v.shape[3];
  arguments.rows("d_o", gradients.d_o, t.q.dtype, {batch, n, heads, v_width});
  arguments.rows("dq", gradients.dq, t.q.dtype, {batch, n, heads, width});
  arguments.rows("dk", gradients.dk, t.q.dtype, {batch, n, heads, width});
  arguments.rows("dv", gradients.dv, t.q.dtype, {batch, n, heads, v_width});
}

int64_t attention_scratch_bytes(Device device, const AttentionPlan& plan, DType dtype, int64_t batch,
                                int64_t heads, int64_t qk_width, int64_t v_width) {
  AttentionTensors t;
  t.q = t.k = Tensor(nullptr, dtype, {batch, plan.n, heads, qk_width}, device.kind);
  t.v = t.o = Tensor(nullptr, dtype, {batch, plan.n, heads, v_width}, device.kind);
  return std::max(scratch_bytes(device, AttentionForward{plan, t}),
                  scratch_bytes(device, AttentionBackward{plan, t, {}}));
}

}  // namespace longstride

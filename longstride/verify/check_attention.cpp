// Compares attention with its definition in double precision: every kind of pattern and their unions, odd
// lengths, widths that fill no vector, tensors that are columns of wider ones, and scores that overflow a
// careless softmax. Outputs and scratch hold NaN beforehand.
#include "longstride/verify/check_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include <fmt/format.h>

#include "longstride/ops/attention.h"
#include "longstride/verify/check_attention_storage.h"
#include "longstride/verify/checks.h"

namespace longstride::verify {

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

void poison(Arena& arena, int64_t bytes) {
  const Arena::Scope scope(arena);
  const Tensor all = arena.allocate(DType::f32, {bytes / 4});
  std::vector<float> values(bytes / 4, kNaN);
  copy(Tensor(values.data(), DType::f32, {bytes / 4}), all);
}

// A yes or no as a Check.
Check holds(std::string name, bool truth) {
  return {std::move(name), truth ? 0 : std::numeric_limits<double>::infinity(), 0};
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// The results of the op under test. `repeats` and `gaps` report what the values cannot show.
struct Ours {
  AttentionValues<float> values;
  bool repeats = true;  // a second run gave the same bits
  bool gaps = true;     // nothing was written beside the outputs
};

Ours run(const AttentionCase& c, Device device, const AttentionValues<float>& inputs) {
  const AttentionPlan plan = plan_attention(device, parse_schedule(c.pattern).layer(0), c.shape.heads, c.n);
  const auto [batch, heads, width, v_width] = c.shape;
  const int64_t bytes = attention_scratch_bytes(device, plan, c.dtype, batch, heads, width, v_width);
  Arena scratch(device, bytes);
  const OpContext context{device, &scratch};
  AttentionStorage qkv(c, device, {width, width, v_width}), outputs(c, device, {v_width}),
      upstream(c, device, {v_width});
  AttentionStorage gradients(c, device, {width, width, v_width});
  qkv.write(0, inputs.q), qkv.write(1, inputs.k), qkv.write(2, inputs.v), upstream.write(0, inputs.d_o);
  const Buffer lse_memory(device, batch * heads * c.n * 4);
  const Tensor lse(lse_memory.data(), DType::f32, {batch, heads, c.n}, device.kind);
  std::vector<float> lse_values(batch * heads * c.n);
  const Tensor host_lse(lse_values.data(), DType::f32, {batch, heads, c.n});
  const AttentionTensors tensors{qkv[0], qkv[1], qkv[2], outputs[0], lse, c.scale()};
  Ours ours;
  for (int time = 0; time < 2; ++time) {
    std::fill(lse_values.begin(), lse_values.end(), kNaN);
    copy(host_lse, lse);
    outputs.poison(), gradients.poison();
    poison(scratch, bytes);
    run(context, AttentionForward{plan, tensors});
    poison(scratch, bytes);
    run(context, AttentionBackward{plan, tensors, {upstream[0], gradients[0], gradients[1], gradients[2]}});
    copy(lse, host_lse);
    AttentionValues<float> values{
        {}, {}, {}, {}, outputs.read(0), lse_values, gradients.read(0), gradients.read(1), gradients.read(2)};
    if (time == 1)
      ours.repeats = same_bits(values.o, ours.values.o) && same_bits(values.lse, ours.values.lse) &&
                     same_bits(values.dq, ours.values.dq) && same_bits(values.dk, ours.values.dk) &&
                     same_bits(values.dv, ours.values.dv);
    ours.values = std::move(values);
  }
  const int64_t rows = batch * c.n;
  ours.gaps = outputs.count_nan() >= rows * c.gap && gradients.count_nan() >= 3 * rows * c.gap;
  return ours;
}

double largest(std::span<const double> values) {
  double result = 0;
  for (const double value : values)
    if (std::isfinite(value)) result = std::max(result, std::abs(value));
  return result;
}

// dq and dk vanish if a query sees a single key, and only rounding is left. So they are measured against dv
// at least.
Check compare_gradient(std::string name, std::span<const float> ours, std::span<const float> naive,
                       std::span<const double> reference, std::span<const double> dv, double floor) {
  const double magnitude = std::max(1e-30, largest(dv));
  return {std::move(name), relative_error(ours, reference, magnitude),
          2 * relative_error(naive, reference, magnitude) + rounding_floor(floor)};
}

void check_case(const AttentionCase& c, Device device, std::vector<Check>& checks) {
  const AttentionValues<float> inputs = random_inputs(c);
  const AttentionValues<double> truth = by_definition<double>(c, inputs);
  const AttentionValues<float> naive =
      c.dtype == DType::f32 ? by_definition<float>(c, inputs) : naive_rounded(c, inputs);
  const Ours ours = run(c, device, inputs);
  // In 16 bits sums are rounded after each pass. A weight is exp(score - lse): where these two are large,
  // their own last bit is the floor, because the naive result may be lucky.
  size_t passes = 1;
  for (const Plan& plan :
       plan_attention(device, parse_schedule(c.pattern).layer(0), c.shape.heads, c.n).plans)
    passes = std::max(passes, plan.passes.size());
  const double rounding = rounding_of(c.dtype) * static_cast<double>(passes);
  const double floor = 1e-6 + rounding + (c.gain == 1 ? 0 : 0x1p-23 * largest(truth.lse));
  checks.push_back(compare(c.name("o"), ours.values.o, naive.o, truth.o, floor));
  checks.push_back(compare(c.name("lse"), ours.values.lse, naive.lse, truth.lse));
  checks.push_back(compare_gradient(c.name("dq"), ours.values.dq, naive.dq, truth.dq, truth.dv, floor));
  checks.push_back(compare_gradient(c.name("dk"), ours.values.dk, naive.dk, truth.dk, truth.dv, floor));
  checks.push_back(compare(c.name("dv"), ours.values.dv, naive.dv, truth.dv, floor));
  checks.push_back(holds(c.name("same bits twice"), ours.repeats));
  if (c.gap > 0) checks.push_back(holds(c.name("gaps untouched"), ours.gaps));
  if (c.n <= 77) check_key_cache(c, device, inputs, floor, checks);
}

}  // namespace

std::vector<Check> check_attention_part(Device device, Effort effort, size_t part, size_t parts) {
  std::vector<Check> checks;
  const std::vector<AttentionCase> cases = attention_cases(device, effort);
  for (size_t i = part; i < cases.size(); i += parts) check_case(cases[i], device, checks);
  return checks;
}

std::vector<Check> check_attention_rings(Device device, DType dtype, int64_t width) {
  std::vector<Check> checks;
  const auto check = [&](const char* pattern, int64_t batch, int64_t heads) {
    check_case({pattern, 513, {batch, heads, width, width}, 0, 1, dtype}, device, checks);
  };
  for (const char* pattern : {"dense", "fixed:64,16", "strided:48", "window:100", "block:128+summary:128,32"})
    check(pattern, 1, 2);
  // More tasks than a GPU has blocks at a time, so that a block has several.
  for (const char* pattern : {"fixed:64,16", "block:128", "strided:48"}) check(pattern, 16, 8);
  return checks;
}

std::vector<Check> check_attention(Device device, Effort effort) {
  return check_attention_part(device, effort, 0, 1);
}

}  // namespace longstride::verify

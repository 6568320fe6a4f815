#include "bench/attention_problem.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "longstride/base/checksum.h"
#include "longstride/ops/reference/attention.h"

#include "bench/measure.h"

namespace longstride {

AttentionProblem::AttentionProblem(int64_t n, DType dtype, Values values)
    : n(n),
      qkv_({}, n * 3 * kHeads * kWidth * size_of(dtype)),
      d_qkv_({}, qkv_.bytes()),
      o_({}, n * kHeads * kWidth * size_of(dtype)),
      d_o_({}, o_.bytes()),
      lse_({}, n * kHeads * 4) {
  constexpr int64_t kRow = kHeads * kWidth;
  const Tensor qkv(qkv_.data(), dtype, {n, 3 * kRow}), d_qkv(d_qkv_.data(), dtype, {n, 3 * kRow});
  const auto part = [](const Tensor& rows, int64_t i) {
    return rows.columns(i * kRow, (i + 1) * kRow).split_last(kHeads).split_first(1);
  };
  tensors.q = part(qkv, 0), tensors.k = part(qkv, 1), tensors.v = part(qkv, 2);
  tensors.o = Tensor(o_.data(), dtype, {1, n, kHeads, kWidth});
  tensors.lse = Tensor(lse_.data(), DType::f32, {1, kHeads, n});
  tensors.scale = 0.125f;  // 1 / sqrt(kWidth)
  gradients.d_o = Tensor(d_o_.data(), dtype, {1, n, kHeads, kWidth});
  gradients.dq = part(d_qkv, 0), gradients.dk = part(d_qkv, 1), gradients.dv = part(d_qkv, 2);
  if (values == Values::random) fill_uniform(qkv, 1), fill_uniform(gradients.d_o, 2);
}

int64_t AttentionProblem::forward_bytes() const { return qkv_.bytes() + o_.bytes() + lse_.bytes(); }

int64_t AttentionProblem::backward_bytes() const { return forward_bytes() + d_o_.bytes() + d_qkv_.bytes(); }

std::string AttentionProblem::results() const {
  Checksum checksum;
  for (const Buffer* buffer : {&o_, &d_qkv_}) checksum.update(buffer->data(), buffer->bytes());
  return checksum.hex();
}

PlannedAttention::PlannedAttention(const std::string& pattern, int64_t n)
    : plan_(plan_attention({}, parse_schedule(pattern).layer(0), AttentionProblem::kHeads, n)),
      scratch_({}, attention_scratch_bytes({}, plan_, DType::f32, 1, AttentionProblem::kHeads,
                                           AttentionProblem::kWidth, AttentionProblem::kWidth)) {}

void PlannedAttention::forward(const AttentionProblem& problem) const {
  run({{}, &scratch_}, AttentionForward{plan_, problem.tensors});
}

void PlannedAttention::backward(const AttentionProblem& problem) const {
  run({{}, &scratch_}, AttentionBackward{plan_, problem.tensors, problem.gradients});
}

void check_attention(const std::string& pattern, DType dtype) {
  constexpr int64_t kHeads = AttentionProblem::kHeads, kWidth = AttentionProblem::kWidth;
  const int64_t n = 300;
  const AttentionProblem problem(n, dtype);
  const PlannedAttention attention(pattern, n);
  attention.forward(problem);
  attention.backward(problem);

  std::deque<std::vector<double>> memory;
  const auto as_double = [&](const Tensor& t) {  // a contiguous copy
    std::vector<double>& to = memory.emplace_back();
    const auto read = [&]<class T>(const View<T, 4>& from) {
      for (int64_t i = 0; i < n; ++i)
        for (int64_t h = 0; h < kHeads; ++h)
          for (int64_t d = 0; d < kWidth; ++d) to.push_back(static_cast<double>(float(from(0, i, h, d))));
    };
    dtype == DType::bf16 ? read(t.view<Bf16, 4>()) : read(t.view<float, 4>());
    return Tensor(to.data(), DType::f64, {1, n, kHeads, kWidth}).view<double, 4>();
  };
  const AttentionTensors& t = problem.tensors;
  const AttentionGradients& g = problem.gradients;
  const auto q = as_double(t.q), k = as_double(t.k), v = as_double(t.v), d_o = as_double(g.d_o);
  // Ours are set beside copies that the reference overwrites.
  const auto o = as_double(t.o), dq = as_double(g.dq), dk = as_double(g.dk), dv = as_double(g.dv);
  std::vector<double> lse(kHeads * n);
  const View<double, 3> lse_view = Tensor(lse.data(), DType::f64, {1, kHeads, n}).view<double, 3>();
  const LayerPattern layer = parse_schedule(pattern).layer(0);
  reference::attention_forward<double>(layer, t.scale, q, k, v, o, lse_view);
  reference::attention_backward<double>(layer, t.scale, q, k, v, o, lse_view, d_o, dq, dk, dv);
  // With bf16, inputs of products and results are rounded: a few parts of 2^-8 of the largest value.
  const double allowed = dtype == DType::bf16 ? 0.02 : 1e-5;
  const auto compare = [&](const char* name, const Tensor& ours, const View<double, 4>& truth) {
    const View<double, 4> view = as_double(ours);
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < n * kHeads * kWidth; ++i) {
      const double error = std::abs(view.data[i] - truth.data[i]);
      worst = std::isnan(error) ? INFINITY : std::max(worst, error);
      largest = std::max(largest, std::abs(truth.data[i]));
    }
    LONGSTRIDE_CHECK(worst < allowed * largest,
                     "{} of {} in {} is wrong by {}, its largest value is {}: nothing was timed", name,
                     pattern, name_of(dtype), worst, largest);
  };
  compare("o", t.o, o);
  compare("dq", g.dq, dq), compare("dk", g.dk, dk), compare("dv", g.dv, dv);
}

}  // namespace longstride

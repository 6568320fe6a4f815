// Attention on the GPU: milliseconds forward and backward for shapes of the paper's models, beside the time
// that moving each operand once would take at the copy speed of this GPU.
//
//   bench_gpu_attention [--shape NAME] [--kernels chosen|portable] [--json FILE]
//
// TFLOP/s count allowed pairs only: 2 (D + Dv) a pair forward, 2 (3 D + 2 Dv) backward. Each time is the
// median of 20; inputs rotate so that together they do not fit into the cache. Before it is timed, each
// pattern and width is compared with the CPU's attention in f32 over a shorter sequence.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>

#include "longstride/base/rng.h"
#include "longstride/device/cuda.h"
#include "longstride/ops/attention.h"
#include "longstride/ops/cuda/ops.h"

#include "bench/gpu_rates.h"
#include "bench/measure.h"

using namespace longstride;

namespace {

constexpr Device kGpu{DeviceKind::cuda, 0};

struct Shape {
  const char* name;
  const char* pattern;
  int64_t batch, heads, n, width, v_width;
};

constexpr Shape kShapes[] = {
    {"fixed merged", "fixed:128,32", 4, 8, 12288, 64, 64},
    {"fixed merged, batch 2", "fixed:128,32", 2, 8, 12288, 64, 64},
    {"strided merged", "strided:128", 4, 8, 12288, 64, 64},
    {"window 128", "window:128", 4, 8, 12288, 64, 64},
    {"own block 128", "block:128", 4, 8, 12288, 64, 64},
    {"stride column 128", "stride:128", 4, 8, 12288, 64, 64},
    {"dense", "dense", 4, 8, 12288, 64, 64},
    {"dense 16k D64", "dense", 2, 16, 16384, 64, 64},
    {"dense 16k D128", "dense", 2, 8, 16384, 128, 128},
    {"imagenet64 column", "stride:128", 4, 16, 12288, 32, 32},
    {"imagenet64 block", "block:128", 4, 16, 12288, 32, 32},
    {"cifar10 column", "stride:96", 16, 2, 3072, 64, 128},
    {"music block", "block:256", 1, 8, 65536, 64, 64},
    {"music column", "stride:256", 1, 8, 65536, 64, 64},
    {"1M block", "block:1024", 1, 8, 1048576, 64, 64},
    {"1M column", "stride:1024", 1, 8, 1048576, 64, 64},
};

// The tensors of one attention on one device.
struct Problem {
  Problem(Device device, const Shape& s, DType dtype, uint32_t seed) : arena(Arena::measuring(device)) {
    lay_out(s, dtype);
    arena = Arena(device, arena.peak());
    lay_out(s, dtype);
    for (const Tensor& t : {qkv, d_o}) fill(t, seed++);
  }
  void lay_out(const Shape& s, DType dtype) {
    const int64_t rows = s.batch * s.n, qk = s.heads * s.width, v = s.heads * s.v_width;
    const auto by_head = [&](const Tensor& t) { return t.split_last(s.heads).split_first(s.batch); };
    qkv = arena.allocate(dtype, {rows, 2 * qk + v});
    const Tensor d_qkv = arena.allocate(dtype, {rows, 2 * qk + v});
    o = arena.allocate(dtype, {rows, v});
    d_o = arena.allocate(dtype, {rows, v});
    tensors.q = by_head(qkv.columns(0, qk)), tensors.k = by_head(qkv.columns(qk, 2 * qk));
    tensors.v = by_head(qkv.columns(2 * qk, 2 * qk + v)), tensors.o = by_head(o);
    tensors.lse = arena.allocate(DType::f32, {s.batch, s.heads, s.n});
    tensors.scale = 1 / std::sqrt(static_cast<float>(s.width));
    gradients.d_o = by_head(d_o);
    gradients.dq = by_head(d_qkv.columns(0, qk)), gradients.dk = by_head(d_qkv.columns(qk, 2 * qk));
    gradients.dv = by_head(d_qkv.columns(2 * qk, 2 * qk + v));
    this->d_qkv = d_qkv;
  }
  static void fill(const Tensor& t, uint32_t seed) {
    std::vector<Bf16> values(static_cast<size_t>(t.count()));
    const int64_t blocks = t.count() / 8;
#pragma omp parallel for
    for (int64_t i = 0; i < blocks; ++i) {
      const PhiloxBlock block = RandomStream{seed}.block(static_cast<uint64_t>(i));
      for (int e = 0; e < 8; ++e)
        values[static_cast<size_t>(8 * i + e)] =
            Bf16(static_cast<float>((block[e / 2] >> (16 * (e % 2))) & 0xffff) * 0x1p-15f - 1.0f);
    }
    if (t.dtype == DType::bf16) {
      copy(Tensor(values.data(), DType::bf16, {t.count()}),
           Tensor(t.data, DType::bf16, {t.count()}, t.device));
      return;
    }
    std::vector<float> wide(values.size());
    for (size_t i = 0; i < values.size(); ++i) wide[i] = static_cast<float>(values[i]);
    copy(Tensor(wide.data(), DType::f32, {t.count()}), Tensor(t.data, DType::f32, {t.count()}, t.device));
  }
  Arena arena;
  Tensor qkv, d_qkv, o, d_o;
  AttentionTensors tensors;
  AttentionGradients gradients;
};

struct Planned {
  Planned(Device device, const Shape& s)
      : plan(plan_attention(device, parse_schedule(s.pattern).layer(0), s.heads, s.n)),
        scratch(device, attention_scratch_bytes(device, plan, s.batch, s.heads, s.width, s.v_width)),
        context{device, &scratch} {}
  void forward(const Problem& p) const { attention_forward(context, plan, p.tensors); }
  void backward(const Problem& p) const { attention_backward(context, plan, p.tensors, p.gradients); }
  AttentionPlan plan;
  mutable Arena scratch;
  OpContext context;
};

std::vector<float> values_of(const Tensor& t) {
  std::vector<float> values(static_cast<size_t>(t.count()));
  if (t.dtype == DType::f32) {
    copy(t, Tensor(values.data(), DType::f32, {t.count()}));
    return values;
  }
  std::vector<Bf16> narrow(values.size());
  copy(Tensor(t.data, t.dtype, {t.count()}, t.device), Tensor(narrow.data(), DType::bf16, {t.count()}));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(narrow[i]);
  return values;
}

// The largest difference over the largest value.
double difference(const std::vector<float>& ours, const std::vector<float>& theirs) {
  double most = 0, error = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(theirs[i])));
    const double d = std::abs(static_cast<double>(ours[i]) - theirs[i]);
    error = d == d ? std::max(error, d) : INFINITY;
  }
  return error / most;
}

double check(Shape s) {
  s.n = std::min<int64_t>(s.n, 3000), s.batch = 1, s.heads = 2;
  const Problem gpu(kGpu, s, DType::bf16, 1), cpu({}, s, DType::f32, 1);
  const Planned on_gpu(kGpu, s), on_cpu({}, s);
  on_gpu.forward(gpu), on_gpu.backward(gpu), on_cpu.forward(cpu), on_cpu.backward(cpu);
  const double error = std::max(difference(values_of(gpu.o), values_of(cpu.o)),
                                difference(values_of(gpu.d_qkv), values_of(cpu.d_qkv)));
  LONGSTRIDE_CHECK(error < 0.02, "{}: differs from the CPU's attention by {:.4f}", s.name, error);
  return error;
}

nlohmann::json measure(const Shape& s, double rate) {
  const double error = check(s);
  const Planned planned(kGpu, s);
  std::vector<std::unique_ptr<Problem>> problems;
  int64_t bytes = 0;
  do {
    problems.push_back(
        std::make_unique<Problem>(kGpu, s, DType::bf16, static_cast<uint32_t>(10 * problems.size())));
    bytes += problems.back()->qkv.bytes() + problems.back()->o.bytes();
  } while (bytes < (int64_t{150} << 20));
  size_t turn = 0;
  const auto next = [&]() -> const Problem& { return *problems[turn++ % problems.size()]; };
  const double forward = median_gpu_seconds([&] { planned.forward(next()); });
  const double backward = median_gpu_seconds([&] { planned.backward(next()); });
  const double pairs = static_cast<double>(s.batch * planned.plan.pairs);
  const double forward_flops = 2 * pairs * static_cast<double>(s.width + s.v_width);
  const double backward_flops = 2 * pairs * static_cast<double>(3 * s.width + 2 * s.v_width);
  const Problem& p = *problems.front();
  const double forward_floor = static_cast<double>(p.qkv.bytes() + p.o.bytes()) / rate;
  const double backward_floor = 2 * forward_floor;
  std::printf("%-24s %9.3f %9.3f %8.0f %8.0f %9.3f %9.3f %8.4f\n", s.name, 1e3 * forward, 1e3 * backward,
              forward_flops / forward / 1e12, backward_flops / backward / 1e12, 1e3 * forward_floor,
              1e3 * backward_floor, error);
  std::fflush(stdout);
  return {{"shape", s.name},
          {"pattern", s.pattern},
          {"batch", s.batch},
          {"heads", s.heads},
          {"n", s.n},
          {"width", s.width},
          {"v_width", s.v_width},
          {"forward_ms", 1e3 * forward},
          {"backward_ms", 1e3 * backward},
          {"forward_floor_ms", 1e3 * forward_floor},
          {"backward_floor_ms", 1e3 * backward_floor},
          {"forward_tflops", forward_flops / forward / 1e12},
          {"backward_tflops", backward_flops / backward / 1e12},
          {"error", error}};
}

}  // namespace

int main(int argc, char** argv) {
  std::string only, json_path, kernels = "chosen";
  const Options options{{"--shape", [&](const std::string& value) { only = value; }},
                        {"--kernels", [&](const std::string& value) { kernels = value; }},
                        {"--json", [&](const std::string& value) { json_path = value; }}};
  return run_benchmark("bench_gpu_attention", argc, argv, options, [&] {
    parse_device("cuda");
    LONGSTRIDE_CHECK(kernels == "chosen" || kernels == "portable", "--kernels {}: must be chosen or portable",
                     kernels);
    cuda::prefer_portable_attention(kernels == "portable");
    const double rate = gpu_copy_rate(kGpu);
    std::printf("%s; copies at %.2f TB/s\n", cuda::describe(0).c_str(), rate / 1e12);
    std::printf("%-24s %9s %9s %8s %8s %9s %9s %8s\n", "shape", "fwd ms", "bwd ms", "TFLOP/s", "TFLOP/s",
                "floor fwd", "floor bwd", "error");
    nlohmann::json results = nlohmann::json::array();
    for (const Shape& s : kShapes)
      if (only.empty() || only == s.name) results.push_back(measure(s, rate));
    write_json(json_path, {{"gpu", cuda::describe(0)}, {"copy_tb_s", rate / 1e12}, {"attention", results}});
  });
}

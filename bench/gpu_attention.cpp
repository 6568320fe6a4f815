// Attention on the GPU: milliseconds forward and backward for shapes of the paper's models, beside the time
// that moving each operand once would take at the copy speed of this GPU.
//
//   bench_gpu_attention [--part shapes|scaling] [--shape NAME] [--dtype bf16|f32]
//                       [--kernels chosen|portable|by-roles|by-keys|by-rows] [--json FILE]
//
// Parts, both if none is named: the shapes; and how time grows from 4,096 to 1,048,576 positions where
// strides and blocks are the root of the length, as the slope of log time over log length.
//
// TFLOP/s count allowed pairs only: 2 (D + Dv) a pair forward, 2 (3 D + 2 Dv) backward. Each time is the
// median of 20; inputs rotate so that together they do not fit into the cache. Before it is timed, each
// pattern and width is compared with the CPU's attention in f32 over a shorter sequence.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>

#include "longstride/base/rng.h"
#include "longstride/base/threads.h"
#include "longstride/device/backend.h"
#include "longstride/ops/attention.h"
#include "longstride/ops/cuda/attention_lists.h"

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
    parallel_for(t.count() / 8, [&](int64_t i) {
      const PhiloxBlock block = RandomStream{seed}.block(static_cast<uint64_t>(i));
      for (int e = 0; e < 8; ++e)
        values[static_cast<size_t>(8 * i + e)] =
            Bf16(static_cast<float>((block[e / 2] >> (16 * (e % 2))) & 0xffff) * 0x1p-15f - 1.0f);
    });
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
  Planned(Device device, const Shape& s, DType dtype)
      : plan(plan_attention(device, parse_schedule(s.pattern).layer(0), s.heads, s.n)),
        scratch(device, attention_scratch_bytes(device, plan, dtype, s.batch, s.heads, s.width, s.v_width)),
        context{device, &scratch} {}
  void forward(const Problem& p) const { run(context, AttentionForward{plan, p.tensors}); }
  void backward(const Problem& p) const { run(context, AttentionBackward{plan, p.tensors, p.gradients}); }
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

double check(Shape s, DType dtype) {
  s.n = std::min<int64_t>(s.n, 3000), s.batch = 1, s.heads = 2;
  const Problem gpu(kGpu, s, dtype, 1), cpu({}, s, DType::f32, 1);
  const Planned on_gpu(kGpu, s, dtype), on_cpu({}, s, DType::f32);
  on_gpu.forward(gpu), on_gpu.backward(gpu), on_cpu.forward(cpu), on_cpu.backward(cpu);
  const double error = std::max(difference(values_of(gpu.o), values_of(cpu.o)),
                                difference(values_of(gpu.d_qkv), values_of(cpu.d_qkv)));
  LONGSTRIDE_CHECK(error < (dtype == DType::f32 ? 1e-5 : 0.02),
                   "{}: differs from the CPU's attention by {:.2g}", s.name, error);
  return error;
}

struct Times {
  double forward, backward;  // seconds
};

Times time_of(const Shape& s, DType dtype, const Planned& planned) {
  std::vector<std::unique_ptr<Problem>> problems;
  int64_t bytes = 0;
  do {
    problems.push_back(
        std::make_unique<Problem>(kGpu, s, dtype, static_cast<uint32_t>(10 * problems.size())));
    bytes += problems.back()->qkv.bytes() + problems.back()->o.bytes();
  } while (bytes < (int64_t{150} << 20));
  size_t turn = 0;
  const auto next = [&]() -> const Problem& { return *problems[turn++ % problems.size()]; };
  const double forward = median_gpu_seconds([&] { planned.forward(next()); });
  return {forward, median_gpu_seconds([&] { planned.backward(next()); })};
}

nlohmann::json measure(const Shape& s, DType dtype, double rate) {
  const double error = check(s, dtype);
  const Planned planned(kGpu, s, dtype);
  const auto [forward, backward] = time_of(s, dtype, planned);
  const double pairs = static_cast<double>(s.batch * planned.plan.pairs);
  const double forward_flops = 2 * pairs * static_cast<double>(s.width + s.v_width);
  const double backward_flops = 2 * pairs * static_cast<double>(3 * s.width + 2 * s.v_width);
  const int64_t bytes = size_of(dtype) * s.batch * s.heads * s.n * 2 * (s.width + s.v_width);  // q, k, v, o
  const double forward_floor = static_cast<double>(bytes) / rate;
  const double backward_floor = 2 * forward_floor;
  std::printf("%-24s %9.3f %9.3f %8.0f %8.0f %9.3f %9.3f %8.1e\n", s.name, 1e3 * forward, 1e3 * backward,
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

// The slope of log time over log length, by least squares.
double slope_of(const std::vector<int64_t>& lengths, const std::vector<double>& seconds) {
  double x_sum = 0, y_sum = 0, xx = 0, xy = 0;
  const auto count = static_cast<double>(lengths.size());
  for (size_t i = 0; i < lengths.size(); ++i) {
    const double x = std::log(static_cast<double>(lengths[i])), y = std::log(seconds[i]);
    x_sum += x, y_sum += y, xx += x * x, xy += x * y;
  }
  return (count * xy - x_sum * y_sum) / (count * xx - x_sum * x_sum);
}

nlohmann::json measure_scaling(DType dtype) {
  std::printf("\nbatch 1, 8 heads of 64, l = sqrt(n); ms forward / backward\n%-12s", "n");
  const std::vector<int64_t> strides{64, 128, 256, 512, 1024};
  for (const int64_t l : strides) std::printf("%18lld", static_cast<long long>(l * l));
  std::printf("   slopes\n");
  nlohmann::json results = nlohmann::json::array();
  for (const char* kind : {"block:{}", "stride:{}", "strided:{}", "fixed:{},16"}) {
    std::vector<int64_t> lengths;
    std::vector<double> forward, backward;
    std::printf("%-12s", kind);
    for (const int64_t l : strides) {
      std::string pattern(kind);
      pattern.replace(pattern.find("{}"), 2, std::to_string(l));
      const Shape s{kind, pattern.c_str(), 1, 8, l * l, 64, 64};
      const Times times = time_of(s, dtype, Planned(kGpu, s, dtype));
      lengths.push_back(s.n), forward.push_back(times.forward), backward.push_back(times.backward);
      std::printf("%9.3f%9.3f", 1e3 * times.forward, 1e3 * times.backward);
      std::fflush(stdout);
    }
    const double slopes[] = {slope_of(lengths, forward), slope_of(lengths, backward)};
    std::printf("   %.2f %.2f\n", slopes[0], slopes[1]);
    results.push_back({{"pattern", kind},
                       {"n", lengths},
                       {"forward_seconds", forward},
                       {"backward_seconds", backward},
                       {"forward_slope", slopes[0]},
                       {"backward_slope", slopes[1]}});
  }
  return results;
}

}  // namespace

int main(int argc, char** argv) {
  std::string part, only, json_path, kernels = "chosen", type = "bf16";
  const Options options{{"--part", [&](const std::string& value) { part = value; }},
                        {"--shape", [&](const std::string& value) { only = value; }},
                        {"--dtype", [&](const std::string& value) { type = value; }},
                        {"--kernels", [&](const std::string& value) { kernels = value; }},
                        {"--json", [&](const std::string& value) { json_path = value; }}};
  return run_benchmark("bench_gpu_attention", argc, argv, options, [&] {
    parse_device("cuda");
    const std::map<std::string, cuda::AttentionKernels> known{{"chosen", cuda::AttentionKernels::chosen},
                                                              {"portable", cuda::AttentionKernels::portable},
                                                              {"by-roles", cuda::AttentionKernels::by_roles},
                                                              {"by-keys", cuda::AttentionKernels::by_keys},
                                                              {"by-rows", cuda::AttentionKernels::by_rows}};
    LONGSTRIDE_CHECK(known.contains(kernels),
                     "--kernels {}: must be chosen, portable, by-roles, by-keys or by-rows", kernels);
    LONGSTRIDE_CHECK(type == "bf16" || type == "f32", "--dtype {}: must be bf16 or f32", type);
    LONGSTRIDE_CHECK(type == "bf16" || !kernels.starts_with("by-") || kernels == "by-rows",
                     "--kernels {} --dtype f32: Hopper's kernels are for 16 bits", kernels);
    const DType dtype = type == "f32" ? DType::f32 : DType::bf16;
    LONGSTRIDE_CHECK(part.empty() || part == "shapes" || part == "scaling",
                     "--part {}: must be shapes or scaling", part);
    cuda::prefer_attention(known.at(kernels));
    const double rate = gpu_copy_rate(kGpu);
    std::printf("%s; copies at %.2f TB/s\n", backend(kGpu).describe(0).c_str(), rate / 1e12);
    nlohmann::json results = nlohmann::json::array(), scaling;
    if (part != "scaling") {
      std::printf("%-24s %9s %9s %8s %8s %9s %9s %8s\n", "shape", "fwd ms", "bwd ms", "TFLOP/s", "TFLOP/s",
                  "floor fwd", "floor bwd", "error");
      for (const Shape& s : kShapes)
        if (only.empty() || only == s.name) results.push_back(measure(s, dtype, rate));
    }
    if (part != "shapes" && only.empty()) scaling = measure_scaling(dtype);
    write_json(json_path, {{"gpu", backend(kGpu).describe(0)},
                           {"copy_tb_s", rate / 1e12},
                           {"kernels", kernels},
                           {"dtype", type},
                           {"attention", results},
                           {"scaling", scaling}});
  });
}

#include "bench/gpu_rates.h"

#include <memory>
#include <utility>
#include <vector>

#include "longstride/device/backend.h"
#include "longstride/ops/linear.h"

#include "bench/measure.h"

namespace longstride {

double median_gpu_seconds(const std::function<void()>& work) {
  constexpr int kRuns = 20;
  const Backend& gpu = backend(DeviceKind::cuda);
  for (int run = 0; run < 3; ++run) work();
  // Nothing waits between the runs, so that the GPU does not wait for the CPU.
  std::vector<std::unique_ptr<Moment>> moments;
  moments.push_back(gpu.moment());
  for (int run = 0; run < kRuns; ++run) {
    work();
    moments.push_back(gpu.moment());
  }
  std::vector<double> seconds;
  for (size_t run = 0; run < kRuns; ++run) seconds.push_back(moments[run + 1]->seconds_since(*moments[run]));
  return median(seconds);
}

double gpu_copy_rate(Device device) {
  constexpr int64_t kBytes = int64_t{1} << 30;
  const Buffer from(device, kBytes), to(device, kBytes);
  return 2.0 * kBytes / median_gpu_seconds([&] { backend(device).copy(to.data(), from.data(), kBytes); });
}

namespace {

// A linear layer without bias in bf16, its weight's gradient in f32: the three products of one training step.
class LinearProducts {
 public:
  LinearProducts(Device device, int64_t rows, int64_t in, int64_t out)
      : device_(device),
        scratch_(device, linear_scratch_bytes(device, rows, in, out, DType::bf16, DType::bf16)),
        flops_(2.0 * static_cast<double>(rows) * static_cast<double>(in) * static_cast<double>(out)) {
    x_ = random_matrix(rows, in), w_ = random_matrix(out, in), dy_ = random_matrix(rows, out);
    y_ = matrix(DType::bf16, rows, out), dx_ = matrix(DType::bf16, rows, in);
    dw_ = matrix(DType::f32, out, in);
  }
  double flops() const { return flops_; }  // of each product
  void forward() const { run(context(), LinearForward{x_, w_, {}, y_}); }
  void backward() const {
    run(context(), LinearBackwardWeight{dy_, x_, DType::bf16, dw_, {}});
    run(context(), LinearBackwardInput{dy_, w_, dx_});
  }

 private:
  OpContext context() const { return {device_, &scratch_}; }
  Tensor matrix(DType dtype, int64_t rows, int64_t columns) {
    buffers_.emplace_back(device_, rows * columns * size_of(dtype));
    return Tensor(buffers_.back().data(), dtype, {rows, columns}, DeviceKind::cuda);
  }
  Tensor random_matrix(int64_t rows, int64_t columns) {
    const Tensor result = matrix(DType::bf16, rows, columns);
    const Buffer values({}, result.bytes());
    const Tensor on_cpu(values.data(), DType::bf16, {rows, columns});
    fill_uniform(on_cpu, static_cast<uint32_t>(buffers_.size()));
    copy(on_cpu, result);
    return result;
  }

  Device device_;
  mutable Arena scratch_;
  std::vector<Buffer> buffers_;
  Tensor x_, w_, dy_, y_, dx_, dw_;
  double flops_;
};

double large_product_rate(Device device) {
  constexpr int64_t kSize = 8192;
  const LinearProducts linear(device, kSize, kSize, kSize);
  return linear.flops() / median_gpu_seconds([&] { linear.forward(); });
}

// One after the other, as a step has them, so that each finds the caches full of other matrices.
double model_product_rate(Device device, const RunConfig& config) {
  const ModelConfig& m = config.model;
  const int64_t rows = config.train.batch * m.context;
  std::vector<std::unique_ptr<LinearProducts>> linears;
  for (const auto& [in, out] :
       {std::pair{m.width, m.qkv()}, {m.width, m.width}, {m.width, m.ff()}, {m.ff(), m.width}})
    linears.push_back(std::make_unique<LinearProducts>(device, rows, in, out));
  double flops = 0;
  for (const auto& linear : linears) flops += 3 * linear->flops();
  return flops / median_gpu_seconds([&] {
           for (const auto& linear : linears) linear->forward(), linear->backward();
         });
}

}  // namespace

GpuRates measure_gpu_rates(Device device, const RunConfig& config) {
  return {gpu_copy_rate(device), large_product_rate(device), model_product_rate(device, config)};
}

}  // namespace longstride

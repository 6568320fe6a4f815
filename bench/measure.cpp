#include "bench/measure.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <fstream>
#include <iterator>
#include <numeric>

#include "longstride/base/rng.h"
#include "longstride/base/threads.h"

namespace longstride {

int run_benchmark(const char* program, int argc, char** argv, const Options& options,
                  const std::function<void()>& body) {
  try {
    for (int i = 1; i < argc; i += 2) {
      const auto option = options.find(argv[i]);
      if (option == options.end()) {
        std::string known;
        for (const auto& [name, action] : options) known += (known.empty() ? "" : ", ") + name;
        throw UsageError(fmt::format("unknown option {}; known: {}", argv[i], known));
      }
      if (i + 1 == argc) throw UsageError(fmt::format("{} needs a value", argv[i]));
      option->second(argv[i + 1]);
    }
    body();
    return 0;
  } catch (const UsageError& error) {
    fmt::print(stderr, "{}: {}\n", program, error.what());
    return 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", program, error.what());
    return 1;
  }
}

void write_json(const std::string& path, const nlohmann::json& json) {
  if (path.empty()) return;
  std::ofstream file(path);
  file << json.dump(2) << '\n';
  LONGSTRIDE_CHECK(file.flush().good(), "cannot write {}: {}", path, last_system_error());
}

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  LONGSTRIDE_CHECK(!values.empty(), "the median of nothing; --repeats must be at least 1");
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double gflops(double flops, double seconds) { return flops / seconds * 1e-9; }

void fill_uniform(const Tensor& tensor, uint32_t stream) {
  const RandomStream random{7, stream};
  const int64_t count = tensor.count();
  const auto fill = [&]<class T>(T* data) {
    constexpr int64_t kPiece = 1024;  // blocks
    const int64_t blocks = (count + 3) / 4;
    parallel_for((blocks + kPiece - 1) / kPiece, [&](int64_t piece) {
      for (int64_t block = piece * kPiece; block < std::min(blocks, (piece + 1) * kPiece); ++block) {
        const PhiloxBlock words = random.block(block);
        for (int64_t i = 4 * block; i < std::min(count, 4 * block + 4); ++i)
          data[i] = T(static_cast<float>(words[i % 4]) * 0x1p-31f - 1);
      }
    });
  };
  tensor.dtype == DType::bf16 ? fill(tensor.as<Bf16>()) : fill(tensor.as<float>());
}

BlockProducts::BlockProducts(DType dtype) {
  constexpr int64_t kRows = 4096, kWidth = 512;
  struct Linear {
    const char* name;
    int64_t in, out;
  };
  const auto lay_out = [&](Arena& arena) {
    products_.clear();
    uint32_t stream = 100;
    const auto make = [&](DType type, int64_t rows, int64_t width) {
      const Tensor tensor = arena.allocate(type, {rows, width});
      if (!arena.is_measuring()) fill_uniform(tensor, stream++);
      return tensor;
    };
    for (const auto& [name, in, out] : {Linear{"qkv", kWidth, 3 * kWidth},
                                        {"projection", kWidth, kWidth},
                                        {"up", kWidth, 4 * kWidth},
                                        {"down", 4 * kWidth, kWidth}}) {
      const Tensor x = make(dtype, kRows, in), y = make(dtype, kRows, out);
      const Tensor dx = make(dtype, kRows, in), dy = make(dtype, kRows, out);
      const Tensor w = make(dtype, out, in), dw = make(DType::f32, out, in), b = make(DType::f32, 1, out);
      const auto add = [&, name = name](const char* use, cpu::MatmulShape shape, const Tensor& left,
                                        const Tensor& right, const void* bias, const Tensor& result) {
        shape.dtype = dtype, shape.c_dtype = result.dtype;
        shape.m = result.shape[0], shape.n = result.shape[1], shape.c_row = result.stride[0];
        shape.bias = bias != nullptr;
        products_.push_back({fmt::format("{} {}", name, use), shape, left.data, right.data,
                             static_cast<const float*>(bias), result.data});
      };
      add("forward", {.k = in, .a_row = in, .b_row = 1, .b_column = in}, x, w, b.data, y);
      add("input gradient", {.k = out, .a_row = out, .b_row = in}, dy, w, nullptr, dx);
      add("weight gradient", {.k = kRows, .a_row = 1, .a_column = out, .b_row = in, .accumulate = true}, dy,
          x, nullptr, dw);
    }
  };
  lay_out(arena_);
  arena_ = Arena({}, arena_.peak());
  lay_out(arena_);
}

double BlockProducts::Product::seconds() const {
  return seconds_of([&] { cpu::matmul(shape, a, b, bias, c); });
}

double BlockProducts::flops() const {
  double sum = 0;
  for (const Product& product : products_) sum += product.flops();
  return sum;
}

double BlockProducts::seconds() const {
  double sum = 0;
  for (const Product& product : products_) sum += product.seconds();
  return sum;
}

MemoryRead::MemoryRead() : buffer_({}, int64_t{512} << 20) {
  fill_uniform(Tensor(buffer_.data(), DType::f32, {buffer_.bytes() / 4}), 1);
}

double MemoryRead::bytes_per_second() const {
  constexpr int64_t kLanes = 16;  // sums side by side, so that adding does not wait
  const uint64_t* data = static_cast<const uint64_t*>(buffer_.data());
  const int64_t lines = buffer_.bytes() / (8 * kLanes);
  std::atomic<uint64_t> total = 0;
  const double seconds = seconds_of([&] {
    parallel_for(lines / 1024, [&](int64_t piece) {
      uint64_t sums[kLanes] = {};
      for (int64_t line = 1024 * piece; line < 1024 * (piece + 1); ++line)
        for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += data[kLanes * line + lane];
      total += std::accumulate(std::begin(sums), std::end(sums), uint64_t{0});
    });
  });
  LONGSTRIDE_CHECK(total != 0, "random numbers sum up to zero");  // and the sums are needed
  return static_cast<double>(buffer_.bytes()) / seconds;
}

bool has_bf16_products() {
  static const bool has = cpu_has_bf16() && !cpu::matmul_kernel(DType::bf16).empty();
  return has;
}

}  // namespace longstride

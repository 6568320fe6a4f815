// What the benchmarks share: their command line, clocks, and the two floors that times are compared with,
// the products of matrices that oneDNN makes and the memory's reading speed.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "longstride/device/memory.h"
#include "longstride/ops/cpu/matmul.h"

namespace longstride {

using Options = std::map<std::string, std::function<void(const std::string& value)>>;

// The body of main: reads "--name value" pairs, calls `body`, prints what goes wrong; the exit code.
int run_benchmark(const char* program, int argc, char** argv, const Options& options,
                  const std::function<void()>& body);

// Nothing if `path` is empty.
void write_json(const std::string& path, const nlohmann::json& json);

double seconds_of(const std::function<void()>& work);
double median(std::vector<double> values);
double gflops(double flops, double seconds);

// Uniform in [-1, 1), for f32 and bf16.
void fill_uniform(const Tensor& tensor, uint32_t stream);

// The products of the four linears of a block of width 512 over 4096 rows: forward, gradient of the input,
// gradient of the weight. Results are stored as the model stores them, in `dtype`, weight gradients in f32.
class BlockProducts {
 public:
  explicit BlockProducts(DType dtype);

  struct Product {
    std::string name;
    cpu::MatmulShape shape;
    const void *a, *b;
    const float* bias;
    void* c;
    double flops() const {
      return 2.0 * static_cast<double>(shape.m * shape.n) * static_cast<double>(shape.k);
    }
    double seconds() const;
  };
  const std::vector<Product>& products() const { return products_; }
  double flops() const;
  // Of all products, once.
  double seconds() const;

 private:
  Arena arena_ = Arena::measuring({});
  std::vector<Product> products_;
};

// Reads a buffer larger than the caches with all threads.
class MemoryRead {
 public:
  MemoryRead();
  double bytes_per_second() const;

 private:
  Buffer buffer_;
};

// The CPU multiplies bf16 matrices, and oneDNN may.
bool has_bf16_products();

}  // namespace longstride

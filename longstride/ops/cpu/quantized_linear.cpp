// The linear layer with a weight in eight bits (contract: longstride/ops/quantized_linear.h). The same bits
// for any number of threads: rows of the weight are independent. No scratch.
#include "longstride/ops/quantized_linear.h"

#include <cmath>

#include "longstride/ops/cpu/linear_few_rows.h"
#include "longstride/ops/cpu/parallel.h"

namespace longstride::cpu {

namespace {

constexpr float kLargest = 127;

void quantize_row(const float* w, int64_t width, int8_t* values, float* scale) {
  float largest = 0;
  for (int64_t i = 0; i < width; ++i) largest = std::max(largest, std::abs(w[i]));
  *scale = largest / kLargest;
  for (int64_t i = 0; i < width; ++i)
    values[i] = *scale == 0 ? 0 : static_cast<int8_t>(std::lround(w[i] / largest * kLargest));
}

template <class T>
void dequantize_rows(const QuantizedMatrix& q, const Tensor& w) {
  const int64_t width = w.shape[1];
  parallel_rows(w.shape[0], width, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float scale = q.scales.as<float>()[row];
      const int8_t* values = q.values.as<int8_t>() + row * width;
      T* to = w.as<T>() + row * width;
      for (int64_t i = 0; i < width; ++i) to[i] = T(scale * values[i]);
    }
  });
}

}  // namespace

template <>
void compute(const OpContext& context, const Quantize& t) {
  const int64_t width = t.w.shape[1];
  parallel_rows(t.w.shape[0], width, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      quantize_row(t.w.as<float>() + row * width, width, t.q.values.as<int8_t>() + row * width,
                   t.q.scales.as<float>() + row);
  });
}

template <>
void compute(const OpContext& context, const Dequantize& t) {
  t.w.dtype == DType::bf16 ? dequantize_rows<Bf16>(t.q, t.w) : dequantize_rows<float>(t.q, t.w);
}

template <>
void compute(const OpContext& context, const QuantizedLinearForward& t) {
  linear_few_rows(t.x, t.w.values, t.w.scales, t.b, t.y);
}

}  // namespace longstride::cpu

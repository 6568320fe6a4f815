// What the parts of attention's check have in common: the cases, their inputs, and the expected results.
#pragma once

#include <string>
#include <vector>

#include "longstride/base/dtype.h"
#include "longstride/verify/check.h"

namespace longstride::verify {

struct AttentionShape {
  int64_t batch, heads, width, v_width;
};

// One problem.
struct AttentionCase {
  std::string pattern;
  int64_t n;
  AttentionShape shape;
  int64_t gap = 0;  // not 0: q, k, v are columns of one array with gaps of this many elements between them
  float gain = 1;   // of q
  DType dtype = DType::f32;

  std::string name(const char* what) const;
  float scale() const;
};

// The cases of check_attention(): all patterns; if thorough, lengths and widths in all combinations.
std::vector<AttentionCase> attention_cases(Device device, Effort effort);

// The 16-bit types that the device's attention takes.
std::vector<DType> narrow_dtypes(Device device);

// All inputs and outputs of one problem, contiguous.
template <class T>
struct AttentionValues {
  std::vector<T> q, k, v, d_o;
  std::vector<T> o, lse, dq, dk, dv;
};

// `value` rounded to this type.
float rounded_to(DType dtype, float value);
// Half the distance from 1 to its neighbour; 0 for f32.
double rounding_of(DType dtype);

// Normal values for q, k, v and d_o, as the case's dtype holds them.
AttentionValues<float> random_inputs(const AttentionCase& c);

// The definition in precision T, float or double.
template <class T>
AttentionValues<T> by_definition(const AttentionCase& c, const AttentionValues<float>& inputs);

// The plainest computation in which weights, their gradients and results are rounded to 16 bits and sums are
// f32.
AttentionValues<float> naive_rounded(const AttentionCase& c, const AttentionValues<float>& inputs);

// Adds checks of the cache that keeps these keys and values for a sampler, and of reading it on the CPU.
void check_key_cache(const AttentionCase& c, Device device, const AttentionValues<float>& inputs,
                     double floor, std::vector<Check>& checks);

}  // namespace longstride::verify

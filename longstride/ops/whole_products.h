// Exact products of small integers, on the CPU: the same sums on every machine, whatever its instructions and their
// order. Each call is one thread's; w's rows and heads may be shared by the caller's.
#pragma once

#include <cstdint>

namespace longstride {

// sums[n * count + m] = sum over k of w[n][k] x[m][k], for w (rows, columns) in [-127, 127] and x (count, columns) in
// [-32767, 32767].
void whole_products(const int8_t* w, int64_t rows, int64_t columns, const int16_t* x, int64_t count,
                    int64_t* sums);

// What attention needs of the rows `rows` (count) of a matrix (.., width).
// sums[j] = sum over k of query[k] keys[rows[j]][k], for query and keys in [-4095, 4095].
void whole_scores(const int16_t* query, const int16_t* keys, const int32_t* rows, int64_t count,
                  int64_t width, int64_t* sums);
// sums[k] = sum over j of factors[j] values[rows[j]][k], for factors in [0, 2^20] and values in [-32767, 32767];
// count is at most 2^26.
void whole_mixture(const int32_t* factors, const int16_t* values, const int32_t* rows, int64_t count,
                   int64_t width, int64_t* sums);

}  // namespace longstride

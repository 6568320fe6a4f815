// Rows by their numbers (contract: longstride/ops/rows.h). Rows are independent: the same bits for any number of
// threads.
#include "longstride/ops/rows.h"

#include <cstring>

#include "longstride/ops/cpu/parallel.h"

namespace longstride::cpu {

namespace {

char* row_of(const Tensor& rows, int64_t row) {
  return static_cast<char*>(rows.data) + row * rows.stride[0] * size_of(rows.dtype);
}

template <class T>
void add_row(const char* from, char* to, int64_t width) {
  const T* const addend = reinterpret_cast<const T*>(from);
  T* const sum = reinterpret_cast<T*>(to);
  for (int64_t i = 0; i < width; ++i) sum[i] = T(static_cast<float>(sum[i]) + static_cast<float>(addend[i]));
}

// Calls body(i, number i) for each number.
template <class Body>
void for_each_number(const Tensor& numbers, int64_t width, const Body& body) {
  const int32_t* const all = numbers.as<int32_t>();
  parallel_rows(numbers.shape[0], width, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i, all[i]);
  });
}

}  // namespace

template <>
void compute(const OpContext&, const PickRows& t) {
  const auto bytes = static_cast<size_t>(t.to.shape[1] * size_of(t.to.dtype));
  for_each_number(t.numbers, t.to.shape[1], [&](int64_t i, int64_t number) {
    std::memcpy(row_of(t.to, i), row_of(t.from, number), bytes);
  });
}

template <>
void compute(const OpContext&, const PlaceRows& t) {
  const int64_t width = t.from.shape[1];
  const auto bytes = static_cast<size_t>(width * size_of(t.from.dtype));
  for_each_number(t.numbers, width, [&](int64_t i, int64_t number) {
    if (!t.adds)
      std::memcpy(row_of(t.to, number), row_of(t.from, i), bytes);
    else if (t.to.dtype == DType::bf16)
      add_row<Bf16>(row_of(t.from, i), row_of(t.to, number), width);
    else
      add_row<float>(row_of(t.from, i), row_of(t.to, number), width);
  });
}

}  // namespace longstride::cpu

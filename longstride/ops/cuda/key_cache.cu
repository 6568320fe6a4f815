// Keys and values to where a sampler keeps them (contract: longstride/ops/key_cache.h), a thread an element.
// A key is written to the rows that are its own, so no two threads write one place. No scratch.
#include "longstride/ops/cuda/common.cuh"
#include "longstride/ops/key_cache.h"

namespace longstride::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kHeadsAtOnce = 8;  // whose stores fit what a launch may pass by value

struct StoreArgs {
  KeyStore stores[kHeadsAtOnce];
  int64_t first_row[kHeadsAtOnce];
  const void* from;
  void* to;                            // of the sequence
  int64_t from_position, from_head;    // strides in elements
  int64_t begin, positions, elements;  // elements of a head
  int first_head, width;
};

template <class From, class To>
__global__ void __launch_bounds__(kThreads) store_kernel(const __grid_constant__ StoreArgs a) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= a.elements) return;
  const int64_t n = i / a.width, column = i - n * a.width;
  const int head = static_cast<int>(blockIdx.y);
  const From* from =
      static_cast<const From*>(a.from) + n * a.from_position + (a.first_head + head) * a.from_head + column;
  const To value = from_float<To>(to_float(*from));
  To* to = static_cast<To*>(a.to) + a.first_row[head] * a.width + column;
  for_rows_of_key(a.stores[head], a.begin + n, a.begin + a.positions,
                  [&](int32_t row) { to[static_cast<int64_t>(row) * a.width] = value; });
}

// rows (N, H, width) to a cache (B, rows, width).
void store(const std::span<const HeadRows> heads, int64_t sequence, int64_t begin, const Tensor& rows,
           const Tensor& cache) {
  const int64_t count = static_cast<int64_t>(heads.size());
  StoreArgs args;
  args.from = rows.data;
  args.to = static_cast<char*>(cache.data) + sequence * cache.stride[0] * size_of(cache.dtype);
  args.from_position = rows.stride[0], args.from_head = rows.stride[1];
  args.begin = begin, args.positions = rows.shape[0];
  args.elements = rows.shape[0] * rows.shape[2];
  args.width = static_cast<int>(rows.shape[2]);
  for (int64_t first = 0; first < count; first += kHeadsAtOnce) {
    const int64_t some = count - first < kHeadsAtOnce ? count - first : kHeadsAtOnce;
    args.first_head = static_cast<int>(first);
    for (int64_t h = 0; h < some; ++h) {
      args.stores[h] = *heads[first + h].store;
      args.first_row[h] = heads[first + h].first_row;
    }
    const dim3 grid(static_cast<unsigned>(ceil_div(args.elements, kThreads)), static_cast<unsigned>(some));
    with_float_type(rows.dtype, [&](auto from) {
      with_float_type(cache.dtype, [&](auto to) {
        store_kernel<decltype(from), decltype(to)><<<grid, kThreads, 0, current()>>>(args);
      });
    });
    check_launch("store_keys");
  }
}

}  // namespace

template <>
void compute(const OpContext&, const StoreKeys& t) {
  if (t.keys.shape[0] == 0) return;
  if (t.keys.shape[2] > 0) store(t.cache.heads, t.sequence, t.begin, t.keys, t.cache.keys);
  if (t.values.shape[2] > 0) store(t.cache.heads, t.sequence, t.begin, t.values, t.cache.values);
}

}  // namespace longstride::cuda

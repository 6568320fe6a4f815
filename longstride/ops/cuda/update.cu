// The update of all parameters (contract: longstride/ops/update.h). Parameters are cut into chunks of at most
// kChunk elements, a block of threads each. Sums of squares in double: a partial sum a chunk, then one block
// adds them in their order and decides; the pass over the parameters reads its decision. No scratch besides
// the table's own.
#include <cmath>
#include <vector>

#include "longstride/ops/cuda/adam.cuh"
#include "longstride/ops/cuda/eights.cuh"
#include "longstride/ops/update.h"

namespace longstride::cuda {

namespace {

constexpr int64_t kChunk = 8192;
constexpr int kSumThreads = 1024;  // of the blocks that add up alone

struct Chunk {
  int64_t offset, product_offset;
  int count;
  int decay;
};

// What was decided, for the pass over the parameters.
struct Decision {
  AdamNumbers numbers;
  int applied;
};

// A table in the GPU's memory: the decision, the partial sums, the chunks.
struct TableView {
  Decision* decision;
  double* squares;
  Chunk* chunks;
};

constexpr int64_t kDecisionBytes = (sizeof(Decision) + 63) / 64 * 64;

TableView view_of(void* data, int64_t chunks) {
  char* at = static_cast<char*>(data);
  return {reinterpret_cast<Decision*>(at), reinterpret_cast<double*>(at + kDecisionBytes),
          reinterpret_cast<Chunk*>(at + kDecisionBytes + chunks * static_cast<int64_t>(sizeof(double)))};
}

std::vector<Chunk> chunks_of(std::span<const ParameterSlice> slices) {
  std::vector<Chunk> chunks;
  for (const ParameterSlice& slice : slices)
    for (int64_t begin = 0; begin < slice.count; begin += kChunk)
      chunks.push_back({slice.offset + begin, slice.product_offset < 0 ? -1 : slice.product_offset + begin,
                        static_cast<int>(slice.count - begin < kChunk ? slice.count - begin : kChunk),
                        slice.decay ? 1 : 0});
  return chunks;
}

// The sum over the block, in thread 0; always in the same order.
template <int Threads>
__device__ double block_sum(double value) {
  __shared__ double sums[Threads];
  sums[threadIdx.x] = value;
  for (int half = Threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  return sums[0];
}

__global__ void __launch_bounds__(kSumThreads)
    losses_kernel(const float* losses, int64_t count, UpdateControl* control) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kSumThreads) sum += static_cast<double>(losses[i]);
  sum = block_sum<kSumThreads>(sum);
  if (threadIdx.x == 0) control->losses += sum;
}

__global__ void __launch_bounds__(kThreads) squares_kernel(const float* g, TableView table) {
  const Chunk chunk = table.chunks[blockIdx.x];
  const float* from = g + chunk.offset;
  double sum = 0;
  for (int i = 8 * static_cast<int>(threadIdx.x); i < chunk.count; i += 8 * kThreads) {
    const Eight values = read8(from + i, of_eight(i, chunk.count), true);
#pragma unroll
    for (int j = 0; j < 8; ++j)
      sum = fma(static_cast<double>(values.v[j]), static_cast<double>(values.v[j]), sum);
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) table.squares[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kSumThreads)
    decide_kernel(TableView table, int64_t chunks, UpdateControl* control) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < chunks; i += kSumThreads) sum += table.squares[i];
  sum = block_sum<kSumThreads>(sum);
  if (threadIdx.x != 0) return;
  const double scale = static_cast<double>(control->loss_scale);
  const double norm = sqrt(sum) / scale;
  AdamStep adam = control->adam;
  adam.gradient_scale = 1 / scale;
  if (control->clip > 0 && control->clip < norm + 1e-12)
    adam.gradient_scale *= control->clip / (norm + 1e-12);
  const bool applied = isfinite(norm) && isfinite(control->losses);
  control->norm = norm;
  control->applied = applied ? 1 : 0;
  table.decision->numbers = adam_numbers(adam);
  table.decision->applied = applied ? 1 : 0;
}

template <class T>
struct Buffers {
  float *w, *g, *m, *v;
  float* average;  // or null
  T* products;     // or null
};

template <class T>
__global__ void __launch_bounds__(kThreads) update_kernel(Buffers<T> buffers, TableView table) {
  const Chunk chunk = table.chunks[blockIdx.x];
  const bool applied = table.decision->applied != 0;
  AdamNumbers numbers = table.decision->numbers;
  if (chunk.decay == 0) numbers.decay = 0;
  const bool copies = buffers.products != nullptr && chunk.product_offset >= 0;
  for (int first = 8 * static_cast<int>(threadIdx.x); first < chunk.count; first += 8 * kThreads) {
    const int n = of_eight(first, chunk.count);
    const int64_t i = chunk.offset + first;
    if (applied) {
      Eight w = read8(buffers.w + i, n, true), m = read8(buffers.m + i, n, true),
            v = read8(buffers.v + i, n, true), average{};
      const Eight g = read8(buffers.g + i, n, true);
      if (buffers.average) average = read8(buffers.average + i, n, true);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const AdamElement e = adam_element({w.v[j], m.v[j], v.v[j], average.v[j]}, g.v[j], numbers);
        w.v[j] = e.w, m.v[j] = e.m, v.v[j] = e.v, average.v[j] = e.average;
      }
      write8(buffers.w + i, w, n, true);
      write8(buffers.m + i, m, n, true);
      write8(buffers.v + i, v, n, true);
      if (buffers.average) write8(buffers.average + i, average, n, true);
      if (copies) write8(buffers.products + chunk.product_offset + first, w, n, true);
    }
    write8(buffers.g + i, Eight{}, n, true);
  }
}

}  // namespace

int64_t update_table_bytes(std::span<const ParameterSlice> slices, int64_t* chunks) {
  *chunks = 0;
  for (const ParameterSlice& slice : slices) *chunks += ceil_div(slice.count, kChunk);
  return kDecisionBytes + *chunks * static_cast<int64_t>(sizeof(double) + sizeof(Chunk));
}

void fill_update_table(std::span<const ParameterSlice> slices, void* data) {
  const std::vector<Chunk> chunks = chunks_of(slices);
  for (const Chunk& chunk : chunks)
    LONGSTRIDE_CHECK(chunk.offset % 8 == 0 && (chunk.product_offset < 0 || chunk.product_offset % 8 == 0),
                     "update_parameters: a parameter begins at element {}, must be a multiple of 8",
                     chunk.offset);
  const int64_t count = static_cast<int64_t>(chunks.size());
  copy(view_of(data, count).chunks, chunks.data(), count * static_cast<int64_t>(sizeof(Chunk)));
}

void add_losses(const OpContext&, const Tensor& losses, UpdateControl* control) {
  losses_kernel<<<1, kSumThreads, 0, current()>>>(data_of<float>(losses), losses.count(), control);
  check_launch("add_losses");
}

void update_parameters(const OpContext&, const UpdateTable& table, const UpdateTensors& t,
                       UpdateControl* control) {
  const TableView view = view_of(table.data(), table.chunks());
  const auto blocks = static_cast<unsigned>(table.chunks());
  if (blocks == 0) return;
  LONGSTRIDE_CHECK(vectors_suit(data_of<char>(t.w), data_of<char>(t.g), data_of<char>(t.m),
                                data_of<char>(t.v), data_of<char>(t.average), data_of<char>(t.products)),
                   "update_parameters: a buffer does not begin at a multiple of {} bytes", 16);
  squares_kernel<<<blocks, kThreads, 0, current()>>>(data_of<float>(t.g), view);
  check_launch("squares of update_parameters");
  decide_kernel<<<1, kSumThreads, 0, current()>>>(view, table.chunks(), control);
  check_launch("decision of update_parameters");
  with_float_type(t.products ? t.products.dtype : DType::bf16, [&](auto element) {
    using T = decltype(element);
    const Buffers<T> buffers{data_of<float>(t.w), data_of<float>(t.g),       data_of<float>(t.m),
                             data_of<float>(t.v), data_of<float>(t.average), data_of<T>(t.products)};
    update_kernel<<<blocks, kThreads, 0, current()>>>(buffers, view);
  });
  check_launch("update_parameters");
}

}  // namespace longstride::cuda

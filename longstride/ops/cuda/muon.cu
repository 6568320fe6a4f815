// Muon (contract: longstride/ops/muon.h). Matrices of one shape are made orthogonal together, enough at a
// time to fill the GPU; scratch is theirs alone. Passes over the parameters besides: momentum, whose result u
// replaces the gradient; u / ||u|| into scratch, which zeroes the gradient; the step of the weights. Sums of
// squares in double, a partial sum a chunk, always in the same order.
//
// Floor of the 94.9M model (30 layers, d 512, ff 2048): 0.97 TFLOP of products in four steps, 1.2 ms at 800
// TFLOP/s (five: 1.21 and 1.5), and 46 bytes an element, those of Adam's update, whose place they take: 1.4
// ms at 3 TB/s.
#include <algorithm>
#include <span>
#include <vector>

#include "longstride/ops/cuda/matmul.h"
#include "longstride/ops/cuda/update.cuh"
#include "longstride/ops/muon.h"

namespace longstride::cuda {

namespace {

// What a batch may take of scratch. Batches that fit an L2 cache of 50 MB are too small to fill the
// multiprocessors, and slower (docs/results.md).
constexpr int64_t kBatchBytes = int64_t{160} << 20;

// ---- batches ----

int64_t chunks_of(const MuonMatrix& matrix) { return ceil_div(matrix.count(), kChunk); }

// From one matrix of a batch to the next, so that each begins where arenas begin tensors.
int64_t step_of(int64_t rows, int64_t columns) { return ceil_div(rows * columns, 64) * 64; }

// `count` matrices of one shape in scratch.
struct Batch {
  int64_t count, rows, columns;
  DType dtype;
  Tensor x, y;          // (count, step)
  Tensor gram, factor;  // (count, step of (shorter, shorter))
  void* workspace;

  int64_t step() const { return step_of(rows, columns); }
  int64_t shorter() const { return std::min(rows, columns); }
  int64_t square_step() const { return step_of(shorter(), shorter()); }
};

Batch allocate_batch(Arena& arena, int64_t count, int64_t rows, int64_t columns, DType dtype) {
  Batch b{count, rows, columns, dtype, {}, {}, {}, {}, nullptr};
  b.x = arena.allocate(dtype, {count, b.step()}), b.y = arena.allocate(dtype, {count, b.step()});
  b.gram = arena.allocate(dtype, {count, b.square_step()});
  b.factor = arena.allocate(dtype, {count, b.square_step()});
  b.workspace = arena.allocate(DType::u8, {kMatmulWorkspace}).data;
  return b;
}

int64_t batch_bytes(int64_t count, int64_t rows, int64_t columns, DType dtype) {
  Arena arena = Arena::measuring({DeviceKind::cuda, 0});
  allocate_batch(arena, count, rows, columns, dtype);
  return arena.peak();
}

// How many matrices of a shape, of `left`, to take at a time.
int64_t batch_count(int64_t left, int64_t rows, int64_t columns, DType dtype) {
  const int64_t each = batch_bytes(2, rows, columns, dtype) - batch_bytes(1, rows, columns, dtype);
  const int64_t most = std::max<int64_t>(1, kBatchBytes / each);
  return ceil_div(left, ceil_div(left, most));
}

// Calls body(first, count) for each batch of matrices that lie in their working order.
template <class Body>
void for_each_batch(std::span<const MuonMatrix> matrices, DType dtype, const Body& body) {
  for (size_t begin = 0; begin < matrices.size();) {
    const MuonMatrix& shape = matrices[begin];
    size_t end = begin;
    while (end < matrices.size() && matrices[end].rows == shape.rows &&
           matrices[end].columns == shape.columns)
      ++end;
    const int64_t size = batch_count(static_cast<int64_t>(end - begin), shape.rows, shape.columns, dtype);
    for (size_t first = begin; first < end; first += static_cast<size_t>(size))
      body(first, std::min(size, static_cast<int64_t>(end - first)));
    begin = end;
  }
}

// ---- Newton-Schulz ----

// A matrix of each of a batch, seen by the first.
Tensor first_of(const Tensor& batch, int64_t rows, int64_t columns) {
  return Tensor(batch.data, batch.dtype, {rows, columns}, batch.device);
}

// Of the matrices in b.x; leaves the result there.
void orthogonalize(NewtonSchulz kind, Batch& b) {
  const bool wide = b.rows <= b.columns;
  const int64_t n = b.shorter(), step = b.step(), square_step = b.square_step();
  const Tensor gram = first_of(b.gram, n, n), factor = first_of(b.factor, n, n);
  for (const NewtonSchulzStep& polynomial : steps_of(kind)) {
    const Tensor x = first_of(b.x, b.rows, b.columns), y = first_of(b.y, b.rows, b.columns);
    Matmul m;
    // A = X X^T or X^T X
    m.product = wide ? Product::a_bt : Product::at_b;
    m.a = x, m.b = x, m.c = gram;
    m.batch = {b.count, step, step, square_step};
    matmul(m, b.workspace);
    // b A + c A^2
    m.product = Product::a_b;
    m.a = gram, m.b = gram, m.c = factor;
    m.added = gram;
    m.scale = static_cast<float>(polynomial.c), m.added_scale = static_cast<float>(polynomial.b);
    m.batch = {b.count, square_step, square_step, square_step};
    matmul(m, b.workspace);
    // a X + (b A + c A^2) X, or from the right
    m.a = wide ? factor : x, m.b = wide ? x : factor, m.c = y;
    m.added = x;
    m.scale = 1, m.added_scale = static_cast<float>(polynomial.a);
    m.batch = {b.count, wide ? square_step : step, wide ? step : square_step, step};
    matmul(m, b.workspace);
    std::swap(b.x, b.y);
  }
}

// ---- passes over the parameters, a block of threads a chunk ----

__global__ void __launch_bounds__(kThreads) momentum_kernel(float* g, float* m, MuonTable table) {
  const MuonChunk chunk = table.chunks[blockIdx.x];
  const bool applied = table.decision->applied != 0;
  const bool vectors = chunk.offset % 8 == 0, m_vectors = chunk.kept_offset % 8 == 0;
  const MuonNumbers numbers = table.decision->muon;
  double squares = 0;
  for (int first = 8 * static_cast<int>(threadIdx.x); first < chunk.count; first += 8 * kThreads) {
    const int n = of_eight(first, chunk.count);
    const int64_t i = chunk.offset + first, kept = chunk.kept_offset + first;
    Eight u{};
    if (applied) {
      const Eight gradient = read8(g + i, n, vectors);
      Eight momentum = read8(m + kept, n, m_vectors);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float scaled = __fmul_rn(gradient.v[j], numbers.gradient_scale);
        momentum.v[j] = __fmaf_rn(numbers.rest, __fsub_rn(scaled, momentum.v[j]), momentum.v[j]);
        u.v[j] = __fmaf_rn(numbers.momentum, __fsub_rn(momentum.v[j], scaled), scaled);
        squares = fma(static_cast<double>(u.v[j]), static_cast<double>(u.v[j]), squares);
      }
      write8(m + kept, momentum, n, m_vectors);
    }
    write8(g + i, u, n, vectors);
  }
  squares = block_sum<kThreads>(squares);
  if (threadIdx.x == 0) table.squares[blockIdx.x] = squares;
}

// Where the chunk of this block begins in a batch whose matrices lie `step` elements behind each other: all
// have as many chunks.
__device__ inline int64_t place_in_batch(const MuonChunk& chunk, int64_t step) {
  return static_cast<int64_t>(static_cast<int>(blockIdx.x) / chunk.sums) * step + chunk.begin;
}

// x = u / (||u|| + epsilon), and u = 0. The chunks are those from `first_chunk` on, x the batch of their
// matrices.
template <class T>
__global__ void __launch_bounds__(kThreads)
    take_scaled_kernel(float* u, T* x, MuonTable table, int64_t first_chunk, int64_t step) {
  const MuonChunk chunk = table.chunks[first_chunk + blockIdx.x];
  x += place_in_batch(chunk, step);
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < chunk.sums; i += kThreads)
    sum += table.squares[chunk.first_sum + i];
  sum = block_sum<kThreads>(sum);
  __shared__ float shared_scale;
  if (threadIdx.x == 0) shared_scale = static_cast<float>(1 / (sqrt(sum) + kMuonEpsilon));
  __syncthreads();
  const float scale = shared_scale;
  const bool vectors = chunk.offset % 8 == 0;
  for (int first = 8 * static_cast<int>(threadIdx.x); first < chunk.count; first += 8 * kThreads) {
    const int n = of_eight(first, chunk.count);
    Eight values = read8(u + chunk.offset + first, n, vectors);
#pragma unroll
    for (int j = 0; j < 8; ++j) values.v[j] = __fmul_rn(values.v[j], scale);
    write8(x + first, values, n, true);
    write8(u + chunk.offset + first, Eight{}, n, vectors);
  }
}

template <class P>
struct Weights {
  float* w;
  float* average;  // or null
  P* products;     // or null
};

// `scale`: of the shape.
template <class T, class P>
__global__ void __launch_bounds__(kThreads) move_kernel(Weights<P> to, const T* x, MuonTable table,
                                                        int64_t first_chunk, int64_t x_step, float scale) {
  if (table.decision->applied == 0) return;
  const MuonChunk chunk = table.chunks[first_chunk + blockIdx.x];
  x += place_in_batch(chunk, x_step);
  const MuonNumbers numbers = table.decision->muon;
  const float step = __fmul_rn(numbers.rate, scale);
  const bool vectors = chunk.offset % 8 == 0, kept_vectors = chunk.kept_offset % 8 == 0;
  const bool copies = to.products != nullptr && chunk.product_offset >= 0;
  for (int first = 8 * static_cast<int>(threadIdx.x); first < chunk.count; first += 8 * kThreads) {
    const int n = of_eight(first, chunk.count);
    const int64_t i = chunk.offset + first, kept = chunk.kept_offset + first;
    const Eight direction = read8(x + first, n, true);
    Eight w = read8(to.w + i, n, vectors), average{};
    if (to.average) average = read8(to.average + kept, n, kept_vectors);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      w.v[j] = __fmaf_rn(-step, direction.v[j], __fmaf_rn(-numbers.decay, w.v[j], w.v[j]));
      average.v[j] = __fmaf_rn(numbers.ema_rest, __fsub_rn(w.v[j], average.v[j]), average.v[j]);
    }
    write8(to.w + i, w, n, vectors);
    if (to.average) write8(to.average + kept, average, n, kept_vectors);
    if (copies) write8(to.products + chunk.product_offset + first, w, n, chunk.product_offset % 8 == 0);
  }
}

// The step of the matrices of a batch, whose chunks are `chunks` from `first_chunk` on.
void update_batch(NewtonSchulz kind, Batch& b, const MuonTable& table, int64_t first_chunk, int64_t chunks,
                  const UpdateTensors& t) {
  const auto blocks = static_cast<unsigned>(chunks);
  with_float_type(b.dtype, [&](auto element) {
    using T = decltype(element);
    take_scaled_kernel<T><<<blocks, kThreads, 0, current()>>>(data_of<float>(t.g), data_of<T>(b.x), table,
                                                              first_chunk, b.step());
    check_launch("u / ||u|| of muon");
    orthogonalize(kind, b);
    with_float_type(t.products ? t.products.dtype : DType::bf16, [&](auto product) {
      using P = decltype(product);
      const Weights<P> to{data_of<float>(t.w), data_of<float>(t.average), data_of<P>(t.products)};
      move_kernel<T, P>
          <<<blocks, kThreads, 0, current()>>>(to, data_of<T>(b.x), table, first_chunk, b.step(),
                                               static_cast<float>(muon_scale(b.rows, b.columns)));
    });
    check_launch("step of muon");
  });
}

}  // namespace

std::vector<MuonChunk> muon_chunks(std::span<const MuonMatrix> matrices) {
  std::vector<MuonChunk> chunks;
  for (size_t i = 0; i < matrices.size(); ++i) {
    const MuonMatrix& matrix = matrices[i];
    const int first_sum = static_cast<int>(chunks.size()), sums = static_cast<int>(chunks_of(matrix));
    for (int64_t begin = 0; begin < matrix.count(); begin += kChunk)
      chunks.push_back({matrix.offset + begin, matrix.product_offset < 0 ? -1 : matrix.product_offset + begin,
                        matrix.kept() + begin, begin,
                        static_cast<int>(std::min(kChunk, matrix.count() - begin)), first_sum, sums});
  }
  return chunks;
}

template <>
void compute(const OpContext& context, const Orthogonalize& t) {
  const Tensor& x = t.x;
  if (x.count() == 0) return;
  const int64_t rows = x.shape[1], columns = x.shape[2], bytes = rows * columns * size_of(x.dtype);
  const int64_t size = batch_count(x.shape[0], rows, columns, x.dtype);
  for (int64_t first = 0; first < x.shape[0]; first += size) {
    const int64_t count = std::min(size, x.shape[0] - first);
    const Arena::Scope scope(*context.scratch);
    Batch b = allocate_batch(*context.scratch, count, rows, columns, x.dtype);
    if (context.scratch->is_measuring()) continue;
    char* const there = static_cast<char*>(x.data) + first * bytes;
    const size_t step_bytes = static_cast<size_t>(b.step() * size_of(x.dtype));
    LONGSTRIDE_CUDA_CHECK(cudaMemcpy2DAsync(b.x.data, step_bytes, there, static_cast<size_t>(bytes),
                                            static_cast<size_t>(bytes), static_cast<size_t>(count),
                                            cudaMemcpyDeviceToDevice, current()));
    orthogonalize(t.kind, b);
    LONGSTRIDE_CUDA_CHECK(cudaMemcpy2DAsync(there, static_cast<size_t>(bytes), b.x.data, step_bytes,
                                            static_cast<size_t>(bytes), static_cast<size_t>(count),
                                            cudaMemcpyDeviceToDevice, current()));
  }
}

void muon_update(const OpContext& context, std::span<const MuonMatrix> matrices, const MuonTable& table,
                 const UpdateTensors& t, DType orthogonal, NewtonSchulz kind) {
  int64_t chunks = 0;
  for (const MuonMatrix& matrix : matrices) chunks += chunks_of(matrix);
  const bool measures = context.scratch->is_measuring();
  if (!measures) {
    momentum_kernel<<<static_cast<unsigned>(chunks), kThreads, 0, current()>>>(data_of<float>(t.g),
                                                                               data_of<float>(t.m), table);
    check_launch("momentum of muon");
  }
  int64_t first_chunk = 0;
  for_each_batch(matrices, orthogonal, [&](size_t first, int64_t count) {
    const MuonMatrix& shape = matrices[first];
    const Arena::Scope scope(*context.scratch);
    Batch b = allocate_batch(*context.scratch, count, shape.rows, shape.columns, orthogonal);
    if (measures) return;
    const int64_t of_batch = count * chunks_of(shape);
    update_batch(kind, b, table, first_chunk, of_batch, t);
    first_chunk += of_batch;
  });
}

}  // namespace longstride::cuda

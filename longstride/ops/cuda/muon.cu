// Muon (contract: longstride/ops/muon.h). Matrices are made orthogonal in lots, enough at a time to fill the
// GPU; scratch is theirs alone. On Hopper a lot has a part of the matrices of every shape, and kernels of its own
// (hopper/newton_schulz.h); else it has one shape, and cuBLAS multiplies. Passes over the parameters besides: momentum, whose result u
// replaces the gradient; u / ||u|| into scratch, which zeroes the gradient; the step of the weights. Sums of
// squares in double, a partial sum a chunk, always in the same order.
//
// Floor of the 94.9M model (30 layers, d 512, ff 2048): 0.97 TFLOP of products in four steps, 1.2 ms at 800
// TFLOP/s (five: 1.21 and 1.5), and 46 bytes an element, those of Adam's update, whose place they take: 1.4
// ms at 3 TB/s.
#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "longstride/ops/cuda/hopper/hopper.h"
#include "longstride/ops/cuda/hopper/newton_schulz.h"
#include "longstride/ops/cuda/matmul.h"
#include "longstride/ops/cuda/muon_products.h"
#include "longstride/ops/cuda/update.cuh"
#include "longstride/ops/muon.h"

namespace longstride::cuda {

namespace {

// What a lot may take of scratch. Lots that fit an L2 cache of 50 MB are too small to fill the multiprocessors,
// and slower (docs/results.md); with kernels of our own the end of each launch counts for more
// (docs/performance-history.md, Muon).
constexpr int64_t kCublasLotBytes = int64_t{160} << 20, kHopperLotBytes = int64_t{640} << 20;

MuonProducts preferred = MuonProducts::own;

// ---- batches and lots ----

int64_t chunks_of(const MuonMatrix& matrix) { return ceil_div(matrix.count(), kChunk); }

// From one matrix of a batch to the next, so that each begins where arenas begin tensors.
int64_t step_of(int64_t rows, int64_t columns) { return ceil_div(rows * columns, 64) * 64; }

// `count` matrices of one shape in scratch.
struct Batch {
  int64_t count, rows, columns;
  Tensor x, y;          // (count, step)
  Tensor gram, factor;  // (count, step of (shorter, shorter))

  int64_t step() const { return step_of(rows, columns); }
  int64_t shorter() const { return std::min(rows, columns); }
  int64_t square_step() const { return step_of(shorter(), shorter()); }
};

Batch allocate_batch(Arena& arena, int64_t count, int64_t rows, int64_t columns, DType dtype) {
  Batch b{count, rows, columns, {}, {}, {}, {}};
  b.x = arena.allocate(dtype, {count, b.step()}), b.y = arena.allocate(dtype, {count, b.step()});
  b.gram = arena.allocate(dtype, {count, b.square_step()});
  b.factor = arena.allocate(dtype, {count, b.square_step()});
  return b;
}

// Batches that are worked on together.
struct Lot {
  DType dtype;
  std::vector<Batch> batches;
  void* workspace;  // of cuBLAS
  int* counters;    // of our own kernels
};

Lot allocate_lot(Arena& arena, DType dtype) {
  return {dtype,
          {},
          arena.allocate(DType::u8, {kMatmulWorkspace}).data,
          static_cast<int*>(arena.allocate(DType::i32, {hopper::kCounters}).data)};
}

bool chooses_hopper(DType dtype, int64_t rows, int64_t columns) {
  static const bool usable = hopper::usable();
  return usable && preferred == MuonProducts::own && hopper::serves_newton_schulz(dtype, rows, columns);
}

// Of scratch, for so many matrices of a shape.
int64_t bytes_of(int64_t count, int64_t rows, int64_t columns, DType dtype) {
  const int64_t shorter = std::min(rows, columns);
  return 2 * count * (step_of(rows, columns) + step_of(shorter, shorter)) * size_of(dtype);
}

// How many lots so many bytes make.
int64_t lots_of(int64_t bytes, bool on_hopper) {
  return ceil_div(bytes, on_hopper ? kHopperLotBytes : kCublasLotBytes);
}

// The `index`th of `parts` nearly equal parts of `count`: where it begins.
int64_t begin_of_part(int64_t count, int64_t index, int64_t parts) { return count * index / parts; }

// Matrices of one shape, one after the other in the working order.
struct Run {
  size_t first;
  int64_t count, first_chunk;
};

std::vector<Run> runs_of(std::span<const MuonMatrix> matrices) {
  std::vector<Run> runs;
  int64_t chunks = 0;
  for (size_t i = 0; i < matrices.size(); ++i) {
    const MuonMatrix& matrix = matrices[i];
    if (i == 0 || matrix.rows != matrices[i - 1].rows || matrix.columns != matrices[i - 1].columns)
      runs.push_back({i, 0, chunks});
    ++runs.back().count;
    chunks += chunks_of(matrix);
  }
  return runs;
}

// Calls body(runs) for each lot of matrices that lie in their working order: with the parts that it has of
// their runs. Our kernels take shapes together: then tiles of short sums fill the multiprocessors that those
// of long ones leave at the end.
template <class Body>
void for_each_lot(std::span<const MuonMatrix> matrices, DType dtype, const Body& body) {
  const std::vector<Run> runs = runs_of(matrices);
  const auto mixes = [&](const Run& run) {
    const MuonMatrix& shape = matrices[run.first];
    return chooses_hopper(dtype, shape.rows, shape.columns);
  };
  for (size_t begin = 0; begin < runs.size();) {
    size_t end = begin + 1;
    while (end < runs.size() && end - begin < hopper::kMostBatches && mixes(runs[begin]) && mixes(runs[end]))
      ++end;
    int64_t bytes = 0;
    for (size_t i = begin; i < end; ++i) {
      const MuonMatrix& shape = matrices[runs[i].first];
      bytes += bytes_of(runs[i].count, shape.rows, shape.columns, dtype);
    }
    const int64_t lots = lots_of(bytes, mixes(runs[begin]));
    for (int64_t lot = 0; lot < lots; ++lot) {
      std::vector<Run> parts;
      for (size_t i = begin; i < end; ++i) {
        const Run& run = runs[i];
        const int64_t from = begin_of_part(run.count, lot, lots),
                      to = begin_of_part(run.count, lot + 1, lots);
        if (from < to)
          parts.push_back({run.first + static_cast<size_t>(from), to - from,
                           run.first_chunk + from * chunks_of(matrices[run.first])});
      }
      if (!parts.empty()) body(parts);
    }
    begin = end;
  }
}

// ---- Newton-Schulz ----

// A matrix of each of a batch, seen by the first.
Tensor first_of(const Tensor& batch, int64_t rows, int64_t columns) {
  return Tensor(batch.data, batch.dtype, {rows, columns}, batch.device);
}

void orthogonalize_by_cublas(std::span<const NewtonSchulzStep> polynomials, Batch& b, void* workspace) {
  const bool wide = b.rows <= b.columns;
  const int64_t n = b.shorter(), step = b.step(), square_step = b.square_step();
  const Tensor gram = first_of(b.gram, n, n), factor = first_of(b.factor, n, n);
  for (const NewtonSchulzStep& polynomial : polynomials) {
    const Tensor x = first_of(b.x, b.rows, b.columns), y = first_of(b.y, b.rows, b.columns);
    Matmul m;
    // A = X X^T or X^T X
    m.product = wide ? Product::a_bt : Product::at_b;
    m.a = x, m.b = x, m.c = gram;
    m.batch = {b.count, step, step, square_step};
    matmul(m, workspace);
    // b A + c A^2
    m.product = Product::a_b;
    m.a = gram, m.b = gram, m.c = factor;
    m.added = gram;
    m.scale = static_cast<float>(polynomial.c), m.added_scale = static_cast<float>(polynomial.b);
    m.batch = {b.count, square_step, square_step, square_step};
    matmul(m, workspace);
    // a X + (b A + c A^2) X, or from the right
    m.a = wide ? factor : x, m.b = wide ? x : factor, m.c = y;
    m.added = x;
    m.scale = 1, m.added_scale = static_cast<float>(polynomial.a);
    m.batch = {b.count, wide ? square_step : step, wide ? step : square_step, step};
    matmul(m, workspace);
    std::swap(b.x, b.y);
  }
}

void orthogonalize_on_hopper(std::span<const NewtonSchulzStep> steps, Lot& lot) {
  std::vector<hopper::Polynomial> polynomials;
  for (const NewtonSchulzStep& step : steps) polynomials.push_back({step.a, step.b, step.c});
  std::array<hopper::OrthogonalBatch, hopper::kMostBatches> batches;
  for (size_t i = 0; i < lot.batches.size(); ++i) {
    const Batch& b = lot.batches[i];
    batches[i] = {b.count,  b.rows,   b.columns,   b.step(),     b.square_step(),
                  b.x.data, b.y.data, b.gram.data, b.factor.data};
  }
  hopper::newton_schulz(polynomials, lot.dtype, std::span(batches).first(lot.batches.size()), lot.counters);
  if (polynomials.size() % 2 != 0)
    for (Batch& b : lot.batches) std::swap(b.x, b.y);
}

// Of the matrices in each x; leaves the results there.
void orthogonalize(NewtonSchulz kind, Lot& lot) {
  const std::span<const NewtonSchulzStep> polynomials = steps_of(kind);
  const Batch& any = lot.batches.front();  // all are served, or none
  if (chooses_hopper(lot.dtype, any.rows, any.columns))
    orthogonalize_on_hopper(polynomials, lot);
  else
    for (Batch& b : lot.batches) orthogonalize_by_cublas(polynomials, b, lot.workspace);
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

// The batches of a lot as the passes see them, a block of threads a chunk.
struct Place {
  void* x;
  int64_t step;
  int64_t first_chunk;  // in the table
  int end;              // of the batch's blocks
  float scale;          // of the shape
};
struct LotPlaces {
  Place batches[hopper::kMostBatches];
};

// What a block of threads works on.
template <class T>
struct Work {
  MuonChunk chunk;
  T* x;
  float scale;

  __device__ Work(const LotPlaces& lot, const MuonTable& table) {
    int begin = 0, i = 0;
    const int block = static_cast<int>(blockIdx.x);
    while (block >= lot.batches[i].end) begin = lot.batches[i++].end;
    const Place& place = lot.batches[i];
    chunk = table.chunks[place.first_chunk + block - begin];
    // All matrices of a batch have as many chunks.
    x = static_cast<T*>(place.x) + static_cast<int64_t>((block - begin) / chunk.sums) * place.step +
        chunk.begin;
    scale = place.scale;
  }
};

// x = u / (||u|| + epsilon), and u = 0.
template <class T>
__global__ void __launch_bounds__(kThreads)
    take_scaled_kernel(float* u, const __grid_constant__ LotPlaces lot, MuonTable table) {
  const Work<T> work(lot, table);
  const MuonChunk& chunk = work.chunk;
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
    write8(work.x + first, values, n, true);
    write8(u + chunk.offset + first, Eight{}, n, vectors);
  }
}

template <class P>
struct Weights {
  float* w;
  float* average;  // or null
  P* products;     // or null
};

template <class T, class P>
__global__ void __launch_bounds__(kThreads)
    move_kernel(Weights<P> to, const __grid_constant__ LotPlaces lot, MuonTable table) {
  if (table.decision->applied == 0) return;
  const Work<const T> work(lot, table);
  const MuonChunk& chunk = work.chunk;
  const MuonNumbers numbers = table.decision->muon;
  const float step = __fmul_rn(numbers.rate, work.scale);
  const bool vectors = chunk.offset % 8 == 0, kept_vectors = chunk.kept_offset % 8 == 0;
  const bool copies = to.products != nullptr && chunk.product_offset >= 0;
  for (int first = 8 * static_cast<int>(threadIdx.x); first < chunk.count; first += 8 * kThreads) {
    const int n = of_eight(first, chunk.count);
    const int64_t i = chunk.offset + first, kept = chunk.kept_offset + first;
    const Eight direction = read8(work.x + first, n, true);
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

// The step of the matrices of a lot that are those runs.
void update_lot(NewtonSchulz kind, Lot& lot, std::span<const Run> runs, std::span<const MuonMatrix> matrices,
                const MuonTable& table, const UpdateTensors& t) {
  LotPlaces places{};
  int blocks = 0;
  const auto look_up = [&] {
    blocks = 0;
    for (size_t i = 0; i < runs.size(); ++i) {
      const Batch& b = lot.batches[i];
      blocks += static_cast<int>(runs[i].count * chunks_of(matrices[runs[i].first]));
      places.batches[i] = {b.x.data, b.step(), runs[i].first_chunk, blocks,
                           static_cast<float>(muon_scale(b.rows, b.columns))};
    }
  };
  with_float_type(lot.dtype, [&](auto element) {
    using T = decltype(element);
    look_up();
    take_scaled_kernel<T>
        <<<static_cast<unsigned>(blocks), kThreads, 0, current()>>>(data_of<float>(t.g), places, table);
    check_launch("u / ||u|| of muon");
    orthogonalize(kind, lot);
    look_up();
    with_float_type(t.products ? t.products.dtype : DType::bf16, [&](auto product) {
      using P = decltype(product);
      const Weights<P> to{data_of<float>(t.w), data_of<float>(t.average), data_of<P>(t.products)};
      move_kernel<T, P><<<static_cast<unsigned>(blocks), kThreads, 0, current()>>>(to, places, table);
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

void prefer_products(MuonProducts products) { preferred = products; }

template <>
void compute(const OpContext& context, const Orthogonalize& t) {
  const Tensor& x = t.x;
  if (x.count() == 0) return;
  const int64_t count = x.shape[0], rows = x.shape[1], columns = x.shape[2];
  const int64_t bytes = rows * columns * size_of(x.dtype);
  const int64_t lots =
      lots_of(bytes_of(count, rows, columns, x.dtype), chooses_hopper(x.dtype, rows, columns));
  for (int64_t i = 0; i < lots; ++i) {
    const int64_t first = begin_of_part(count, i, lots), taken = begin_of_part(count, i + 1, lots) - first;
    if (taken == 0) continue;
    const Arena::Scope scope(*context.scratch);
    Lot lot = allocate_lot(*context.scratch, x.dtype);
    lot.batches = {allocate_batch(*context.scratch, taken, rows, columns, x.dtype)};
    if (context.scratch->is_measuring()) continue;
    Batch& b = lot.batches.front();
    char* const there = static_cast<char*>(x.data) + first * bytes;
    const size_t step_bytes = static_cast<size_t>(b.step() * size_of(x.dtype));
    LONGSTRIDE_CUDA_CHECK(cudaMemcpy2DAsync(b.x.data, step_bytes, there, static_cast<size_t>(bytes),
                                            static_cast<size_t>(bytes), static_cast<size_t>(taken),
                                            cudaMemcpyDeviceToDevice, current()));
    orthogonalize(t.kind, lot);
    LONGSTRIDE_CUDA_CHECK(cudaMemcpy2DAsync(there, static_cast<size_t>(bytes), b.x.data, step_bytes,
                                            static_cast<size_t>(bytes), static_cast<size_t>(taken),
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
  for_each_lot(matrices, orthogonal, [&](std::span<const Run> runs) {
    const Arena::Scope scope(*context.scratch);
    Lot lot = allocate_lot(*context.scratch, orthogonal);
    for (const Run& run : runs) {
      const MuonMatrix& shape = matrices[run.first];
      lot.batches.push_back(
          allocate_batch(*context.scratch, run.count, shape.rows, shape.columns, orthogonal));
    }
    if (!measures) update_lot(kind, lot, runs, matrices, table, t);
  });
}

}  // namespace longstride::cuda

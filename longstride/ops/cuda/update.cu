// The update of all parameters (contract: longstride/ops/update.h). Parameters are cut into chunks of at most
// kChunk elements, a block of threads each. Sums of squares in double: a partial sum for each chunk, then one
// block adds them in their order. One thread decides; the pass over the parameters reads its decision. No
// scratch besides the table's own.
#include <cmath>
#include <span>
#include <vector>

#include "longstride/ops/cuda/update.cuh"

namespace longstride::cuda {

namespace {

constexpr int kSumThreads = 1024;  // of the blocks that add up alone

struct Chunk {
  int64_t offset, kept_offset, second_offset, product_offset;
  int count;
  int decay;
};

// A table in the GPU's memory: the decision, the partial sums, the chunks of all parameters, Adam's first,
// and Muon's once more as its passes want them.
struct TableView {
  Decision* decision;
  double* squares;
  Chunk* chunks;
  MuonChunk* muon_chunks;
};

constexpr int64_t kDecisionBytes = (sizeof(Decision) + 63) / 64 * 64;

int64_t chunks_in(int64_t count) { return ceil_div(count, kChunk); }

int64_t adam_chunks(std::span<const ParameterSlice> slices) {
  int64_t chunks = 0;
  for (const ParameterSlice& slice : slices) chunks += chunks_in(slice.count);
  return chunks;
}

TableView view_of(void* data, int64_t chunks) {
  char* at = static_cast<char*>(data);
  TableView view{};
  view.decision = reinterpret_cast<Decision*>(at), at += kDecisionBytes;
  view.squares = reinterpret_cast<double*>(at), at += chunks * static_cast<int64_t>(sizeof(double));
  view.chunks = reinterpret_cast<Chunk*>(at), at += chunks * static_cast<int64_t>(sizeof(Chunk));
  view.muon_chunks = reinterpret_cast<MuonChunk*>(at);
  return view;
}

std::vector<Chunk> chunks_of(std::span<const ParameterSlice> slices, std::span<const MuonMatrix> matrices) {
  std::vector<Chunk> chunks;
  for (const ParameterSlice& slice : slices)
    for (int64_t begin = 0; begin < slice.count; begin += kChunk)
      chunks.push_back({slice.offset + begin, slice.kept() + begin, slice.second() + begin,
                        slice.product_offset < 0 ? -1 : slice.product_offset + begin,
                        static_cast<int>(slice.count - begin < kChunk ? slice.count - begin : kChunk),
                        slice.decay ? 1 : 0});
  for (const MuonChunk& chunk : muon_chunks(matrices))
    chunks.push_back({chunk.offset, 0, 0, chunk.product_offset, chunk.count, 0});
  return chunks;
}

__global__ void __launch_bounds__(kSumThreads)
    losses_kernel(const float* losses, int64_t count, UpdateControl* control) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kSumThreads) sum += static_cast<double>(losses[i]);
  sum = block_sum<kSumThreads>(sum);
  if (threadIdx.x == 0) control->losses += sum;
}

__global__ void sum_losses_kernel(const double* of_ranks, int ranks, UpdateControl* control) {
  double sum = of_ranks[0];
  for (int rank = 1; rank < ranks; ++rank) sum += of_ranks[rank];
  control->losses = sum;
}

// Of the chunks in [begin, end).
__global__ void __launch_bounds__(kThreads)
    squares_kernel(const float* g, const Chunk* chunks, int64_t begin, int64_t end, double* squares) {
  const Chunk chunk = chunks[blockIdx.x];
  if (chunk.offset < begin || chunk.offset >= end) {
    if (threadIdx.x == 0) squares[blockIdx.x] = 0;
    return;
  }
  const float* from = g + chunk.offset;
  const bool vectors = chunk.offset % 8 == 0;  // a matrix may begin anywhere
  double sum = 0;
  for (int i = 8 * static_cast<int>(threadIdx.x); i < chunk.count; i += 8 * kThreads) {
    const Eight values = read8(from + i, of_eight(i, chunk.count), vectors);
#pragma unroll
    for (int j = 0; j < 8; ++j)
      sum = fma(static_cast<double>(values.v[j]), static_cast<double>(values.v[j]), sum);
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) squares[blockIdx.x] = sum;
}

__device__ MuonNumbers muon_numbers(const MuonStep& step, const AdamStep& adam) {
  MuonNumbers n;
  n.gradient_scale = static_cast<float>(adam.gradient_scale);
  n.momentum = static_cast<float>(step.momentum);
  n.rest = static_cast<float>(1 - step.momentum);
  n.rate = static_cast<float>(step.rate);
  n.decay = static_cast<float>(step.rate * step.decay);
  n.ema_rest = static_cast<float>(1 - adam.ema);
  return n;
}

__global__ void __launch_bounds__(kSumThreads)
    sum_squares_kernel(const double* squares, int ranks, int64_t chunks, UpdateControl* control) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < chunks; i += kSumThreads) {
    double of_chunk = squares[i];
    for (int rank = 1; rank < ranks; ++rank) of_chunk += squares[rank * chunks + i];
    sum += of_chunk;
  }
  sum = block_sum<kSumThreads>(sum);
  if (threadIdx.x == 0) control->squares = sum;
}

__global__ void decide_kernel(TableView table, UpdateControl* control) {
  const double scale = static_cast<double>(control->loss_scale);
  const double norm = sqrt(control->squares) / scale;
  AdamStep adam = control->adam;
  adam.gradient_scale = 1 / scale;
  if (control->clip > 0 && control->clip < norm + 1e-12)
    adam.gradient_scale *= control->clip / (norm + 1e-12);
  const bool applied = isfinite(norm) && isfinite(control->losses) && control->losses <= control->most_losses;
  control->norm = norm;
  control->gradient_scale = adam.gradient_scale;
  control->applied = applied ? 1 : 0;
  table.decision->adam = adam_numbers(adam);
  table.decision->muon = muon_numbers(control->muon, adam);
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
  AdamNumbers numbers = table.decision->adam;
  if (chunk.decay == 0) numbers.decay = 0;
  const bool copies = buffers.products != nullptr && chunk.product_offset >= 0;
  for (int first = 8 * static_cast<int>(threadIdx.x); first < chunk.count; first += 8 * kThreads) {
    const int n = of_eight(first, chunk.count);
    const int64_t i = chunk.offset + first, kept = chunk.kept_offset + first,
                  second = chunk.second_offset + first;
    if (applied) {
      Eight w = read8(buffers.w + i, n, true), m = read8(buffers.m + kept, n, true),
            v = read8(buffers.v + second, n, true), average{};
      const Eight g = read8(buffers.g + i, n, true);
      if (buffers.average) average = read8(buffers.average + kept, n, true);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const AdamElement e = adam_element({w.v[j], m.v[j], v.v[j], average.v[j]}, g.v[j], numbers);
        w.v[j] = e.w, m.v[j] = e.m, v.v[j] = e.v, average.v[j] = e.average;
      }
      write8(buffers.w + i, w, n, true);
      write8(buffers.m + kept, m, n, true);
      write8(buffers.v + second, v, n, true);
      if (buffers.average) write8(buffers.average + kept, average, n, true);
      if (copies) write8(buffers.products + chunk.product_offset + first, w, n, true);
    }
    write8(buffers.g + i, Eight{}, n, true);
  }
}

}  // namespace

template <>
void compute(const OpContext&, const LayOutUpdate& t) {
  for (const ParameterSlice& slice : t.slices)
    LONGSTRIDE_CHECK(slice.offset % 8 == 0 && slice.kept() % 8 == 0 && slice.second() % 8 == 0 &&
                         (slice.product_offset < 0 || slice.product_offset % 8 == 0),
                     "update_parameters: a parameter begins at element {}, must be a multiple of 8",
                     slice.offset);
  const std::vector<Chunk> chunks = chunks_of(t.slices, t.matrices);
  const std::vector<MuonChunk> muon = muon_chunks(t.matrices);
  *t.chunks = static_cast<int64_t>(chunks.size());
  *t.bytes = kDecisionBytes + *t.chunks * static_cast<int64_t>(sizeof(double) + sizeof(Chunk)) +
             static_cast<int64_t>(muon.size() * sizeof(MuonChunk));
  if (t.data == nullptr) return;
  const TableView view = view_of(t.data, *t.chunks);
  const auto put = [](auto* to, const auto& from) {
    if (!from.empty()) copy(to, from.data(), static_cast<int64_t>(from.size() * sizeof(from[0])));
  };
  put(view.chunks, chunks);
  put(view.muon_chunks, muon);
}

template <>
void compute(const OpContext&, const AddLosses& t) {
  losses_kernel<<<1, kSumThreads, 0, current()>>>(data_of<float>(t.losses), t.losses.count(), t.control);
  check_launch(t.name());
}

template <>
void compute(const OpContext&, const SumLosses& t) {
  sum_losses_kernel<<<1, 1, 0, current()>>>(t.of_ranks, t.ranks, t.control);
  check_launch(t.name());
}

template <>
void compute(const OpContext&, const SquaresOfChunks& t) {
  const TableView view = view_of(t.table.data(), t.table.chunks());
  if (t.table.chunks() == 0) return;
  LONGSTRIDE_CHECK(vectors_suit(data_of<char>(t.g)),
                   "{}: the gradients do not begin at a multiple of {} bytes", t.name(), 16);
  squares_kernel<<<static_cast<unsigned>(t.table.chunks()), kThreads, 0, current()>>>(
      data_of<float>(t.g), view.chunks, t.begin, t.end, t.squares);
  check_launch(t.name());
}

template <>
void compute(const OpContext&, const SumSquares& t) {
  sum_squares_kernel<<<1, kSumThreads, 0, current()>>>(t.squares, t.ranks, t.table.chunks(), t.control);
  check_launch(t.name());
}

template <>
void compute(const OpContext& context, const GradientSquares& t) {
  const TableView view = view_of(t.table.data(), t.table.chunks());
  compute(context, SquaresOfChunks{t.table, t.g, 0, t.g.count(), view.squares});
  compute(context, SumSquares{t.table, view.squares, 1, t.control});
}

template <>
void compute(const OpContext&, const DecideUpdate& t) {
  decide_kernel<<<1, 1, 0, current()>>>(view_of(t.table.data(), t.table.chunks()), t.control);
  check_launch(t.name());
}

template <>
void compute(const OpContext&, const ApplyAdam& call) {
  const UpdateTable& table = call.table;
  const UpdateTensors& t = call.tensors;
  const TableView view = view_of(table.data(), table.chunks());
  if (table.chunks() == 0) return;
  LONGSTRIDE_CHECK(vectors_suit(data_of<char>(t.w), data_of<char>(t.g), data_of<char>(t.m),
                                data_of<char>(t.v), data_of<char>(t.average), data_of<char>(t.products)),
                   "update_parameters: a buffer does not begin at a multiple of {} bytes", 16);
  const auto blocks = static_cast<unsigned>(adam_chunks(table.slices()));
  if (blocks == 0) return;
  with_float_type(t.products ? t.products.dtype : DType::bf16, [&](auto element) {
    using T = decltype(element);
    const Buffers<T> buffers{data_of<float>(t.w), data_of<float>(t.g),       data_of<float>(t.m),
                             data_of<float>(t.v), data_of<float>(t.average), data_of<T>(t.products)};
    update_kernel<<<blocks, kThreads, 0, current()>>>(buffers, view);
  });
  check_launch("update_parameters");
}

template <>
void compute(const OpContext& context, const ApplyMuon& call) {
  const UpdateTable& table = call.table;
  const TableView view = view_of(table.data(), table.chunks());
  muon_update(context, table.matrices(),
              {view.decision, view.squares + adam_chunks(table.slices()), view.muon_chunks}, call.tensors,
              table.orthogonal(), table.kind());
}

}  // namespace longstride::cuda

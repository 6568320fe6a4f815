// Token and position embeddings (contract: longstride/ops/embedding.h). Forward: a warp a slot, a sum of a
// few rows in a fixed order. A token beyond the table gives NaN, and no gradient.
//
// Backward, without atomic additions: the slots of each table row are split into segments, segments are
// summed in the order of the slots into scratch, and the sums are added to the gradient in the order of the
// segments.
//   tokens:    a segment is a run of slots. A block holds the table's sums of 32 columns in shared memory; a
//              warp adds the slots whose token is its own, so no two warps meet.
//   positions: the slots of one coordinate of one axis are known, a warp sums 256 columns of a segment.
#include <algorithm>
#include <span>
#include <vector>

#include "longstride/ops/cuda/eights.cuh"
#include "longstride/ops/embedding.h"

namespace longstride::cuda {

namespace {

constexpr int kMostAxes = 8;
constexpr int64_t kTokens = 256;  // a byte's
constexpr int kChunk = 8 * kWarp;

__device__ inline float not_a_number() { return __int_as_float(0x7fffffff); }

// ---- forward ----

struct Tables {
  const float *token, *start;
  const float* axis[kMostAxes];
  uint32_t extent[kMostAxes];
  int axes;
  uint32_t vocabulary;
  bool before;  // PositionShift
  int64_t width;
  bool vectors;
};

constexpr int kSlotWarps = 4;

__device__ inline void add_row(Eight& sum, const float* from, int n, bool vectors) {
  const Eight row = read8(from, n, vectors);
#pragma unroll
  for (int j = 0; j < 8; ++j) sum.v[j] += row.v[j];
}

// Writes slot `slot` of a sequence to y, by one warp.
__device__ inline void write_slot(const Tables& t, uint32_t slot, uint32_t previous, float* y) {
  uint32_t coordinate[kMostAxes];
  uint32_t position = t.before ? slot : slot - 1;
  const bool positioned = t.before || slot > 0;
#pragma unroll
  for (int axis = kMostAxes - 1; axis >= 0; --axis) {
    if (axis >= t.axes) continue;
    coordinate[axis] = position % t.extent[axis];
    position /= t.extent[axis];
  }
  const bool known = slot == 0 || previous < t.vocabulary;
  const float* row = slot == 0 ? t.start : t.token + (known ? previous : 0) * t.width;
  for (int64_t column = threadIdx.x % kWarp * 8; column < t.width; column += kChunk) {
    const int n = of_eight(column, t.width);
    Eight sum = read8(row + column, n, t.vectors);
    if (positioned) {
#pragma unroll
      for (int axis = kMostAxes - 1; axis >= 0; --axis)
        if (axis < t.axes) add_row(sum, t.axis[axis] + coordinate[axis] * t.width + column, n, t.vectors);
    }
    if (!known) {
#pragma unroll
      for (float& value : sum.v) value = not_a_number();
    }
    write8(y + column, sum, n, t.vectors);
  }
}

__global__ void __launch_bounds__(kSlotWarps* kWarp)
    forward_kernel(Tables t, const uint8_t* tokens, uint32_t rows, uint32_t length, uint32_t first,
                   float* y) {
  const uint32_t row = (blockIdx.x * blockDim.x + threadIdx.x) / kWarp;
  if (row >= rows) return;
  const uint32_t slot = first + row % length;
  // Behind a first slot, the token before row 0 is that before the rows.
  write_slot(t, slot, slot == 0 ? 0 : tokens[int64_t{row} - 1], y + row * t.width);
}

Tables tables_of(const EmbeddingTables& from, const Tensor& y) {
  LONGSTRIDE_CHECK(from.axes.size() <= kMostAxes, "embedding: {} position tables, a GPU takes at most {}",
                   from.axes.size(), kMostAxes);
  Tables t{};
  t.token = data_of<float>(from.token), t.start = data_of<float>(from.start);
  t.axes = static_cast<int>(from.axes.size());
  t.vocabulary = static_cast<uint32_t>(std::min(from.token.shape[0], kTokens));
  t.before = from.shift == PositionShift::before;
  t.width = from.token.shape[1];
  t.vectors = t.width % 8 == 0 && vectors_suit(t.token, t.start, y.data);
  for (int axis = 0; axis < t.axes; ++axis) {
    t.axis[axis] = data_of<float>(from.axes[axis]);
    t.extent[axis] = static_cast<uint32_t>(from.axes[axis].shape[0]);
    t.vectors = t.vectors && vectors_suit(t.axis[axis]);
  }
  return t;
}

constexpr int64_t kMostRows = int64_t{1} << 27;  // a warp each, counted in 32 bits

// ---- backward, tokens ----

constexpr int kTokenWarps = 16;
constexpr int kTokenBatch = 8;  // rows that a warp reads at a time
constexpr int64_t kMostRuns = 32;

int64_t run_count(int64_t rows) { return std::clamp<int64_t>(ceil_div(rows, 256), 1, kMostRuns); }

struct TokenSums {
  const uint8_t* tokens;
  const float* dy;
  float* partial;  // (runs, vocabulary, width)
  int64_t rows, width;
  uint32_t length, first, vocabulary;
  int64_t rows_each;
};

// Block (x, y): run x, columns from 32 y on.
__global__ void __launch_bounds__(kTokenWarps* kWarp) token_kernel(TokenSums t) {
  __shared__ float sums[kTokens][kWarp];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kWarp + lane;
  const bool inside = column < t.width;
  for (int token = warp; token < kTokens; token += kTokenWarps) sums[token][lane] = 0;
  // No other warp touches this warp's tokens: nothing to wait for.
  const int64_t begin = blockIdx.x * t.rows_each;
  const int64_t end = begin + t.rows_each < t.rows ? begin + t.rows_each : t.rows;
  for (int64_t first = begin; first < end; first += kWarp) {
    const int64_t mine = first + lane;
    int token = -1;
    if (mine < end && t.first + static_cast<uint32_t>(mine) % t.length != 0) token = t.tokens[mine - 1];
    uint32_t own = __ballot_sync(0xffffffffu, token >= 0 && token % kTokenWarps == warp);
    while (own != 0) {
      float value[kTokenBatch];
      int index[kTokenBatch];
#pragma unroll
      for (int i = 0; i < kTokenBatch; ++i) {
        const bool any = own != 0;
        const int from = any ? __ffs(static_cast<int>(own)) - 1 : 0;
        own &= own - 1;
        index[i] = any ? __shfl_sync(0xffffffffu, token, from) : -1;
        value[i] = any && inside ? t.dy[(first + from) * t.width + column] : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < kTokenBatch; ++i)
        if (index[i] >= 0) sums[index[i]][lane] += value[i];
    }
  }
  if (!inside) return;
  float* to = t.partial + blockIdx.x * t.vocabulary * t.width + column;
  for (uint32_t token = static_cast<uint32_t>(warp); token < t.vocabulary; token += kTokenWarps)
    to[token * t.width] = sums[token][lane];
}

// ---- backward, positions ----

constexpr int kPositionWarps = 4;
constexpr int kPositionBatch = 4;  // rows that a warp reads at a time
constexpr int64_t kLeastSegment = 32, kMostSegments = 64;

// The slots of coordinate c of one axis: of `batch` sequences, position (q extent + c) inner + r for q <
// repeats, r < inner, as far as the sequence reaches.
struct AxisSlots {
  uint32_t batch, length, extent, inner, repeats;
  uint32_t positions;  // of a sequence
  uint32_t shift;      // slot - position: 0 or 1

  LONGSTRIDE_HOST_DEVICE int64_t count() const { return int64_t{batch} * repeats * inner; }
};

int64_t segment_size(const AxisSlots& slots) {
  return std::max(kLeastSegment, ceil_div(slots.count(), kMostSegments));
}
int64_t segment_count(const AxisSlots& slots) {
  return std::max<int64_t>(1, ceil_div(slots.count(), segment_size(slots)));
}

AxisSlots slots_of(int64_t batch, int64_t length, std::span<const int64_t> extents, size_t axis,
                   PositionShift shift) {
  AxisSlots slots{};
  slots.shift = shift == PositionShift::before ? 0 : 1;
  const int64_t positions = length - slots.shift;
  // A period longer than the sequence is as good as one of its length.
  int64_t inner = 1;
  for (size_t later = axis + 1; later < extents.size(); ++later)
    inner = std::min(inner * extents[later], std::max<int64_t>(positions, 1));
  slots.batch = static_cast<uint32_t>(batch), slots.length = static_cast<uint32_t>(length);
  slots.extent = static_cast<uint32_t>(extents[axis]), slots.inner = static_cast<uint32_t>(inner);
  slots.positions = static_cast<uint32_t>(positions);
  slots.repeats = static_cast<uint32_t>(ceil_div(positions, inner * extents[axis]));
  return slots;
}

struct AxisSums {
  AxisSlots slots;
  const float* dy;
  float* to;  // (segments, extent, width), or, if there is one segment, the gradient, which is added to
  int64_t width;
  uint32_t segments;
  int64_t segment;  // slots
  bool vectors, add;
};

// The row of the k-th slot of a coordinate, or -1 if it lies beyond the sequence.
__device__ inline int64_t row_of(const AxisSlots& s, uint32_t coordinate, uint32_t k) {
  const uint32_t group = k / s.inner, r = k % s.inner;
  const uint32_t sequence = group / s.repeats, q = group % s.repeats;
  const int64_t position = (int64_t{q} * s.extent + coordinate) * s.inner + r;
  return position < s.positions ? int64_t{sequence} * s.length + position + s.shift : -1;
}

// Block (x, y): warp w sums segment by coordinate number 4 x + w, columns from 256 y on.
__global__ void __launch_bounds__(kPositionWarps* kWarp) axis_kernel(AxisSums t) {
  const AxisSlots& s = t.slots;
  const uint32_t number = (blockIdx.x * blockDim.x + threadIdx.x) / kWarp;
  if (number >= t.segments * s.extent) return;
  const uint32_t coordinate = number % s.extent, segment = number / s.extent;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kChunk + threadIdx.x % kWarp * 8;
  const int n = of_eight(column, t.width);
  if (n == 0) return;
  const int64_t begin = segment * t.segment;
  const int64_t end = begin + t.segment < s.count() ? begin + t.segment : s.count();
  Eight sum{};
  for (int64_t k = begin; k < end; k += kPositionBatch) {
    Eight rows[kPositionBatch] = {};
#pragma unroll
    for (int i = 0; i < kPositionBatch; ++i) {
      const int64_t row = row_of(s, coordinate, static_cast<uint32_t>(k + i));
      if (k + i < end && row >= 0) rows[i] = read8(t.dy + row * t.width + column, n, t.vectors);
    }
#pragma unroll
    for (const Eight& row : rows) {
#pragma unroll
      for (int j = 0; j < 8; ++j) sum.v[j] += row.v[j];
    }
  }
  float* to = t.to + static_cast<int64_t>(number) * t.width + column;
  if (t.add) add_row(sum, to, n, t.vectors);
  write8(to, sum, n, t.vectors);
}

// ---- backward, the rest ----

// gradient[i] += the sum of partial[s][i] over s, in order.
__global__ void __launch_bounds__(kThreads)
    sum_kernel(const float* partial, int64_t segments, int64_t count, float* gradient) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float sum = 0;
#pragma unroll 8
  for (int64_t segment = 0; segment < segments; ++segment) sum += partial[segment * count + i];
  gradient[i] += sum;
}

void add_partials(const float* partial, int64_t segments, int64_t count, float* gradient) {
  sum_kernel<<<static_cast<unsigned>(ceil_div(count, kThreads)), kThreads, 0, current()>>>(partial, segments,
                                                                                           count, gradient);
  check_launch("embedding_backward, sums");
}

// The first slot of each sequence.
__global__ void __launch_bounds__(kThreads)
    start_kernel(const float* dy, int64_t batch, int64_t length, int64_t width, float* dstart) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= width) return;
  float sum = 0;
#pragma unroll 8
  for (int64_t b = 0; b < batch; ++b) sum += dy[b * length * width + column];
  dstart[column] += sum;
}

std::vector<int64_t> extents_of(const EmbeddingTables& tables) {
  std::vector<int64_t> extents;
  for (const Tensor& axis : tables.axes) extents.push_back(axis.shape[0]);
  return extents;
}

// Rows of partial sums: of tokens, or of the axis that needs the most.
int64_t partial_rows_of(int64_t batch, int64_t length, int64_t vocabulary, std::span<const int64_t> extents,
                        PositionShift shift) {
  int64_t rows = run_count(batch * length) * vocabulary;
  for (size_t axis = 0; axis < extents.size(); ++axis) {
    const int64_t segments = segment_count(slots_of(batch, length, extents, axis, shift));
    if (segments > 1) rows = std::max(rows, segments * extents[axis]);
  }
  return rows;
}

}  // namespace

template <>
void compute(const OpContext&, const EmbeddingForward& t) {
  const int64_t rows = t.tokens.count();
  if (rows == 0) return;
  LONGSTRIDE_CHECK(rows < kMostRows, "embedding_forward: {} slots, a GPU takes fewer than {}", rows,
                   kMostRows);
  forward_kernel<<<static_cast<unsigned>(ceil_div(rows, kSlotWarps)), kSlotWarps * kWarp, 0, current()>>>(
      tables_of(t.tables, t.y), data_of<uint8_t>(t.tokens), static_cast<uint32_t>(rows),
      static_cast<uint32_t>(t.tokens.shape[1]), static_cast<uint32_t>(t.first), data_of<float>(t.y));
  check_launch("embedding_forward");
}

template <>
void compute(const OpContext& context, const EmbeddingBackward& t) {
  const Tensor &tokens = t.tokens, &dy = t.dy;
  const EmbeddingTables& gradients = t.gradients;
  const int64_t batch = tokens.shape[0], length = tokens.shape[1], rows = batch * length;
  const int64_t width = dy.shape[1], vocabulary = std::min(gradients.token.shape[0], kTokens);
  if (rows == 0 || width == 0) return;
  LONGSTRIDE_CHECK(rows < kMostRows, "embedding_backward: {} slots, a GPU takes fewer than {}", rows,
                   kMostRows);
  const std::vector<int64_t> extents = extents_of(gradients);
  Arena::Scope scope(*context.scratch);
  const int64_t partial_rows = partial_rows_of(batch, length, vocabulary, extents, gradients.shift);
  float* partial = data_of<float>(context.scratch->allocate(DType::f32, {partial_rows, width}));
  if (context.scratch->is_measuring()) return;
  const float* d_out = data_of<float>(dy);

  const int64_t runs = run_count(rows);
  const TokenSums token_sums{data_of<uint8_t>(tokens),
                             d_out,
                             partial,
                             rows,
                             width,
                             static_cast<uint32_t>(length),
                             static_cast<uint32_t>(t.first),
                             static_cast<uint32_t>(vocabulary),
                             ceil_div(rows, runs)};
  const dim3 token_blocks(static_cast<unsigned>(runs), static_cast<unsigned>(ceil_div(width, kWarp)));
  token_kernel<<<token_blocks, kTokenWarps * kWarp, 0, current()>>>(token_sums);
  check_launch("embedding_backward, tokens");
  add_partials(partial, runs, vocabulary * width, data_of<float>(gradients.token));

  if (t.first == 0) {
    start_kernel<<<static_cast<unsigned>(ceil_div(width, kThreads)), kThreads, 0, current()>>>(
        d_out, batch, length, width, data_of<float>(gradients.start));
    check_launch("embedding_backward, start");
  }

  for (size_t axis = 0; axis < extents.size(); ++axis) {
    const AxisSlots slots = slots_of(batch, length, extents, axis, gradients.shift);
    if (slots.count() == 0) continue;
    const int64_t segments = segment_count(slots), extent = extents[axis];
    float* gradient = data_of<float>(gradients.axes[axis]);
    AxisSums sums{slots,
                  d_out,
                  segments > 1 ? partial : gradient,
                  width,
                  static_cast<uint32_t>(segments),
                  segment_size(slots),
                  false,
                  segments == 1};
    sums.vectors = width % 8 == 0 && vectors_suit(d_out, sums.to);
    const dim3 blocks(static_cast<unsigned>(ceil_div(segments * extent, kPositionWarps)),
                      static_cast<unsigned>(ceil_div(width, kChunk)));
    axis_kernel<<<blocks, kPositionWarps * kWarp, 0, current()>>>(sums);
    check_launch("embedding_backward, positions");
    if (segments > 1) add_partials(partial, segments, extent * width, gradient);
  }
}

}  // namespace longstride::cuda

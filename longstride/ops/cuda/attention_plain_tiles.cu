// Sparse attention in f32 by tiles, without tensor cores: for f32, whose products a tensor core would round, and for
// 16-bit rows that are not aligned. Heads up to 128 wide; formulas are those of the kernels on tensor cores.
//
// A block owns one tile of 64 rows of one head and sequence and goes through the tiles that its plan names,
// kOthers rows of them at a time. 128 threads are 8 groups of 16: a group owns the rows group + 8 i. Its lane l
// holds their scores with the visited rows l + 16 j, and of their sums the columns column(l, c). Each number
// from shared memory serves 2 to 8 products; sums stay in registers.
#include <algorithm>

#include "longstride/ops/cuda/attention_common.cuh"
#include "longstride/ops/cuda/attention_launch.cuh"

namespace longstride::cuda {

namespace {

constexpr int kGroups = 8, kLanes = 16, kThreads = kGroups * kLanes;
constexpr int kOwnRows = kTile / kGroups;  // of a thread

// kWidth of q, k and v, padded with zeros. Rows in shared memory are four floats apart from a multiple of the banks, so
// that 8 of them, each at the same column, lie in different banks.
template <class T_, int kWidth_>
struct PlainTiles {
  using T = T_;
  static constexpr int kWidth = kWidth_, kStride = kWidth + 4;
  static constexpr int kOthers = kWidth <= 64 ? 64 : 32;  // rows of a visited tile at a time
  static constexpr int kScores = kOthers / kLanes;        // of a thread's row
  static constexpr int kColumns = kWidth / kLanes;        // of a thread's sums
  static constexpr int kChunk = kColumns < 4 ? kColumns : 4;
  static constexpr int kWeightStride = kOthers + 4;

  struct Own {
    float rows[kTile * kStride];
  };
  struct Others {
    float rows[kOthers * kStride];
  };
  struct Weights {
    float rows[kTile * kWeightStride];
  };
  using Scores = float[kOwnRows][kScores];
  using Sums = float[kOwnRows][kColumns];

  // The column that a thread's sum `c` is of.
  __device__ static int column(int lane, int c) {
    return c / kChunk * (kChunk * kLanes) + kChunk * lane + c % kChunk;
  }
};

template <class Kind>
struct ForwardRoom {
  typename Kind::Own queries;
  typename Kind::Others keys, values;
  typename Kind::Weights weights;
  int own[kTile], others[Kind::kOthers];  // positions; n where there is no row
};

template <class Kind>
struct BackwardRoom {
  typename Kind::Own own, own_v;
  typename Kind::Others others, others_v;
  typename Kind::Weights weights;
  float log_sums[kTile], deltas[kTile];  // of the side that is queries
  int own_positions[kTile], other_positions[Kind::kOthers];
};

// Which tile, sequence and head a block serves, and which part of it a thread.
struct TileOfBlock {
  int tile, b, h, group, lane;

  // last_first: the tiles with the most work come last and are started first.
  __device__ TileOfBlock(const AttentionArgs& a, bool last_first)
      : tile(pair_of_block(last_first)),
        b(static_cast<int>(blockIdx.z)),
        h(a.heads[blockIdx.y]),
        group(static_cast<int>(threadIdx.x) / kLanes),
        lane(static_cast<int>(threadIdx.x) % kLanes) {}
  __device__ int pair() const { return tile / 2; }
  __device__ int half() const { return tile % 2; }
  __device__ int row(int i) const { return group + kGroups * i; }
};

__device__ float4 four(const float* at) { return *reinterpret_cast<const float4*>(at); }

// All threads: rows of one head at these positions, as f32; zeros for what does not exist.
template <class Kind, int kRows>
__device__ void load_rows(float (&to)[kRows * Kind::kStride], const Rows& rows, int b, int h,
                          const int (&positions)[kRows], int n) {
  using T = typename Kind::T;
  constexpr int kRowsAtOnce = kThreads / Kind::kWidth;
  static_assert(kThreads % Kind::kWidth == 0 && kRows % kRowsAtOnce == 0);
  const int d = static_cast<int>(threadIdx.x) % Kind::kWidth,
            first = static_cast<int>(threadIdx.x) / Kind::kWidth;
  const T* const from = rows.of<const T>(b, h) + d;
#pragma unroll 16
  for (int row = first; row < kRows; row += kRowsAtOnce) {
    const int position = positions[row];
    const bool exists = d < rows.width && position < n;
    to[row * Kind::kStride + d] = exists ? to_float(from[int64_t{position} * rows.position]) : 0.0f;
  }
}

template <int kRows>
__device__ void write_positions(int (&positions)[kRows], const TilePlace& place, int from) {
  const int row = static_cast<int>(threadIdx.x);
  if (row < kRows) positions[row] = place.position(from + row);
}

// scores = own rows times other rows.
template <class Kind>
__device__ void plain_products(typename Kind::Scores& scores, const TileOfBlock& block,
                               const typename Kind::Own& own, const typename Kind::Others& others) {
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i)
#pragma unroll
    for (int j = 0; j < Kind::kScores; ++j) scores[i][j] = 0;
#pragma unroll 4
  for (int d = 0; d < Kind::kWidth; d += 4) {
    float4 y[Kind::kScores];
#pragma unroll
    for (int j = 0; j < Kind::kScores; ++j)
      y[j] = four(others.rows + (block.lane + kLanes * j) * Kind::kStride + d);
#pragma unroll
    for (int i = 0; i < kOwnRows; ++i) {
      const float4 x = four(own.rows + block.row(i) * Kind::kStride + d);
#pragma unroll
      for (int j = 0; j < Kind::kScores; ++j) {
        float& sum = scores[i][j];
        sum = fmaf(x.w, y[j].w, fmaf(x.z, y[j].z, fmaf(x.y, y[j].y, fmaf(x.x, y[j].x, sum))));
      }
    }
  }
}

// sums += weights times other rows. A group reads the weights that it wrote itself: its lanes have to be together.
template <class Kind>
__device__ void add_weighted(typename Kind::Sums& sums, const TileOfBlock& block,
                             typename Kind::Weights& room, const typename Kind::Scores& weights,
                             const typename Kind::Others& others) {
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i)
#pragma unroll
    for (int j = 0; j < Kind::kScores; ++j)
      room.rows[block.row(i) * Kind::kWeightStride + block.lane + kLanes * j] = weights[i][j];
  __syncwarp();
#pragma unroll 1
  for (int other = 0; other < Kind::kOthers; other += 4) {
    float4 w[kOwnRows];
#pragma unroll
    for (int i = 0; i < kOwnRows; ++i) w[i] = four(room.rows + block.row(i) * Kind::kWeightStride + other);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float* const row = others.rows + (other + e) * Kind::kStride;
      float y[Kind::kColumns];
#pragma unroll
      for (int c = 0; c < Kind::kColumns; ++c) y[c] = row[Kind::column(block.lane, c)];
#pragma unroll
      for (int i = 0; i < kOwnRows; ++i) {
        const float weight = e == 0 ? w[i].x : e == 1 ? w[i].y : e == 2 ? w[i].z : w[i].w;
#pragma unroll
        for (int c = 0; c < Kind::kColumns; ++c) sums[i][c] = fmaf(weight, y[c], sums[i][c]);
      }
    }
  }
  __syncwarp();
}

// Bit 16 j of the result: whether own row i may see the other row `from` + 16 j + this thread's lane.
template <bool kByQuery>
__device__ uint64_t allowed_of(const AttentionArgs& a, const TileOfBlock& block, int mask, int i, int from) {
  if (mask < 0) return ~uint64_t{0};
  return mask_word<kByQuery>(a.masks, mask, block.row(i)) >> (from + block.lane);
}

// The sum, or the maximum, over a group's lanes.
__device__ float group_sum(float value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}
__device__ float group_max(float value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

// Calls work(place, mask, from) for rows `from` to `from` + kOthers of each tile that the block's rows see.
template <class Kind, class Work>
__device__ void walk(const AttentionArgs& a, const TileOfBlock& block, const Work& work) {
  Visits visits(a.sweep, block.pair());
  for (Visit visit = visits.next(); visit.tile >= 0; visit = visits.next()) {
    const int mask = block.half() == 0 ? visit.mask[0] : visit.mask[1];
    if (mask == kAbsent) continue;
    const TilePlace place = a.sweep.others[visit.pass].place(visit.tile);
#pragma unroll 1
    for (int from = 0; from < kTile; from += Kind::kOthers) work(place, mask, from);
  }
}

template <class Kind>
__global__ void __launch_bounds__(kThreads) forward_plain_kernel(const __grid_constant__ AttentionArgs a) {
  using T = typename Kind::T;
  extern __shared__ __align__(16) unsigned char shared[];
  auto& room = *reinterpret_cast<ForwardRoom<Kind>*>(shared);
  const TileOfBlock block(a, true);
  write_positions(room.own, a.sweep.rows.place(block.tile), 0);
  __syncthreads();
  load_rows<Kind, kTile>(room.queries.rows, a.q, block.b, block.h, room.own, a.n);

  typename Kind::Sums o = {};
  float highest[kOwnRows], sum[kOwnRows] = {};
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i) highest[i] = -INFINITY;

  walk<Kind>(a, block, [&](const TilePlace& place, int mask, int from) {
    __syncthreads();
    write_positions(room.others, place, from);
    __syncthreads();
    load_rows<Kind, Kind::kOthers>(room.keys.rows, a.k, block.b, block.h, room.others, a.n);
    load_rows<Kind, Kind::kOthers>(room.values.rows, a.v, block.b, block.h, room.others, a.n);
    __syncthreads();
    typename Kind::Scores s;
    plain_products<Kind>(s, block, room.queries, room.keys);
#pragma unroll
    for (int i = 0; i < kOwnRows; ++i) {
      const uint64_t allowed = allowed_of<true>(a, block, mask, i, from);
      float most = highest[i];
#pragma unroll
      for (int j = 0; j < Kind::kScores; ++j) {
        s[i][j] = (allowed >> (kLanes * j) & 1) != 0 ? s[i][j] * a.scale : -INFINITY;
        most = fmaxf(most, s[i][j]);
      }
      most = group_max(most);
      // A row without keys so far has no maximum to subtract.
      const float less = most == -INFINITY ? 0.0f : most, shrink = expf(highest[i] - less);
      highest[i] = most;
      float added = 0;
#pragma unroll
      for (int j = 0; j < Kind::kScores; ++j) added += s[i][j] = expf(s[i][j] - less);
      sum[i] = sum[i] * shrink + added;  // of this lane's keys
#pragma unroll
      for (int c = 0; c < Kind::kColumns; ++c) o[i][c] *= shrink;
    }
    add_weighted<Kind>(o, block, room.weights, s, room.values);
  });

  float* const lse = a.lse + row_of_head(a, block.b, block.h);
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i) {
    const float total = group_sum(sum[i]);
    const int position = room.own[block.row(i)];
    const bool any = highest[i] != -INFINITY || total != 0;  // total is NaN where a score was
    float log_sum = any ? highest[i] + logf(total) : -INFINITY;
    float fresh = any ? 1 / total : 0.0f, kept = 0;
    if (a.add && position < a.n) {
      const MergedSum merged = merge_sums(lse[position], log_sum);
      fresh *= merged.of_fresh, kept = merged.of_earlier, log_sum = merged.log_sum;
    }
    __syncwarp();
    if (position >= a.n) continue;
    if (block.lane == 0) lse[position] = log_sum;
    T* const to = a.o.of<T>(block.b, block.h) + int64_t{position} * a.o.position;
#pragma unroll
    for (int c = 0; c < Kind::kColumns; ++c) {
      const int d = Kind::column(block.lane, c);
      if (d >= a.o.width) continue;
      const float earlier = kept == 0 ? 0.0f : kept * to_float(to[d]);
      to[d] = from_float<T>(earlier + (fresh == 0 ? 0.0f : fresh * o[i][c]));
    }
  }
}

// Adds a thread's sums to what is there, or puts them there.
template <class Kind>
__device__ void finish_rows(const Rows& rows, const AttentionArgs& a, const TileOfBlock& block,
                            const int (&positions)[kTile], const typename Kind::Sums& sums, float factor) {
  using T = typename Kind::T;
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i) {
    const int position = positions[block.row(i)];
    if (position >= a.n) continue;
    T* const to = rows.of<T>(block.b, block.h) + int64_t{position} * rows.position;
#pragma unroll
    for (int c = 0; c < Kind::kColumns; ++c) {
      const int d = Kind::column(block.lane, c);
      if (d < rows.width) to[d] = from_float<T>((a.add ? to_float(to[d]) : 0.0f) + factor * sums[i][c]);
    }
  }
}

// One side's backward. kByQuery: the own rows are queries, what is visited are keys, and dq is summed up; else the own
// rows are keys, and dk and dv are.
template <class Kind, bool kByQuery>
__global__ void __launch_bounds__(kThreads) backward_plain_kernel(const __grid_constant__ AttentionArgs a) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto& room = *reinterpret_cast<BackwardRoom<Kind>*>(shared);
  const TileOfBlock block(a, kByQuery);
  const int b = block.b, h = block.h, thread = static_cast<int>(threadIdx.x);
  write_positions(room.own_positions, a.sweep.rows.place(block.tile), 0);
  __syncthreads();
  load_rows<Kind, kTile>(room.own.rows, kByQuery ? a.q : a.k, b, h, room.own_positions, a.n);
  load_rows<Kind, kTile>(room.own_v.rows, kByQuery ? a.d_o : a.v, b, h, room.own_positions, a.n);

  const float* const lse = a.lse + row_of_head(a, b, h);
  const float* const delta = a.delta + row_of_head(a, b, h);
  const auto load_numbers = [&](const int* positions, int rows) {
    if (thread >= rows) return;
    const int position = positions[thread];
    room.log_sums[thread] = position < a.n ? lse[position] : 0.0f;
    room.deltas[thread] = position < a.n ? delta[position] : 0.0f;
  };
  if (kByQuery) load_numbers(room.own_positions, kTile);

  typename Kind::Sums d_own = {}, d_own_v = {};  // dq; dk and dv

  walk<Kind>(a, block, [&](const TilePlace& place, int mask, int from) {
    __syncthreads();
    write_positions(room.other_positions, place, from);
    __syncthreads();
    load_rows<Kind, Kind::kOthers>(room.others.rows, kByQuery ? a.k : a.q, b, h, room.other_positions, a.n);
    load_rows<Kind, Kind::kOthers>(room.others_v.rows, kByQuery ? a.v : a.d_o, b, h, room.other_positions,
                                   a.n);
    if (!kByQuery) load_numbers(room.other_positions, Kind::kOthers);
    __syncthreads();
    typename Kind::Scores weight, gradient;
    plain_products<Kind>(weight, block, room.own, room.others);
    plain_products<Kind>(gradient, block, room.own_v, room.others_v);
#pragma unroll
    for (int i = 0; i < kOwnRows; ++i) {
      const uint64_t allowed = allowed_of<kByQuery>(a, block, mask, i, from);
#pragma unroll
      for (int j = 0; j < Kind::kScores; ++j) {
        const int query = kByQuery ? block.row(i) : block.lane + kLanes * j;
        const bool counts = (allowed >> (kLanes * j) & 1) != 0;
        weight[i][j] = counts ? expf(a.scale * weight[i][j] - room.log_sums[query]) : 0.0f;
        gradient[i][j] = counts ? weight[i][j] * (gradient[i][j] - room.deltas[query]) : 0.0f;
      }
    }
    if (!kByQuery) add_weighted<Kind>(d_own_v, block, room.weights, weight, room.others_v);
    add_weighted<Kind>(d_own, block, room.weights, gradient, room.others);
  });
  finish_rows<Kind>(kByQuery ? a.dq : a.dk, a, block, room.own_positions, d_own, a.scale);
  if (!kByQuery) finish_rows<Kind>(a.dv, a, block, room.own_positions, d_own_v, 1.0f);
}

// The result of action<PlainTiles>() for the smallest of the compiled widths that holds both.
template <class Action>
auto with_plain_tiles(DType dtype, int width, int width_v, const Action& action) {
  const int most = width > width_v ? width : width_v;
  return with_float_type(dtype, [&](auto element) {
    using T = decltype(element);
    if (most <= 32) return action.template operator()<PlainTiles<T, 32>>();
    if (most <= 64) return action.template operator()<PlainTiles<T, 64>>();
    return action.template operator()<PlainTiles<T, 128>>();
  });
}

template <class Room>
void launch_plain(void (*kernel)(AttentionArgs), const char* name, const AttentionArgs& args, int heads,
                  int batch) {
  launch_blocks(kernel, name, args, {2 * args.sweep.pairs, heads, batch}, kThreads, sizeof(Room));
}

}  // namespace

bool plain_tiles_fit(int width, int width_v, bool backward) {
  if (width > 128 || width_v > 128) return false;
  return with_plain_tiles(DType::f32, width, width_v, [&]<class Kind>() {
    const auto bytes =
        static_cast<int64_t>(backward ? sizeof(BackwardRoom<Kind>) : sizeof(ForwardRoom<Kind>));
    return bytes <= most_shared_bytes();
  });
}

void forward_by_plain_tiles(const AttentionArgs& args, DType dtype, int heads, int batch) {
  with_plain_tiles(dtype, args.q.width, args.v.width, [&]<class Kind>() {
    launch_plain<ForwardRoom<Kind>>(forward_plain_kernel<Kind>, "attention_forward", args, heads, batch);
  });
}

void backward_queries_by_plain_tiles(const AttentionArgs& args, DType dtype, int heads, int batch) {
  with_plain_tiles(dtype, args.q.width, args.v.width, [&]<class Kind>() {
    launch_plain<BackwardRoom<Kind>>(backward_plain_kernel<Kind, true>, "attention_backward for queries",
                                     args, heads, batch);
  });
}

void backward_keys_by_plain_tiles(const AttentionArgs& args, DType dtype, int heads, int batch) {
  with_plain_tiles(dtype, args.q.width, args.v.width, [&]<class Kind>() {
    launch_plain<BackwardRoom<Kind>>(backward_plain_kernel<Kind, false>, "attention_backward for keys", args,
                                     heads, batch);
  });
}

}  // namespace longstride::cuda

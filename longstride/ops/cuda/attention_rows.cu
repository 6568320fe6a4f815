// Sparse attention for what no kernel by tiles takes: heads wider than 128, and than 64 where a chip has too
// little shared memory. Formulas, visits and sweeps are theirs; a warp owns one row, everything is f32, and each
// lane looks at two rows of a visited tile.
#include "longstride/ops/cuda/attention_common.cuh"

namespace longstride::cuda {

namespace {

constexpr int kWarps = 4;

// A warp's part of shared memory.
struct Room {
  float* own;    // the own row of one tensor, then of the other
  float* sum;    // two rows that are summed up
  float* first;  // (kTile) a weight for each visited row
  float* second;
  int* position;  // (kTile)
};

int64_t room_floats(const AttentionArgs& a) { return 2 * (a.q.width + a.v.width) + 3 * kTile; }

__device__ Room room_of(float* shared, const AttentionArgs& a, int warp) {
  const int wide = a.q.width + a.v.width;
  float* const at = shared + warp * (2 * wide + 3 * kTile);
  return {at, at + wide, at + 2 * wide, at + 2 * wide + kTile,
          reinterpret_cast<int*>(at + 2 * wide + 2 * kTile)};
}

template <class T>
__device__ float dot(const float* own, const T* row, int width) {
  float sum = 0;
  for (int d = 0; d < width; ++d) sum = fmaf(own[d], to_float(row[d]), sum);
  return sum;
}

template <class T>
__device__ void load_row(float* to, const T* from, int width, int lane) {
  for (int d = lane; d < width; d += kWarp) to[d] = to_float(from[d]);
}

// sum[d] = shrink * sum[d] + the visited rows, each times its weight.
template <class T>
__device__ void add_rows(float* sum, float shrink, const float* weights, const int* positions, const T* rows,
                         int64_t stride, int width, int lane) {
  for (int d = lane; d < width; d += kWarp) {
    float total = sum[d] * shrink;
    for (int i = 0; i < kTile; ++i)
      if (weights[i] != 0) total = fmaf(weights[i], to_float(rows[positions[i] * stride + d]), total);
    sum[d] = total;
  }
}

// The row that a warp owns; position is n or more if there is none.
struct Owner {
  int pair, half, row, position, b, h;
};

__device__ Owner owner_of(const AttentionArgs& a) {
  const int row = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  Owner o{row / kPair, row / kTile % 2, row % kTile, 0, static_cast<int>(blockIdx.z), a.heads[blockIdx.y]};
  o.position = a.sweep.rows.place(2 * o.pair + o.half).position(o.row);
  return o;
}

// The visited row of this lane, at `row` of the tile; negative if it is not allowed.
template <bool kByQuery>
__device__ int visited(const AttentionArgs& a, const Owner& owner, const Visit& visit, int row) {
  const int mask = visit.mask[owner.half];
  if (mask >= 0 && (mask_word<kByQuery>(a.masks, mask, owner.row) >> row & 1) == 0) return -1;
  const int position = a.sweep.others[visit.pass].place(visit.tile).position(row);
  return position < a.n ? position : -1;
}

template <class T>
__global__ void forward_rows_kernel(const __grid_constant__ AttentionArgs a) {
  extern __shared__ float shared[];
  const Owner owner = owner_of(a);
  if (owner.position >= a.n) return;
  const int lane = threadIdx.x % kWarp;
  const Room room = room_of(shared, a, threadIdx.x / kWarp);
  const T *k = a.k.of<const T>(owner.b, owner.h), *v = a.v.of<const T>(owner.b, owner.h);
  load_row(room.own, a.q.of<const T>(owner.b, owner.h) + int64_t{owner.position} * a.q.position, a.q.width,
           lane);
  for (int d = lane; d < a.v.width; d += kWarp) room.sum[d] = 0;
  __syncwarp();

  float highest = -INFINITY, sum = 0;
  bool any = false;
  Visits visits(a.sweep, owner.pair);
  for (Visit visit = visits.next(); visit.tile >= 0; visit = visits.next()) {
    if (visit.mask[owner.half] == kAbsent) continue;
    float score[2];
    for (int i = 0; i < 2; ++i) {
      const int row = lane + kWarp * i, position = visited<true>(a, owner, visit, row);
      score[i] =
          position < 0 ? -INFINITY : a.scale * dot(room.own, k + int64_t{position} * a.k.position, a.q.width);
      any |= position >= 0;
      room.position[row] = position < 0 ? 0 : position;
    }
    const float most = fmaxf(highest, warp_max(fmaxf(score[0], score[1])));
    const float from = most == -INFINITY ? 0.0f : most, shrink = expf(highest - from);
    highest = most;
    float added = 0;
    for (int i = 0; i < 2; ++i) added += room.first[lane + kWarp * i] = expf(score[i] - from);
    sum = sum * shrink + warp_sum(added);
    __syncwarp();
    add_rows(room.sum, shrink, room.first, room.position, v, a.v.position, a.v.width, lane);
    __syncwarp();
  }

  any = __any_sync(0xffffffffu, any);
  float* const lse = a.lse + row_of_head(a, owner.b, owner.h) + owner.position;
  float log_sum = any ? highest + logf(sum) : -INFINITY;
  float fresh = any ? 1 / sum : 0.0f, kept = 0;
  if (a.add) {
    const MergedSum merged = merge_sums(*lse, log_sum);
    fresh *= merged.of_fresh, kept = merged.of_earlier, log_sum = merged.log_sum;
  }
  T* const o = a.o.of<T>(owner.b, owner.h) + int64_t{owner.position} * a.o.position;
  for (int d = lane; d < a.v.width; d += kWarp) {
    const float earlier = kept == 0 ? 0.0f : kept * to_float(o[d]);
    o[d] = from_float<T>(earlier + (fresh == 0 ? 0.0f : fresh * room.sum[d]));
  }
  __syncwarp();
  if (lane == 0) *lse = log_sum;
}

// Adds a finished row to what is there, or puts it there.
template <class T>
__device__ void finish_row(T* to, const float* sum, float factor, int width, bool add, int lane) {
  for (int d = lane; d < width; d += kWarp)
    to[d] = from_float<T>((add ? to_float(to[d]) : 0.0f) + factor * sum[d]);
}

// One side's backward. kByQuery: the own row is a query, what is visited are keys, and dq is summed up; else
// the own row is a key, and dk and dv are.
template <class T, bool kByQuery>
__global__ void backward_rows_kernel(const __grid_constant__ AttentionArgs a) {
  extern __shared__ float shared[];
  const Owner owner = owner_of(a);
  if (owner.position >= a.n) return;
  const int lane = threadIdx.x % kWarp, width = a.q.width, width_v = a.v.width;
  const Room room = room_of(shared, a, threadIdx.x / kWarp);
  const Rows &own_rows = kByQuery ? a.q : a.k, &own_rows_v = kByQuery ? a.d_o : a.v;
  const Rows &other_rows = kByQuery ? a.k : a.q, &other_rows_v = kByQuery ? a.v : a.d_o;
  const T* other = other_rows.of<const T>(owner.b, owner.h);
  const T* other_v = other_rows_v.of<const T>(owner.b, owner.h);
  load_row(room.own, own_rows.of<const T>(owner.b, owner.h) + int64_t{owner.position} * own_rows.position,
           width, lane);
  load_row(room.own + width,
           own_rows_v.of<const T>(owner.b, owner.h) + int64_t{owner.position} * own_rows_v.position, width_v,
           lane);
  for (int d = lane; d < width + width_v; d += kWarp) room.sum[d] = 0;
  __syncwarp();

  const float* lse = a.lse + row_of_head(a, owner.b, owner.h);
  const float* delta = a.delta + row_of_head(a, owner.b, owner.h);
  Visits visits(a.sweep, owner.pair);
  for (Visit visit = visits.next(); visit.tile >= 0; visit = visits.next()) {
    if (visit.mask[owner.half] == kAbsent) continue;
    for (int i = 0; i < 2; ++i) {
      const int row = lane + kWarp * i, position = visited<kByQuery>(a, owner, visit, row);
      float weight = 0, gradient = 0;
      if (position >= 0) {
        const int query = kByQuery ? owner.position : position;
        weight = expf(a.scale * dot(room.own, other + int64_t{position} * other_rows.position, width) -
                      lse[query]);
        gradient =
            weight * (dot(room.own + width, other_v + int64_t{position} * other_rows_v.position, width_v) -
                      delta[query]);
      }
      room.first[row] = gradient, room.second[row] = weight;
      room.position[row] = position < 0 ? 0 : position;
    }
    __syncwarp();
    add_rows(room.sum, 1, room.first, room.position, other, other_rows.position, width, lane);
    if (!kByQuery)
      add_rows(room.sum + width, 1, room.second, room.position, other_v, other_rows_v.position, width_v,
               lane);
    __syncwarp();
  }
  const Rows& to = kByQuery ? a.dq : a.dk;
  finish_row(to.of<T>(owner.b, owner.h) + int64_t{owner.position} * to.position, room.sum, a.scale, width,
             a.add, lane);
  if (!kByQuery)
    finish_row(a.dv.of<T>(owner.b, owner.h) + int64_t{owner.position} * a.dv.position, room.sum + width, 1.0f,
               width_v, a.add, lane);
}

template <class Kernel>
void launch_by_rows(Kernel* kernel, const char* name, const AttentionArgs& args, int heads, int batch) {
  if (args.sweep.pairs == 0) return;
  const int64_t shared_bytes = kWarps * room_floats(args) * static_cast<int64_t>(sizeof(float));
  constexpr int64_t kMostSharedBytes = 96 << 10;  // of a block, on the smallest chips
  LONGSTRIDE_CHECK(shared_bytes <= kMostSharedBytes,
                   "{}: heads of {} and {}, the GPU takes up to 2,900 together", name, args.q.width,
                   args.v.width);
  LONGSTRIDE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             static_cast<int>(shared_bytes)));
  const dim3 grid(static_cast<unsigned>(args.sweep.pairs) * (kPair / kWarps), static_cast<unsigned>(heads),
                  static_cast<unsigned>(batch));
  kernel<<<grid, kWarps * kWarp, static_cast<size_t>(shared_bytes), current()>>>(args);
  check_launch(name);
}

}  // namespace

void forward_by_rows(const AttentionArgs& args, DType dtype, int heads, int batch) {
  with_float_type(dtype, [&](auto element) {
    launch_by_rows(forward_rows_kernel<decltype(element)>, "attention_forward", args, heads, batch);
  });
}

void backward_queries_by_rows(const AttentionArgs& args, DType dtype, int heads, int batch) {
  with_float_type(dtype, [&](auto element) {
    launch_by_rows(backward_rows_kernel<decltype(element), true>, "attention_backward", args, heads, batch);
  });
}

void backward_keys_by_rows(const AttentionArgs& args, DType dtype, int heads, int batch) {
  with_float_type(dtype, [&](auto element) {
    launch_by_rows(backward_rows_kernel<decltype(element), false>, "attention_backward", args, heads, batch);
  });
}

}  // namespace longstride::cuda

// Sparse attention: which kernels serve a call, in which order.
//
//   delta[q] = d_o[q].o[q], the part of the softmax's gradient that all keys of a query share
//
// Scratch: delta (B, H, N) f32, and for Hopper's kernels pairs of f32.
#include <algorithm>

#include "longstride/ops/cuda/attention_common.cuh"
#include "longstride/ops/cuda/hopper/hopper.h"

namespace longstride::cuda {

namespace {

Rows rows_of(const Tensor& t) {
  LONGSTRIDE_CHECK(t.stride[1] < int64_t{1} << 31, "attention: rows of {} are too far apart", t.describe());
  return {t.data, t.stride[0], t.stride[2], static_cast<int>(t.stride[1]), static_cast<int>(t.shape[3])};
}

// Rows start at multiples of 16 bytes, and so do their chunks of eight.
bool in_chunks(const Tensor& t) {
  return t.shape[3] % 8 == 0 && t.stride[0] % 8 == 0 && t.stride[1] % 8 == 0 && t.stride[2] % 8 == 0 &&
         reinterpret_cast<uintptr_t>(t.data) % 16 == 0;
}

AttentionArgs arguments_of(const AttentionPlan& plan, const AttentionTensors& t) {
  AttentionArgs args;
  args.masks = lists_of(plan).masks();
  args.head_count = static_cast<int>(t.q.shape[2]);
  args.n = static_cast<int>(t.q.shape[1]);
  args.scale = t.scale;
  args.q = rows_of(t.q), args.k = rows_of(t.k), args.v = rows_of(t.v), args.o = rows_of(t.o);
  args.lse = data_of<float>(t.lse);
  return args;
}

struct DeltaArgs {
  Rows o, d_o;
  const float* lse;
  float* delta;     // or
  float2* numbers;  // lse * log2 e with delta, as Hopper's kernels read them
  int n, heads;
};

constexpr int kLanesOfRow = 8;

// Eight lanes a row; a row of blocks for each sequence.
template <class T, bool kInChunks>
__global__ void delta_kernel(const DeltaArgs a) {
  const auto row = static_cast<int>((int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kLanesOfRow);
  const int lane = threadIdx.x % kLanesOfRow, b = static_cast<int>(blockIdx.y);
  const int position = row / a.heads, head = row - position * a.heads;
  float sum = 0;
  if (position < a.n) {
    const T* o = a.o.of<const T>(b, head) + int64_t{position} * a.o.position;
    const T* d_o = a.d_o.of<const T>(b, head) + int64_t{position} * a.d_o.position;
    if constexpr (kInChunks) {
      for (int d = 8 * lane; d < a.o.width; d += 8 * kLanesOfRow) {
        const Eight x = load8(o + d), y = load8(d_o + d);
#pragma unroll
        for (int e = 0; e < 8; ++e) sum = fmaf(x.v[e], y.v[e], sum);
      }
    } else {
      for (int d = lane; d < a.o.width; d += kLanesOfRow) sum = fmaf(to_float(o[d]), to_float(d_o[d]), sum);
    }
  }
#pragma unroll
  for (int offset = kLanesOfRow / 2; offset > 0; offset /= 2)
    sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (lane != 0 || position >= a.n) return;
  const int64_t at = (int64_t{b} * a.heads + head) * a.n + position;
  if (a.numbers != nullptr)
    a.numbers[at] = make_float2(a.lse[at] * kLog2E, sum);
  else
    a.delta[at] = sum;
}

// To one of delta and numbers.
void compute_delta(const AttentionTensors& t, const Tensor& d_o, float* delta, float2* numbers) {
  const DeltaArgs args{rows_of(t.o),
                       rows_of(d_o),
                       data_of<float>(t.lse),
                       delta,
                       numbers,
                       static_cast<int>(t.o.shape[1]),
                       static_cast<int>(t.o.shape[2])};
  constexpr int kThreads = 256;
  const int64_t rows = t.o.shape[1] * t.o.shape[2];
  LONGSTRIDE_CHECK(rows < int64_t{1} << 31, "attention: {} positions of {} heads are too many", t.o.shape[1],
                   t.o.shape[2]);
  const dim3 blocks(static_cast<unsigned>(ceil_div(rows * kLanesOfRow, kThreads)),
                    static_cast<unsigned>(t.o.shape[0]));
  with_float_type(t.o.dtype, [&](auto element) {
    using T = decltype(element);
    if (in_chunks(t.o) && in_chunks(d_o))
      delta_kernel<T, true><<<blocks, kThreads, 0, current()>>>(args);
    else
      delta_kernel<T, false><<<blocks, kThreads, 0, current()>>>(args);
  });
  check_launch("attention_backward's delta");
}

// One warp a row.
template <class T>
__global__ void zero_kernel(const Rows rows, const int* heads, int n) {
  const int position = static_cast<int>(blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp);
  if (position >= n) return;
  T* row = rows.of<T>(blockIdx.z, heads[blockIdx.y]) + static_cast<int64_t>(position) * rows.position;
  for (int d = threadIdx.x % kWarp; d < rows.width; d += kWarp) row[d] = from_float<T>(0);
}

void zero_rows(const Rows& rows, DType dtype, const HeadGroup& group, int n, int batch) {
  constexpr int kThreads = 256;
  const dim3 grid(static_cast<unsigned>(ceil_div(n, kThreads / kWarp)),
                  static_cast<unsigned>(group.head_count), static_cast<unsigned>(batch));
  with_float_type(dtype, [&](auto element) {
    zero_kernel<decltype(element)><<<grid, kThreads, 0, current()>>>(rows, group.heads, n);
  });
  check_launch("attention_backward's zeros");
}

// Where the first sweep of keys has no row for some position: zeros in dk and dv, to which it then adds.
bool zero_uncovered_keys(const Sweep& first, const AttentionArgs& args, DType dtype, const HeadGroup& group,
                         int batch) {
  if (first.covers) return false;
  zero_rows(args.dk, dtype, group, args.n, batch);
  zero_rows(args.dv, dtype, group, args.n, batch);
  return true;
}

// Whether kernels on tensor cores can serve a forward, or with `gradients` a backward.
bool tensor_cores_can_serve(const AttentionTensors& t, const AttentionGradients* gradients) {
  if (t.q.dtype == DType::f32 || t.q.shape[3] > 128 || t.v.shape[3] > 128) return false;
  if (!in_chunks(t.q) || !in_chunks(t.k) || !in_chunks(t.v) || !in_chunks(t.o)) return false;
  const DType dtype = t.q.dtype;
  const auto width = static_cast<int>(t.q.shape[3]), width_v = static_cast<int>(t.v.shape[3]);
  if (gradients == nullptr) return forward_tiles_fit(dtype, width, width_v);
  return in_chunks(gradients->d_o) && in_chunks(gradients->dq) && in_chunks(gradients->dk) &&
         in_chunks(gradients->dv) && backward_queries_tiles_fit(dtype, width, width_v) &&
         backward_keys_tiles_fit(dtype, width, width_v);
}

AttentionKernels preferred = AttentionKernels::chosen;

// The kernels for any chip that serve a call. Hopper's take the place of those on tensor cores where they can.
struct Portable {
  using Launch = void (*)(const AttentionArgs& args, DType dtype, int heads, int batch);
  Launch forward, backward_queries, backward_keys;
  bool on_tensor_cores = false;
};
constexpr Portable kTensorCores{forward_by_tiles, backward_queries_by_tiles, backward_keys_by_tiles, true};
constexpr Portable kPlain{forward_by_plain_tiles, backward_queries_by_plain_tiles,
                          backward_keys_by_plain_tiles};
constexpr Portable kRows{forward_by_rows, backward_queries_by_rows, backward_keys_by_rows};

Portable portable_for(const AttentionTensors& t, const AttentionGradients* gradients) {
  if (preferred == AttentionKernels::by_rows) return kRows;
  if (tensor_cores_can_serve(t, gradients)) return kTensorCores;
  const auto width = static_cast<int>(t.q.shape[3]), width_v = static_cast<int>(t.v.shape[3]);
  return plain_tiles_fit(width, width_v, gradients != nullptr) ? kPlain : kRows;
}

bool hopper_serves() {
  static const bool usable = hopper::usable();
  return usable && preferred != AttentionKernels::portable && preferred != AttentionKernels::by_rows;
}
bool uses_hopper(const HeadGroup& group) { return hopper_serves() && !group.backward.empty(); }

// So many (sequence, head) of `columns` have room for the f32 sums of their dq at a time: in as much memory as fills a
// GPU with work at most lengths.
int64_t columns_at_once(const Plan& plan, int width, int64_t columns) {
  constexpr int64_t kMostBytes = int64_t{512} << 20;
  int64_t tiles = 1;
  for (const Pass& pass : plan.passes) tiles = std::max(tiles, pass.queries.count());
  return std::clamp<int64_t>(kMostBytes / (tiles * hopper::bytes_of_sum(width)), 1, columns);
}

// Whether dq is summed where keys own the work, rather than in a pass of its own. `columns`: (sequence, head) in all.
bool goes_by_keys(const Plan& plan, const ListLengths& lengths, int width, int64_t columns) {
  if (preferred != AttentionKernels::chosen) return preferred == AttentionKernels::by_keys;
  return hopper::pays_in_order(lengths, static_cast<int>(columns_at_once(plan, width, columns)));
}
bool goes_by_keys(const Plan& plan, const HeadGroup& group, DType dtype, const AttentionArgs& args,
                  int batch) {
  const auto serves = [&](const Round& round) {
    return round.closed || hopper::serves_in_order(dtype, args.q.width, args.v.width);
  };
  const bool closed = group.by_keys.size() == 1 && group.by_keys.front().closed;
  return !group.by_keys.empty() && std::all_of(group.by_keys.begin(), group.by_keys.end(), serves) &&
         (closed || goes_by_keys(plan, group.lengths, args.q.width, int64_t{group.head_count} * batch));
}

// Room for the sums of a backward by keys; none where no group of heads may need it.
struct SumsRoom {
  int64_t tiles = 0, columns = 0;
};
struct SumsMemory {
  Tensor sums, turns;
};
SumsMemory allocate_sums(Arena& scratch, const SumsRoom& room, int width) {
  return {scratch.allocate(DType::f32, {room.columns, room.tiles, hopper::bytes_of_sum(width) / 4}),
          scratch.allocate(DType::i32, {room.columns, room.tiles})};
}
// What is left of scratch that a caller measured for other tensors or fewer keys may be too little.
bool has_room(const OpContext& context, const SumsRoom& room, int width) {
  if (context.scratch->is_measuring()) return true;
  Arena needed = Arena::measuring(context.device);
  allocate_sums(needed, room, width);
  return needed.peak() <= context.scratch->capacity() - context.scratch->used();
}
SumsRoom room_of_sums(const AttentionPlan& plan, const AttentionTensors& t) {
  const auto width = static_cast<int>(t.q.shape[3]), width_v = static_cast<int>(t.v.shape[3]);
  SumsRoom room;
  if (t.q.dtype == DType::f32 || !hopper_serves() || !hopper::serves_in_order(t.q.dtype, width, width_v))
    return room;
  for (size_t p = 0; p < plan.plans.size(); ++p) {
    const auto heads = std::count(plan.plan_of_head.begin(), plan.plan_of_head.end(), static_cast<int>(p));
    const int64_t columns = heads * t.q.shape[0];
    if (!goes_by_keys(plan.plans[p], list_lengths(plan.plans[p]), width, columns)) continue;
    for (const Pass& pass : plan.plans[p].passes) room.tiles = std::max(room.tiles, pass.queries.count());
    room.columns = std::max(room.columns, columns_at_once(plan.plans[p], width, columns));
  }
  return room;
}

bool forward_on_hopper(const AttentionPlan& plan, const HeadGroup& group, const AttentionArgs& args,
                       DType dtype, int batch) {
  if (!uses_hopper(group)) return false;
  hopper::ForwardCall call{args, dtype, batch, lists_of(plan).counters()};
  for (const Round& round : group.forward) {
    if (!hopper::forward(round, call, group)) return false;
    call.args.add = true;
  }
  return true;
}

// Whether hopper::backward_ordered() has to be given numbers.
bool needs_numbers(const HeadGroup& group) {
  return std::any_of(group.by_keys.begin(), group.by_keys.end(), [](const Round& r) { return !r.closed; });
}

bool backward_by_keys_on_hopper(const AttentionPlan& plan, const HeadGroup& group, const AttentionArgs& args,
                                const float2* numbers, const hopper::Sums& sums, DType dtype, int batch) {
  hopper::BackwardCall call{args, dtype, batch, lists_of(plan).counters(), numbers};
  call.add_keys = zero_uncovered_keys(group.by_keys.front().keys.sweep, args, dtype, group, batch);
  for (const Round& round : group.by_keys) {
    const bool served = round.closed ? hopper::backward_closed(round, call, group)
                                     : hopper::backward_ordered(round, call, group, sums);
    if (!served) return false;
    call.add_queries = call.add_keys = true;
  }
  return true;
}

bool backward_on_hopper(const AttentionPlan& plan, const HeadGroup& group, const AttentionArgs& args,
                        const float2* numbers, DType dtype, int batch) {
  hopper::BackwardCall call{args, dtype, batch, lists_of(plan).counters(), numbers};
  call.add_keys = zero_uncovered_keys(group.backward.front().keys.sweep, args, dtype, group, batch);
  for (const Round& round : group.backward) {
    if (!hopper::backward(round, call, group)) return false;
    call.add_queries = call.add_queries || round.has_queries;
    call.add_keys = true;
  }
  return true;
}

void backward_on_any(const HeadGroup& group, AttentionArgs args, DType dtype, int batch,
                     const Portable& kernels) {
  args.add = false;
  for (const Sweep& sweep : group.queries) {
    args.sweep = sweep;
    kernels.backward_queries(args, dtype, group.head_count, batch);
    args.add = true;
  }
  args.add = false;
  for (const Sweep& sweep : group.keys) {
    args.add = args.add || zero_uncovered_keys(sweep, args, dtype, group, batch);
    args.sweep = sweep;
    kernels.backward_keys(args, dtype, group.head_count, batch);
    args.add = true;
  }
}

}  // namespace

void prefer_attention(AttentionKernels kernels) { preferred = kernels; }

template <>
void compute(const OpContext& context, const AttentionForward& call) {
  if (context.scratch->is_measuring()) return;
  const AttentionPlan& plan = call.plan;
  const AttentionTensors& t = call.t;
  const AttentionLists& lists = lists_of(plan);
  AttentionArgs args = arguments_of(plan, t);
  const int batch = static_cast<int>(t.q.shape[0]);
  const Portable kernels = portable_for(t, nullptr);
  for (const HeadGroup& group : lists.groups()) {
    args.heads = group.heads;
    args.add = false;
    if (kernels.on_tensor_cores && forward_on_hopper(plan, group, args, t.q.dtype, batch)) continue;
    for (const Sweep& sweep : group.queries) {
      args.sweep = sweep;
      kernels.forward(args, t.q.dtype, group.head_count, batch);
      args.add = true;
    }
  }
}

template <>
void compute(const OpContext& context, const AttentionBackward& call) {
  const AttentionPlan& plan = call.plan;
  const AttentionTensors& t = call.t;
  const AttentionGradients& gradients = call.gradients;
  const Arena::Scope scope(*context.scratch);
  const int64_t sequences = t.q.shape[0], heads = t.q.shape[2], n = t.q.shape[1];
  const Tensor delta = context.scratch->allocate(DType::f32, {sequences, heads, n});
  const Tensor numbers = context.scratch->allocate(DType::f32, {sequences, heads, n, 2});
  SumsRoom room = room_of_sums(plan, t);
  const auto width = static_cast<int>(t.q.shape[3]);
  if (!has_room(context, room, width)) room = {};  // dq gets a pass of its own then
  const SumsMemory memory = allocate_sums(*context.scratch, room, width);
  if (context.scratch->is_measuring()) return;
  const AttentionLists& lists = lists_of(plan);
  AttentionArgs args = arguments_of(plan, t);
  args.d_o = rows_of(gradients.d_o);
  args.dq = rows_of(gradients.dq), args.dk = rows_of(gradients.dk), args.dv = rows_of(gradients.dv);
  args.delta = data_of<float>(delta);
  const int batch = static_cast<int>(sequences);
  const Portable kernels = portable_for(t, &gradients);
  bool have_delta = false, have_numbers = false;
  const auto numbers_of_call = [&] {
    if (!have_numbers) compute_delta(t, gradients.d_o, nullptr, data_of<float2>(numbers));
    have_numbers = true;
    return data_of<float2>(numbers);
  };
  for (size_t p = 0; p < lists.groups().size(); ++p) {
    const HeadGroup& group = lists.groups()[p];
    args.heads = group.heads;
    if (kernels.on_tensor_cores && uses_hopper(group)) {
      if (goes_by_keys(plan.plans[p], group, t.q.dtype, args, batch) &&
          (room.tiles > 0 || !needs_numbers(group))) {
        const hopper::Sums of_queries{data_of<float>(memory.sums), data_of<int>(memory.turns),
                                      static_cast<int>(room.columns)};
        const float2* const given = needs_numbers(group) ? numbers_of_call() : nullptr;
        if (backward_by_keys_on_hopper(plan, group, args, given, of_queries, t.q.dtype, batch)) continue;
      }
      if (backward_on_hopper(plan, group, args, numbers_of_call(), t.q.dtype, batch)) continue;
    }
    if (!have_delta) compute_delta(t, gradients.d_o, args.delta, nullptr);
    have_delta = true;
    backward_on_any(group, args, t.q.dtype, batch, kernels);
  }
}

}  // namespace longstride::cuda

// Attention of one query a sequence and head, while sampling. A block a (sequence, head) goes through the
// positions by the thousand: first it lists those that the pattern allows, then warps take the keys of the
// list by turns. Everything is f32; lists and sums have a fixed order.
#include "longstride/ops/cuda/common.cuh"
#include "longstride/ops/cuda/ops.h"

namespace longstride::cuda {

namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kSpan = 1024;  // positions listed at a time
constexpr int kHeadsAtOnce = 8;

struct OneArgs {
  Pattern patterns[kHeadsAtOnce];
  int first_head;
  int64_t position;
  const float* q;
  const void *k, *v;
  float* o;
  int64_t q_batch, q_head, o_batch, o_head;
  int64_t k_batch, k_position, k_head, v_batch, v_position, v_head;
  int width, width_v;
  float scale;
};

template <class T>
__global__ void __launch_bounds__(kThreads) one_kernel(const __grid_constant__ OneArgs a) {
  extern __shared__ float shared[];
  float* const query = shared;         // (width)
  float* const sum = query + a.width;  // (kWarps, width_v)
  __shared__ int list[kSpan];
  __shared__ float weights[kSpan];
  __shared__ int counts[kWarps];
  __shared__ float most_of_warp[kWarps], sum_of_warp[kWarps];
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;
  const int b = blockIdx.y, h = a.first_head + static_cast<int>(blockIdx.x);
  const Pattern& pattern = a.patterns[blockIdx.x];
  const T* k = static_cast<const T*>(a.k) + b * a.k_batch + h * a.k_head;
  const T* v = static_cast<const T*>(a.v) + b * a.v_batch + h * a.v_head;
  for (int d = thread; d < a.width; d += kThreads) query[d] = a.q[b * a.q_batch + h * a.q_head + d] * a.scale;
  for (int i = thread; i < kWarps * a.width_v; i += kThreads) sum[i] = 0;
  float highest = -INFINITY, total = 0;
  __syncthreads();

  for (int64_t begin = 0; begin <= a.position; begin += kSpan) {
    // Each warp lists the allowed of its stretch, then all move to where the earlier ones end.
    constexpr int kStretch = kSpan / kWarps;
    uint32_t allowed[kStretch / kWarp];
    int count = 0;
#pragma unroll
    for (int i = 0; i < kStretch / kWarp; ++i) {
      const int64_t position = begin + warp * kStretch + i * kWarp + lane;
      allowed[i] = __ballot_sync(0xffffffffu, position <= a.position && pattern.allows(a.position, position));
      count += __popc(allowed[i]);
    }
    if (lane == 0) counts[warp] = count;
    __syncthreads();
    int at = 0, listed = 0;
    for (int w = 0; w < kWarps; ++w) {
      at += w < warp ? counts[w] : 0;
      listed += counts[w];
    }
#pragma unroll
    for (int i = 0; i < kStretch / kWarp; ++i) {
      if (allowed[i] >> lane & 1)
        list[at + __popc(allowed[i] & ((1u << lane) - 1))] = warp * kStretch + i * kWarp + lane;
      at += __popc(allowed[i]);
    }
    __syncthreads();
    if (listed == 0) continue;

    float most = -INFINITY;
    for (int i = warp; i < listed; i += kWarps) {
      const T* row = k + (begin + list[i]) * a.k_position;
      float score = 0;
      for (int d = lane; d < a.width; d += kWarp) score = fmaf(query[d], to_float(row[d]), score);
      score = warp_sum(score);
      if (lane == 0) weights[i] = score;
      most = fmaxf(most, score);
    }
    if (lane == 0) most_of_warp[warp] = most;
    __syncthreads();
    most = highest;
    for (int w = 0; w < kWarps; ++w) most = fmaxf(most, most_of_warp[w]);
    const float from = most == -INFINITY ? 0.0f : most, shrink = expf(highest - from);
    highest = most;
    float added = 0;
    for (int i = thread; i < listed; i += kThreads) added += weights[i] = expf(weights[i] - from);
    added = warp_sum(added);
    if (lane == 0) sum_of_warp[warp] = added;
    __syncthreads();
    total *= shrink;
    for (int w = 0; w < kWarps; ++w) total += sum_of_warp[w];
    for (int d = lane; d < a.width_v; d += kWarp) {
      float part = sum[warp * a.width_v + d] * shrink;
      for (int i = warp; i < listed; i += kWarps)
        part = fmaf(weights[i], to_float(v[(begin + list[i]) * a.v_position + d]), part);
      sum[warp * a.width_v + d] = part;
    }
    __syncthreads();
  }
  for (int d = thread; d < a.width_v; d += kThreads) {
    float all = 0;
    for (int w = 0; w < kWarps; ++w) all += sum[w * a.width_v + d];
    a.o[b * a.o_batch + h * a.o_head + d] = total == 0 ? 0.0f : all / total;
  }
}

}  // namespace

void attention_one(const OpContext&, const LayerPattern& layer, int64_t position, const Tensor& q,
                   const Tensor& k, const Tensor& v, float scale, const Tensor& o) {
  const int64_t heads = q.shape[1];
  OneArgs args{};
  args.position = position;
  args.q = data_of<float>(q), args.k = k.data, args.v = v.data, args.o = data_of<float>(o);
  args.q_batch = q.stride[0], args.q_head = q.stride[1], args.o_batch = o.stride[0],
  args.o_head = o.stride[1];
  args.k_batch = k.stride[0], args.k_position = k.stride[1], args.k_head = k.stride[2];
  args.v_batch = v.stride[0], args.v_position = v.stride[1], args.v_head = v.stride[2];
  args.width = static_cast<int>(q.shape[2]), args.width_v = static_cast<int>(v.shape[3]);
  args.scale = scale;
  const int64_t shared_bytes = (args.width + kWarps * args.width_v) * static_cast<int64_t>(sizeof(float));
  LONGSTRIDE_CHECK(shared_bytes <= 32 << 10, "attention_one: heads of {} and {}, the GPU takes up to 900",
                   args.width, args.width_v);
  for (int64_t first = 0; first < heads; first += kHeadsAtOnce) {
    const int64_t count = heads - first < kHeadsAtOnce ? heads - first : kHeadsAtOnce;
    args.first_head = static_cast<int>(first);
    for (int64_t i = 0; i < count; ++i) args.patterns[i] = layer.for_head(first + i, heads);
    const dim3 grid(static_cast<unsigned>(count), static_cast<unsigned>(q.shape[0]));
    with_float_type(k.dtype, [&](auto element) {
      one_kernel<decltype(element)><<<grid, kThreads, static_cast<size_t>(shared_bytes), current()>>>(args);
    });
    check_launch("attention_one");
  }
}

}  // namespace longstride::cuda

// The kernels of a decoding step: all stages in one that stays, or one each.
#include <algorithm>

#include "longstride/decode/cuda/launch.h"
#include "longstride/decode/cuda/stages.cuh"

namespace longstride::cuda::decode {

namespace {

// All blocks of a grid that runs at once wait for each other. What was written before arrive() in any block
// can be read after wait() in every block, past the first-level cache.
class GridBarrier {
 public:
  __device__ explicit GridBarrier(uint32_t* arrived) : arrived_(arrived) {}
  __device__ void arrive() {
    goal_ += gridDim.x;
    __syncthreads();
    if (threadIdx.x == 0) asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(arrived_) : "memory");
  }
  // Also for this block's copies in the background.
  __device__ void wait() const {
    if (threadIdx.x == 0) {
      uint32_t seen;
      do {
        asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(arrived_) : "memory");
      } while (static_cast<int32_t>(seen - goal_) < 0);
      asm volatile("fence.acq_rel.gpu;" ::: "memory");
    }
    wait_for_copies<0>();
    __syncthreads();
  }

 private:
  uint32_t* arrived_;
  uint32_t goal_ = 0;
};

__device__ inline unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char shared[];
  return shared;
}

// The table (count) from global to shared memory, word by word.
template <class Entry>
__device__ Entry* copied(const Entry* from, int count, unsigned char* to) {
  static_assert(sizeof(Entry) % 4 == 0);
  for (int i = static_cast<int>(threadIdx.x); i < count * static_cast<int>(sizeof(Entry) / 4); i += kThreads)
    reinterpret_cast<uint32_t*>(to)[i] = reinterpret_cast<const uint32_t*>(from)[i];
  return reinterpret_cast<Entry*>(to);
}

template <class T, bool kChanges, bool kConvolves>
__global__ void __launch_bounds__(kThreads, 1)
    persistent_kernel(const __grid_constant__ Args a, int steps, bool draws) {
  unsigned char* const shared = shared_memory();
  const Block<true, T> block(a, shared);
  const Places<true> places(a, sizeof(T));
  const Layer* const layers = copied(a.layers, a.layer_count, shared + places.layers);
  const Head* const all_heads = copied(a.heads, a.distinct_heads, shared + places.heads);
  for (int i = static_cast<int>(threadIdx.x); i < a.streams * a.x_stride; i += kThreads)
    block.rows[i] = from_float<T>(0.0f);
  __syncthreads();  // the tables are there
  GridBarrier barrier(a.arrived);
  Ahead<T> ahead;
  run_stage<Stage::prepare, false>(a, a.layers[0], a.heads, block, ahead);
  const Piece own_piece(a, block.index);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  Candidates candidates;
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    candidates.store = -1;  // a new position reads other rows
#pragma unroll 1
    for (int l = 0; l < a.layer_count; ++l) {
      const Layer& layer = layers[l];
      const Head* const heads = all_heads + layer.heads_from;
      barrier.arrive();
      begin_stage<Stage::qkv>(a, layer, block, ahead);
      barrier.wait();
      if (l == 0) block.copy_own_rows(a);
      prefetch_tiles<T>(layer.projection, block.index, block.count);
      run_stage<Stage::qkv, kChanges>(a, layer, heads, block, ahead);
      barrier.arrive();
      if constexpr (kConvolves) look_back(a, layer, block.rows);
      barrier.wait();
      prefetch_tiles<T>(layer.up, block.index, block.count);
      prefetch_tiles<T>(layer.down, block.index, block.count);
      attention_stage<kChanges>(a, layer, heads, block, own_piece, candidates);
      barrier.arrive();
      begin_stage<Stage::projection>(a, layer, block, ahead);
      barrier.wait();
      run_stage<Stage::projection, false>(a, layer, heads, block, ahead);
      barrier.arrive();
      begin_stage<Stage::up>(a, layer, block, ahead);
      barrier.wait();
      prefetch_tiles<T>(l + 1 < a.layer_count ? layers[l + 1].qkv : a.output, block.index, block.count);
      run_stage<Stage::up, kConvolves>(a, layer, heads, block, ahead);
      barrier.arrive();
      begin_stage<Stage::down>(a, layer, block, ahead);
      barrier.wait();
      run_stage<Stage::down, false>(a, layer, heads, block, ahead);
      // What the next layer's attention reads, but for this position's own key.
      if (l + 1 < a.layer_count && block.index < Piece::count(a)) {
        const Head head = all_heads[layers[l + 1].heads_from + own_piece.head];
        if (candidates.store == head.store && candidates.sequence == own_piece.sequence)
          prefetch_rows<T>(a, layers[l + 1], head, own_piece, candidates, warp);
      }
    }
    barrier.arrive();
    begin_stage<Stage::logits>(a, layers[0], block, ahead);
    barrier.wait();
    run_stage<Stage::logits, false>(a, layers[0], all_heads, block, ahead);
    if (!draws) continue;
    barrier.arrive();
    barrier.wait();
    run_stage<Stage::draw, false>(a, layers[0], all_heads, block, ahead);
  }
}

// Kernels of a stage may begin while the stage before still runs, ask for their weights and then wait.
__device__ inline void let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ inline void wait_for_stage_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Blocks of a multiprocessor.
inline constexpr int kBlocksAtOnce = 2;

template <Stage kStage, class T, bool kChanges>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    stage_kernel(const __grid_constant__ Args a, int l) {
  const Layer& layer = a.layers[l];
  const Head* const heads = a.heads + layer.heads_from;
  const Block<false, T> block(a, shared_memory());
  Ahead<T> ahead;
  begin_stage<kStage>(a, layer, block, ahead);
  let_next_begin();
  wait_for_stage_before();
  wait_for_copies<0>();
  __syncthreads();
  if constexpr (kStage == Stage::attention) {
    Candidates candidates;
    candidates.store = -1;
    const Piece piece(a, block.index * kWarps + static_cast<int>(threadIdx.x) / kWarp);
    attention_stage<kChanges>(a, layer, heads, block, piece, candidates);
  } else {
    run_stage<kStage, kChanges>(a, layer, heads, block, ahead);
  }
}

template <class T>
auto persistent_kernel_for(const Args& args) {
  if (args.convolves) return persistent_kernel<T, true, true>;
  return args.changes ? persistent_kernel<T, true, false> : persistent_kernel<T, false, false>;
}

template <bool kFused>
size_t shared_bytes(const Args& a, DType product) {
  return static_cast<size_t>(Places<kFused>(a, size_of(product)).bytes);
}

int attribute_of_current(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  LONGSTRIDE_CUDA_CHECK(cudaGetDevice(&device));
  LONGSTRIDE_CUDA_CHECK(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

template <class Kernel>
void allow_shared(Kernel* kernel, size_t bytes) {
  LONGSTRIDE_CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
}

// Queues kernels of stages one after another.
template <class T>
struct Queue {
  const Args& args;
  bool overlaps;  // kernels may begin before the one before has ended

  template <Stage kStage>
  void add(int layer, int64_t blocks, bool first = false, int64_t groups = 1) const {
    constexpr bool kMayChange = kStage == Stage::qkv || kStage == Stage::attention;
    constexpr bool kMayConvolve = kStage == Stage::norm2;
    const bool changes = kMayConvolve ? args.convolves : args.changes;
    launch(changes ? stage_kernel < kStage, T, kMayChange || kMayConvolve > : stage_kernel<kStage, T, false>,
           layer, blocks, first, groups);
  }

 private:
  void launch(void (*kernel)(Args, int), int layer, int64_t blocks, bool first, int64_t groups) const {
    const size_t shared = static_cast<size_t>(Places<false>(args, sizeof(T)).bytes);
    allow_shared(kernel, shared);
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(groups));
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = shared;
    config.stream = current();
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &attribute;
    config.numAttrs = overlaps && !first ? 1 : 0;
    LONGSTRIDE_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, args, layer));
  }
};

int64_t tiles_of(int64_t outputs) { return ceil_div(outputs, kOutputs); }

}  // namespace

int most_fused() { return kMostFused; }

int persistent_blocks(DType product, const Args& args) {
  const size_t shared = shared_bytes<true>(args, product);
  if (attribute_of_current(cudaDevAttrCooperativeLaunch) == 0 || args.streams > kMostFused ||
      shared > static_cast<size_t>(attribute_of_current(cudaDevAttrMaxSharedMemoryPerBlockOptin)))
    return 0;
  int blocks = 0;
  with_float_type(product, [&](auto element) {
    using T = decltype(element);
    const auto kernel = persistent_kernel_for<T>(args);
    allow_shared(kernel, shared);
    LONGSTRIDE_CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, kThreads, shared));
  });
  return blocks > 0 ? attribute_of_current(cudaDevAttrMultiProcessorCount) : 0;
}

void launch_persistent(DType product, const Args& args, int blocks, int steps, bool draws) {
  LONGSTRIDE_CUDA_CHECK(cudaMemsetAsync(args.arrived, 0, sizeof(uint32_t), current()));
  with_float_type(product, [&](auto element) {
    using T = decltype(element);
    Args a = args;
    void* parameters[] = {&a, &steps, &draws};
    LONGSTRIDE_CUDA_CHECK(cudaLaunchCooperativeKernel(
        reinterpret_cast<const void*>(persistent_kernel_for<T>(args)), dim3(static_cast<unsigned>(blocks)),
        dim3(kThreads), parameters, shared_bytes<true>(args, product), current()));
  });
}

void launch_prepare(DType product, const Args& args) {
  with_float_type(product, [&](auto element) {
    Queue<decltype(element)>{args, false}.template add<Stage::prepare>(0, args.streams, true);
  });
}

void launch_stages(DType product, const Args& a, bool draws) {
  const int64_t chip = attribute_of_current(cudaDevAttrMultiProcessorCount);
  const int64_t row_blocks = ceil_div(a.streams, kWarps);
  const int64_t join_blocks = ceil_div(static_cast<int64_t>(a.streams) * a.x_stride, kThreads);
  const int64_t pieces = static_cast<int64_t>(a.streams) * a.head_count * a.most_pieces;
  const int64_t piece_blocks = std::min(chip * kBlocksAtOnce, ceil_div(pieces, kWarps));
  with_float_type(product, [&](auto element) {
    const Queue<decltype(element)> queue{a, attribute_of_current(cudaDevAttrComputeCapabilityMajor) >= 9};
    const int64_t groups = ceil_div(a.streams, kRows);
    for (int l = 0; l < a.layer_count; ++l) {
      queue.template add<Stage::norm1>(l, row_blocks, l == 0);
      queue.template add<Stage::qkv>(l, tiles_of(2 * a.qk + a.width), false, groups);
      queue.template add<Stage::attention>(l, piece_blocks);
      queue.template add<Stage::join>(l, join_blocks);
      queue.template add<Stage::projection>(l, tiles_of(a.width), false, groups);
      queue.template add<Stage::norm2>(l, row_blocks);
      queue.template add<Stage::up>(l, tiles_of(a.feed_forward), false, groups);
      queue.template add<Stage::down>(l, tiles_of(a.width), false, groups);
    }
    queue.template add<Stage::final_norm>(0, row_blocks);
    queue.template add<Stage::logits>(0, tiles_of(kVocabulary), false, groups);
    if (draws) queue.template add<Stage::draw>(0, a.streams);
  });
}

}  // namespace longstride::cuda::decode

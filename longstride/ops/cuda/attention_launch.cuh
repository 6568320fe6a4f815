// From runtime widths to a kernel, whether it fits, and its launch.
#pragma once

#include <array>

#include "longstride/ops/cuda/attention_common.cuh"

namespace longstride::cuda {

// The result of action<T, kWidth, kWidthV>() with the smallest of the compiled widths that hold a head's: q
// and k as wide as v, or half as wide (the paper's "half-size query and key").
template <class Action>
auto with_tile_widths(DType dtype, int width, int width_v, const Action& action) {
  const auto with_type = [&]<class T>() {
    const int most = width > width_v ? width : width_v;
    if (most <= 32) return action.template operator()<T, 32, 32>();
    if (most <= 64)
      return width <= 32 ? action.template operator()<T, 32, 64>() : action.template operator()<T, 64, 64>();
    return width <= 64 ? action.template operator()<T, 64, 128>() : action.template operator()<T, 128, 128>();
  };
  if (dtype == DType::f16) return with_type.template operator()<__half>();
  return with_type.template operator()<__nv_bfloat16>();
}

// Bytes of shared memory that a block may have on this GPU: 99 KiB on sm_86, sm_89 and sm_120, 163 KiB or
// more on sm_80 and sm_90.
inline int64_t most_shared_bytes() {
  static const int64_t bytes = [] {
    int device = 0, most = 0;
    LONGSTRIDE_CUDA_CHECK(cudaGetDevice(&device));
    LONGSTRIDE_CUDA_CHECK(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    return int64_t{most};
  }();
  return bytes;
}

template <class Kind>
bool fits(void (*kernel)(AttentionArgs)) {
  static const bool enough = [&] {
    cudaFuncAttributes attributes{};
    LONGSTRIDE_CUDA_CHECK(cudaFuncGetAttributes(&attributes, kernel));
    return static_cast<int64_t>(attributes.sharedSizeBytes) + Kind::kSharedBytes <= most_shared_bytes();
  }();
  return enough;
}

// blocks: of threads, heads and sequences.
inline void launch_blocks(void (*kernel)(AttentionArgs), const char* name, const AttentionArgs& args,
                          const std::array<int, 3>& blocks, int threads, size_t shared_bytes) {
  if (args.sweep.pairs == 0) return;
  LONGSTRIDE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             static_cast<int>(shared_bytes)));
  const auto [x, heads, batch] = blocks;
  const dim3 grid(static_cast<unsigned>(x), static_cast<unsigned>(heads), static_cast<unsigned>(batch));
  kernel<<<grid, static_cast<unsigned>(threads), shared_bytes, current()>>>(args);
  check_launch(name);
}

template <class Kind>
void launch_by_pairs(void (*kernel)(AttentionArgs), const char* name, const AttentionArgs& args, int heads,
                     int batch) {
  launch_blocks(kernel, name, args, {args.sweep.pairs, heads, batch}, Kind::kThreads, Kind::kSharedBytes);
}

}  // namespace longstride::cuda

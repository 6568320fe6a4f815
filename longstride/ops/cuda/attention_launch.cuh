// From runtime widths to a kernel, and its launch.
#pragma once

#include "longstride/ops/cuda/attention_common.cuh"

namespace longstride::cuda {

// Calls action<T, kWidth, kWidthV>() with the smallest of the compiled widths that hold a head's: q and k as
// wide as v, or half as wide (the paper's "half-size query and key").
template <class Action>
void with_tile_widths(DType dtype, int width, int width_v, const Action& action) {
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

template <class Kind>
void launch_by_pairs(void (*kernel)(AttentionArgs), const char* name, const AttentionArgs& args, int heads,
                     int batch) {
  if (args.sweep.pairs == 0) return;
  LONGSTRIDE_CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Kind::kSharedBytes));
  const dim3 grid(static_cast<unsigned>(args.sweep.pairs), static_cast<unsigned>(heads),
                  static_cast<unsigned>(batch));
  kernel<<<grid, Kind::kThreads, Kind::kSharedBytes, current()>>>(args);
  check_launch(name);
}

}  // namespace longstride::cuda

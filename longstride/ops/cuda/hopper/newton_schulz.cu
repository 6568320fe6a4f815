// Newton-Schulz for Hopper: which matrices, maps and tiles each launch of the kernel has
// (newton_schulz_kernel.cuh, where the products are described).
#include <algorithm>
#include <array>

#include "longstride/ops/cuda/hopper/launch.cuh"
#include "longstride/ops/cuda/hopper/newton_schulz_kernel.cuh"
#include "longstride/ops/cuda/hopper/tensor_maps.h"

namespace longstride::cuda::hopper {

namespace {

using namespace newton;

// What the launches of a call have in common.
struct Launch {
  std::span<OrthogonalBatch> batches;
  int* counter;
  bool follows;  // a launch of this kernel
};

// Of a batch.
struct Maps {
  CUtensorMap x, y, gram, factor;
};

int tiles_of(int64_t length) { return static_cast<int>(ceil_div(length, kSide)); }

Group group_of(Step step, const OrthogonalBatch& batch, const Maps& maps) {
  const bool wide = batch.rows <= batch.columns;
  const int64_t shorter = std::min(batch.rows, batch.columns), longer = std::max(batch.rows, batch.columns);
  const int n = tiles_of(shorter);
  Group group{};
  if (step == Step::apply) {
    group.left = wide ? maps.factor : maps.x, group.right = wide ? maps.x : maps.factor, group.out = maps.y;
    group.side = tiles_of(batch.columns), group.per_matrix = tiles_of(batch.rows) * group.side;
    group.transposed = wide;
  } else {
    const bool gram = step == Step::gram;
    group.left = group.right = gram ? maps.x : maps.gram;
    group.out = gram ? maps.gram : maps.factor;
    group.side = n, group.per_matrix = n * (n + 1) / 2;
    group.transposed = gram && !wide;
  }
  // Where something is added, all of its tile is among the blocks.
  group.blocks = step == Step::gram ? static_cast<int>(ceil_div(longer, kRows)) : 2 * n;
  return group;
}

template <class T, Step kStep>
void launch_step(const Launch& launch, std::span<const Maps> maps, float added, float scale) {
  using K = Kind<T, kStep>;
  Args args;
  args.added = added, args.scale = scale, args.counter = launch.counter;
  // What the launch before used last is still in the cache.
  args.backwards = kStep == Step::apply;
  for (size_t i = 0; i < launch.batches.size(); ++i) {
    Group& group = args.groups[args.group_count++];
    group = group_of(kStep, launch.batches[i], maps[i]);
    args.total += static_cast<int>(launch.batches[i].count) * group.per_matrix;
    group.end = args.total;
  }
  if (args.total == 0) return;
  const auto kernel = newton_schulz_kernel<K>;
  LONGSTRIDE_CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, K::kSharedBytes));
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(std::min(args.total, multiprocessors())));
  config.blockDim = dim3(kBlockThreads);
  config.dynamicSmemBytes = K::kSharedBytes;
  config.stream = current();
  config.attrs = &early, config.numAttrs = launch.follows ? 1 : 0;
  LONGSTRIDE_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, args));
}

}  // namespace

bool serves_newton_schulz(DType dtype, int64_t rows, int64_t columns) {
  // Strides of the TMA are whole 16-byte chunks.
  return size_of(dtype) == 2 && columns % 8 == 0 && std::min(rows, columns) % 8 == 0;
}

void newton_schulz(std::span<const Polynomial> polynomials, DType dtype, std::span<OrthogonalBatch> batches,
                   int* counters) {
  LONGSTRIDE_CHECK(batches.size() <= kMostBatches && polynomials.size() <= kMostPolynomials,
                   "newton_schulz: {} batches and {} steps, must be {} and {} at most", batches.size(),
                   polynomials.size(), kMostBatches, kMostPolynomials);
  std::array<Maps, kMostBatches> maps{};
  for (size_t i = 0; i < batches.size(); ++i) {
    const OrthogonalBatch& b = batches[i];
    const int64_t n = std::min(b.rows, b.columns);
    const auto map = [&](void* data) {
      return make_matrix_map({data, dtype, b.count, b.rows, b.columns, b.step});
    };
    const auto square = [&](void* data) {
      return make_matrix_map({data, dtype, b.count, n, n, b.square_step});
    };
    maps[i] = {map(b.x), map(b.y), square(b.gram), square(b.factor)};
  }
  LONGSTRIDE_CUDA_CHECK(cudaMemsetAsync(counters, 0, kCounters * sizeof(int), current()));
  with_float_type(dtype, [&](auto element) {
    using T = decltype(element);
    if constexpr (sizeof(T) == 2) {
      const std::span<const Maps> of_batches(maps.data(), batches.size());
      Launch launch{batches, counters, false};
      for (const Polynomial& p : polynomials) {
        launch_step<T, Step::gram>(launch, of_batches, 0, 1);
        launch.follows = true, ++launch.counter;
        launch_step<T, Step::square>(launch, of_batches, static_cast<float>(p.b / p.c),
                                     static_cast<float>(p.c));
        ++launch.counter;
        launch_step<T, Step::apply>(launch, of_batches, static_cast<float>(p.a), 1);
        ++launch.counter;
        for (size_t i = 0; i < batches.size(); ++i)
          std::swap(batches[i].x, batches[i].y), std::swap(maps[i].x, maps[i].y);
      }
    }
  });
}

}  // namespace longstride::cuda::hopper

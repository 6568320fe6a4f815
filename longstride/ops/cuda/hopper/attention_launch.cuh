// From tensors and a round of a plan to a launch of Hopper's kernels.
#pragma once

#include "longstride/ops/cuda/attention_launch.cuh"
#include "longstride/ops/cuda/hopper/attention.cuh"
#include "longstride/ops/cuda/hopper/launch.cuh"

namespace longstride::cuda::hopper {

class MapMaker {
 public:
  MapMaker(DType dtype, int heads, int batch) : dtype_(dtype), heads_(heads), batch_(batch) {}
  TileMaps make(const Rows& rows, int padded_width, const TokenOrder& order, const BoxOrder& boxes) {
    TileMaps maps{};
    const MappedTensor tensor{rows.data,  dtype_,     batch_,        heads_,
                              rows.width, rows.batch, rows.position, rows.head};
    good_ = good_ && make_tile_maps(tensor, order, boxes, padded_width < 64 ? padded_width : 64, maps);
    return maps;
  }
  bool good() const { return good_; }

 private:
  DType dtype_;
  int heads_, batch_;
  bool good_ = true;
};

// All heads' tasks of one item are handed out together.
inline Work work_of(const Round& round, const HeadGroup& group, int batch, int* counters) {
  const int columns = group.head_count * batch;
  return {round.items, round.item_count, group.heads, group.head_count, columns, columns, counters};
}

// Fewer heads at a time where what all of them share is far more than the cache holds, but enough for all
// multiprocessors: at the end of each lot some have nothing to do. By measurement: a dense backward over
// 16,384 positions takes 7.3 ms instead of 9.8, one with summaries is best with all heads, and so is every
// forward.
inline void share_cache(Work& work, const Round& round, const AttentionArgs& args) {
  constexpr int64_t kMuch = 150 << 20, kCacheBytes = 16 << 20;
  const int64_t head_bytes = int64_t{2} * kTile * round.shared_tiles * (args.q.width + args.v.width);
  if (head_bytes * work.columns <= kMuch) return;
  const int64_t fit = kCacheBytes / head_bytes, needed = ceil_div(8 * multiprocessors(), work.item_count);
  const int64_t columns = fit > needed ? fit : needed;
  if (2 * columns <= work.columns) work.columns_at_once = static_cast<int>(columns);
}

template <class Kind, class Args>
void launch(void (*kernel)(Args), const char* name, const Args& args) {
  if (args.work.total() == 0) return;
  LONGSTRIDE_CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Kind::kSharedBytes));
  const int room = multiprocessors() * Kind::kBlocks;
  const int needed = static_cast<int>(ceil_div(args.work.total(), Kind::kAskers));
  const auto blocks = static_cast<unsigned>(needed < room ? needed : room);
  kernel<<<blocks, Kind::kThreads, Kind::kSharedBytes, current()>>>(args);
  check_launch(name);
}

}  // namespace longstride::cuda::hopper

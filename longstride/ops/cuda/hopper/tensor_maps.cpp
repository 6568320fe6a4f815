#include "longstride/ops/cuda/hopper/tensor_maps.h"

#include <algorithm>
#include <array>

#include "longstride/base/check.h"
#include "longstride/device/cuda_check.h"

namespace longstride::cuda {

namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's function, found at run time: the binary starts without a driver.
Encode encode() {
  static const Encode function = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
    LONGSTRIDE_CUDA_CHECK(
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found));
#else
    LONGSTRIDE_CUDA_CHECK(
        cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &entry, cudaEnableDefault, &found));
#endif
    LONGSTRIDE_CHECK(found == cudaDriverEntryPointSuccess && entry != nullptr,
                     "this GPU driver has no tensor maps (cuTensorMapEncodeTiled); update the driver");
    return reinterpret_cast<Encode>(entry);
  }();
  return function;
}

// Extents of the axes `inner` and `outer`, their strides in positions, and the position where they begin.
struct View {
  int64_t inner = 1, outer = 1, inner_stride = 1, outer_stride = 1, first = 0;
};

CUtensorMapDataType type_of(DType dtype) {
  return dtype == DType::f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
}

bool make_map(const MappedTensor& t, const View& view, const BoxOrder& boxes, int box_columns,
              CUtensorMap& map) {
  const bool lanes = boxes.kind == TokenOrder::Kind::lanes;
  const std::array<cuuint64_t, 5> extents{static_cast<cuuint64_t>(t.width),
                                          static_cast<cuuint64_t>(view.inner),
                                          static_cast<cuuint64_t>(view.outer),
                                          static_cast<cuuint64_t>(t.heads), static_cast<cuuint64_t>(t.batch)};
  const auto bytes = [](int64_t elements) { return static_cast<cuuint64_t>(2 * elements); };
  // An axis of one has no stride of its own.
  const int64_t unused = t.position_stride;
  const std::array<cuuint64_t, 4> strides{
      bytes(view.inner_stride * t.position_stride), bytes(view.outer_stride * t.position_stride),
      bytes(t.heads > 1 ? t.head_stride : unused), bytes(t.batch > 1 ? t.batch_stride : unused)};
  const auto rows = static_cast<cuuint32_t>(boxes.box_rows);
  const std::array<cuuint32_t, 5> box{static_cast<cuuint32_t>(box_columns), lanes ? 1 : rows,
                                      lanes ? rows : 1, 1, 1};
  const std::array<cuuint32_t, 5> steps{1, 1, 1, 1, 1};
  void* const base = static_cast<char*>(t.data) + 2 * view.first * t.position_stride;
  return encode()(&map, type_of(t.dtype), 5, base, extents.data(), strides.data(), box.data(), steps.data(),
                  CU_TENSOR_MAP_INTERLEAVE_NONE,
                  box_columns == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
                  box_columns == 64 ? CU_TENSOR_MAP_L2_PROMOTION_L2_128B : CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace

bool make_tile_maps(const MappedTensor& tensor, const TokenOrder& order, const BoxOrder& boxes,
                    int box_columns, TileMaps& maps) {
  const int64_t n = tensor.n, l = order.width;
  View whole{n, 1, 1, n, 0}, tail;
  if (order.kind == TokenOrder::Kind::lanes) {
    const int64_t cut = n % l;  // lanes before it have one row more
    whole = {cut == 0 ? l : cut, (n + l - 1) / l, 1, l, 0};
    tail = {std::min(l, n), std::max<int64_t>(n / l, 1), 1, l, 0};
  } else if (order.kind == TokenOrder::Kind::summary) {
    const int64_t start = l - (order.run + 1) * order.count, blocks = n / l;
    const int64_t in_tail = order.lane_length() - blocks * order.count;
    whole = {order.count, std::max<int64_t>(blocks, 1), 1, l, start};
    tail = {std::max<int64_t>(in_tail, 1), 1, 1, l, start + blocks * l};
    // A sequence shorter than one block is all tail, and one that ends between runs has none.
    if (blocks == 0) whole = tail;
    if (in_tail == 0) tail = whole;
  } else {
    tail = whole;
  }
  const bool split = boxes.split > 0 && order.kind != TokenOrder::Kind::natural;
  if (!make_map(tensor, whole, boxes, box_columns, maps.whole)) return false;
  if (!split) tail = whole;
  return make_map(tensor, tail, boxes, box_columns, maps.tail);
}

CUtensorMap make_matrix_map(const MappedMatrices& m) {
  constexpr cuuint32_t kSide = 64;
  const std::array<cuuint64_t, 3> extents{static_cast<cuuint64_t>(m.columns), static_cast<cuuint64_t>(m.rows),
                                          static_cast<cuuint64_t>(m.count)};
  const std::array<cuuint64_t, 2> strides{static_cast<cuuint64_t>(2 * m.columns),
                                          static_cast<cuuint64_t>(2 * m.step)};
  const std::array<cuuint32_t, 3> box{kSide, kSide, 1}, steps{1, 1, 1};
  CUtensorMap map{};
  const CUresult result =
      encode()(&map, type_of(m.dtype), 3, m.data, extents.data(), strides.data(), box.data(), steps.data(),
               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
               CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  LONGSTRIDE_CHECK(result == CUDA_SUCCESS, "GPU: no tensor map for {} matrices ({}, {}), error {}", m.count,
                   m.rows, m.columns, static_cast<int>(result));
  return map;
}

}  // namespace longstride::cuda

#include "longstride/ops/cuda/hopper/tensor_maps.h"

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

CUtensorMapDataType type_of(DType dtype) {
  return dtype == DType::f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
}

bool make_map(const MappedTensor& t, const BoxView& view, const BoxOrder& boxes, int box_columns,
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
  const BoxViews views = box_views(order);
  return make_map(tensor, views.whole, boxes, box_columns, maps.whole) &&
         make_map(tensor, views.tail, boxes, box_columns, maps.tail);
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

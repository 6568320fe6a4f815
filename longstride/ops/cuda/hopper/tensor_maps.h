// How the tensor memory accelerator (TMA) of Hopper finds tiles of a tensor: built on the host for each
// launch.
#pragma once

#include <cuda.h>

#include "longstride/ops/cuda/attention_lists.h"

namespace longstride::cuda {

// One tensor (B, N, H, width) in one order, as pattern/boxes.h lays it out.
struct TileMaps {
  CUtensorMap whole, tail;
};

// A tensor (B, N, H, width) of 16-bit elements, by strides in elements.
struct MappedTensor {
  void* data = nullptr;
  DType dtype = DType::bf16;
  int64_t batch = 0, heads = 0, width = 0;
  int64_t batch_stride = 0, position_stride = 0, head_stride = 0;
};

// Boxes are `box_columns` wide and have the order's rows. False where the driver refuses the strides.
bool make_tile_maps(const MappedTensor& tensor, const TokenOrder& order, const BoxOrder& boxes,
                    int box_columns, TileMaps& maps);

// Matrices (rows, columns) of 16-bit elements, each contiguous and `step` elements behind the one before. Rows
// and steps are whole 16-byte chunks.
struct MappedMatrices {
  void* data = nullptr;
  DType dtype = DType::bf16;
  int64_t count = 0, rows = 0, columns = 0, step = 0;
};

// Boxes of 64 rows by 64 columns of one matrix, as Panels<64> lays them out.
CUtensorMap make_matrix_map(const MappedMatrices& matrices);

}  // namespace longstride::cuda

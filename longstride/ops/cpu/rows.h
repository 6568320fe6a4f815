// Parts of dropout and layer norm that one thread runs. The ops and their fused forms are made of these.
// Sizes, dtypes and meanings are those of the ops' contracts.
#pragma once

#include <functional>

#include "longstride/ops/dropout.h"
#include "longstride/ops/layer_norm.h"

namespace longstride::cpu {

// Rows that a fused op takes through all of its steps at a time: few enough to stay in cache in between. A
// run begins at the start of a Philox block, whatever the width.
inline constexpr int64_t kRunRows = 8;

// DropoutAddForward and DropoutBackward of the elements [begin, end); begin is a multiple of 8.
void add_kept(const Tensor& x, const Tensor& branch, const Dropout& dropout, const Tensor& y, int64_t begin,
              int64_t end);
void keep_gradient(const Tensor& dy, const Dropout& dropout, const Tensor& dbranch, int64_t begin,
                   int64_t end);

// LayerNormForward of the rows [begin, end).
void normalise_rows(const LayerNormForward& t, int64_t begin, int64_t end);

using RowsDone = std::function<void(int64_t begin, int64_t end)>;
// LayerNormBackward on all threads. `done`, if any, is called for each run of rows whose dx is final, by the
// thread that has just written it. It may overwrite these rows of dy.
void layer_norm_backward(const OpContext& context, const LayerNormBackward& t, const RowsDone& done);

}  // namespace longstride::cpu

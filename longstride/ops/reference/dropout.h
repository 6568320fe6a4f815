// Dropout in any precision, one element at a time by Dropout::keeps.
#pragma once

#include <cstdint>

#include "longstride/ops/dropout.h"

namespace longstride::reference {

template <class T>
void dropout_add_forward(const T* x, const T* branch, const Dropout& dropout, int64_t count, T* y) {
  const T scale = T(65536) / T(65536 - dropout.threshold());
  for (int64_t i = 0; i < count; ++i)
    y[i] = dropout.keeps(static_cast<uint64_t>(i)) ? x[i] + branch[i] * scale : x[i];
}

template <class T>
void dropout_backward(const T* dy, const Dropout& dropout, int64_t count, T* dbranch) {
  const T scale = T(65536) / T(65536 - dropout.threshold());
  for (int64_t i = 0; i < count; ++i)
    dbranch[i] = dropout.keeps(static_cast<uint64_t>(i)) ? dy[i] * scale : T{};
}

}  // namespace longstride::reference

// Muon (contract: longstride/ops/muon.h), each matrix in one thread as long as there are as many of them; the
// products are those of matmul.h. The same bits for any number of threads: every step over a matrix is cut by
// its shape alone. Scratch: a room for each thread that takes part.
#include "longstride/ops/muon.h"

#include <algorithm>
#include <cstring>

#include "longstride/ops/cpu/matmul.h"
#include "longstride/ops/cpu/parallel.h"
#include "longstride/ops/cpu/slices.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "longstride/ops/cpu/muon.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "longstride/ops/cpu/vector_math-inl.h"

#ifndef LONGSTRIDE_OPS_CPU_MUON_TYPES
#define LONGSTRIDE_OPS_CPU_MUON_TYPES
namespace longstride::cpu {

struct MuonFactors {
  float gradient_scale;
  float momentum, rest;  // rest: 1 - momentum
};

struct MuonMove {
  float step, decay;  // rate * scale of the shape, rate * decay
  float ema_rest;     // 1 - ema
};

struct MuonWeights {
  float *w, *average;  // the latter may be null
  Bf16* copy;          // or null
};

}  // namespace longstride::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace longstride::cpu::HWY_NAMESPACE {
namespace {

// m and u; u replaces g.
void momentum(const MuonFactors& f, float* g, float* m, int64_t count) {
  for_each_vector(count, [&](auto d, int64_t i) HWY_ATTR {
    const auto gradient = hn::Mul(hn::LoadU(d, g + i), hn::Set(d, f.gradient_scale));
    const auto before = hn::LoadU(d, m + i);
    const auto after = hn::MulAdd(hn::Set(d, f.rest), hn::Sub(gradient, before), before);
    hn::StoreU(after, d, m + i);
    hn::StoreU(hn::MulAdd(hn::Set(d, f.momentum), hn::Sub(after, gradient), gradient), d, g + i);
  });
}

// The elements [begin, end) of x = scale * u, and u = 0. x is f32 or bf16.
void take_scaled(float scale, float* u, int64_t begin, int64_t end, DType dtype, void* x) {
  with_type(dtype, [&](auto element) HWY_ATTR {
    auto* const to = static_cast<decltype(element)*>(x);
    for_each_vector(end - begin, [&](auto d, int64_t offset) HWY_ATTR {
      const int64_t i = begin + offset;
      store(hn::Mul(hn::LoadU(d, u + i), hn::Set(d, scale)), d, to + i);
      hn::StoreU(hn::Zero(d), d, u + i);
    });
  });
}

// The rows [begin, end) of factor = a I + b A + c A^2, (n, n). `factor` may be `square`.
void polynomial(const NewtonSchulzStep& step, DType dtype, const void* gram, const float* square,
                int64_t begin, int64_t end, int64_t n, void* factor) {
  const float a = static_cast<float>(step.a), b = static_cast<float>(step.b), c = static_cast<float>(step.c);
  with_type(dtype, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    for (int64_t row = begin; row < end; ++row) {
      const T* const from = static_cast<const T*>(gram) + row * n;
      const float* const squared = square + row * n;
      T* const to = static_cast<T*>(factor) + row * n;
      const float diagonal = a + b * static_cast<float>(from[row]) + c * squared[row];
      for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
        const auto last = hn::Mul(hn::Set(d, c), hn::LoadU(d, squared + i));
        store(hn::MulAdd(hn::Set(d, b), load(d, from + i), last), d, to + i);
      });
      to[row] = T(diagonal);
    }
  });
}

// The elements [begin, end) of the weights, their average and their copy, if there are any.
void move_weights(const MuonMove& f, DType dtype, const void* x, int64_t begin, int64_t end,
                  const MuonWeights& to) {
  with_type(dtype, [&](auto element) HWY_ATTR {
    const auto* const from = static_cast<const decltype(element)*>(x);
    for_each_vector(end - begin, [&](auto d, int64_t offset) HWY_ATTR {
      const int64_t i = begin + offset;
      auto w = hn::LoadU(d, to.w + i);
      w = hn::NegMulAdd(hn::Set(d, f.step), load(d, from + i), hn::NegMulAdd(hn::Set(d, f.decay), w, w));
      hn::StoreU(w, d, to.w + i);
      if (to.average) {
        const auto e = hn::LoadU(d, to.average + i);
        hn::StoreU(hn::MulAdd(hn::Set(d, f.ema_rest), hn::Sub(w, e), e), d, to.average + i);
      }
      if (to.copy) store(w, d, to.copy + i);
    });
  });
}

}  // namespace
}  // namespace longstride::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstride::cpu {

HWY_EXPORT(momentum);
HWY_EXPORT(take_scaled);
HWY_EXPORT(polynomial);
HWY_EXPORT(move_weights);

namespace {

// More threads at a time would hold more memory than models that keep them busy take.
constexpr int kMostWorkers = 32;

// What one thread works in; x holds the matrix, and then one of x and y its result.
struct Room {
  void *x = nullptr, *y = nullptr;          // (rows, columns)
  void *gram = nullptr, *factor = nullptr;  // (shorter, shorter); factor may be square
  float* square = nullptr;
  float *whole = nullptr, *other = nullptr;  // the same; null if each step is applied to x
  int64_t bytes = 0;
};

// Whether the steps are taken on A = X X^T alone, A = P A P with P = a I + b A + c A^2, and their product
// applied to X once: less work for oblong matrices. What rounding of A hides of X's small singular values is
// too much for bf16.
bool steps_on_gram(int64_t rows, int64_t columns, DType dtype) {
  return dtype == DType::f32 && 2 * std::min(rows, columns) <= std::max(rows, columns);
}

// At `base`, or nowhere to learn the bytes.
Room room_at(char* base, int64_t rows, int64_t columns, DType dtype) {
  Room room;
  const auto take = [&](int64_t count, DType type) -> void* {
    char* const at = base == nullptr ? nullptr : base + room.bytes;
    room.bytes += (count * size_of(type) + 63) / 64 * 64;
    return at;
  };
  const int64_t n = std::min(rows, columns);
  room.x = take(rows * columns, dtype);
  room.y = take(rows * columns, dtype);
  room.gram = take(n * n, dtype);
  room.square = static_cast<float*>(take(n * n, DType::f32));
  room.factor = dtype == DType::f32 ? room.square : take(n * n, dtype);
  if (!steps_on_gram(rows, columns, dtype)) return room;
  room.whole = static_cast<float*>(take(n * n, DType::f32));
  room.other = static_cast<float*>(take(n * n, DType::f32));
  return room;
}

// x (rows, columns) as it is, or transposed.
struct Side {
  int64_t row, column;
};

void multiply(DType dtype, DType c_dtype, int64_t m, int64_t k, int64_t n, const void* a, Side a_side,
              const void* b, Side b_side, void* c) {
  MatmulShape shape;
  shape.dtype = dtype, shape.c_dtype = c_dtype;
  shape.m = m, shape.n = n, shape.k = k;
  shape.a_row = a_side.row, shape.a_column = a_side.column;
  shape.b_row = b_side.row, shape.b_column = b_side.column;
  shape.c_row = n;
  matmul(shape, a, b, nullptr, c);
}

// The elements of c (n, n) above the diagonal become those below it.
template <class T>
void mirror(T* c, int64_t n) {
  constexpr int64_t kTile = 32;
  parallel_for((n + kTile - 1) / kTile, [&](int64_t tile) {
    const int64_t first = tile * kTile, last = std::min(n, first + kTile);
    for (int64_t left = 0; left <= first; left += kTile)
      for (int64_t row = first; row < last; ++row)
        for (int64_t column = left; column < std::min(row, left + kTile); ++column)
          c[column * n + row] = c[row * n + column];
  });
}

// c (n, n) = a (n, k) b (k, n) where that is symmetric: rows by blocks up to the diagonal, and then mirrored,
// which saves up to three eighths of the work.
void multiply_symmetric(DType dtype, DType c_dtype, int64_t n, int64_t k, const void* a, Side a_side,
                        const void* b, Side b_side, void* c) {
  constexpr int64_t kBlocks = 4, kLeast = 64;
  const int64_t block = std::max(kLeast, (n + 16 * kBlocks - 1) / (16 * kBlocks) * 16);
  for (int64_t row = 0; row < n; row += block) {
    MatmulShape shape;
    shape.dtype = dtype, shape.c_dtype = c_dtype;
    shape.m = std::min(block, n - row), shape.n = row + shape.m, shape.k = k;
    shape.a_row = a_side.row, shape.a_column = a_side.column;
    shape.b_row = b_side.row, shape.b_column = b_side.column;
    shape.c_row = n;
    matmul(shape, static_cast<const char*>(a) + row * a_side.row * size_of(dtype), b, nullptr,
           static_cast<char*>(c) + row * n * size_of(c_dtype));
  }
  if (c_dtype == DType::f32)
    mirror(static_cast<float*>(c), n);
  else
    mirror(static_cast<Bf16*>(c), n);
}

// room.factor = a I + b A + c A^2 for A = room.gram (n, n).
void make_factor(const NewtonSchulzStep& step, const Room& room, int64_t n, DType dtype) {
  const Side square{n, 1};
  multiply_symmetric(dtype, DType::f32, n, n, room.gram, square, room.gram, square, room.square);
  parallel_rows(n, n, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(polynomial)(step, dtype, room.gram, room.square, begin, end, n, room.factor);
  });
}

// Of the matrix in room.x; returns where the result lies.
const void* orthogonalized(NewtonSchulz kind, Room room, int64_t rows, int64_t columns, DType dtype) {
  const bool wide = rows <= columns;
  const int64_t n = std::min(rows, columns), longer = std::max(rows, columns);
  const Side plain{columns, 1}, across{1, columns}, square{n, 1};
  // y = factor x, or x factor
  const auto apply = [&](const void* factor) {
    if (wide)
      multiply(dtype, dtype, n, n, longer, factor, square, room.x, plain, room.y);
    else
      multiply(dtype, dtype, longer, n, n, room.x, plain, factor, square, room.y);
    std::swap(room.x, room.y);
  };
  const auto take_gram = [&] {
    multiply_symmetric(dtype, dtype, n, longer, room.x, wide ? plain : across, room.x, wide ? across : plain,
                       room.gram);
  };
  const std::span<const NewtonSchulzStep> steps = steps_of(kind);
  if (room.whole == nullptr) {
    for (const NewtonSchulzStep& step : steps) {
      take_gram();
      make_factor(step, room, n, dtype);
      apply(room.factor);
    }
    return room.x;
  }
  take_gram();
  for (size_t i = 0; i < steps.size(); ++i) {
    make_factor(steps[i], room, n, dtype);
    const auto times = [&](const void* a, const void* b, void* c) {
      multiply_symmetric(DType::f32, DType::f32, n, n, a, square, b, square, c);
    };
    if (i == 0) {
      std::memcpy(room.whole, room.factor, static_cast<size_t>(n * n) * sizeof(float));
    } else {
      times(room.factor, room.whole, room.other);
      std::swap(room.whole, room.other);
    }
    if (i + 1 == steps.size()) break;
    times(room.factor, room.gram, room.other);
    times(room.factor, room.other, room.gram);
  }
  apply(room.whole);
  return room.x;
}

int64_t workers(int64_t count) { return std::min<int64_t>(count, std::min(threads(), kMostWorkers)); }

// Calls body(i, room) for i in [0, count) in as many threads as `scratch` has rooms of `bytes` for.
template <class Body>
void with_rooms(Arena& scratch, int64_t count, int64_t bytes, const Body& body) {
  const Arena::Scope scope(scratch);
  const int64_t most = workers(count);
  const int64_t rooms = scratch.is_measuring()
                            ? most
                            : std::clamp<int64_t>((scratch.capacity() - scratch.used()) / bytes, 1, most);
  char* const base = static_cast<char*>(scratch.allocate(DType::u8, {rooms * bytes}).data);
  if (scratch.is_measuring()) return;
  parallel_region(count, static_cast<int>(rooms), [&](LoopItems& items) {
    for (int64_t i; items.next(i);) body(i, base + items.thread() * bytes);
  });
}

int64_t most_room(std::span<const MuonMatrix> matrices, DType dtype) {
  int64_t most = 0;
  for (const MuonMatrix& matrix : matrices)
    most = std::max(most, room_at(nullptr, matrix.rows, matrix.columns, dtype).bytes);
  return most;
}

// The step of one matrix, of which nothing is refused.
void update_matrix(const OpContext& context, const MuonMatrix& matrix, const UpdateControl& control,
                   const UpdateTensors& t, const UpdateTable& table, const Room& room) {
  const DType dtype = table.orthogonal();
  const MuonStep& step = control.muon;
  const int64_t count = matrix.count();
  const MuonFactors factors{static_cast<float>(control.gradient_scale), static_cast<float>(step.momentum),
                            static_cast<float>(1 - step.momentum)};
  const auto in_pieces = [&](const auto& body) { parallel_pieces(count, kElementsPerPiece, body); };
  float* const g = t.g.as<float>() + matrix.offset;
  float* const m = t.m.as<float>() + matrix.kept();
  in_pieces([&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(momentum)(factors, g + begin, m + begin, end - begin);
  });
  const double norm = std::sqrt(squares_of(context, slice_of(t.g, matrix.offset, count)));
  const float scale = static_cast<float>(1 / (norm + kMuonEpsilon));
  in_pieces([&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(take_scaled)(scale, g, begin, end, dtype, room.x);
  });
  const void* const x = orthogonalized(table.kind(), room, matrix.rows, matrix.columns, dtype);
  const MuonMove move{static_cast<float>(step.rate * muon_scale(matrix.rows, matrix.columns)),
                      static_cast<float>(step.rate * step.decay), static_cast<float>(1 - control.adam.ema)};
  MuonWeights to{t.w.as<float>() + matrix.offset, nullptr, nullptr};
  if (t.average) to.average = t.average.as<float>() + matrix.kept();
  if (t.products && matrix.product_offset >= 0) to.copy = t.products.as<Bf16>() + matrix.product_offset;
  in_pieces([&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(move_weights)(move, dtype, x, begin, end, to);
  });
}

}  // namespace

template <>
void compute(const OpContext& context, const Orthogonalize& t) {
  const Tensor& x = t.x;
  if (x.count() == 0) return;
  const int64_t rows = x.shape[1], columns = x.shape[2], bytes = rows * columns * size_of(x.dtype);
  const int64_t room_bytes = room_at(nullptr, rows, columns, x.dtype).bytes;
  with_rooms(*context.scratch, x.shape[0], room_bytes, [&](int64_t i, char* base) {
    const Room room = room_at(base, rows, columns, x.dtype);
    char* const matrix = static_cast<char*>(x.data) + i * bytes;
    std::memcpy(room.x, matrix, static_cast<size_t>(bytes));
    std::memcpy(matrix, orthogonalized(t.kind, room, rows, columns, x.dtype), static_cast<size_t>(bytes));
  });
}

template <>
void compute(const OpContext& context, const ApplyMuon& call) {
  const UpdateTensors& t = call.tensors;
  const std::vector<MuonMatrix>& matrices = call.table.matrices();
  if (!context.scratch->is_measuring() && call.control->applied == 0) {
    for (const MuonMatrix& matrix : matrices) fill_zero(slice_of(t.g, matrix.offset, matrix.count()));
    return;
  }
  const DType dtype = call.table.orthogonal();
  with_rooms(*context.scratch, static_cast<int64_t>(matrices.size()), most_room(matrices, dtype),
             [&](int64_t i, char* base) {
               const MuonMatrix& matrix = matrices[static_cast<size_t>(i)];
               update_matrix(context, matrix, *call.control, t, call.table,
                             room_at(base, matrix.rows, matrix.columns, dtype));
             });
}

}  // namespace longstride::cpu
#endif

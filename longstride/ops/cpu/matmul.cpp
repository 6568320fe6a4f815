#include "longstride/ops/cpu/matmul.h"

#include <algorithm>
#include <array>
#include <compare>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.hpp>

#include "longstride/base/check.h"
#include "longstride/base/signals.h"
#include "longstride/base/threads.h"

namespace longstride::cpu {

namespace {

using dnnl::memory;

const dnnl::engine& engine() {
  static const dnnl::engine instance(dnnl::engine::kind::cpu, 0);
  return instance;
}

memory::data_type type_of(DType dtype) {
  return dtype == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
}

// An axis of one element gets the stride of a plain layout, whatever the matrix's own, because oneDNN
// recognises layouts by their strides.
memory::desc describe(DType dtype, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride) {
  if (rows == 1 && column_stride == 1) row_stride = columns;
  if (columns == 1 && row_stride == 1) column_stride = rows;
  return memory::desc({rows, columns}, type_of(dtype), {row_stride, column_stride});
}

// The only difference between oneDNN 2 and 3 that matters here.
dnnl::matmul::primitive_desc plan(const memory::desc& a, const memory::desc& b, const memory::desc& bias,
                                  const memory::desc& c, const dnnl::primitive_attr& attributes) {
#if DNNL_VERSION_MAJOR >= 3
  return bias.get_ndims() == 0 ? dnnl::matmul::primitive_desc(engine(), a, b, c, attributes)
                               : dnnl::matmul::primitive_desc(engine(), a, b, bias, c, attributes);
#else
  const dnnl::matmul::desc description =
      bias.data.ndims == 0 ? dnnl::matmul::desc(a, b, c) : dnnl::matmul::desc(a, b, bias, c);
  return dnnl::matmul::primitive_desc(description, attributes, engine());
#endif
}

// While it lives, oneDNN works in the calling thread alone. The work is shared out here (base/threads.h says
// why), not by the OpenMP runtime that the library was built with, whichever that is. A library that was
// built with another runtime has no such function.
class OneThread {
 public:
  OneThread() : before_(runtime().threads == nullptr ? 0 : runtime().threads()) {
    if (before_ > 1) runtime().set_threads(1);
  }
  ~OneThread() {
    if (before_ > 1) runtime().set_threads(before_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  struct Runtime {
    int (*threads)() = nullptr;
    void (*set_threads)(int) = nullptr;
  };
  static const Runtime& runtime() {
    static const Runtime found = [] {
      Runtime r;
      r.threads = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_max_threads"));
      r.set_threads = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"));
      if (r.set_threads == nullptr) r.threads = nullptr;
      return r;
    }();
    return found;
  }
  int before_;
};

// A prepared product: the primitive, and the memory objects that point it to each call's matrices.
class Product {
 public:
  explicit Product(const MatmulShape& shape) : stream_(engine()) {
    const memory::desc a = describe(shape.dtype, shape.m, shape.k, shape.a_row, shape.a_column);
    const memory::desc b = describe(shape.dtype, shape.k, shape.n, shape.b_row, shape.b_column);
    const memory::desc c = describe(shape.c_dtype, shape.m, shape.n, shape.c_row, 1);
    const memory::desc bias = shape.bias ? describe(DType::f32, 1, shape.n, shape.n, 1) : memory::desc();
    dnnl::primitive_attr attributes;
    if (shape.accumulate) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
    primitive_ = dnnl::matmul(plan(a, b, bias, c, attributes));
    a_ = memory(a, engine(), nullptr);
    b_ = memory(b, engine(), nullptr);
    c_ = memory(c, engine(), nullptr);
    if (shape.bias) bias_ = memory(bias, engine(), nullptr);
  }

  // oneDNN's name of the code that it chose.
  std::string kernel() const {
    const char* name = nullptr;
    dnnl_primitive_desc_query(primitive_.get_primitive_desc(), dnnl_query_impl_info_str, 0, &name);
    return name ? name : "unnamed";
  }

  void run(const void* a, const void* b, const float* bias, void* c) {
    a_.set_data_handle(const_cast<void*>(a));
    b_.set_data_handle(const_cast<void*>(b));
    c_.set_data_handle(c);
    if (bias_) bias_.set_data_handle(const_cast<float*>(bias));
    // The C call, because the C++ one builds a map of the arguments each time.
    const std::array<dnnl_exec_arg_t, 4> arguments{{{DNNL_ARG_SRC, a_.get()},
                                                    {DNNL_ARG_WEIGHTS, b_.get()},
                                                    {DNNL_ARG_DST, c_.get()},
                                                    {DNNL_ARG_BIAS, bias_ ? bias_.get() : nullptr}}};
    dnnl::error::wrap_c_api(
        dnnl_primitive_execute(primitive_.get(), stream_.get(), bias_ ? 4 : 3, arguments.data()),
        "a matrix product failed to run");
    stream_.wait();
  }

 private:
  dnnl::stream stream_;
  dnnl::matmul primitive_;
  memory a_, b_, c_, bias_;
};

// oneDNN 3 takes a matrix of one row or column for contiguous on some CPUs, whatever its strides. So such a
// matrix is copied, as bytes. No layer of a model has one; they are slices in tests.
class ContiguousVector {
 public:
  // `row` and `column` become the strides of the copy, if there is one.
  ContiguousVector(DType dtype, int64_t rows, int64_t columns, int64_t* row, int64_t* column,
                   const void* data)
      : size_(size_of(dtype)), count_(std::max(rows, columns)) {
    const bool is_vector = rows == 1 || columns == 1;
    stride_ = (rows == 1 ? *column : *row) * size_;
    if (!is_vector || count_ == 1 || stride_ == size_) return;
    copy_.resize(static_cast<size_t>(count_ * size_));
    for (int64_t i = 0; i < count_; ++i)
      std::memcpy(copy_.data() + i * size_, static_cast<const char*>(data) + i * stride_, size_);
    *row = columns;
    *column = 1;
  }
  bool used() const { return !copy_.empty(); }
  void* or_else(const void* original) { return used() ? copy_.data() : const_cast<void*>(original); }
  void copy_back(void* data) const {
    for (int64_t i = 0; used() && i < count_; ++i)
      std::memcpy(static_cast<char*>(data) + i * stride_, copy_.data() + i * size_, size_);
  }

 private:
  int64_t size_, count_, stride_;
  std::vector<char> copy_;
};

// Runs the product in one thread, the caller's.
void multiply(const MatmulShape& wanted, const void* a, const void* b, const float* bias, void* c) {
  // More shapes than any of our runs has at a time. Beyond this, all are prepared again.
  constexpr size_t kMostProducts = 1024;
  // One for each thread, since a primitive's scratch memory belongs to one thread.
  thread_local std::map<MatmulShape, Product> products;
  MatmulShape shape = wanted;
  int64_t c_column = 1;
  ContiguousVector own_a(shape.dtype, shape.m, shape.k, &shape.a_row, &shape.a_column, a);
  ContiguousVector own_b(shape.dtype, shape.k, shape.n, &shape.b_row, &shape.b_column, b);
  ContiguousVector own_c(shape.c_dtype, shape.m, shape.n, &shape.c_row, &c_column, c);
  const OneThread one_thread;
  auto found = products.find(shape);
  if (found == products.end()) {
    if (products.size() >= kMostProducts) products.clear();
    found = products.try_emplace(shape, shape).first;
  }
  found->second.run(own_a.or_else(a), own_b.or_else(b), bias, own_c.or_else(c));
  own_c.copy_back(c);
}

// The number of parts into which the rows and the columns of c are cut. It depends only on the shape, so
// that an element is the same sum for any number of threads. Parts of 256 rows and 512 columns take hardly
// longer than the whole. If that gives few parts, rows are cut further, as long as a part is worth waking a
// thread for.
struct Parts {
  int64_t rows, columns;
};
Parts parts_of(const MatmulShape& shape) {
  constexpr int64_t kMostRows = 256, kMostColumns = 512, kEnough = 8, kFewestRows = 128, kFewestOfTwo = 32;
  constexpr int64_t kLeastProducts = int64_t{1} << 20;
  Parts parts{(shape.m + kMostRows - 1) / kMostRows, (shape.n + kMostColumns - 1) / kMostColumns};
  for (;;) {
    const int64_t count = parts.rows * parts.columns, twice = 2 * parts.rows;
    if (count >= kEnough || shape.m < twice * (count == 1 ? kFewestOfTwo : kFewestRows) ||
        shape.m * shape.n * shape.k < 2 * count * kLeastProducts)
      return parts;
    parts.rows = twice;
  }
}

// Where part `index` of `count` begins: a multiple of 16, except at the end.
int64_t part_begin(int64_t size, int64_t index, int64_t count) {
  return index == count ? size : size * index / count / 16 * 16;
}

}  // namespace

void matmul(const MatmulShape& shape, const void* a, const void* b, const float* bias, void* c) {
  const SignalsBlocked blocked;  // during products oneDNN's stack pointer may point into the heap
  const Parts parts = parts_of(shape);
  const auto offset = [](const void* base, int64_t elements, DType dtype) {
    return static_cast<const char*>(base) + elements * size_of(dtype);
  };
  try {
    parallel_for(parts.rows * parts.columns, [&](int64_t index) {
      const int64_t row_part = index / parts.columns, column_part = index % parts.columns;
      const int64_t row = part_begin(shape.m, row_part, parts.rows);
      const int64_t column = part_begin(shape.n, column_part, parts.columns);
      MatmulShape part = shape;
      part.m = part_begin(shape.m, row_part + 1, parts.rows) - row;
      part.n = part_begin(shape.n, column_part + 1, parts.columns) - column;
      multiply(part, offset(a, row * shape.a_row, shape.dtype),
               offset(b, column * shape.b_column, shape.dtype), bias == nullptr ? nullptr : bias + column,
               const_cast<char*>(offset(c, row * shape.c_row + column, shape.c_dtype)));
    });
  } catch (const dnnl::error& error) {
    fail("oneDNN: product of {} matrices ({}, {}) and ({}, {}): {} (status {})", name_of(shape.dtype),
         shape.m, shape.k, shape.k, shape.n, error.what(), static_cast<int>(error.status));
  }
}

std::string matmul_kernel(DType dtype) {
  MatmulShape shape;
  shape.dtype = dtype;
  shape.m = shape.n = shape.k = 256;
  shape.a_row = shape.b_row = shape.c_row = 256;
  try {
    const OneThread one_thread;
    return Product(shape).kernel();
  } catch (const dnnl::error&) {
    return "";
  }
}

}  // namespace longstride::cpu

#include "longstride/ops/cuda/matmul.h"

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <vector>

#include <cublasLt.h>
#include <dlfcn.h>

#include "longstride/device/cuda.h"

namespace longstride::cuda {

namespace {

// The functions of the library that we call, by their own names.
struct Library {
  decltype(&::cublasLtCreate) create = nullptr;
  decltype(&::cublasLtMatmul) matmul = nullptr;
  decltype(&::cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&::cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&::cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&::cublasLtMatrixLayoutSetAttribute) layout_set = nullptr;
  decltype(&::cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
  decltype(&::cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&::cublasLtGetStatusString) status_string = nullptr;
};

Library load() {
  const std::string version = std::to_string(CUBLAS_VER_MAJOR);
  void* handle = nullptr;
  for (const std::string& name :
       {"libcublasLt.so." + version, "/usr/local/cuda/lib64/libcublasLt.so." + version})
    if ((handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) != nullptr) break;
  LONGSTRIDE_CHECK(handle != nullptr,
                   "cuBLAS was not found: libcublasLt.so.{} is neither on the library path nor in "
                   "/usr/local/cuda/lib64; install CUDA {}'s libraries, or use --device cpu",
                   version, version);
  Library library;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    LONGSTRIDE_CHECK(function != nullptr, "libcublasLt.so.{} lacks {}", version, name);
  };
  find(library.create, "cublasLtCreate");
  find(library.matmul, "cublasLtMatmul");
  find(library.desc_create, "cublasLtMatmulDescCreate");
  find(library.desc_set, "cublasLtMatmulDescSetAttribute");
  find(library.layout_create, "cublasLtMatrixLayoutCreate");
  find(library.layout_set, "cublasLtMatrixLayoutSetAttribute");
  find(library.preference_create, "cublasLtMatmulPreferenceCreate");
  find(library.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  find(library.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  find(library.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(library.status_string, "cublasLtGetStatusString");
  return library;
}

const Library& library() {
  static const Library loaded = load();
  return loaded;
}

void check(cublasStatus_t status, const char* what) {
  LONGSTRIDE_CHECK(status == CUBLAS_STATUS_SUCCESS, "cuBLAS: {} in {}", library().status_string(status),
                   what);
}

cublasLtHandle_t handle() {
  static const cublasLtHandle_t handle = [] {
    cublasLtHandle_t made = nullptr;
    check(library().create(&made), "cublasLtCreate");
    return made;
  }();
  return handle;
}

cudaDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::f16:
      return CUDA_R_16F;
    default:
      return CUDA_R_32F;
  }
}

// The largest power of two that divides the address, the row stride and the step to the next matrix of a
// batch in bytes, but no more than what arenas give: the same product must get the same kernel wherever its
// tensors lie.
int64_t alignment_of(const Tensor& t, int64_t step) {
  const auto bits = reinterpret_cast<uintptr_t>(t.data) |
                    static_cast<uintptr_t>((t.stride[0] | step) * size_of(t.dtype)) | 64;
  return static_cast<int64_t>(bits & -bits);
}

// Everything that tells one product from another: product, bias, what is added, dtypes, sizes, strides, the
// batch, alignments.
using Key = std::array<int64_t, 18>;

struct Prepared {
  bool possible = false;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
};

struct Sizes {
  int64_t m, n, k;
};

Sizes sizes_of(const Matmul& m) {
  const bool across = m.product == Product::at_b;
  return {m.c.shape[0], m.c.shape[1], across ? m.a.shape[0] : m.a.shape[1]};
}

// cuBLAS thinks in columns: it computes c^T = b'^T a'^T on the transposed views, so b comes first.
Prepared prepare(const Matmul& m) {
  const Library& lt = library();
  Prepared p;
  check(lt.desc_create(&p.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    check(lt.desc_set(p.desc, attribute, &value, sizeof(value)), "cublasLtMatmulDescSetAttribute");
  };
  const cublasOperation_t first = m.product == Product::a_bt ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t second = m.product == Product::at_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  set(CUBLASLT_MATMUL_DESC_TRANSA, first);
  set(CUBLASLT_MATMUL_DESC_TRANSB, second);
  if (m.bias) {
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(m.bias.dtype));
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, m.bias.data);
  }
  const auto layout = [&](cublasLtMatrixLayout_t& made, const Tensor& t, int64_t step) {
    check(lt.layout_create(&made, type_of(t.dtype), static_cast<uint64_t>(t.shape[1]),
                           static_cast<uint64_t>(t.shape[0]), t.stride[0]),
          "cublasLtMatrixLayoutCreate");
    if (m.batch.count == 1) return;
    const auto count = static_cast<int32_t>(m.batch.count);
    check(lt.layout_set(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof(count)),
          "cublasLtMatrixLayoutSetAttribute");
    check(lt.layout_set(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step, sizeof(step)),
          "cublasLtMatrixLayoutSetAttribute");
  };
  layout(p.a, m.b, m.batch.b), layout(p.b, m.a, m.batch.a), layout(p.c, m.c, m.batch.c);

  cublasLtMatmulPreference_t preference = nullptr;
  check(lt.preference_create(&preference), "cublasLtMatmulPreferenceCreate");
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    check(lt.preference_set(preference, attribute, &value, sizeof(value)),
          "cublasLtMatmulPreferenceSetAttribute");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kMatmulWorkspace));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(alignment_of(m.b, m.batch.b)));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(alignment_of(m.a, m.batch.a)));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(alignment_of(m.c, m.batch.c)));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(alignment_of(m.c, m.batch.c)));
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t status =
      lt.heuristic(handle(), p.desc, p.a, p.b, p.c, p.c, preference, 1, &found, &count);
  lt.preference_destroy(preference);
  p.possible = status == CUBLAS_STATUS_SUCCESS && count > 0;
  p.algorithm = found.algo;
  return p;
}

}  // namespace

bool matmul(const Matmul& m, void* workspace) {
  const auto [rows, columns, inner] = sizes_of(m);
  if (rows == 0 || columns == 0) return true;
  const Key key{static_cast<int64_t>(m.product),
                m.bias ? 1 + static_cast<int64_t>(m.bias.dtype) : 0,
                m.added ? 2 : m.add,
                static_cast<int64_t>(m.a.dtype),
                static_cast<int64_t>(m.c.dtype),
                rows,
                columns,
                inner,
                m.a.stride[0],
                m.b.stride[0],
                m.c.stride[0],
                m.batch.count,
                m.batch.a,
                m.batch.b,
                m.batch.c,
                alignment_of(m.a, m.batch.a),
                alignment_of(m.b, m.batch.b),
                alignment_of(m.c, m.batch.c)};
  static std::mutex mutex;
  static std::map<Key, Prepared> prepared;
  const std::lock_guard lock(mutex);
  const auto [found, added] = prepared.try_emplace(key);
  Prepared& p = found->second;
  if (added) p = prepare(m);
  if (!p.possible) {
    LONGSTRIDE_CHECK(static_cast<bool>(m.bias), "cuBLAS has no kernel for a product of {} and {} into {}",
                     m.a.describe(), m.b.describe(), m.c.describe());
    return false;
  }
  if (m.bias)
    check(library().desc_set(p.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &m.bias.data, sizeof(m.bias.data)),
          "cublasLtMatmulDescSetAttribute");
  const float beta = m.added ? m.added_scale : m.add ? 1 : 0;
  const void* addend = m.added ? m.added.data : m.c.data;
  check(library().matmul(handle(), p.desc, &m.scale, m.b.data, p.a, m.a.data, p.b, &beta, addend, p.c,
                         m.c.data, p.c, &p.algorithm, workspace, static_cast<size_t>(kMatmulWorkspace),
                         static_cast<cudaStream_t>(stream())),
        "cublasLtMatmul");
  return true;
}

}  // namespace longstride::cuda

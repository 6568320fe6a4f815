// Stands in for cuda.cu in a build without CUDA: every call says so.
#include "longstride/base/check.h"
#include "longstride/device/device.h"

namespace longstride::cuda {

namespace {
[[noreturn]] void unavailable() { fail("this longstride was built without CUDA; use --device cpu"); }
}  // namespace

bool built() { return false; }
int device_count() { return 0; }
void* allocate(int, int64_t) { unavailable(); }
void release(int, void*) {}
void copy(void*, const void*, int64_t) { unavailable(); }
void fill_zero(void*, int64_t) { unavailable(); }

}  // namespace longstride::cuda

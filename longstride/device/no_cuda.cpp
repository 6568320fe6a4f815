// Stands in for cuda.cpp in a build without CUDA: every call says so.
#include "longstride/base/check.h"
#include "longstride/device/cuda.h"

namespace longstride::cuda {

namespace {
[[noreturn]] void unavailable() { fail("{}", why_not(0)); }
}  // namespace

bool built() { return false; }
int device_count() { return 0; }
std::string why_not(int) { return "this longstride was built without CUDA; use --device cpu"; }
void use(int) { unavailable(); }
std::string describe(int) { unavailable(); }
DeviceMemory memory(int) { unavailable(); }
void* allocate(int, int64_t) { unavailable(); }
void release(int, void*) {}
void* allocate_pinned(int64_t) { unavailable(); }
void release_pinned(void*) {}
void copy(void*, const void*, int64_t) { unavailable(); }
void fill_zero(void*, int64_t) { unavailable(); }
void synchronize() { unavailable(); }
void* stream() { unavailable(); }
Graph Graph::record(const std::function<void()>&) { unavailable(); }
void Graph::launch() const { unavailable(); }
bool recording() { return false; }
SideStream::SideStream(int) { unavailable(); }
void SideStream::follow() const { unavailable(); }
void SideStream::copy(void*, const void*, int64_t) const { unavailable(); }
void SideStream::mark(int) const { unavailable(); }
void SideStream::await(int) const { unavailable(); }
Moment Moment::now() { unavailable(); }
double Moment::seconds(const Moment&, const Moment&) { unavailable(); }

}  // namespace longstride::cuda

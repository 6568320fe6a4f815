// NVIDIA GPUs, as the rest of the library sees them; no CUDA header is needed to include this. Implemented by
// cuda.cpp, or by no_cuda.cpp in a build without CUDA, where everything but the first two calls throws Error.
//
// A process computes on one GPU. All work is queued on that GPU's one stream, in the order of the calls; a
// call returns before its work is done unless it says otherwise.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace longstride::cuda {

// This binary has a CUDA backend.
#ifdef LONGSTRIDE_WITH_CUDA
inline constexpr bool kBuilt = true;
#else
inline constexpr bool kBuilt = false;
#endif
bool built();
int device_count();  // GPUs that it can use; 0 without a driver
// Why device `index` cannot be used, as one line for people; empty if it can. Also without CUDA in the build.
std::string why_not(int index);

// Makes `index` the GPU of this thread's calls.
void use(int index);
// "NVIDIA H100 80GB HBM3, sm_90, 79.1 GiB"
std::string describe(int index);

struct DeviceMemory {
  int64_t free = 0, total = 0;  // bytes
};
DeviceMemory memory(int index);

// Throws Error that names the bytes asked for and those free.
void* allocate(int index, int64_t bytes);
void release(int index, void* data);
// Memory of the CPU that copies to and from the GPU can overtake.
void* allocate_pinned(int64_t bytes);
void release_pinned(void* data);

// Copies in either direction. From or to memory of the CPU that is not pinned the call waits for the copy, so
// that the memory may be reused or freed when it returns; pinned memory must stay until the work is done.
void copy(void* to, const void* from, int64_t bytes);
void fill_zero(void* data, int64_t bytes);

// Waits for all queued work; throws Error if any of it failed.
void synchronize();

// The stream as cudaStream_t.
void* stream();

// Work that was recorded once and can be queued again and again by one call.
class Graph {
 public:
  // Records what `work` queues, without running it. `work` must not wait or allocate.
  static Graph record(const std::function<void()>& work);
  void launch() const;

 private:
  std::shared_ptr<void> graph_;
};

// Whether the stream is being recorded, so that nothing runs and nothing can be waited for.
bool recording();

// A second stream of the current GPU for copies beside the work of the first, with marks by which one waits
// for the other. In a graph, follow() comes first, and marks are set before they are awaited.
class SideStream {
 public:
  explicit SideStream(int marks);
  // Copies queued later wait for the work queued so far.
  void follow() const;
  // Between memory of the GPU and pinned memory.
  void copy(void* to, const void* from, int64_t bytes) const;
  // Sets mark `index` behind the copies queued so far; work queued after await(index) waits for them.
  void mark(int index) const;
  void await(int index) const;

 private:
  std::shared_ptr<void> state_;
};

// Moments in the stream, for timing. Elapsed time waits for `end`.
class Moment {
 public:
  static Moment now();
  static double seconds(const Moment& begin, const Moment& end);

 private:
  std::shared_ptr<void> event_;
};

}  // namespace longstride::cuda

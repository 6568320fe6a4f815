// What a kind of device can do, as the rest of the library sees it: find its devices, hold memory, copy, run
// queued work. There is one object for each kind, for the life of the process; backends.h lists the kinds.
//
// A thread computes on one device of a kind, which use() chooses. That device has one stream, in which work
// is queued in the order of the calls. A call returns before its work is done unless it says otherwise. The
// CPU does all work at once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "longstride/base/backends.h"
#include "longstride/base/dtype.h"
#include "longstride/device/device.h"

namespace longstride {

struct DeviceMemory {
  int64_t free = 0, total = 0;  // bytes
};

// Work that was recorded once. One call queues all of it, as often as wanted.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void launch() const = 0;
};

// A second stream of a device, for what goes on while the first one works. Each can wait for the other by
// marks. In a graph, follow() comes first, and a mark is set before it is awaited.
class SideStream {
 public:
  virtual ~SideStream() = default;
  // What is queued here later waits for the work queued so far.
  virtual void follow() const = 0;
  // What this thread queues within `work` is queued here.
  virtual void run(const std::function<void()>& work) const = 0;
  // Copies between memory of the device and pinned memory.
  virtual void copy(void* to, const void* from, int64_t bytes) const = 0;
  // Sets mark `index` after what is queued here so far; work queued after await(index) waits for that.
  virtual void mark(int index) const = 0;
  virtual void await(int index) const = 0;
};

// A moment in the stream, for timing.
class Moment {
 public:
  virtual ~Moment() = default;
  // Seconds from `begin`, a moment of the same backend, to this one; waits until this one is reached.
  virtual double seconds_since(const Moment& begin) const = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // ---- the devices ----
  virtual int count() const = 0;  // that can be used
  // Why device `index` cannot be used, as one line for people; empty if it can.
  virtual std::string why_not(int index) const = 0;
  // "NVIDIA H100 80GB HBM3, sm_90, 79.1 GiB". Throws Error.
  virtual std::string describe(int index) const = 0;
  // Makes `index` the device of this thread's calls. Throws Error.
  virtual void use(int index) const {}
  // What tells the device from all others of this machine; empty if there is only one.
  virtual std::string identity(int index) const { return {}; }
  // From now on this process sees device `index` alone, under the number 0, so that of several processes each
  // has its own. To be called before anything else of the backend. Throws Error if the user has named fewer.
  virtual void see_only(int index) const {}
  // Element types of the matrix products: f32 first.
  virtual std::span<const DType> product_dtypes() const = 0;
  bool has_product(DType dtype) const;

  // ---- memory ----
  virtual DeviceMemory memory(int index) const = 0;
  // Zero-filled, 64-byte aligned. Throws Error that names the bytes asked for and those free.
  virtual void* allocate(int index, int64_t bytes) const = 0;
  virtual void release(int index, void* data, int64_t bytes) const noexcept = 0;
  // Memory of the CPU that is copied to and from the device while the CPU goes on. Zero-filled.
  virtual void* allocate_pinned(int64_t bytes) const;
  virtual void release_pinned(void* data, int64_t bytes) const noexcept;

  // ---- queued work ----
  // Copies between this backend's devices, or between one of them and the CPU. If the CPU's memory is not
  // pinned, the call waits for the copy, so that the memory may be reused or freed when it returns. Pinned
  // memory must stay until the work is done.
  virtual void copy(void* to, const void* from, int64_t bytes) const = 0;
  virtual void fill_zero(void* data, int64_t bytes) const = 0;
  // Waits for all queued work; throws Error if any of it failed.
  virtual void synchronize() const {}
  // Queues what this thread queues within `work` on the stream of somebody else, on a GPU a cudaStream_t of the
  // thread's device. Throws Error where there are no streams.
  virtual void run_on(void* stream, const std::function<void()>& work) const;
  // Whether any of it is not done yet. Throws Error like synchronize().
  virtual bool busy() const { return false; }
  // The moment when the work queued so far is done.
  virtual std::unique_ptr<Moment> moment() const;
  // Whether record() can be called.
  virtual bool has_graphs() const { return false; }
  // Records what `work` queues, without running it. `work` must not wait or allocate.
  virtual std::unique_ptr<Graph> record(const std::function<void()>& work) const;
  // Whether the stream is being recorded. Then nothing runs, and nothing can be waited for.
  virtual bool recording() const { return false; }
  // Without a second stream, copies are queued in order with everything else.
  virtual std::unique_ptr<SideStream> side_stream(int marks) const;
};

// Each backend that is built has one, in its own file.
template <DeviceKind kind>
const Backend& backend_of();

// For a kind that this build lacks, only why_not() and count() can be called; everything else throws Error.
const Backend& backend(DeviceKind kind);
inline const Backend& backend(Device device) { return backend(device.kind); }

}  // namespace longstride

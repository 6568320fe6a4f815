// Memory with an owner. Buffer is one allocation on one device. Arena hands one buffer out as tensors.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "longstride/base/tensor.h"
#include "longstride/device/device.h"

namespace longstride {

// An owned, 64-byte aligned allocation on a device. Moves; never copies.
class Buffer {
 public:
  Buffer() = default;
  // Zero-filled. Throws Error naming the size if there is not enough memory.
  Buffer(Device device, int64_t bytes);

  void* data() const { return data_.get(); }
  int64_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  std::unique_ptr<void, std::function<void(void*)>> data_;
  int64_t bytes_ = 0;
  Device device_;
};

// A bump allocator. A measuring arena hands out tensors without memory and only counts. So the code that
// lays out a computation also plans its memory:
//
//   Arena plan = Arena::measuring(device);  lay_out(plan);
//   Arena arena(device, plan.peak());       lay_out(arena);
class Arena {
 public:
  Arena(Device device, int64_t bytes);
  // Hands out memory of the caller's, 64-byte aligned, which must outlive it.
  Arena(Device device, void* memory, int64_t bytes);
  static Arena measuring(Device device);

  // 64-byte aligned, uninitialised. Throws Error when the arena is full. The result's data is null while
  // measuring.
  Tensor allocate(DType dtype, std::initializer_list<int64_t> shape);

  bool is_measuring() const { return measuring_; }
  int64_t used() const { return used_; }
  int64_t peak() const { return peak_; }
  int64_t capacity() const { return capacity_; }  // 0 while measuring
  void release_to(int64_t mark) { used_ = mark; }

  // At its end, gives back everything that was allocated during its life.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), mark_(arena.used()) {}
    ~Scope() { arena_.release_to(mark_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    int64_t mark_;
  };

 private:
  Arena() = default;
  Buffer buffer_;
  Device device_;
  char* memory_ = nullptr;
  bool measuring_ = false;
  int64_t capacity_ = 0;
  int64_t used_ = 0;
  int64_t peak_ = 0;
};

// Copies between equal shapes and dtypes, across devices where the build has them.
void copy(const Tensor& from, const Tensor& to);
void fill_zero(const Tensor& tensor);
// The elements (f32, bf16 or f16) in row-major order, whatever the strides and the device.
std::vector<float> floats_of(const Tensor& tensor);

// Memory that this process itself holds, in bytes: resident pages that are not those of files. Pages of a
// mapped file count as the system's, since it takes them back when it needs memory.
int64_t resident_memory();
// Memory that the libraries hold once they work, beyond our own plans: code that oneDNN compiles for each
// shape of product, and the threads' stacks. Measured by bench/planner.py: 4 to 10 MiB, of which a MiB was freed
// before and is used again.
inline constexpr int64_t kLibraryMemory = int64_t{6} << 20;

}  // namespace longstride

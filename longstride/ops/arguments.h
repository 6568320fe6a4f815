// Checks of an op's arguments, the same for every device.
#pragma once

#include <initializer_list>

#include "longstride/ops/context.h"
#include "longstride/ops/on_device.h"

namespace longstride {

// An extent that is not checked.
inline constexpr int64_t kAny = -1;

// Checks the tensors of one call. The message of each Error begins with the op and the argument.
class Arguments {
 public:
  // Throws Error if the build has no op for the device.
  Arguments(const char* op, Device device);

  // The tensor is on the call's device and has memory.
  void memory(const char* name, const Tensor& t) const;
  // Elements along the last axis are neighbours in memory.
  void neighbours(const char* name, const Tensor& t) const;
  // It has this type and shape. Rows may be parts of wider ones: only the last stride must be 1.
  void rows(const char* name, const Tensor& t, DType dtype, std::initializer_list<int64_t> shape) const;
  // The same, contiguous.
  void dense(const char* name, const Tensor& t, DType dtype, std::initializer_list<int64_t> shape) const;
  // Any shape, contiguous.
  void flat(const char* name, const Tensor& t, DType dtype, int64_t count) const;

  // The dtype of factors and branches: f32, bf16, or f16 on a GPU.
  void product(const char* name, DType dtype) const;
  // What a product in `product` reads or writes: f32, or the 16-bit type that is multiplied. Rows as above.
  void activation(const char* name, const Tensor& t, DType product,
                  std::initializer_list<int64_t> shape) const;
  // The bytes are indices below `classes`, into rows of a table. A GPU's memory is not read here: its ops
  // give NaN for larger ones.
  void below(const char* name, const Tensor& t, int64_t classes) const;

  // For an op that exists only on the CPU.
  void on_cpu() const;
  // If the call uses scratch, the context has it.
  void scratch(const OpContext& context, int64_t bytes) const;

  const char* op() const { return op_; }
  Device device() const { return device_; }

 private:
  const char* op_;
  Device device_;
};

}  // namespace longstride

// Checks of what an op is given, the same for every device.
#pragma once

#include <initializer_list>

#include "longstride/ops/context.h"
#include "longstride/ops/on_device.h"

namespace longstride {

// An extent that may be anything.
inline constexpr int64_t kAny = -1;

// Checks the tensors of one call; each throws Error whose message begins with the op and the argument.
class Arguments {
 public:
  // Throws Error where the build has no op for the device.
  Arguments(const char* op, Device device);

  // On the call's device, and there.
  void memory(const char* name, const Tensor& t) const;
  // Neighbours in the last axis are neighbours in memory.
  void neighbours(const char* name, const Tensor& t) const;
  // Of this type and shape. Rows may be parts of wider ones: only the last stride must be 1.
  void rows(const char* name, const Tensor& t, DType dtype, std::initializer_list<int64_t> shape) const;
  // The same, contiguous.
  void dense(const char* name, const Tensor& t, DType dtype, std::initializer_list<int64_t> shape) const;
  // Of any shape, contiguous.
  void flat(const char* name, const Tensor& t, DType dtype, int64_t count) const;

  // What is multiplied, or lies on a branch: f32, bf16, or f16 on a GPU.
  void product(const char* name, DType dtype) const;
  // What a product in `product` reads or writes: f32, or 16 bits if that is what is multiplied. Rows as
  // above.
  void activation(const char* name, const Tensor& t, DType product,
                  std::initializer_list<int64_t> shape) const;
  // Bytes that index `classes` rows of a table. A GPU's memory is not looked at: its ops give NaN for what is
  // not below.
  void below(const char* name, const Tensor& t, int64_t classes) const;

  // For an op that no other device has.
  void on_cpu() const;
  // The context has scratch if the call uses some.
  void scratch(const OpContext& context, int64_t bytes) const;

  const char* op() const { return op_; }
  Device device() const { return device_; }

 private:
  const char* op_;
  Device device_;
};

}  // namespace longstride

#include "longstride/ops/arguments.h"

#include <algorithm>
#include <string>

namespace longstride {

namespace {

std::string wanted(DType dtype, std::initializer_list<int64_t> shape) {
  std::string text;
  for (int64_t extent : shape) {
    text += text.empty() ? "" : ", ";
    text += extent == kAny ? "any" : std::to_string(extent);
  }
  return fmt::format("{} ({})", name_of(dtype), text);
}

}  // namespace

Arguments::Arguments(const char* op, Device device) : op_(op), device_(device) { check_device(op, device); }

void Arguments::memory(const char* name, const Tensor& t) const {
  LONGSTRIDE_CHECK(t.device == device_.kind, "{}: {} is on a different device from {}", op_, name,
                   name_of(device_));
  LONGSTRIDE_CHECK(t.data != nullptr || t.count() == 0, "{}: {} {} has no memory", op_, name, t.describe());
}

void Arguments::neighbours(const char* name, const Tensor& t) const {
  LONGSTRIDE_CHECK(t.stride[t.rank - 1] == 1 || t.shape[t.rank - 1] <= 1,
                   "{}: neighbours in the last axis of {} {} are {} elements apart, must be 1", op_, name,
                   t.describe(), t.stride[t.rank - 1]);
}

void Arguments::rows(const char* name, const Tensor& t, DType dtype,
                     std::initializer_list<int64_t> shape) const {
  LONGSTRIDE_CHECK(
      t.dtype == dtype && t.rank == static_cast<int>(shape.size()) &&
          std::equal(shape.begin(), shape.end(), t.shape.begin(),
                     [](int64_t want, int64_t have) { return want == kAny ? have >= 0 : want == have; }),
      "{}: {} is {}, must be {}", op_, name, t.describe(), wanted(dtype, shape));
  memory(name, t);
  neighbours(name, t);
  LONGSTRIDE_CHECK(t.rank < 2 || t.shape[0] <= 1 || t.stride[0] >= t.shape[1], "{}: rows of {} {} overlap",
                   op_, name, t.describe());
}

void Arguments::dense(const char* name, const Tensor& t, DType dtype,
                      std::initializer_list<int64_t> shape) const {
  rows(name, t, dtype, shape);
  LONGSTRIDE_CHECK(t.contiguous(), "{}: {} {} is not contiguous", op_, name, t.describe());
}

void Arguments::flat(const char* name, const Tensor& t, DType dtype, int64_t count) const {
  LONGSTRIDE_CHECK(t.dtype == dtype && t.rank > 0 && t.count() == count,
                   "{}: {} is {}, must be {} of {} elements", op_, name, t.describe(), name_of(dtype), count);
  memory(name, t);
  LONGSTRIDE_CHECK(t.contiguous(), "{}: {} {} is not contiguous", op_, name, t.describe());
}

void Arguments::on_cpu() const {
  LONGSTRIDE_CHECK(!on_gpu(device_), "{}: runs on the CPU, not on {}", op_, name_of(device_));
}

void Arguments::product(const char* name, DType dtype) const {
  LONGSTRIDE_CHECK(is_product_dtype(device_, dtype), "{}: {} is {}, must be {}", op_, name, name_of(dtype),
                   product_dtypes(device_));
}

void Arguments::activation(const char* name, const Tensor& t, DType product,
                           std::initializer_list<int64_t> shape) const {
  rows(name, t, t.dtype == DType::bf16 || t.dtype == DType::f16 ? product : DType::f32, shape);
}

void Arguments::below(const char* name, const Tensor& t, int64_t classes) const {
  if (classes >= 256 || on_gpu(device_)) return;
  const uint8_t* values = t.as<uint8_t>();
  const uint8_t* bad =
      std::find_if(values, values + t.count(), [&](uint8_t value) { return value >= classes; });
  LONGSTRIDE_CHECK(bad == values + t.count(), "{}: {}[{}] is {}, must be below {}", op_, name, bad - values,
                   *bad, classes);
}

void Arguments::scratch(const OpContext& context, int64_t bytes) const {
  LONGSTRIDE_CHECK(bytes == 0 || context.scratch != nullptr,
                   "{}: needs {} bytes of scratch, the context has none", op_, bytes);
}

}  // namespace longstride

#include "longstride/verify/check_attention_storage.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "longstride/verify/element.h"

namespace longstride::verify {

AttentionStorage::AttentionStorage(const AttentionCase& c, Device device,
                                   std::initializer_list<int64_t> widths)
    : device_(device) {
  const int64_t rows = c.shape.batch * c.n;
  int64_t row_width = 0;
  for (const int64_t width : widths) row_width += c.shape.heads * width + c.gap;
  memory_.resize(rows * row_width * size_of(c.dtype));
  if (device.kind == DeviceKind::cuda) on_gpu_ = Buffer(device, static_cast<int64_t>(memory_.size()));
  int64_t column = 0;
  for (const int64_t width : widths) {
    const int64_t columns = c.shape.heads * width;
    const Tensor flat =
        c.gap > 0 ? Tensor(memory_.data(), c.dtype, {rows, row_width}).columns(column, column + columns)
                  : Tensor(memory_.data() + rows * column * size_of(c.dtype), c.dtype, {rows, columns});
    tensors_.push_back(flat.split_last(c.shape.heads).split_first(c.shape.batch));
    column += columns + c.gap;
  }
  poison();
}

Tensor AttentionStorage::operator[](size_t i) const {
  Tensor tensor = tensors_[i];
  if (device_.kind == DeviceKind::cpu) return tensor;
  const auto offset = static_cast<unsigned char*>(tensor.data) - memory_.data();
  tensor.data = static_cast<char*>(on_gpu_.data()) + offset;
  tensor.device = DeviceKind::cuda;
  return tensor;
}

template <class Visit>
void AttentionStorage::for_each(size_t i, const Visit& visit) const {
  with_element(tensors_[i].dtype, [&](auto element) {
    const auto view = tensors_[i].view<decltype(element), 4>();
    for (int64_t b = 0; b < view.shape[0]; ++b)
      for (int64_t n = 0; n < view.shape[1]; ++n)
        for (int64_t h = 0; h < view.shape[2]; ++h)
          for (int64_t d = 0; d < view.shape[3]; ++d) visit(view(b, n, h, d));
  });
}

void AttentionStorage::write(size_t i, const std::vector<float>& values) {
  size_t next = 0;
  for_each(i, [&](auto& element) {
    using T = std::remove_reference_t<decltype(element)>;
    element = static_cast<T>(values[next++]);
  });
  upload();
}

std::vector<float> AttentionStorage::read(size_t i) const {
  download();
  std::vector<float> values;
  for_each(i, [&](auto& element) { values.push_back(static_cast<float>(element)); });
  return values;
}

int64_t AttentionStorage::count_nan() const {
  download();
  int64_t count = 0;
  with_element(tensors_[0].dtype, [&](auto element) {
    using T = decltype(element);
    for (size_t i = 0; i < memory_.size() / sizeof(T); ++i)
      count += std::isnan(static_cast<float>(reinterpret_cast<const T*>(memory_.data())[i]));
  });
  return count;
}

void AttentionStorage::poison() {
  with_element(tensors_[0].dtype, [&](auto element) {
    using T = decltype(element);
    std::fill_n(reinterpret_cast<T*>(memory_.data()), memory_.size() / sizeof(T),
                static_cast<T>(std::numeric_limits<float>::quiet_NaN()));
  });
  upload();
}

Tensor AttentionStorage::host_bytes() const {
  return Tensor(const_cast<unsigned char*>(memory_.data()), DType::u8,
                {static_cast<int64_t>(memory_.size())});
}

Tensor AttentionStorage::gpu_bytes() const {
  return Tensor(on_gpu_.data(), DType::u8, {on_gpu_.bytes()}, DeviceKind::cuda);
}

void AttentionStorage::upload() const {
  if (on_gpu_.data() != nullptr) copy(host_bytes(), gpu_bytes());
}

void AttentionStorage::download() const {
  if (on_gpu_.data() != nullptr) copy(gpu_bytes(), host_bytes());
}

}  // namespace longstride::verify

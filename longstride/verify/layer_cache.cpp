#include "longstride/verify/layer_cache.h"

#include <limits>

#include "longstride/verify/element.h"

namespace longstride::verify {

namespace {

Tensor poisoned(Buffer& memory, Device device, DType dtype, int64_t batch, int64_t rows, int64_t width) {
  memory = Buffer(device, batch * rows * width * size_of(dtype));
  const Tensor t(memory.data(), dtype, {batch, rows, width}, device.kind);
  with_element(dtype, [&](auto element) {
    using T = decltype(element);
    std::vector<T> values(t.count(), static_cast<T>(std::numeric_limits<float>::quiet_NaN()));
    copy(Tensor(values.data(), dtype, {batch, rows, width}), t);
  });
  return t;
}

}  // namespace

LayerCache::LayerCache(const LayerPattern& layer, int64_t n, const AttentionShape& shape, Device device,
                       DType keys, DType values)
    : device_(device) {
  for (int64_t h = 0; h < shape.heads; ++h)
    stores_.push_back(make_key_store(layer.for_head(h, shape.heads), n));
  int64_t rows = 0;
  for (const KeyStore& store : stores_) {
    heads_.push_back({&store, rows});
    rows += store.rows;
  }
  cache_.keys = poisoned(keys_, device, keys, shape.batch, rows, shape.width);
  cache_.values = poisoned(values_, device, values, shape.batch, rows, shape.v_width);
  cache_.heads = heads_;
}

std::vector<float> LayerCache::read(const Tensor& t) const {
  std::vector<float> values;
  with_element(t.dtype, [&](auto element) {
    using T = decltype(element);
    std::vector<T> elements(t.count());
    copy(t, Tensor(elements.data(), t.dtype, {t.count()}));
    for (const T& value : elements) values.push_back(static_cast<float>(value));
  });
  return values;
}

}  // namespace longstride::verify

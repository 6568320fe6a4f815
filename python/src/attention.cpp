// Attention: checks that memory is what longstride takes, and passes pointers. Arrays of numpy come as DLPack, tensors of
// PyTorch as addresses; what PyTorch needs besides (gradients, compilation) is in longstride/_torch.py.
#include <array>
#include <optional>

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>

#include "module.h"

namespace {

longstride::ElementType type_of(const char* name, nb::dlpack::dtype type) {
  if (type == nb::dtype<float>()) return longstride::ElementType::f32;
  const bool bits_16 = type.bits == 16 && type.lanes == 1;
  if (bits_16 && type.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Bfloat))
    return longstride::ElementType::bf16;
  if (bits_16 && type.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float))
    return longstride::ElementType::f16;
  throw longstride::Error(std::string(name) + ": its elements must be float32, bfloat16 or float16");
}

using Read = nb::ndarray<nb::ro>;
using Written = nb::ndarray<>;

// Strides of an array without gaps.
std::array<int64_t, 4> dense(const std::array<int64_t, 4>& shape) {
  return {shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3], 1};
}

// Where an axis has one place its stride may be anything, and is not used: it counts as that of a dense array.
std::array<int64_t, 4> used(const std::array<int64_t, 4>& shape, std::array<int64_t, 4> stride) {
  const std::array<int64_t, 4> without_gaps = dense(shape);
  for (size_t axis = 0; axis < 4; ++axis)
    if (shape[axis] == 1) stride[axis] = without_gaps[axis];
  return stride;
}

// As longstride::ConstArray or Array.
template <class Memory, class Given>
Memory memory_of(const char* name, const Given& array) {
  if (array.ndim() != 4)
    throw longstride::Error(std::string(name) + " has " + std::to_string(array.ndim()) +
                            " axes, must have 4");
  Memory memory;
  memory.data = array.data();
  memory.type = type_of(name, array.dtype());
  for (size_t axis = 0; axis < 4; ++axis) {
    memory.shape[axis] = static_cast<int64_t>(array.shape(axis));
    memory.stride[axis] = array.stride(axis);
  }
  memory.stride = used(memory.shape, memory.stride);
  return memory;
}

using LogSumExp = nb::ndarray<float, nb::ndim<3>, nb::c_contig>;

longstride::AttentionArrays arrays_of(const Read& q, const Read& k, const Read& v, const Written& o,
                                      const LogSumExp& lse, std::optional<float> scale) {
  longstride::AttentionArrays arrays;
  arrays.q = memory_of<longstride::ConstArray>("q", q);
  arrays.k = memory_of<longstride::ConstArray>("k", k);
  arrays.v = memory_of<longstride::ConstArray>("v", v);
  arrays.o = memory_of<longstride::Array>("o", o);
  if (lse.shape(0) != q.shape(0) || lse.shape(1) != q.shape(2) || lse.shape(2) != q.shape(1))
    throw longstride::Error("log_sum_exp must be (batch, heads, positions) of q");
  arrays.log_sum_exp = lse.data();
  arrays.scale = scale;
  return arrays;
}

// A call for tensors of PyTorch, with all said but where the memory is: a DLPack capsule of each, or its shape and strides
// passed again, takes longer than a small launch. Addresses come as numbers, strides are in elements.
class Call {
 public:
  using Four = std::array<int64_t, 4>;

  // `bhnd`: shapes and strides are in the order (batch, heads, positions, width), else (batch, positions, heads, width).
  Call(const longstride::Attention& attention, bool on_stream, bool bhnd, int type,
       const std::array<Four, 3>& shape, const std::array<Four, 3>& stride, float scale)
      : attention_(attention), on_stream_(on_stream), bhnd_(bhnd) {
    longstride::ConstArray* const given[] = {&arrays_.q, &arrays_.k, &arrays_.v};
    for (size_t i = 0; i < 3; ++i) {
      longstride::ConstArray& array = *given[i];
      array.type = static_cast<longstride::ElementType>(type);
      array.shape = rows(shape[i]);
      array.stride = used(array.shape, rows(stride[i]));
      if (suits(array.stride)) continue;
      array.stride = rows(dense(shape[i]));
      copies_ |= 1 << i;
    }
    arrays_.o.type = arrays_.q.type;
    arrays_.o.shape = arrays_.q.shape, arrays_.o.shape[3] = arrays_.v.shape[3];
    arrays_.o.stride = dense(arrays_.o.shape);
    arrays_.scale = scale;
  }

  // Bits of q, k and v: longstride does not take these strides, so the tensor must come contiguous.
  int copies() const { return copies_; }
  // Of o, as those of q, k and v came. Its rows are dense in the order (batch, positions, heads, width), as a projection
  // after attention reads them.
  Four o_shape() const { return rows(arrays_.o.shape); }
  Four o_stride() const { return rows(arrays_.o.stride); }
  // Of dq, dk and dv.
  std::array<Four, 3> gradient_stride() const {
    return {rows(dense(arrays_.q.shape)), rows(dense(arrays_.k.shape)), rows(dense(arrays_.v.shape))};
  }
  // Is the gradient of o taken with these strides?
  bool takes(const Four& stride) const { return suits(used(arrays_.o.shape, rows(stride))); }
  int64_t scratch_bytes() const { return on_stream_ ? attention_.scratch_bytes(arrays_) : 0; }

  void forward(uintptr_t stream, uintptr_t q, uintptr_t k, uintptr_t v, uintptr_t o, uintptr_t lse) const {
    const longstride::AttentionArrays arrays = at(q, k, v, o, lse);
    // Python's lock is kept: a launch is short, and an Attention has room for one call at a time on its stream.
    if (on_stream_) return attention_.forward(arrays, {.stream = reinterpret_cast<void*>(stream)});
    const nb::gil_scoped_release others_may_run;
    attention_.forward(arrays);
  }

  // `gradients`: of d_o, dq, dk and dv.
  void backward(uintptr_t stream, uintptr_t q, uintptr_t k, uintptr_t v, uintptr_t o, uintptr_t lse,
                const Four& d_o_stride, const std::array<uintptr_t, 4>& gradients, uintptr_t scratch,
                int64_t scratch_bytes) const {
    const longstride::AttentionArrays arrays = at(q, k, v, o, lse);
    const auto gradient = [&](size_t i, const Four& shape) {
      return longstride::Array{reinterpret_cast<void*>(gradients[i]), arrays.q.type, shape, dense(shape)};
    };
    longstride::Array d_o = gradient(0, arrays.o.shape);
    d_o.stride = used(d_o.shape, rows(d_o_stride));
    const longstride::Array dq = gradient(1, arrays.q.shape), dk = gradient(2, arrays.k.shape),
                            dv = gradient(3, arrays.v.shape);
    if (on_stream_)
      return attention_.backward(arrays, d_o, dq, dk, dv,
                                 {.stream = reinterpret_cast<void*>(stream),
                                  .scratch = reinterpret_cast<void*>(scratch),
                                  .scratch_bytes = scratch_bytes});
    const nb::gil_scoped_release others_may_run;
    attention_.backward(arrays, d_o, dq, dk, dv);
  }

 private:
  // Its own inverse.
  Four rows(const Four& given) const { return bhnd_ ? Four{given[0], given[2], given[1], given[3]} : given; }
  static bool suits(const Four& stride) {
    return stride[3] == 1 && stride[0] > 0 && stride[1] > 0 && stride[2] > 0;
  }

  longstride::AttentionArrays at(uintptr_t q, uintptr_t k, uintptr_t v, uintptr_t o, uintptr_t lse) const {
    longstride::AttentionArrays arrays = arrays_;
    arrays.q.data = reinterpret_cast<const void*>(q);
    arrays.k.data = reinterpret_cast<const void*>(k);
    arrays.v.data = reinterpret_cast<const void*>(v);
    arrays.o.data = reinterpret_cast<void*>(o);
    arrays.log_sum_exp = reinterpret_cast<float*>(lse);
    return arrays;
  }

  longstride::Attention attention_;
  bool on_stream_, bhnd_;
  int copies_ = 0;
  longstride::AttentionArrays arrays_;  // without data
};

}  // namespace

void bind_attention(nb::module_& m) {
  nb::class_<longstride::Attention>(m, "Attention")
      .def(nb::init<std::string, int64_t, int64_t, std::string>(), "pattern"_a, "positions"_a, "heads"_a,
           "device"_a = "cpu")
      .def("allows", &longstride::Attention::allows, "head"_a, "query"_a, "key"_a)
      .def("pairs", &longstride::Attention::pairs)
      .def(
          "fill_dense",
          [](const longstride::Attention& attention, int64_t head,
             nb::ndarray<uint8_t, nb::ndim<2>, nb::c_contig> to) {
            const auto rows = static_cast<int64_t>(to.shape(0)), columns = static_cast<int64_t>(to.shape(1));
            for (int64_t q = 0; q < rows; ++q)
              for (int64_t k = 0; k < columns; ++k)
                to.data()[q * columns + k] = attention.allows(head, q, k) ? 1 : 0;
          },
          "head"_a, "to"_a)
      .def(
          "forward",
          [](const longstride::Attention& attention, const Read& q, const Read& k, const Read& v,
             const Written& o, const LogSumExp& lse, std::optional<float> scale) {
            const longstride::AttentionArrays arrays = arrays_of(q, k, v, o, lse, scale);
            const nb::gil_scoped_release others_may_run;
            attention.forward(arrays);
          },
          "q"_a, "k"_a, "v"_a, "o"_a, "log_sum_exp"_a, "scale"_a.none() = nb::none())
      .def(
          "backward",
          [](const longstride::Attention& attention, const Read& q, const Read& k, const Read& v,
             const Written& o, const LogSumExp& lse, const Read& d_o, const Written& dq, const Written& dk,
             const Written& dv, std::optional<float> scale) {
            const longstride::AttentionArrays arrays = arrays_of(q, k, v, o, lse, scale);
            const auto gradient = memory_of<longstride::ConstArray>("d_o", d_o);
            const auto of_q = memory_of<longstride::Array>("dq", dq),
                       of_k = memory_of<longstride::Array>("dk", dk),
                       of_v = memory_of<longstride::Array>("dv", dv);
            const nb::gil_scoped_release others_may_run;
            attention.backward(arrays, gradient, of_q, of_k, of_v);
          },
          "q"_a, "k"_a, "v"_a, "o"_a, "log_sum_exp"_a, "d_o"_a, "dq"_a, "dk"_a, "dv"_a,
          "scale"_a.none() = nb::none());
  nb::class_<Call>(m, "Call")
      .def(nb::init<const longstride::Attention&, bool, bool, int, const std::array<Call::Four, 3>&,
                    const std::array<Call::Four, 3>&, float>(),
           "attention"_a, "on_stream"_a, "bhnd"_a, "type"_a, "shape"_a, "stride"_a, "scale"_a)
      .def("copies", &Call::copies)
      .def("o_shape", &Call::o_shape)
      .def("o_stride", &Call::o_stride)
      .def("gradient_stride", &Call::gradient_stride)
      .def("takes", &Call::takes, "stride"_a)
      .def("scratch_bytes", &Call::scratch_bytes)
      .def("forward", &Call::forward, "stream"_a, "q"_a, "k"_a, "v"_a, "o"_a, "lse"_a)
      .def("backward", &Call::backward, "stream"_a, "q"_a, "k"_a, "v"_a, "o"_a, "lse"_a, "d_o_stride"_a,
           "gradients"_a, "scratch"_a, "scratch_bytes"_a);
}

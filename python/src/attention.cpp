// Attention: checks that memory is what longstride takes, and passes pointers. Arrays of numpy and PyTorch come as
// DLPack; what PyTorch needs besides (gradients, compilation) is in longstride/_torch.py.
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

// As longstride::ConstArray or Array.
template <class Memory, class Given>
Memory memory_of(const char* name, const Given& array) {
  if (array.ndim() != 4)
    throw longstride::Error(std::string(name) + " has " + std::to_string(array.ndim()) +
                            " axes, must have 4");
  Memory memory;
  memory.data = array.data();
  memory.type = type_of(name, array.dtype());
  for (size_t axis = 0; axis < 4; ++axis) memory.shape[axis] = static_cast<int64_t>(array.shape(axis));
  // Where an axis has one place its stride may be anything, and is not used: it counts as that of a dense array.
  int64_t dense = 1;
  for (size_t axis = 4; axis-- > 0;) {
    memory.stride[axis] = memory.shape[axis] == 1 ? dense : array.stride(axis);
    dense *= memory.shape[axis];
  }
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

// Tensors of PyTorch on a GPU come as numbers, because a DLPack capsule for each takes longer than a small call: the
// address of the first element, and the shape and strides in elements.
using Four = std::array<int64_t, 4>;

longstride::Array array_at(uintptr_t address, int type, const Four& shape, const Four& stride) {
  longstride::Array array;
  array.data = reinterpret_cast<void*>(address);
  array.type = static_cast<longstride::ElementType>(type);
  array.shape = shape, array.stride = stride;
  return array;
}

// Of q, k, v and o, and the address of log_sum_exp.
longstride::AttentionArrays arrays_at(const std::array<uintptr_t, 5>& at, int type,
                                      const std::array<Four, 4>& shape, const std::array<Four, 4>& stride,
                                      float scale) {
  longstride::AttentionArrays arrays;
  arrays.q = array_at(at[0], type, shape[0], stride[0]);
  arrays.k = array_at(at[1], type, shape[1], stride[1]);
  arrays.v = array_at(at[2], type, shape[2], stride[2]);
  arrays.o = array_at(at[3], type, shape[3], stride[3]);
  arrays.log_sum_exp = reinterpret_cast<float*>(at[4]);
  arrays.scale = scale;
  return arrays;
}

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
          "scale"_a.none() = nb::none())
      .def(
          "forward_on",
          [](const longstride::Attention& attention, uintptr_t stream, const std::array<uintptr_t, 5>& at,
             int type, const std::array<Four, 4>& shape, const std::array<Four, 4>& stride, float scale) {
            attention.forward(arrays_at(at, type, shape, stride, scale),
                              {.stream = reinterpret_cast<void*>(stream)});
          },
          "stream"_a, "at"_a, "type"_a, "shape"_a, "stride"_a, "scale"_a)
      .def(
          "backward_on",
          [](const longstride::Attention& attention, uintptr_t stream, const std::array<uintptr_t, 5>& at,
             int type, const std::array<Four, 4>& shape, const std::array<Four, 4>& stride, float scale,
             const std::array<uintptr_t, 4>& gradients, const std::array<Four, 4>& gradient_stride,
             uintptr_t scratch, int64_t scratch_bytes) {
            // Of d_o, dq, dk and dv.
            const auto gradient = [&](size_t i, const Four& of) {
              return array_at(gradients[i], type, of, gradient_stride[i]);
            };
            attention.backward(arrays_at(at, type, shape, stride, scale), gradient(0, shape[3]),
                               gradient(1, shape[0]), gradient(2, shape[1]), gradient(3, shape[2]),
                               {.stream = reinterpret_cast<void*>(stream),
                                .scratch = reinterpret_cast<void*>(scratch),
                                .scratch_bytes = scratch_bytes});
          },
          "stream"_a, "at"_a, "type"_a, "shape"_a, "stride"_a, "scale"_a, "gradients"_a, "gradient_stride"_a,
          "scratch"_a, "scratch_bytes"_a)
      .def(
          "scratch_bytes",
          [](const longstride::Attention& attention, int type, const Four& q, const Four& v) {
            longstride::AttentionArrays arrays;
            arrays.q.type = static_cast<longstride::ElementType>(type);
            arrays.q.shape = q, arrays.v.shape = v;
            return attention.scratch_bytes(arrays);
          },
          "type"_a, "q"_a, "v"_a);
}

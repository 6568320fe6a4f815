// The parts of the module longstride._longstride. It is Python's view of longstride.h and checks no more than memory: the
// package's Python files are what people call.
#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <span>
#include <string>

#include <longstride/longstride.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

namespace nb = nanobind;
using nb::literals::operator""_a;

void bind_attention(nb::module_& m);
void bind_model(nb::module_& m);
void bind_pattern(nb::module_& m);
void bind_train(nb::module_& m);

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

inline std::span<const uint8_t> span_of(const Bytes& bytes) { return {bytes.data(), bytes.size()}; }

// A Progress that lets Ctrl-C end the call, on Python's main thread. Called without the interpreter's lock, which it takes
// a few times a second.
class Interruptible {
 public:
  void operator()(int64_t, int64_t) {
    const auto now = std::chrono::steady_clock::now();
    if (now - looked_ < std::chrono::milliseconds(100)) return;
    looked_ = now;
    const nb::gil_scoped_acquire lock;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }

 private:
  std::chrono::steady_clock::time_point looked_ = std::chrono::steady_clock::now();
};

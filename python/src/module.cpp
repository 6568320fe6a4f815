#include "module.h"

NB_MODULE(_longstride, m) {
  // Plans are kept until Python ends, which nanobind would report on standard error as a leak.
  nb::set_leak_warnings(false);
  nb::exception<longstride::Error>(m, "Error", PyExc_ValueError);
  m.def("version", &longstride::version);
  bind_pattern(m);
  bind_attention(m);
  bind_model(m);
  bind_train(m);
}

#include "module.h"

NB_MODULE(_longstride, m) {
  nb::exception<longstride::Error>(m, "Error", PyExc_ValueError);
  m.def("version", &longstride::version);
  bind_pattern(m);
  bind_attention(m);
  bind_model(m);
  bind_train(m);
}

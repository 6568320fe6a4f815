#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "module.h"

void bind_pattern(nb::module_& m) {
  nb::class_<longstride::PatternReach>(m, "PatternReach")
      .def_ro("complete", &longstride::PatternReach::complete)
      .def_ro("layers", &longstride::PatternReach::layers)
      .def_ro("blind_query", &longstride::PatternReach::blind_query)
      .def_ro("blind_first", &longstride::PatternReach::blind_first)
      .def_ro("blind_last", &longstride::PatternReach::blind_last)
      .def_ro("blind_count", &longstride::PatternReach::blind_count)
      .def_ro("exhaustive", &longstride::PatternReach::exhaustive)
      .def_ro("text", &longstride::PatternReach::text);
  m.def("pattern_reach", &longstride::pattern_reach, "pattern"_a, "positions"_a, "layers"_a, "heads"_a = 0,
        nb::call_guard<nb::gil_scoped_release>());
  m.def("pattern_svg", &longstride::pattern_svg, "pattern"_a, "positions"_a, "heads"_a = 0, "pixels"_a = 480,
        nb::call_guard<nb::gil_scoped_release>());
  m.def("pattern_layers", &longstride::pattern_layers, "pattern"_a);
}

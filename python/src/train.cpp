#include <exception>
#include <optional>
#include <utility>
#include <vector>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include "module.h"

namespace {

nb::dict metrics_of(const longstride::TrainProgress& progress) {
  nb::dict metrics;
  metrics["step"] = progress.step;
  metrics["done"] = progress.done;
  metrics["bits"] = progress.bits;
  metrics["learning_rate"] = progress.learning_rate;
  metrics["gradient_norm"] = progress.gradient_norm;
  metrics["seconds"] = progress.seconds;
  if (progress.validation_bits) metrics["validation_bits"] = *progress.validation_bits;
  return metrics;
}

// after_step() is given the metrics of each step; if it returns False the training ends. If it raises, or Ctrl-C does, the
// training ends too, its state is saved where there is a run, and the exception goes on.
longstride::Model train(const std::optional<Bytes>& bytes, std::vector<std::string> settings,
                        const std::string& config, const std::string& run, bool go_on,
                        const nb::callable& after_step, const nb::callable& note) {
  std::exception_ptr raised;
  longstride::TrainOptions options;
  options.settings = std::move(settings);
  options.config = config;
  options.run = run;
  options.go_on = go_on;
  options.after_step = [&](const longstride::TrainProgress& progress) {
    const nb::gil_scoped_acquire lock;
    try {
      const nb::object answer = after_step(metrics_of(progress));
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
      return !raised && !answer.is(nb::bool_(false));
    } catch (...) {
      raised = std::current_exception();
      return false;
    }
  };
  options.note = [&](const std::string& line) {
    const nb::gil_scoped_acquire lock;
    try {
      note(line);
    } catch (...) {
      raised = std::current_exception();  // a warning that is an error: ends the training after this step
    }
  };
  const nb::gil_scoped_release others_may_run;
  longstride::Model model =
      bytes ? longstride::train(span_of(*bytes), options) : longstride::train_on_files(options);
  if (raised) std::rethrow_exception(raised);
  return model;
}

}  // namespace

void bind_train(nb::module_& m) {
  m.def("train", &train, "bytes"_a.none(), "settings"_a, "config"_a, "run"_a, "go_on"_a, "after_step"_a,
        "note"_a);
}

// A run's model. All calls but the shortest give up the interpreter's lock.
#include <initializer_list>
#include <optional>
#include <utility>
#include <vector>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include "module.h"

namespace {

using Numbers = nb::ndarray<nb::numpy, float>;

// An array of numpy that owns the numbers.
Numbers array_of(std::vector<float> numbers, std::initializer_list<size_t> shape) {
  auto* kept = new std::vector<float>(std::move(numbers));
  const nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
  return Numbers(kept->data(), shape, owner);
}

nb::bytes as_bytes(const std::vector<uint8_t>& bytes) { return nb::bytes(bytes.data(), bytes.size()); }

template <class Call>
auto without_lock(const Call& call) {
  const nb::gil_scoped_release others_may_run;
  return call();
}

Numbers logits(const longstride::Model& model, const Bytes& bytes) {
  auto rows = without_lock([&] { return model.logits(span_of(bytes), Interruptible()); });
  return array_of(std::move(rows), {bytes.size(), 256});
}

Numbers next_logits(const longstride::Model& model, const Bytes& bytes) {
  return array_of(without_lock([&] { return model.next_logits(span_of(bytes)); }), {256});
}

std::pair<Numbers, Numbers> entropies(const longstride::Model& model, const Bytes& bytes,
                                      int64_t min_context) {
  longstride::Entropies found =
      without_lock([&] { return model.entropies(span_of(bytes), min_context, Interruptible()); });
  const size_t size = found.bits.size();
  return {array_of(std::move(found.bits), {size}), array_of(std::move(found.entropy), {size})};
}

}  // namespace

void bind_model(nb::module_& m) {
  using longstride::Generation, longstride::Model;
  // A byte as a number, or None when all are drawn.
  nb::class_<Generation>(m, "Generation").def("next", [](Generation& generation) {
    return without_lock([&] { return generation.next(); });
  });
  nb::class_<Model>(m, "Model")
      .def(
          "__init__",
          [](Model* self, const std::string& run, const std::string& device, const std::string& precision,
             int threads, int64_t step, bool int8) {
            without_lock([&] {
              return new (self) Model(
                  run,
                  {.device = device, .precision = precision, .threads = threads, .step = step, .int8 = int8});
            });
          },
          "run"_a, "device"_a = "auto", "precision"_a = "auto", "threads"_a = 0, "step"_a = -1,
          "int8"_a = false)
      .def_prop_ro("context", &Model::context)
      .def_prop_ro("parameters", &Model::parameters)
      .def_prop_ro("step", &Model::step)
      .def_prop_ro("kind", &Model::kind)
      .def_prop_ro("pattern", &Model::pattern)
      .def("logits", &logits, "bytes"_a)
      .def("next_logits", &next_logits, "bytes"_a)
      .def("entropies", &entropies, "bytes"_a, "min_context"_a = 0)
      .def(
          "bits_per_byte",
          [](const Model& model, const Bytes& bytes, int64_t min_context) {
            return without_lock(
                [&] { return model.bits_per_byte(span_of(bytes), min_context, Interruptible()); });
          },
          "bytes"_a, "min_context"_a = 0)
      .def(
          "bits_per_byte_of",
          [](const Model& model, const std::string& part, int64_t min_context, int64_t max_bytes) {
            return without_lock(
                [&] { return model.bits_per_byte_of(part, min_context, max_bytes, Interruptible()); });
          },
          "part"_a, "min_context"_a = 0, "max_bytes"_a = 0)
      .def(
          "generate",
          [](const Model& model, const Bytes& beginning, int64_t count, double temperature, int64_t top_k,
             double top_p, uint64_t seed, double hop) {
            return without_lock([&] {
              return model.generate(span_of(beginning), {.count = count,
                                                         .temperature = temperature,
                                                         .top_k = top_k,
                                                         .top_p = top_p,
                                                         .seed = seed,
                                                         .hop = hop});
            });
          },
          "beginning"_a, "count"_a = 0, "temperature"_a = 1.0, "top_k"_a = 0, "top_p"_a = 1.0, "seed"_a = 0,
          "hop"_a = 0.5)
      .def(
          "compress",
          [](const Model& model, const Bytes& bytes, bool portable) {
            return as_bytes(without_lock(
                [&] { return model.compress(span_of(bytes), Interruptible(), {.portable = portable}); }));
          },
          "bytes"_a, "portable"_a = false)
      .def(
          "decompress",
          [](const Model& model, const Bytes& compressed) {
            return as_bytes(
                without_lock([&] { return model.decompress(span_of(compressed), Interruptible()); }));
          },
          "compressed"_a);
}

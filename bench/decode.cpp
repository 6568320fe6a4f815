// How fast a model writes one byte after another, and how near that is to the pace at which memory can be
// read.
//
//   bench_decode [--config FILE] [--threads N] [--positions N] [--streams N,N,..] [--repeats N] [--json FILE]
//
// A model with random weights, by default of the shape of configs/enwik8.toml (94.9M parameters, context
// 12,288), decodes up to N positions spread over its context (3), with weights in f32, bf16 and int8, for 1,
// 4 and 8 streams. A step has to read the weights of all products once, and the keys and values that the
// pattern lets the position look at for each stream; nothing else is counted. Divided by the read bandwidth
// of memory with the same threads, that is the floor. Bandwidth and steps are timed in turn, several steps
// after each pass over memory, and the fastest of each is taken: a pass and a step last about as long, and on
// a shared machine all others measure the neighbours. Before anything is timed, a small model's steps are
// compared with its parallel forward.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "longstride/base/text.h"
#include "longstride/base/toml.h"
#include "longstride/decode/decoder.h"
#include "longstride/ops/adam.h"
#include "longstride/pattern/plan.h"
#include "longstride/run/config.h"

namespace longstride {
namespace {

// Several times the largest caches.
constexpr int64_t kMemoryRead = int64_t{1} << 29;

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// What all threads together read of memory, each its own part from one end to the other. Fetching ahead by
// hand is a quarter faster here than leaving it to the processor, so that is the pace to compare with.
class MemoryReader {
 public:
  MemoryReader() : buffer_({}, kMemoryRead) {
    fill_zero(Tensor(buffer_.data(), DType::u8, {kMemoryRead}));
    read();
  }
  double seconds() {
    return seconds_of([&] { read(); });
  }

 private:
  void read() {
    const uint64_t* words = static_cast<const uint64_t*>(buffer_.data());
    const int team = threads();
    const int64_t count = kMemoryRead / 8;
    std::atomic<uint64_t> total = 0;
    parallel_for(team, [&](int64_t part) {
      constexpr int64_t kSums = 16, kAhead = 512;
      uint64_t sums[kSums] = {};
      for (int64_t i = count * part / team / kSums * kSums; i < count * (part + 1) / team / kSums * kSums;
           i += kSums) {
        __builtin_prefetch(words + i + kAhead), __builtin_prefetch(words + i + kAhead + 8);
        for (int64_t j = 0; j < kSums; ++j) sums[j] += words[i + j];
      }
      for (const uint64_t sum : sums) total += sum;
    });
    sum_ = total;
  }
  Buffer buffer_;
  volatile uint64_t sum_ = 0;  // so that nothing is left out
};

enum class Weights { f32, bf16, int8 };
constexpr const char* kNames[] = {"f32", "bf16", "int8"};

// A model with random weights in all three forms.
struct Model {
  ModelConfig config;
  std::vector<ParameterSpec> table;
  ParameterStore weights, products, dequantized;
  QuantizedParameters quantized;

  explicit Model(const ModelConfig& shape)
      : config(shape), table(parameter_table(shape)), weights(table, {}, DType::f32) {
    constexpr auto kProducts = ParameterStore::Which::products;
    initialise(table, 1, weights);
    copy(weights[0],
         weights[table.size() - 1]);  // the output matrix, as large as the byte embedding, begins at 0
    products = ParameterStore(table, {}, DType::bf16, kProducts);
    dequantized = ParameterStore(table, {}, DType::bf16, kProducts);
    for (size_t i = 0; i < table.size(); ++i)
      if (products[i]) run({}, Convert{weights[i], products[i]});
    quantized = QuantizedParameters(config, weights, {});
    quantized.dequantize_to(dequantized);
  }
  ModelParameters parameters(Weights form) const {
    if (form == Weights::f32) return by_role(config, weights, {});
    return by_role(config, weights, form == Weights::bf16 ? products : dequantized);
  }
  std::unique_ptr<Decoder> decoder(Weights form, int64_t streams) const {
    return std::make_unique<Decoder>(config, parameters(form), Device{}, DecoderOptions{.streams = streams},
                                     form == Weights::int8 ? &quantized : nullptr);
  }
  int64_t weight_bytes(Weights form) const {
    int64_t bytes = 0;
    for (const ParameterSpec& spec : table) {
      if (!spec.product) continue;
      if (form == Weights::f32) bytes += 4 * spec.count();
      if (form == Weights::bf16) bytes += 2 * spec.count();
      if (form == Weights::int8) bytes += spec.count() + 4 * spec.shape[0];
    }
    return bytes;
  }
  // Keys and values that one stream reads at `position`.
  int64_t cache_bytes(Weights form, int64_t position) const {
    const Schedule& schedule = config.schedule();
    const int64_t element = form == Weights::f32 ? 4 : 2;
    int64_t bytes = 0;
    std::vector<int64_t> keys;
    for (int64_t layer = 0; layer < config.layers; ++layer)
      for (int64_t head = 0; head < config.heads; ++head) {
        keys_of(schedule.layer(layer).for_head(head, config.heads), position, keys);
        bytes += static_cast<int64_t>(keys.size()) * (config.qk_head() + config.v_head()) * element;
      }
    return bytes;
  }
};

// Throws Error if a step's losses are not those of the parallel forward.
void check_result(ModelConfig config) {
  config.position_axes = config.axes();
  config.context = std::min<int64_t>(config.context, 300);
  config.layers = std::min<int64_t>(config.layers, 2);
  const Model model(config);
  std::vector<uint8_t> tokens(config.context);
  for (int64_t i = 0; i < config.context; ++i) tokens[i] = static_cast<uint8_t>(i * i % 251);
  for (const Weights form : {Weights::f32, Weights::bf16, Weights::int8}) {
    ComputePlan plan;
    plan.product = model.parameters(form).output_weight.dtype;
    Transformer transformer(config, plan);
    std::vector<float> loss(config.context);
    transformer.evaluate(model.parameters(form), Tensor(tokens.data(), DType::u8, {1, config.context}),
                         Tensor(loss.data(), DType::f32, {1, config.context}));
    const auto decoder = model.decoder(form, 1);
    for (int64_t position = 0; position < config.context; ++position) {
      const uint8_t previous = position > 0 ? tokens[position - 1] : 0;
      const float* logits = decoder->step({&previous, 1}, position).as<float>();
      double sum = 0;
      for (int64_t i = 0; i < kVocabulary; ++i) sum += std::exp(static_cast<double>(logits[i]));
      const double wrong = std::abs(std::log(sum) - logits[tokens[position]] - loss[position]);
      LONGSTRIDE_CHECK(wrong < (form == Weights::f32 ? 1e-4 : 0.02),
                       "{} weights: the loss at position {} is wrong by {}: nothing was timed",
                       kNames[static_cast<int>(form)], position, wrong);
    }
  }
}

struct Options {
  ModelConfig config;
  std::vector<int64_t> streams{1, 4, 8};
  int64_t positions = 3, repeats = 9;
  std::string json;
};

ModelConfig enwik8_shape() {
  ModelConfig config;
  config.context = 12288;
  config.layers = 30;
  config.heads = 8;
  config.width = 512;
  config.pattern = "fixed:128,32";
  config.position_axes = {96, 128};
  return config;
}

Options parse(int argc, char** argv) {
  Options options;
  options.config = enwik8_shape();
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) throw UsageError(fmt::format("{} needs a value", name));
    const std::string value = argv[i + 1];
    if (name == "--config") {
      options.config = RunConfig::from_file(value).model;
    } else if (name == "--threads") {
      set_threads(static_cast<int>(parse_integer(value, name)));
    } else if (name == "--positions") {
      options.positions = parse_integer(value, name);
    } else if (name == "--repeats") {
      options.repeats = parse_integer(value, name);
    } else if (name == "--streams") {
      options.streams.clear();
      for (size_t begin = 0; begin <= value.size();) {
        const size_t end = std::min(value.find(',', begin), value.size());
        options.streams.push_back(parse_integer(value.substr(begin, end - begin), name));
        begin = end + 1;
      }
    } else if (name == "--json") {
      options.json = value;
    } else {
      throw UsageError(fmt::format(
          "unknown option {}; known: --config, --threads, --positions, --streams, --repeats, --json", name));
    }
  }
  options.config.check();
  if (options.positions < 1) throw UsageError("--positions must be 1 or more");
  if (options.repeats < 1) throw UsageError("--repeats must be 1 or more");
  return options;
}

struct Row {
  Weights form;
  int64_t streams, position;
  int64_t weight_bytes, cache_bytes;
  double bandwidth;  // bytes a second
  double seconds;    // a step
  double floor() const { return static_cast<double>(weight_bytes + cache_bytes) / bandwidth; }
};

constexpr int64_t kSteps = 8;  // behind each pass over memory

// Steps up to `position`, the last of all repeats.
Row measure(const Model& model, Decoder& decoder, MemoryReader& memory, Weights form, int64_t position,
            int64_t repeats) {
  const int64_t streams = decoder.streams(), first = std::max<int64_t>(0, position + 1 - repeats * kSteps);
  const std::vector<uint8_t> previous(streams, 65);
  double pass = INFINITY, fastest = INFINITY;
  int64_t next = position + 1, at_fastest = position;
  for (int64_t repeat = 0; repeat < repeats; ++repeat) {
    pass = std::min(pass, memory.seconds());
    for (int64_t step = 0; step < kSteps; ++step, ++next) {
      if (next > position) decoder.fill_with_noise(next = first);
      const double seconds = seconds_of([&] { decoder.step(previous, next); });
      if (step == 0 || seconds >= fastest) continue;  // the first warms up
      fastest = seconds, at_fastest = next;
    }
  }
  return {form,
          streams,
          at_fastest,
          model.weight_bytes(form),
          streams * model.cache_bytes(form, at_fastest),
          kMemoryRead / pass,
          fastest};
}

nlohmann::json report(const Row& row) {
  fmt::print("{:<8}{:>8}{:>10}{:>11.1f}{:>10.1f}{:>8.1f}{:>10.2f}{:>10.2f}{:>9.1f}{:>8.2f}\n",
             kNames[static_cast<int>(row.form)], row.streams, row.position,
             static_cast<double>(row.weight_bytes) * 1e-6, static_cast<double>(row.cache_bytes) * 1e-6,
             row.bandwidth * 1e-9, row.floor() * 1e3, row.seconds * 1e3,
             static_cast<double>(row.streams) / row.seconds, row.floor() / row.seconds);
  std::fflush(stdout);
  return {{"weights", kNames[static_cast<int>(row.form)]},
          {"streams", row.streams},
          {"position", row.position},
          {"weight_bytes", row.weight_bytes},
          {"cache_bytes", row.cache_bytes},
          {"bytes_per_second", row.bandwidth},
          {"floor_ms", row.floor() * 1e3},
          {"step_ms", row.seconds * 1e3},
          {"of_floor", row.floor() / row.seconds}};
}

void report(const Options& options) {
  check_result(options.config);
  const Model model(options.config);
  MemoryReader memory;
  nlohmann::json json = {
      {"cpu", describe_cpu()}, {"threads", threads()}, {"parameters", count_parameters(options.config)}};
  fmt::print("{}, {} threads; {} parameters, context {}, {}\n", describe_cpu(), threads(),
             human_count(static_cast<double>(count_parameters(options.config))), options.config.context,
             options.config.pattern.text());
  fmt::print("{:<8}{:>8}{:>10}{:>11}{:>10}{:>8}{:>10}{:>10}{:>9}{:>8}\n", "weights", "streams", "position",
             "weights MB", "cache MB", "GB/s", "floor ms", "step ms", "bytes/s", "ratio");
  const int64_t ram = static_cast<int64_t>(sysconf(_SC_AVPHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  for (const int64_t streams : options.streams)
    for (const Weights form : {Weights::f32, Weights::bf16, Weights::int8}) {
      const DType product = form == Weights::f32 ? DType::f32 : DType::bf16;
      const int64_t needed = Decoder::bytes(options.config, {}, product, {.streams = streams});
      if (needed > ram / 2) {
        fmt::print("{:<8}{:>8}  left out: the cache would take {} of {} free\n",
                   kNames[static_cast<int>(form)], streams, human_bytes(needed), human_bytes(ram));
        continue;
      }
      const auto decoder = model.decoder(form, streams);
      for (int64_t i = 1; i <= options.positions; ++i) {
        const int64_t position = options.config.context * i / options.positions - 1;
        json["rows"].push_back(report(measure(model, *decoder, memory, form, position, options.repeats)));
      }
    }
  if (options.json.empty()) return;
  std::ofstream file(options.json);
  file << json.dump(2) << '\n';
  LONGSTRIDE_CHECK(file.flush().good(), "cannot write {}: {}", options.json, last_system_error());
}

}  // namespace
}  // namespace longstride

int main(int argc, char** argv) {
  try {
    longstride::report(longstride::parse(argc, argv));
  } catch (const longstride::UsageError& error) {
    fmt::print(stderr, "bench_decode: {}\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_decode: {}\n", error.what());
    return 1;
  }
}

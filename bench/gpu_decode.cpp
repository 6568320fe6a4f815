// How fast a model on a GPU draws one byte after another, and how near that is to the pace at which its
// memory can be read.
//
//   bench_gpu_decode [--config FILE] [--set model.X=Y].. [--streams N,N,..] [--steps N] [--whole N,N,..]
//                    [--json FILE]
//
// A model with random weights in bf16, by default of the shape of configs/enwik8.toml (94.9M parameters,
// context 12,288), draws bytes at positions spread over its context for 1, 4, 16 and 64 sequences at once, by
// one persistent kernel and by a graph of kernels; --whole also draws whole contexts, from the first byte to
// the last, for so many sequences. A step has to read the weights of all products once, and for each sequence
// the keys and values that its pattern lets the position look at; divided by the rate at which this GPU
// copies memory, that is the floor. Before anything is timed, a small model's bytes are compared: drawn alone
// and beside others, by both schedules.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "longstride/base/text.h"
#include "longstride/base/toml.h"
#include "longstride/decode/decoder.h"
#include "longstride/device/backend.h"
#include "longstride/ops/adam.h"
#include "longstride/pattern/plan.h"
#include "longstride/run/config.h"

#include "bench/gpu_rates.h"
#include "bench/measure.h"

namespace longstride {
namespace {

constexpr Device kGpu{DeviceKind::cuda, 0};
constexpr int64_t kMostPersistent = 16;

struct Request {
  std::string config, json;
  std::vector<std::string> overrides;  // of --set
  std::vector<int64_t> streams{1, 4, 16, 64}, whole;
  int64_t steps = 64;
};

std::vector<int64_t> numbers(const std::string& text) {
  std::vector<int64_t> list;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    list.push_back(parse_integer(text.substr(begin, end - begin), "a list of numbers"));
    begin = end + 1;
  }
  return list;
}

ModelConfig model_of(const Request& request) {
  RunConfig config;
  if (!request.config.empty()) {
    config = RunConfig::from_file(request.config);
  } else {
    ModelConfig& model = config.model;
    model.context = 12288, model.layers = 30, model.heads = 8, model.width = 512;
    model.pattern = "fixed:128,32";
    model.position_axes = {96, 128};
  }
  const FieldList fields = config.fields();
  for (const std::string& assignment : request.overrides) apply_override(assignment, fields);
  config.model.check();
  return config.model;
}

// Random weights, in bf16 where products read them.
struct Model {
  ModelConfig config;
  std::vector<ParameterSpec> table;
  ParameterStore weights, products;
  ModelParameters parameters;

  explicit Model(const ModelConfig& shape)
      : config(shape), table(parameter_table(shape)), weights(table, kGpu, DType::f32) {
    ParameterStore here(table, Device{}, DType::f32);
    initialise(table, 1, here);
    copy(here[0], here[table.size() - 1]);  // the output matrix begins at 0
    copy(here.flat(), weights.flat());
    products = ParameterStore(table, kGpu, DType::bf16, ParameterStore::Which::products);
    for (size_t i = 0; i < table.size(); ++i)
      if (products[i]) run({kGpu, nullptr}, Convert{weights[i], products[i]});
    parameters = by_role(config, weights, products);
  }
  std::unique_ptr<Decoder> decoder(int64_t streams, DecodeSchedule schedule) const {
    DecoderOptions options;
    options.streams = streams;
    options.gpu_schedule = schedule;
    return std::make_unique<Decoder>(config, parameters, kGpu, options);
  }
  double weight_bytes() const {
    double bytes = 0;
    for (const ParameterSpec& spec : table)
      bytes += spec.product ? 2.0 * static_cast<double>(spec.count()) : 0;
    return bytes;
  }
  // Keys and values that one sequence reads at `position`.
  double cache_bytes(int64_t position) const {
    const Schedule& schedule = config.schedule();
    double keys_read = 0;
    std::vector<int64_t> keys;
    for (size_t i = 0; i < schedule.cycle.size(); ++i) {
      double of_layer = 0;
      for (int64_t head = 0; head < config.heads; ++head) {
        keys_of(schedule.cycle[i].for_head(head, config.heads), position, keys);
        of_layer += static_cast<double>(keys.size());
      }
      const int64_t cycle = static_cast<int64_t>(schedule.cycle.size());
      keys_read +=
          of_layer * static_cast<double>((config.layers - static_cast<int64_t>(i) + cycle - 1) / cycle);
    }
    return keys_read * 2.0 * static_cast<double>(config.qk_head() + config.v_head());
  }
};

std::vector<Continuation> from_position(int64_t streams, int64_t position, int64_t count) {
  std::vector<Continuation> list(static_cast<size_t>(streams));
  for (size_t s = 0; s < list.size(); ++s) {
    list[s].position = position, list[s].count = count;
    list[s].previous = static_cast<uint8_t>(s);
    list[s].draw.stream = static_cast<uint32_t>(s);
  }
  return list;
}

double seconds_of_bytes(Decoder& decoder, const std::vector<Continuation>& list, int64_t steps) {
  std::vector<uint8_t> out(list.size() * static_cast<size_t>(steps));
  return seconds_of([&] { decoder.advance(list, steps, out); });
}

// Bytes of a small model alone and beside others, by both schedules. Throws Error if they differ.
void check_result(ModelConfig config) {
  config.position_axes = config.axes();
  config.context = 300, config.layers = std::min<int64_t>(config.layers, 2);
  const Model model(config);
  std::vector<uint8_t> first;
  for (const auto& [streams, schedule] : {std::pair{int64_t{1}, DecodeSchedule::persistent},
                                          {int64_t{1}, DecodeSchedule::graph},
                                          {int64_t{16}, DecodeSchedule::persistent},
                                          {int64_t{70}, DecodeSchedule::graph}}) {
    const auto decoder = model.decoder(streams, schedule);
    std::vector<uint8_t> out(static_cast<size_t>(streams) * 300);
    decoder->advance(from_position(streams, 0, 300), 300, out);
    out.resize(300);
    if (first.empty()) first = out;
    LONGSTRIDE_CHECK(out == first, "a sequence is not the same beside {} others", streams - 1);
  }
}

nlohmann::json measure(const Model& model, int64_t streams, DecodeSchedule schedule, double rate,
                       int64_t steps) {
  const auto decoder = model.decoder(streams, schedule);
  nlohmann::json rows;
  for (const int64_t part : {1, 2, 3, 4}) {
    const int64_t position = std::max<int64_t>(0, model.config.context * part / 4 - 5 * steps);
    decoder->fill_with_noise(position);
    std::vector<double> times;
    for (int64_t run = 0; run < 4; ++run) {
      const double taken =
          seconds_of_bytes(*decoder, from_position(streams, position + run * steps, steps), steps);
      if (run > 0) times.push_back(taken / static_cast<double>(steps));
    }
    const double seconds = median(times);
    const double floor =
        (model.weight_bytes() + static_cast<double>(streams) * model.cache_bytes(position)) / rate;
    const char* name = schedule == DecodeSchedule::persistent ? "persistent" : "graph";
    fmt::print(
        "{:>3} sequences, {:<10} position {:>6}: {:>8.1f} us a step, floor {:>7.1f}, {:>8.0f} bytes/s\n",
        streams, name, position, seconds * 1e6, floor * 1e6, static_cast<double>(streams) / seconds);
    std::fflush(stdout);
    rows.push_back({{"streams", streams},
                    {"schedule", name},
                    {"position", position},
                    {"seconds_a_step", seconds},
                    {"floor_seconds", floor},
                    {"bytes_per_second", static_cast<double>(streams) / seconds}});
  }
  return rows;
}

nlohmann::json measure_whole(const Model& model, int64_t streams, double rate) {
  const auto decoder = model.decoder(streams, DecodeSchedule::fastest);
  seconds_of_bytes(*decoder, from_position(streams, 0, 64), 64);
  const int64_t context = model.config.context;
  const double seconds = seconds_of_bytes(*decoder, from_position(streams, 0, context), context);
  double bytes = model.weight_bytes() * static_cast<double>(context);
  for (int64_t position = 0; position < context; ++position)
    bytes += static_cast<double>(streams) * model.cache_bytes(position);
  const double total = static_cast<double>(streams * context);
  fmt::print("{:>3} sequences of {} bytes: {:.2f} s, floor {:.2f}, {:.0f} bytes/s\n", streams, context,
             seconds, bytes / rate, total / seconds);
  std::fflush(stdout);
  return {{"streams", streams},
          {"length", context},
          {"seconds", seconds},
          {"floor_seconds", bytes / rate},
          {"bytes_per_second", total / seconds}};
}

void run(const Request& request) {
  const ModelConfig config = model_of(request);
  check_result(config);
  const Model model(config);
  const double rate = gpu_copy_rate(kGpu);
  fmt::print("{}; copies at {:.0f} GB/s\n", backend(kGpu).describe(0), rate / 1e9);
  nlohmann::json out{{"gpu", backend(kGpu).describe(0)},
                     {"copy_bytes_per_second", rate},
                     {"pattern", config.pattern.text()}};
  for (const int64_t streams : request.whole) out["whole"].push_back(measure_whole(model, streams, rate));
  for (const int64_t streams : request.streams)
    for (const DecodeSchedule schedule : {DecodeSchedule::persistent, DecodeSchedule::graph}) {
      if (schedule == DecodeSchedule::persistent && streams > kMostPersistent) continue;
      for (auto& row : measure(model, streams, schedule, rate, request.steps)) out["steps"].push_back(row);
    }
  write_json(request.json, out);
}

}  // namespace
}  // namespace longstride

int main(int argc, char** argv) {
  using namespace longstride;
  Request request;
  const Options options{
      {"--config", [&](const std::string& value) { request.config = value; }},
      {"--set", [&](const std::string& value) { request.overrides.push_back(value); }},
      {"--streams", [&](const std::string& value) { request.streams = numbers(value); }},
      {"--whole", [&](const std::string& value) { request.whole = numbers(value); }},
      {"--steps", [&](const std::string& value) { request.steps = parse_integer(value, "--steps"); }},
      {"--json", [&](const std::string& value) { request.json = value; }}};
  return run_benchmark("bench_gpu_decode", argc, argv, options, [&] { run(request); });
}

// `longstride sample`: text as it comes, pictures as a grid, sound as WAV files.
#include <algorithm>
#include <cstdio>
#include <filesystem>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "longstride/base/atomic_file.h"
#include "longstride/base/check.h"
#include "longstride/base/text.h"
#include "longstride/data/encode.h"
#include "longstride/run/gpu_room.h"
#include "longstride/run/run_directory.h"
#include "longstride/sample/generate.h"

#include "cli/commands.h"
#include "cli/load_run.h"
#include "cli/prime.h"
#include "cli/status_line.h"
#include "cli/terminal_text.h"
#include "cli/use_instructions.h"

namespace longstride::cli {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kMostStreams = 16;

using Samples = std::vector<std::vector<uint8_t>>;

// Text on standard output: the first sample of those decoded side by side appears as it comes, the others
// when they are done. On a terminal it is made printable, elsewhere the bytes go out as they are.
class TextOutput {
 public:
  TextOutput(int64_t count, bool enabled)
      : count_(count), enabled_(enabled), terminal_(isatty(STDOUT_FILENO)) {}

  bool live() const { return enabled_ && terminal_; }

  void begin(int64_t sample) {
    if (live() && count_ > 1)
      fmt::print("{}---- sample {} of {} ----\n", sample > 0 ? "\n" : "", sample + 1, count_);
  }
  void byte(uint8_t value) {
    if (!enabled_) return;
    if (terminal_)
      show(text_.push(value));
    else
      put({reinterpret_cast<const char*>(&value), 1});
  }
  void end() {
    if (live()) show(text_.finish() + "\n");
    flush();
  }
  void flush() {
    if (enabled_ && std::fflush(stdout) != 0)
      fail("cannot write to standard output: {}", last_system_error());
  }

 private:
  void show(const std::string& text) {
    if (text.empty()) return;
    put(text);
    flush();
  }
  void put(std::string_view text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size())
      fail("cannot write to standard output: {}", last_system_error());
  }

  int64_t count_;
  bool enabled_, terminal_;
  TerminalText text_;
};

struct Request {
  RunConfig config;
  ImageShape shape;  // of pictures
  int64_t length = 0;
  std::vector<uint8_t> prime;
  std::string output;  // empty: standard output
  bool text() const { return config.data.kind == "text"; }
};

// "a.wav" as "a-3.wav", if there are several.
std::string numbered(const std::string& path, int64_t index, int64_t count) {
  if (count == 1) return path;
  const fs::path whole(path);
  return (whole.parent_path() /
          fmt::format("{}-{}{}", whole.stem().string(), index + 1, whole.extension().string()))
      .string();
}

void check_output(const Request& request) {
  const std::string kind = request.config.data.kind,
                    extension = fs::path(request.output).extension().string();
  if (kind == "image" && extension != ".png")
    throw UsageError(fmt::format("--output {}: pictures are written as .png", request.output));
  if (kind == "audio" && extension != ".wav")
    throw UsageError(fmt::format("--output {}: sound is written as .wav", request.output));
  // A missing folder should not come to light after minutes of sampling.
  const fs::path folder = fs::path(request.output).parent_path();
  std::error_code ignored;
  LONGSTRIDE_CHECK(folder.empty() || fs::is_directory(folder, ignored), "--output {}: there is no folder {}",
                   request.output, folder.string());
}

Request prepare(const SampleOptions& options) {
  Request request;
  request.config = load_run_config(options.run, options.overrides);
  use_instructions(request.config.compute);
  const std::string& kind = request.config.data.kind;
  const int64_t context = request.config.model.context;
  request.length = options.length > 0 ? options.length : context;
  LONGSTRIDE_CHECK(request.length <= context,
                   "--length {}: the model's context is the limit for now, so at most {} bytes are possible",
                   options.length, context);
  LONGSTRIDE_CHECK(options.count >= 1, "--count {}: must be at least 1", options.count);
  request.output = options.output;
  if (kind == "image") {
    request.shape = picture_shape(request.config);
    LONGSTRIDE_CHECK(request.length == context, "--length {}: a picture always has {} bytes", options.length,
                     context);
    if (request.output.empty()) request.output = "sample.png";
  }
  if (kind == "audio" && request.output.empty()) request.output = "sample.wav";
  if (!request.output.empty()) check_output(request);
  request.prime = load_prime(options, request.config, request.length, request.shape);
  return request;
}

Samples generate_all(const LoadedModel& loaded, const Request& request, const SampleOptions& options,
                     TextOutput& text, StatusLine& status) {
  const ModelConfig& model = request.config.model;
  const Device device = loaded.device();
  // A beginning that is read in parallel needs room as well.
  const int64_t memory = device.kind == DeviceKind::cpu
                             ? static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE) / 4
                             : gpu_room(device) / 2;
  const int64_t fit = streams_that_fit(model, loaded.device(), loaded.product(),
                                       std::min(options.count, kMostStreams), memory);
  GenerateConfig config;
  config.length = request.length;
  config.sampler = {options.temperature, options.top_k, options.top_p, static_cast<uint64_t>(options.seed)};
  const int64_t given = std::min<int64_t>(request.prime.size(), request.length);
  const int64_t total = options.count * (request.length - given);

  Samples samples;
  int64_t generated = 0;
  for (int64_t first = 0; first < options.count; first += fit) {
    const int64_t streams = std::min(fit, options.count - first);
    check_gpu_room(device, Decoder::bytes(model, device, loaded.product(), streams), "sampling",
                   "use --device cpu");
    Decoder decoder(model, loaded.parameters(), loaded.device(), streams, loaded.quantized());
    config.first_stream = static_cast<uint32_t>(first);
    text.begin(first);
    Samples some =
        generate(decoder, request.prime, config, [&](int64_t stream, int64_t position, uint8_t byte) {
          if (stream == 0) text.byte(byte);
          if (position >= given) status.update(++generated, total);
          return true;
        });
    text.end();
    for (int64_t s = 1; s < streams; ++s) {
      text.begin(first + s);
      for (const uint8_t byte : some[s]) text.byte(byte);
      text.end();
    }
    std::move(some.begin(), some.end(), std::back_inserter(samples));
  }
  return samples;
}

// Returns the files written.
std::vector<std::string> write_samples(const Samples& samples, const Request& request) {
  if (request.output.empty()) return {};
  const int64_t count = static_cast<int64_t>(samples.size());
  std::vector<std::string> files;
  if (request.config.data.kind == "image") {
    write_png_grid(request.output, samples, request.shape.height, request.shape.width,
                   request.shape.channels);
    return {request.output};
  }
  for (int64_t i = 0; i < count; ++i) {
    files.push_back(numbered(request.output, i, count));
    if (request.text())
      write_file_atomically(files.back(),
                            [&](ByteSink& sink) { sink.write(samples[i].data(), samples[i].size()); });
    else
      write_wav(files.back(), samples[i], request.config.data.sample_rate);
  }
  return files;
}

}  // namespace

int run_sample(const SampleOptions& options) {
  SamplerConfig{options.temperature, options.top_k, options.top_p, 0}.check();
  const Request request = prepare(options);
  const LoadedModel loaded(options.run, request.config.compute,
                           {.step = options.step, .int8 = options.weights == "int8"});

  note_slow_cpu(loaded.device());
  TextOutput text(options.count, request.text() && request.output.empty() && !options.json);
  StatusLine status("sampling", text.live());
  const Samples samples = generate_all(loaded, request, options, text, status);
  const double seconds = status.seconds();
  status.clear();
  const std::vector<std::string> files = write_samples(samples, request);

  const int64_t given = std::min<int64_t>(request.prime.size(), request.length);
  const int64_t generated = options.count * (request.length - given);
  const double rate = static_cast<double>(generated) / seconds;
  if (options.json) {
    nlohmann::json out{{"run", options.run},
                       {"step", loaded.step()},
                       {"kind", request.config.data.kind},
                       {"weights", options.weights},
                       {"count", options.count},
                       {"length", request.length},
                       {"prime_bytes", given},
                       {"generated_bytes", generated},
                       {"seconds", seconds},
                       {"bytes_per_second", rate},
                       {"files", files}};
    if (request.text() && files.empty())
      for (const auto& sample : samples) out["samples"].push_back(printable(sample));
    fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
    return 0;
  }
  if (files.size() == 1) fmt::print(stderr, "wrote {}\n", files[0]);
  if (files.size() > 1) fmt::print(stderr, "wrote {} to {}\n", files.front(), files.back());
  fmt::print(stderr, "{} bytes in {:.1f} s, {} tokens a second\n", generated, seconds, human_count(rate));
  return 0;
}

}  // namespace longstride::cli

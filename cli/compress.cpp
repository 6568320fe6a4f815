// `longstride compress` and `longstride decompress`: a file in the bits that a run's model predicts, and
// back.
#include <algorithm>
#include <filesystem>
#include <memory>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "longstride/base/check.h"
#include "longstride/base/interrupt.h"
#include "longstride/base/output_file.h"
#include "longstride/base/say.h"
#include "longstride/base/text.h"
#include "longstride/compress/container.h"
#include "longstride/compress/material.h"
#include "longstride/compress/window_coder.h"
#include "longstride/data/modalities/modality.h"
#include "longstride/run/describe_device.h"
#include "longstride/run/gpu_room.h"
#include "longstride/run/run_directory.h"
#include "longstride/run/saved_settings.h"
#include "longstride/sample/generate.h"

#include "cli/commands.h"
#include "cli/load_run.h"
#include "cli/memory_note.h"
#include "cli/output_file.h"
#include "cli/standard_streams.h"
#include "cli/status_line.h"
#include "cli/use_instructions.h"

namespace longstride::cli {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kSuffix = ".lsc";
constexpr int64_t kMostOnGpu = 64, kMostOnCpu = 16;  // windows side by side
constexpr int64_t kFrameBytes = int64_t{1} << 20;    // at least, so that frames cost next to nothing

// ---- the file to write ----

// What is no regular file is nothing that could be lost.
OutputOptions check_output(const std::string& output, const std::string& input, bool force) {
  std::error_code ignored;
  const bool direct = is_direct_output(output);
  LONGSTRIDE_CHECK(direct || !fs::equivalent(output, input, ignored), "--output {}: that is the file to read",
                   output);
  prepare_output(output, "--output");
  LONGSTRIDE_CHECK(direct || force || !fs::exists(output, ignored),
                   "{} is there already; choose another --output, or replace it with --force", output);
  return {.replace = force};
}

// The name without .lsc, and with the extension of the original if it has none.
std::string name_of_original(const std::string& file, const std::string& extension) {
  if (!file.ends_with(kSuffix) || fs::path(file).stem().empty())
    throw UsageError(
        fmt::format("{}: its name does not end with {}; say with --output what to write", file, kSuffix));
  const std::string name = file.substr(0, file.size() - kSuffix.size());
  return fs::path(name).has_extension() ? name : name + extension;
}

// ---- the decoder ----

// Windows side by side: few rounds, none of them with much fewer than the others.
int64_t choose_streams(const LoadedModel& loaded, DecoderOptions options, int64_t size) {
  const ModelConfig& model = loaded.config().model;
  const bool cpu = loaded.device().kind == DeviceKind::cpu;
  const int64_t most = cpu ? kMostOnCpu : kMostOnGpu;
  const int64_t room = cpu ? cpu_cache_room() : gpu_room(loaded.device());
  const int64_t windows = std::max<int64_t>(1, (size + model.context - 1) / model.context);
  const auto balanced = [&](int64_t limit) {
    const int64_t rounds = (windows + limit - 1) / limit;
    return (windows + rounds - 1) / rounds;
  };
  options.streams = balanced(most);
  return balanced(streams_that_fit(model, loaded.device(), loaded.product(), options, room));
}

DecoderOptions decoder_options(const LoadedModel& loaded, int64_t size) {
  DecoderOptions options;
  options.positions = std::clamp<int64_t>(size, 1, loaded.config().model.context);
  return options;
}

std::unique_ptr<Decoder> make_decoder(const LoadedModel& loaded, const DecoderOptions& options,
                                      std::string_view what) {
  const ModelConfig& model = loaded.config().model;
  const int64_t needed = Decoder::bytes(model, loaded.device(), loaded.product(), options);
  check_gpu_room(loaded.device(), needed, what, "free some of the GPU's memory");
  note_little_memory(check_cpu_room(loaded.device(), needed, what, "free some memory"));
  note_slow_cpu(loaded.device());
  return std::make_unique<Decoder>(model, loaded.parameters(), loaded.device(), options, loaded.quantized());
}

// ---- one after the other ----

struct Interrupted {};

// Bytes done, on the terminal; an interruption is noticed here, so that no temporary file stays behind.
class Progress {
 public:
  Progress(const std::string& action, int64_t total) : status_(action), total_(total) {}
  void add(int64_t bytes) {
    if (InterruptGuard::requested()) throw Interrupted{};
    status_.update(done_ += bytes, total_);
  }
  double seconds() const { return status_.seconds(); }
  void clear() { status_.clear(); }

 private:
  StatusLine status_;
  int64_t total_, done_ = 0;
};

// Runs `work`; an interruption is no error.
template <class Work>
int unless_interrupted(const std::string& output, Work&& work) {
  const InterruptGuard guard;
  try {
    work();
    return 0;
  } catch (const Interrupted&) {
    say("stopped; {}", is_direct_output(output) ? "what was written is not whole" : "nothing was written");
    return 128 + InterruptGuard::signal_number();
  }
}

struct Totals {
  int64_t file = 0, coded = 0;       // bytes of the original, and those of them that the model coded
  int64_t code = 0, compressed = 0;  // bytes of code, and of the whole compressed file
  double bits = 0;                   // sum of -log2 p
  double seconds = 0;
  double per_byte(double bits_in_all) const {
    return coded > 0 ? bits_in_all / static_cast<double>(coded) : 0;
  }
  double ratio() const { return static_cast<double>(file) / static_cast<double>(compressed); }
  double rate() const { return static_cast<double>(coded) / std::max(seconds, 1e-9); }
};

nlohmann::json as_json(const Totals& totals, const CompressedHeader& header, const std::string& output) {
  return {{"output", output},
          {"kind", header.kind},
          {"model", header.model},
          {"step", header.step},
          {"weights", header.weights},
          {"precision", header.precision},
          {"windows", header.streams},
          {"bytes", totals.file},
          {"coded_bytes", totals.coded},
          {"compressed_bytes", totals.compressed},
          {"code_bytes", totals.code},
          {"ratio", totals.ratio()},
          {"bits_per_byte", totals.per_byte(8.0 * static_cast<double>(totals.compressed))},
          {"seconds", totals.seconds},
          {"bytes_per_second", totals.rate()}};
}

void report(const Totals& totals, const CompressedHeader& header, const CompressOptions& options,
            const std::string& output) {
  if (options.json) {
    nlohmann::json out = as_json(totals, header, output);
    out["run"] = options.run;
    out["model_bits_per_byte"] = totals.per_byte(totals.bits);
    return print_json(out);
  }
  print_result("{}: {} bytes to {}, {:.2f} to 1\n", output, totals.file, totals.compressed, totals.ratio());
  print_result("bits per byte  {:.4f}; the model predicts {:.4f}, its code has {:.4f}\n",
               totals.per_byte(8.0 * static_cast<double>(totals.compressed)), totals.per_byte(totals.bits),
               totals.per_byte(8.0 * static_cast<double>(totals.code)));
  print_result("time           {:.1f} s, {} bytes a second\n", totals.seconds, human_count(totals.rate()));
}

// ---- decompress ----

std::string beginning_of(const std::string& digest) { return digest.substr(0, 8); }

LoadedModel load_model_of(const DecompressOptions& options, const CompressedHeader& header,
                          const ComputeConfig& compute) {
  const auto load = [&]() -> LoadedModel {
    try {
      return LoadedModel(options.run, compute,
                         {.step = header.step, .int8 = header.weights == "int8", .digest = header.model});
    } catch (const Error& error) {
      fail("{} ({} was compressed with step {} of its run)", error.what(), options.file, header.step);
    }
  };
  LoadedModel loaded = load();
  LONGSTRIDE_CHECK(
      header.model == loaded.digest(),
      "{} was compressed with another model, {} (step {}); {} has {} at that step; nothing was written",
      options.file, beginning_of(header.model), header.step, options.run, beginning_of(loaded.digest()));
  LONGSTRIDE_CHECK(name_of(loaded.product()) == header.precision,
                   "{} was compressed with products in {}, not {}; leave compute.precision as it was",
                   options.file, header.precision, name_of(loaded.product()));
  LONGSTRIDE_CHECK(header.context == loaded.config().model.context &&
                       (!find_modality(header.kind)->records || header.bytes == header.context),
                   "{} is damaged: its windows have {} bytes, the model's {}", options.file, header.context,
                   loaded.config().model.context);
  return loaded;
}

[[noreturn]] void refuse_device(const std::string& file, const CompressedHeader& header,
                                const std::string& device) {
  if (header.device == device)
    fail(
        "{}: this device does not reproduce the probabilities it was compressed with, though that was on the "
        "like, {}: another version of longstride or of its libraries, or other settings; nothing was written",
        file, device);
  fail(
      "{}: this device does not reproduce the probabilities it was compressed with: that was on {}, this is "
      "{}; decompress it there, or try --device or --set compute.instructions=...; nothing was written",
      file, header.device, device);
}

// The probabilities of the probe were right, and yet a frame comes out otherwise.
[[noreturn]] void refuse_frame(const std::string& file, const CompressedHeader& header,
                               const std::string& device) {
  if (header.device != device) refuse_device(file, header, device);
  fail(
      "{} is damaged: its code does not decode to the bytes that were compressed, on the same device, {}; "
      "compress the original again",
      file, device);
}

}  // namespace

int run_compress(const CompressOptions& options) {
  const RunConfig config = load_run_config(options.run, options.overrides);
  use_instructions(config.compute);
  const CompressMaterial material(config, options.file);
  const std::string output = options.output.empty() ? options.file + std::string(kSuffix) : options.output;
  OutputOptions writing = check_output(output, options.file, options.force);
  writing.mode = material.file_mode();
  const LoadedModel loaded(options.run, config.compute,
                           {.step = options.step, .int8 = options.weights == "int8"});

  const int64_t size = material.size();
  DecoderOptions decoding = decoder_options(loaded, size);
  decoding.streams = choose_streams(loaded, decoding, size);
  const std::unique_ptr<Decoder> decoder = make_decoder(loaded, decoding, "compression");
  WindowCoder coder(*decoder);

  CompressedHeader header;
  material.describe(header);
  header.model = loaded.digest();
  header.step = loaded.step();
  header.weights = options.weights;
  header.precision = name_of(loaded.product());
  header.device = describe_device(loaded.device());
  header.settings = settings_of_bits(options.overrides);
  header.probe = coder.probe();
  header.context = config.model.context;
  header.streams = decoding.streams;
  const int64_t round = header.streams * header.context;
  header.frame_bytes = (kFrameBytes + round - 1) / round * round;

  return unless_interrupted(output, [&] {
    Totals totals{.file = material.file_bytes(), .coded = size};
    Progress progress("compressing", size);
    const auto write = [&](ByteSink& sink) {
      CompressedWriter writer(sink, header);
      for (int64_t at = 0; at < size; at += header.frame_bytes) {
        const std::vector<uint8_t> frame = material.read(at, std::min(header.frame_bytes, size - at));
        const Code code = coder.encode(frame, [&](int64_t more) { progress.add(more); });
        writer.add(frame, code.bytes);
        totals.code += std::ssize(code.bytes);
        totals.bits += code.bits;
      }
      material.check_unchanged();
      keep_weights_for(output, loaded, options.run);
      totals.compressed = writer.finish();
    };
    write_output(output, write, writing);
    totals.seconds = progress.seconds();
    progress.clear();
    report(totals, header, options, output);
  });
}

int run_decompress(const DecompressOptions& options) {
  const CompressedFile file(options.file);
  const CompressedHeader& header = file.header();
  const std::string output =
      options.output.empty() ? name_of_original(options.file, header.extension) : options.output;
  OutputOptions writing = check_output(output, options.file, options.force);
  writing.mode = file.mode();

  const RunConfig config =
      load_run_config(options.run, overrides_after(header.precision, header.settings, options.overrides));
  use_instructions(config.compute);
  const LoadedModel loaded = load_model_of(options, header, config.compute);

  DecoderOptions decoding = decoder_options(loaded, header.bytes);
  decoding.streams = header.streams;
  const std::unique_ptr<Decoder> decoder = make_decoder(loaded, decoding, "decompression");
  WindowCoder coder(*decoder);
  const std::string device = describe_device(loaded.device());
  if (coder.probe() != header.probe) refuse_device(options.file, header, device);

  return unless_interrupted(output, [&] {
    Totals totals{.coded = header.bytes, .compressed = file.bytes()};
    Progress progress("decompressing", header.bytes);
    const auto decode = [&](const CompressedFrame& frame, std::span<uint8_t> bytes) {
      coder.decode(frame.code, bytes, [&](int64_t more) { progress.add(more); });
      if (frame_checksum(bytes) != frame.checksum) refuse_frame(options.file, header, device);
      totals.code += std::ssize(frame.code);
    };
    write_output(
        output, [&](ByteSink& sink) { totals.file = write_original(sink, file, decode); }, writing);
    totals.seconds = progress.seconds();
    progress.clear();
    if (options.json) {
      nlohmann::json out = as_json(totals, header, output);
      out["run"] = options.run;
      return print_json(out);
    }
    print_result("{}: {} bytes in {:.1f} s, {} bytes a second\n", output, totals.file, totals.seconds,
                 human_count(totals.rate()));
  });
}

}  // namespace longstride::cli

// `longstride compress` and `longstride decompress`: a file in the bits that a run's model predicts, and
// back.
#include <algorithm>
#include <filesystem>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "longstride/base/check.h"
#include "longstride/base/interrupt.h"
#include "longstride/base/output_file.h"
#include "longstride/base/say.h"
#include "longstride/base/text.h"
#include "longstride/compress/codec.h"
#include "longstride/compress/container.h"
#include "longstride/compress/material.h"
#include "longstride/run/gpu_room.h"
#include "longstride/run/run_directory.h"
#include "longstride/run/saved_settings.h"

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

// ---- the coder ----

void make_coder(Codec& codec, const LoadedModel& loaded, std::string_view what) {
  const int64_t needed = codec.bytes();
  check_gpu_room(loaded.device(), needed, what, "free some of the GPU's memory");
  note_little_memory(check_cpu_room(loaded.device(), needed, what, "free some memory"));
  note_slow_cpu(loaded.device());
  codec.make_coder();
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
  Codec codec(loaded, size);
  make_coder(codec, loaded, "compression");
  CompressedHeader header;
  material.describe(header);
  header.settings = settings_of_bits(options.overrides);
  codec.describe(header, options.weights);

  return unless_interrupted(output, [&] {
    Totals totals{.file = material.file_bytes(), .coded = size};
    Progress progress("compressing", size);
    const auto write = [&](ByteSink& sink) {
      CompressedWriter writer(sink, header);
      const Codec::Sums sums = codec.encode(
          header, [&](int64_t begin, int64_t count) { return material.read(begin, count); }, writer,
          [&](int64_t more) { progress.add(more); });
      totals.code = sums.code;
      totals.bits = sums.bits;
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
  const CodedNames names{.file = options.file, .run = options.run};
  const LoadedModel loaded = load_model_of(header, names, config.compute);
  Codec codec(loaded, header, names);
  make_coder(codec, loaded, "decompression");

  return unless_interrupted(output, [&] {
    Totals totals{.coded = header.bytes, .compressed = file.bytes()};
    Progress progress("decompressing", header.bytes);
    const auto decode = [&](const CompressedFrame& frame, std::span<uint8_t> bytes) {
      codec.decode(frame, bytes, [&](int64_t more) { progress.add(more); });
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

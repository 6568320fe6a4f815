// `longstride compress` and `longstride decompress`: a file in the bits that a run's model predicts, and
// back.
#include <algorithm>
#include <filesystem>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "longstride/base/check.h"
#include "longstride/base/interrupt.h"
#include "longstride/base/output_file.h"
#include "longstride/base/say.h"
#include "longstride/base/text.h"
#include "longstride/base/toml.h"
#include "longstride/compress/codec.h"
#include "longstride/compress/container.h"
#include "longstride/compress/material.h"
#include "longstride/data/modalities/modality.h"
#include "longstride/run/gpu_room.h"
#include "longstride/run/run_directory.h"
#include "longstride/run/saved_settings.h"

#include "cli/commands.h"
#include "cli/file_argument.h"
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
OutputOptions check_file(const std::string& output, const std::string& input, const std::string& run,
                         bool force) {
  std::error_code ignored;
  const bool direct = is_direct_output(output);
  spare_what_is_read(output, "--output", {input, run});
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
  // What was compressed may have ended so itself.
  return fs::path(name).has_extension() || extension == kSuffix ? name : name + extension;
}

// ---- the coder ----

void make_coder(Codec& codec, const LoadedModel& loaded, std::string_view what) {
  const int64_t needed = codec.bytes();
  check_gpu_room(loaded.device(), needed, what, "free some of the GPU's memory");
  note_little_memory(check_cpu_room(loaded.device(), needed, what, "free some memory"));
  note_slow_cpu(loaded.device());
  codec.make_coder();
}

// What a file from anybody may make the decoder take.
void check_embedded_room(const Codec& codec, const CompressedHeader& header, std::string_view advice) {
  const int64_t room = embedded_decoder_room(header);
  LONGSTRIDE_CHECK(
      codec.bytes() <= room,
      "decoding with the model in the file would take {}, more than the {} that its size explains; {}",
      human_bytes(static_cast<double>(codec.bytes())), human_bytes(static_cast<double>(room)), advice);
}

// What portable files are computed with, before what the command line says.
std::vector<std::string> portable_overrides(std::vector<std::string> overrides) {
  const auto begin = overrides.begin();
  overrides.insert(begin, {"compute.device=cpu", "compute.precision=f32"});
  return overrides;
}

// The file is read more than once, and its name is needed.
void refuse_standard_input(const std::string& file) {
  if (file == "-") throw UsageError("-: standard input cannot be read here; put it into a file");
}

// The run's compute section, or without a run the defaults, with `overrides`.
ComputeConfig compute_of(const std::string& run, const std::vector<std::string>& overrides) {
  if (!run.empty()) return load_run_config(run, overrides).compute;
  ComputeConfig compute;
  FieldList fields;
  fields.section("compute");
  compute.fields(fields);
  for (const std::string& assignment : overrides) {
    if (!assignment.starts_with("compute."))
      throw UsageError(fmt::format("--set {}: only fields of compute can be set here", assignment));
    apply_override(assignment, fields);
  }
  return compute;
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

int64_t embedded_bytes(const CompressedHeader& header) {
  return std::ssize(header.model_config) + std::ssize(header.model_weights);
}

nlohmann::json as_json(const Totals& totals, const CompressedHeader& header, const std::string& output) {
  return {{"output", output},
          {"model_bytes", embedded_bytes(header)},
          {"kind", header.kind},
          {"model", header.model},
          {"step", header.step},
          {"weights", header.weights},
          {"portable", header.portable > 0},
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
  if (const int64_t model = embedded_bytes(header); model > 0)
    print_result("model          {} of the {} bytes; {} without it\n", model, totals.compressed,
                 totals.compressed - model);
  print_result("bits per byte  {:.4f}; the model predicts {:.4f}, its code has {:.4f}\n",
               totals.per_byte(8.0 * static_cast<double>(totals.compressed)), totals.per_byte(totals.bits),
               totals.per_byte(8.0 * static_cast<double>(totals.code)));
  print_result("time           {:.1f} s, {} bytes a second\n", totals.seconds, human_count(totals.rate()));
}

}  // namespace

int run_compress(const CompressOptions& options) {
  if (options.portable && options.weights != "auto")
    throw UsageError("--portable: its weights have eight bits already; leave out --weights");
  const RunConfig config = load_run_config(
      options.run, options.portable ? portable_overrides(options.overrides) : options.overrides);
  use_instructions(config.compute);
  refuse_standard_input(options.file);
  const CompressMaterial material(config, options.file);
  const std::string output = options.output.empty() ? options.file + std::string(kSuffix) : options.output;
  OutputOptions writing = check_file(output, options.file, options.run, options.force);
  writing.mode = material.file_mode();
  const LoadedModel loaded(options.run, config.compute,
                           {.step = options.step, .int8 = options.weights == "int8"});

  const int64_t size = material.size();
  CompressedHeader header;
  material.describe(header);
  std::optional<SafetensorsFile> weights;
  if (options.with_model) {
    weights.emplace(loaded.file());
    LONGSTRIDE_CHECK(weights_digest(loaded.config().model, *weights) == loaded.digest(),
                     "{} changed while it was read; compress again", loaded.file());
    embed_model(header, loaded, *weights);
  }
  CodingOptions coding{.portable = options.portable};
  if (options.with_model) coding.most_bytes = embedded_decoder_room(header);
  Codec codec(loaded, size, coding);
  if (options.with_model) check_embedded_room(codec, header, "compress it without --with-model");
  make_coder(codec, loaded, "compression");
  if (!options.portable) header.settings = settings_of_bits(options.overrides);
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
      if (!options.with_model) keep_weights_for(output, loaded, options.run);
      totals.compressed = writer.finish();
    };
    write_output(output, write, writing);
    totals.seconds = progress.seconds();
    progress.clear();
    report(totals, header, options, output);
  });
}

int run_decompress(const DecompressOptions& options) {
  const bool embedded = options.run.empty();
  if (embedded && is_run_directory(options.file))
    throw UsageError(
        fmt::format("decompress {}: that is a run; name the file to decompress after it", options.file));
  refuse_standard_input(options.file);
  const CompressedFile file(options.file);
  const CompressedHeader& header = file.header();
  if (embedded && header.model_config.empty())
    throw UsageError(
        fmt::format("{} holds no model; name the run that compressed it: longstride decompress RUN {}",
                    options.file, file_argument(options.file)));
  const std::string output =
      options.output.empty() ? name_of_original(options.file, header.extension) : options.output;
  const std::string_view wanted = find_modality(header.kind)->extension;
  if (const fs::path named = fs::path(output).extension();
      !wanted.empty() && !named.empty() && !is_direct_output(output) && named != wanted)
    throw UsageError(fmt::format("--output {}: what was compressed is written as {}", output, wanted));
  OutputOptions writing = check_file(output, options.file, options.run, options.force);
  writing.mode = file.mode();

  const ComputeConfig compute =
      compute_of(options.run, header.portable > 0
                                  ? portable_overrides(options.overrides)
                                  : overrides_after(header.precision, header.settings, options.overrides));
  use_instructions(compute);
  const CodedNames names{.file = options.file, .run = embedded ? "the model in it" : options.run};
  const LoadedModel loaded =
      embedded ? load_embedded_model(header, options.file, compute) : load_model_of(header, names, compute);
  Codec codec(loaded, header, names);
  if (embedded) check_embedded_room(codec, header, "it is not what longstride compress writes");
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
      if (!embedded) out["run"] = options.run;
      return print_json(out);
    }
    print_result("{}: {} bytes in {:.1f} s, {} bytes a second\n", output, totals.file, totals.seconds,
                 human_count(totals.rate()));
  });
}

}  // namespace longstride::cli

#include "cli/report_samples.h"

#include <algorithm>
#include <filesystem>
#include <span>
#include <vector>

#include <fmt/format.h>

#include "longstride/base/atomic_file.h"
#include "longstride/base/check.h"
#include "longstride/base/interrupt.h"
#include "longstride/base/printable.h"
#include "longstride/base/say.h"
#include "longstride/checkpoint/checkpoint.h"
#include "longstride/data/modalities/modality.h"
#include "longstride/decode/decoder.h"
#include "longstride/sample/generate.h"
#include "longstride/sample/job.h"

#include "cli/load_run.h"
#include "cli/use_instructions.h"

namespace longstride::cli {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kTextBytes = 400;

std::vector<Sequence> draw(SampleJob& job, const std::string& run, int64_t step, int64_t count) {
  const int64_t context = job.config.model.context;
  Session& session = job.session;
  session.step = step;
  session.kind = job.config.data.kind;
  session.length = job.modality().as_is ? std::min(context, kTextBytes) : context;
  session.hop = 0.5;
  prepare(job);
  add_sequences(job, count, {});
  const LoadedModel loaded = load_model(job, run);
  const SampleDecoder plan = plan_decoder(loaded, session, job.windows);
  Decoder decoder(job.config.model, loaded.parameters(), loaded.device(), plan.options);
  Generator generator(decoder, session.sequences, job.windows);
  while (!generator.done() && !InterruptGuard::requested()) generator.advance(1);
  return generator.done() ? generator.sequences() : std::vector<Sequence>{};
}

void keep(const SampleJob& job, const std::vector<Sequence>& sequences, const std::string& path) {
  std::vector<std::span<const uint8_t>> samples;
  for (const Sequence& sequence : sequences) samples.emplace_back(sequence.bytes);
  if (!job.modality().as_is) {
    if (!job.modality().records) samples.resize(1);
    return job.modality().write(path, samples, job.config.data, job.shape);
  }
  write_file_atomically(path, [&](ByteSink& sink) {
    for (size_t i = 0; i < samples.size(); ++i) sink.write((i > 0 ? "\n\n" : "") + printable(samples[i]));
  });
}

}  // namespace

void draw_samples(const std::string& run, int64_t count) {
  try {
    const RunConfig config = load_run_config(run, {});
    const std::string_view kept = modality_of(config.data).extension;
    const std::string extension = kept.empty() ? ".txt" : std::string(kept);
    remove_stale_temporaries((fs::path(run) / "samples").string());
    for (const CheckpointInfo& checkpoint : list_checkpoints(run)) {
      const fs::path path =
          fs::path(run) / "samples" / fmt::format("step-{:08}{}", checkpoint.step, extension);
      std::error_code ignored;
      if (fs::exists(path, ignored) || InterruptGuard::requested()) continue;
      SampleJob job;
      job.config = config;
      use_instructions(config.compute);
      const std::vector<Sequence> sequences = draw(job, run, checkpoint.step, count);
      if (sequences.empty()) return;
      make_directories(path.parent_path().string());
      keep(job, sequences, path.string());
    }
  } catch (const Error& error) {
    say("note       no samples of {}: {}", run, error.what());
  }
}

}  // namespace longstride::cli

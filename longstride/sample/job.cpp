#include "longstride/sample/job.h"

#include <algorithm>

#include "longstride/base/check.h"
#include "longstride/run/cpu_room.h"
#include "longstride/run/describe_device.h"
#include "longstride/run/gpu_room.h"
#include "longstride/run/run_data.h"

namespace longstride {

namespace {

constexpr int64_t kMostOnGpu = 64, kMostOnCpu = 16;  // sequences side by side, by default

std::string beginning_of(const std::string& digest) { return digest.substr(0, 8); }

LoadedModel load(const SampleJob& job, const std::string& run, const std::string& digest) {
  const Session& session = job.session;
  return LoadedModel(run, job.config.compute,
                     {.step = session.step, .int8 = session.weights == "int8", .digest = digest});
}

}  // namespace

void prepare(SampleJob& job) {
  job.windows = windows_of(job.config.model, job.session.hop);
  if (job.modality().records) job.shape = picture_shape(job.config);
  const std::vector<Sequence>& sequences = job.session.sequences;
  int64_t total = 0;
  for (const Sequence& sequence : sequences)
    LONGSTRIDE_CHECK(!__builtin_add_overflow(total, sequence.length, &total),
                     "{} samples of {} bytes are more than can be counted", sequences.size(),
                     sequence.length);
  const int64_t context = job.config.model.context;
  for (const Sequence& sequence : sequences)
    LONGSTRIDE_CHECK(!job.modality().records || sequence.length == context,
                     "a picture of {} bytes; those of the model have {}", sequence.length, context);
}

void add_sequences(SampleJob& job, int64_t count, const std::vector<uint8_t>& prime) {
  Session& session = job.session;
  int64_t total = 0;
  LONGSTRIDE_CHECK(!__builtin_mul_overflow(count, session.length, &total),
                   "{} samples of {} bytes are more than can be counted", count, session.length);
  for (int64_t i = 0; i < count; ++i)
    session.sequences.push_back(
        sequence_after(prime, session.length, session.sampler, static_cast<uint32_t>(i)));
}

LoadedModel load_model(const SampleJob& job, const std::string& run) { return load(job, run, ""); }

LoadedModel load_model_again(const SampleJob& job, const std::string& run, const std::string& state) {
  try {
    return load(job, run, job.session.model);
  } catch (const Error& error) {
    fail("{} (the state {} was saved with step {} of {})", error.what(), state, job.session.step,
         job.session.run);
  }
}

std::string difference_of_model(const Session& session, const LoadedModel& loaded, const std::string& run) {
  if (session.model == loaded.digest()) return "";
  return fmt::format(
      "it was saved with another model, {} (step {} of {}); {} has {} at that step; a state goes on with its "
      "own model only",
      beginning_of(session.model), session.step, session.run, run, beginning_of(loaded.digest()));
}

void note_model(Session& session, const LoadedModel& loaded, const std::string& run) {
  session.model = loaded.digest();
  session.run = run;
  session.step = loaded.step();
  session.precision = name_of(loaded.product());
  session.device = describe_device(loaded.device());
}

SampleDecoder plan_decoder(const LoadedModel& loaded, const Session& session, const Windows& windows,
                           int64_t streams) {
  const ModelConfig& model = loaded.config().model;
  const Device device = loaded.device();
  const bool cpu = device.kind == DeviceKind::cpu;
  int64_t longest = 1, unfinished = 0;
  for (const Sequence& sequence : session.sequences) {
    longest = std::max(longest, sequence.length);
    unfinished += sequence.finished() ? 0 : 1;
  }
  SampleDecoder plan;
  plan.options.positions = std::min(model.context, longest);
  plan.options.exact_scores = session.exact_scores;
  const int64_t most = streams > 0 ? streams : cpu ? kMostOnCpu : kMostOnGpu;
  plan.options.streams = std::clamp<int64_t>(unfinished, 1, cpu ? most : std::min(most, kMostGpuSequences));

  const int64_t prefill = longest_prefill(session.sequences, windows);
  const int64_t prefill_bytes =
      prefill > 0 ? Decoder::prefill_bytes(model, device, loaded.product(), prefill) : 0;
  const int64_t memory = cpu ? cpu_cache_room() : gpu_room(device);
  plan.options.streams =
      streams_that_fit(model, device, loaded.product(), plan.options, memory - prefill_bytes);
  plan.bytes = Decoder::bytes(model, device, loaded.product(), plan.options) + prefill_bytes;
  return plan;
}

}  // namespace longstride

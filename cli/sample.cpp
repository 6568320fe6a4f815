// `longstride sample`: text, pictures and sound from a run's model, in sessions that can be interrupted.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <filesystem>
#include <memory>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "longstride/base/check.h"
#include "longstride/base/interrupt.h"
#include "longstride/base/printable.h"
#include "longstride/base/say.h"
#include "longstride/base/text.h"
#include "longstride/run/gpu_room.h"

#include "cli/commands.h"
#include "cli/load_run.h"
#include "cli/memory_note.h"
#include "cli/sample_job.h"
#include "cli/sample_output.h"
#include "cli/standard_streams.h"
#include "cli/status_line.h"
#include "cli/use_instructions.h"

namespace longstride::cli {

namespace {

constexpr int64_t kMostOnGpu = 64, kMostOnCpu = 16;  // samples side by side unless --streams says more
constexpr int64_t kGpuSteps = 64;                    // that a GPU takes at a time
constexpr double kWatchedSeconds = 0.05;             // the longest that a reader waits for the next bytes

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// The decoder that the job needs and the device has room for.
std::unique_ptr<Decoder> make_decoder(const SampleOptions& options, const SampleJob& job,
                                      const LoadedModel& loaded) {
  const std::vector<Sequence>& sequences = job.session.sequences;
  const ModelConfig& model = job.config.model;
  const Device device = loaded.device();
  const bool cpu = device.kind == DeviceKind::cpu;
  int64_t longest = 1, unfinished = 0;
  for (const Sequence& sequence : sequences) {
    longest = std::max(longest, sequence.length);
    unfinished += sequence.finished() ? 0 : 1;
  }
  DecoderOptions decoder;
  decoder.positions = std::min(model.context, longest);
  decoder.exact_scores = job.session.exact_scores;
  const int64_t most = options.streams > 0 ? options.streams : cpu ? kMostOnCpu : kMostOnGpu;
  decoder.streams = std::clamp<int64_t>(unfinished, 1, cpu ? most : std::min(most, kMostGpuSequences));

  const int64_t prefill = longest_prefill(sequences, job.windows);
  const int64_t prefill_bytes =
      prefill > 0 ? Decoder::prefill_bytes(model, device, loaded.product(), prefill) : 0;
  const int64_t room = cpu ? cpu_cache_room() : gpu_room(device);
  decoder.streams = streams_that_fit(model, device, loaded.product(), decoder, room - prefill_bytes);
  const int64_t needed = Decoder::bytes(model, device, loaded.product(), decoder) + prefill_bytes;
  check_gpu_room(device, needed, "sampling", "use --device cpu");
  note_little_memory(check_cpu_room(device, needed, "sampling", "take a smaller --length or --prime"));
  return std::make_unique<Decoder>(model, loaded.parameters(), device, decoder, loaded.quantized());
}

// The state file, written every few seconds.
class StateKeeper {
 public:
  StateKeeper(SampleJob& job, double every) : job_(job), every_(every) {
    if (!job.state.empty() && !job.resumed) save();
  }
  void follow(const Generator& generator) {
    if (!job_.state.empty() && seconds_since(last_) >= every_) save(generator);
  }
  // Nothing is written if nothing has come since.
  void save(const Generator& generator, bool files_written = false) {
    if (job_.state.empty() || (generator.drawn() == saved_ && !files_written)) return;
    job_.session.sequences = generator.sequences();
    saved_ = generator.drawn();
    save();
  }

 private:
  void save() {
    save_session(job_.state, job_.session);
    last_ = Clock::now();
  }
  SampleJob& job_;
  double every_;
  int64_t saved_ = 0;  // bytes drawn when it was saved
  Clock::time_point last_ = Clock::now();
};

// Steps that the next call should take, after one of `steps` in `seconds`.
int64_t steps_to_take(const LoadedModel& loaded, bool watched, int64_t steps, double seconds) {
  if (loaded.device().kind == DeviceKind::cpu) return 1;
  if (!watched || seconds <= 0) return kGpuSteps;
  return std::clamp<int64_t>(std::llround(static_cast<double>(steps) * kWatchedSeconds / seconds), 1,
                             kGpuSteps);
}

void draw_all(Generator& generator, const LoadedModel& loaded, SampleOutput& output, StateKeeper& keeper,
              StatusLine& status) {
  int64_t before = 0, total = 0, counted = 0;  // drawn when counting began
  for (const Sequence& sequence : generator.sequences()) {
    before += sequence.known() - sequence.prime;
    total += sequence.length - sequence.prime;
  }
  int64_t steps = 1;
  output.follow(generator);
  while (!generator.done() && !InterruptGuard::requested()) {
    const Clock::time_point begin = Clock::now();
    generator.advance(steps);
    steps = steps_to_take(loaded, output.live(), steps, seconds_since(begin));
    output.follow(generator);
    if (output.take_written()) keeper.save(generator, true);
    keeper.follow(generator);
    if (generator.replaying()) {
      status.say("drawing again what is known, to go on from there");
      counted = generator.drawn();
    } else {
      status.update(before + generator.drawn(), total, before + counted);
    }
  }
}

void draw_all(Generator& generator, const SampleJob& job, const LoadedModel& loaded, SampleOutput& output,
              StateKeeper& keeper, StatusLine& status) {
  try {
    draw_all(generator, loaded, output, keeper, status);
  } catch (const ReplayError& error) {
    fail(
        "{}: this machine or device does not reproduce the state: {}; it was saved on {}, this is {}; resume "
        "it on the same device with the same instruction set, or go on in another way with --branch 1",
        job.state, error.what(), job.saved_on, job.session.device);
  }
}

// As printable(), with each backslash doubled: byte 0x15 and the four characters that stand for it differ.
std::string unambiguous(const std::vector<uint8_t>& bytes) {
  std::string doubled;
  for (const uint8_t byte : bytes) doubled.append(byte == '\\' ? 2 : 1, static_cast<char>(byte));
  return printable(doubled);
}

void report(const SampleOptions& options, const SampleJob& job, const Generator& generator, double seconds,
            const std::vector<std::string>& files) {
  const double rate = static_cast<double>(generator.drawn()) / std::max(seconds, 1e-9);
  if (!options.json) {
    say("{} bytes in {:.1f} s, {} tokens a second", generator.drawn(), seconds, human_count(rate));
    return;
  }
  const Session& session = job.session;
  nlohmann::json out{{"run", options.run},
                     {"step", session.step},
                     {"model", session.model},
                     {"kind", session.kind},
                     {"weights", session.weights},
                     {"count", generator.sequences().size()},
                     {"length", session.length},
                     {"prime_bytes", generator.sequences()[0].prime},
                     {"generated_bytes", generator.drawn()},
                     {"seconds", seconds},
                     {"bytes_per_second", rate},
                     {"complete", generator.done()},
                     {"files", files}};
  if (job.modality().as_is && files.empty())
    for (const Sequence& sequence : generator.sequences())
      out["samples"].push_back(unambiguous(sequence.bytes));
  print_json(out);
}

// Another error is on its way to the user.
void save_if_possible(StateKeeper& keeper, const Generator& generator) {
  try {
    keeper.save(generator);
  } catch (const Error&) {
  }
}

// What --resume has to be told if the output is not beside the state.
std::string output_option(const SampleJob& job) {
  const std::filesystem::path output = job.session.output, state = job.state;
  const auto folder = [](const std::filesystem::path& path) { return path.parent_path().lexically_normal(); };
  return output.empty() || folder(output) == folder(state) ? "" : " --output " + output.string();
}

// How to go on after an interruption.
void advise(const SampleOptions& options, const SampleJob& job) {
  if (job.state.empty())
    say("stopped; with --state FILE it could be resumed");
  else
    say("stopped; go on with: longstride sample {} --resume {}{}", options.run, job.state,
        output_option(job));
}

}  // namespace

int run_sample(const SampleOptions& options) {
  SampleJob job = prepare_job(options);
  const LoadedModel loaded = load_model(options, job);
  if (!job.state.empty()) keep_weights_for(job.state, loaded, options.run);
  note_slow_cpu(loaded.device());
  const std::unique_ptr<Decoder> decoder = make_decoder(options, job, loaded);
  Generator generator(*decoder, job.session.sequences, job.windows);

  const InterruptGuard guard;
  SampleOutput output(job, options.json);
  StateKeeper keeper(job, options.save_every);
  StatusLine status("sampling", output.live(), "tokens");
  const Clock::time_point begin = Clock::now();
  try {
    draw_all(generator, job, loaded, output, keeper, status);
  } catch (const std::exception&) {
    save_if_possible(keeper, generator);  // what was drawn is not lost with the output that cannot be written
    throw;
  }
  const double seconds = seconds_since(begin);
  status.clear();
  keeper.save(generator);
  const std::vector<std::string> files = output.finish(generator);
  if (output.take_written()) keeper.save(generator, true);
  report(options, job, generator, seconds, files);
  if (generator.done()) return 0;
  advise(options, job);
  return 128 + InterruptGuard::signal_number();
}

}  // namespace longstride::cli

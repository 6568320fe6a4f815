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
#include "cli/file_argument.h"
#include "cli/load_run.h"
#include "cli/memory_note.h"
#include "cli/sample_output.h"
#include "cli/sample_task.h"
#include "cli/standard_streams.h"
#include "cli/status_line.h"
#include "cli/use_instructions.h"

namespace longstride::cli {

namespace {

constexpr int64_t kGpuSteps = 64;         // the most that a GPU takes at a time
constexpr double kWatchedSeconds = 0.05;  // the longest wait for the next bytes

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

std::unique_ptr<Decoder> make_decoder(const SampleOptions& options, const SampleJob& job,
                                      const LoadedModel& loaded) {
  const Device device = loaded.device();
  const SampleDecoder plan = plan_decoder(loaded, job.session, job.windows, options.streams);
  check_gpu_room(device, plan.bytes, "sampling", "use --device cpu");
  note_little_memory(check_cpu_room(device, plan.bytes, "sampling", "take a smaller --length or --prime"));
  return std::make_unique<Decoder>(job.config.model, loaded.parameters(), device, plan.options,
                                   loaded.quantized());
}

// The state file, written every few seconds.
class StateKeeper {
 public:
  StateKeeper(SampleTask& task, double every) : task_(task), every_(every) {
    if (!task.state.empty() && !task.resumed) save();
  }
  void follow(const Generator& generator) {
    if (!task_.state.empty() && seconds_since(last_) >= every_) save(generator);
  }
  // Writes nothing if nothing has come since.
  void save(const Generator& generator, bool files_written = false) {
    if (task_.state.empty() || (generator.drawn() == saved_ && !files_written)) return;
    task_.job.session.sequences = generator.sequences();
    saved_ = generator.drawn();
    save();
  }

 private:
  void save() {
    save_session(task_.state, task_.job.session);
    last_ = Clock::now();
  }
  SampleTask& task_;
  double every_;
  int64_t saved_ = 0;  // bytes drawn when it was saved
  Clock::time_point last_ = Clock::now();
};

// The number of steps for the next call, when the last one took `seconds` for `steps`.
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

void draw_all(Generator& generator, const SampleTask& task, const LoadedModel& loaded, SampleOutput& output,
              StateKeeper& keeper, StatusLine& status) {
  try {
    draw_all(generator, loaded, output, keeper, status);
  } catch (const ReplayError& error) {
    fail(
        "{}: this machine or device does not reproduce the state: {}; it was saved on {}, this is {}; resume "
        "it on the same device with the same instruction set, or go on in another way with --branch 1",
        task.state, error.what(), task.saved_on, task.job.session.device);
  }
}

// Like printable(), with each backslash doubled. So byte 0x15 and the four characters that show it differ.
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

// Does not throw, because another error is on its way to the user.
void save_if_possible(StateKeeper& keeper, const Generator& generator) {
  try {
    keeper.save(generator);
  } catch (const Error&) {
  }
}

// The option that --resume needs if the output is not beside the state.
std::string output_option(const SampleTask& task) {
  const std::filesystem::path output = task.job.session.output, state = task.state;
  const auto folder = [](const std::filesystem::path& path) { return path.parent_path().lexically_normal(); };
  return output.empty() || folder(output) == folder(state) ? ""
                                                           : " --output " + file_argument(output.string());
}

// Says how to go on after an interruption.
void advise(const SampleOptions& options, const SampleTask& task) {
  if (task.state.empty())
    say("stopped; with --state FILE it could be resumed");
  else
    say("stopped; go on with: longstride sample {} --resume {}{}", file_argument(options.run),
        file_argument(task.state), output_option(task));
}

}  // namespace

int run_sample(const SampleOptions& options) {
  SampleTask task = prepare_task(options);
  const SampleJob& job = task.job;
  const LoadedModel loaded = load_model(options, task);
  if (!task.state.empty()) keep_weights_for(task.state, loaded, options.run);
  note_slow_cpu(loaded.device());
  const std::unique_ptr<Decoder> decoder = make_decoder(options, job, loaded);
  Generator generator(*decoder, job.session.sequences, job.windows);

  const InterruptGuard guard;
  SampleOutput output(task, options.json);
  StateKeeper keeper(task, options.save_every);
  StatusLine status("sampling", output.live(), "tokens");
  const Clock::time_point begin = Clock::now();
  try {
    draw_all(generator, task, loaded, output, keeper, status);
  } catch (const std::exception&) {
    save_if_possible(keeper, generator);  // drawn bytes are not lost with an output that cannot be written
    throw;
  }
  const double seconds = seconds_since(begin);
  status.clear();
  keeper.save(generator);
  const std::vector<std::string> files = output.finish(generator);
  if (output.take_written()) keeper.save(generator, true);
  report(options, job, generator, seconds, files);
  if (generator.done()) return 0;
  advise(options, task);
  return 128 + InterruptGuard::signal_number();
}

}  // namespace longstride::cli

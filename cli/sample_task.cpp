#include "cli/sample_task.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include <fmt/format.h>

#include "longstride/base/check.h"
#include "longstride/base/say.h"
#include "longstride/run/cpu_room.h"
#include "longstride/run/saved_settings.h"

#include "cli/file_argument.h"
#include "cli/load_run.h"
#include "cli/memory_note.h"
#include "cli/output_file.h"
#include "cli/prime.h"
#include "cli/sample_files.h"
#include "cli/use_instructions.h"

namespace longstride::cli {

namespace fs = std::filesystem;

namespace {

bool given(const SampleOptions& options, const std::string& name) {
  return std::find(options.given.begin(), options.given.end(), name) != options.given.end();
}

// A state that is there may be gone on from; whatever else is there is no business of ours.
void refuse_taken(const SampleOptions& options, const std::string& advice) {
  std::error_code ignored;
  if (!fs::is_regular_file(options.state, ignored)) return;
  LONGSTRIDE_CHECK(is_session_file(options.state),
                   "--state {}: it is there already, and is no state of samples; name another file",
                   options.state);
  fail("--state {}: it is there already; {}", options.state, advice);
}

// For a task that begins without a state.
void check_new(const SampleOptions& options) {
  refuse_taken(options, "go on from it with --resume " + file_argument(options.state) + ", or remove it");
}

template <class T>
void refuse_change(const SampleOptions& options, const char* name, const T& wanted, const T& saved,
                   bool branches_may = false) {
  if (!given(options, name) || wanted == saved) return;
  throw UsageError(fmt::format(
      "{} {}: the samples of {} were begun with {}; leave it out{}", name, wanted, options.resume, saved,
      branches_may ? ", or go on in another way with --branch 1" : ", or start again without --resume"));
}

// A command line may repeat these options of a state, but not change them.
void check_resumed(const SampleOptions& options, const Session& saved, int64_t context) {
  for (const char* name : {"--prime", "--prime-fraction", "--prime-seconds"})
    if (given(options, name))
      throw UsageError(
          fmt::format("{}: the samples of {} have their beginnings already", name, options.resume));
  refuse_change(options, "--count", options.count, static_cast<int64_t>(saved.sequences.size()));
  refuse_change(options, "--hop", options.hop, saved.hop);
  refuse_change(options, "--weights", options.weights, saved.weights);
  refuse_change(options, "--step", options.step, saved.step);
  refuse_change(options, "--exact-scores", options.exact_scores, saved.exact_scores);
  if (options.branch > 0) {
    std::error_code ignored;
    if (given(options, "--state") && fs::equivalent(options.state, options.resume, ignored))
      throw UsageError(fmt::format("--state {}: branches leave the state as it is; give them another file",
                                   options.state));
    refuse_taken(options, "choose another file, or remove it");
    return;
  }
  const int64_t length = options.length > 0 ? options.length : context;
  refuse_change(options, "--length", length, saved.length, true);
  refuse_change(options, "--seed", options.seed, saved.sampler.seed, true);
  refuse_change(options, "--temperature", options.temperature, saved.sampler.temperature, true);
  refuse_change(options, "--top-k", options.top_k, saved.sampler.top_k, true);
  refuse_change(options, "--top-p", options.top_p, saved.sampler.top_p, true);
  refuse_change(options, "--state", options.state, options.resume);
}

BranchOptions branch_options(const SampleOptions& options, int64_t context) {
  BranchOptions branching;
  branching.count = options.branch;
  if (given(options, "--length")) branching.length = options.length > 0 ? options.length : context;
  if (given(options, "--temperature")) branching.temperature = options.temperature;
  if (given(options, "--top-k")) branching.top_k = options.top_k;
  if (given(options, "--top-p")) branching.top_p = options.top_p;
  if (given(options, "--seed")) branching.seed = options.seed;
  return branching;
}

// All samples are kept until they are written. Said before the first of many gigabytes is taken.
void check_room(double count, int64_t length, const char* option) {
  constexpr double kBeside = 256;  // bytes of a sample beside its own
  const double bytes = count * (static_cast<double>(length) + kBeside);
  constexpr double kMost = 1e18;
  note_little_memory(check_cpu_room({}, static_cast<int64_t>(std::min(bytes, kMost)),
                                    fmt::format("so many samples ({:.0f})", count),
                                    fmt::format("give a smaller {}", option)));
}

void check_picture_length(int64_t length, int64_t context) {
  if (length != 0 && length != context)
    throw UsageError(fmt::format("--length {}: a picture always has {} bytes", length, context));
}

SampleTask task_from_state(const SampleOptions& options) {
  SampleTask task;
  Session saved = load_session(options.resume);
  const std::vector<std::string> overrides =
      overrides_after(saved.precision, saved.settings, options.overrides);
  SampleJob& job = task.job;
  job.config = load_run_config(options.run, overrides);
  LONGSTRIDE_CHECK(job.config.data.kind == saved.kind,
                   "--resume {}: its samples are {}, those of {} are {}; it was saved for {}", options.resume,
                   saved.kind, options.run, job.config.data.kind, saved.run);
  const int64_t context = job.config.model.context;
  check_resumed(options, saved, context);
  task.saved_on = saved.device;
  task.resumed = options.branch == 0;
  task.state = task.resumed ? options.resume : options.state;
  if (!task.resumed) {
    if (job.modality().records && std::all_of(saved.sequences.begin(), saved.sequences.end(),
                                              [](const Sequence& sequence) { return sequence.finished(); }))
      throw UsageError(fmt::format(
          "--branch: the pictures of {} are finished, so there is nothing to go on with", options.resume));
    if (job.modality().records)
      check_picture_length(given(options, "--length") ? options.length : context, context);
    check_room(static_cast<double>(options.branch) * static_cast<double>(saved.sequences.size()),
               given(options, "--length") ? options.length : saved.length, "--branch");
  }
  job.session = task.resumed ? std::move(saved) : branch(saved, branch_options(options, context));
  job.session.settings = settings_of_bits({overrides.begin() + 1, overrides.end()});
  if (!task.resumed || given(options, "--output"))
    job.session.output = wanted_output(options, job.modality(), "branches");
  else if (!job.session.output.empty())
    use_output_of_state(task);
  return task;
}

SampleTask task_from_options(const SampleOptions& options) {
  check_new(options);
  SampleTask task;
  SampleJob& job = task.job;
  job.config = load_run_config(options.run, options.overrides);
  if (job.modality().records && given(options, "--hop"))
    throw UsageError("--hop: pictures end where the context does; it is for text and sound");
  Session& session = job.session;
  session.weights = options.weights;
  session.step = options.step;
  session.exact_scores = options.exact_scores;
  session.settings = options.overrides;
  session.kind = job.config.data.kind;
  session.length = options.length > 0 ? options.length : job.config.model.context;
  session.hop = options.hop;
  session.sampler = {options.temperature, options.top_k, options.top_p, options.seed};
  session.output = wanted_output(options, job.modality(), "sample");
  task.state = options.state;
  return task;
}

void check_resumed_model(const SampleOptions& options, const SampleTask& task, const LoadedModel& loaded) {
  const Session& session = task.job.session;
  const std::string difference = difference_of_model(session, loaded, options.run);
  LONGSTRIDE_CHECK(difference.empty(), "--resume {}: {}", options.resume, difference);
  if (task.resumed && name_of(loaded.product()) != session.precision)
    throw UsageError(
        fmt::format("--set compute.precision: the samples of {} were begun with {}, not {}; "
                    "leave it out, or go on in another way with --branch 1",
                    options.resume, session.precision, name_of(loaded.product())));
}

}  // namespace

SampleTask prepare_task(const SampleOptions& options) {
  if (given(options, "--save-every") && options.state.empty() &&
      (options.resume.empty() || options.branch > 0))
    throw UsageError("--save-every: there is no --state to save");
  SamplerConfig{options.temperature, options.top_k, options.top_p, 0}.check();
  const bool begins = options.resume.empty();
  SampleTask task = begins ? task_from_options(options) : task_from_state(options);
  SampleJob& job = task.job;
  use_instructions(job.config.compute);
  prepare(job);
  if (job.modality().records) check_picture_length(job.session.length, job.config.model.context);
  const int64_t count = begins ? options.count : std::ssize(job.session.sequences);
  spare_what_is_read(job.session.output, job.modality().records ? 1 : count,
                     {options.run, options.prime == "-" ? "" : options.prime});
  check_files(task, count);
  if (begins) check_room(static_cast<double>(count), job.session.length, "--count");
  if (begins) add_sequences(job, options.count, load_prime(options, job));
  return task;
}

LoadedModel load_model(const SampleOptions& options, SampleTask& task) {
  SampleJob& job = task.job;
  const bool begins = options.resume.empty();
  LoadedModel loaded =
      begins ? load_model(job, options.run) : load_model_again(job, options.run, options.resume);
  if (!begins) check_resumed_model(options, task, loaded);
  note_model(job.session, loaded, options.run);
  if (task.resumed && task.saved_on != job.session.device)
    say("note: {} was saved on {}, this is {}; what was drawn is drawn again and compared, what comes after "
        "may still differ from what would have come there",
        options.resume, task.saved_on, job.session.device);
  return loaded;
}

}  // namespace longstride::cli

#include "cli/sample_job.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include <fmt/format.h>

#include "longstride/base/check.h"
#include "longstride/base/output_file.h"
#include "longstride/base/say.h"

#include "cli/load_run.h"
#include "cli/output_file.h"
#include "cli/prime.h"
#include "cli/saved_settings.h"
#include "cli/use_instructions.h"

namespace longstride::cli {

namespace fs = std::filesystem;

namespace {

bool given(const SampleOptions& options, const std::string& name) {
  return std::find(options.given.begin(), options.given.end(), name) != options.given.end();
}

// ---- files to write ----

void check_files(const SampleJob& job, int64_t count) {
  const std::string& output = job.session.output;
  const Modality& modality = job.modality();
  if (is_direct_output(output)) {
    if (!modality.records && !modality.as_is && count > 1)
      throw UsageError(
          fmt::format("--output {}: {} {}s need files of their own", output, count, modality.one));
    prepare_output(output, "--output");
  } else if (!output.empty()) {
    const std::string extension = fs::path(output).extension().string();
    if (!modality.extension.empty() && extension != modality.extension)
      throw UsageError(fmt::format("--output {}: {} {} written as {}", output, modality.all, modality.verb,
                                   modality.extension));
    // The last name is as long as any.
    prepare_output(modality.records ? output : numbered_output(output, count - 1, count), "--output");
  }
  if (job.state.empty()) return;
  if (fs::path(job.state).lexically_normal() == fs::path(output).lexically_normal())
    throw UsageError(
        fmt::format("--state {}: that is the output; give the state a file of its own", job.state));
  prepare_state(job.state, job.resumed ? "--resume" : "--state");
}

// The file to write; "" for text that goes to standard output as it comes.
std::string wanted_output(const SampleOptions& options, const Modality& modality, const std::string& name) {
  if (options.output.empty()) return modality.extension.empty() ? "" : name + std::string(modality.extension);
  if (modality.as_is && !options.json && is_direct_output(options.output) &&
      is_standard_output(find_output(options.output)))
    return "";
  return options.output;
}

// ---- options and the state ----

// Without a state.
void check_new(const SampleOptions& options) {
  if (options.branch > 0) throw UsageError("--branch needs the state to branch from: --resume FILE");
  std::error_code ignored;
  LONGSTRIDE_CHECK(!fs::is_regular_file(options.state, ignored),
                   "--state {}: it is there already; go on from it with --resume {}, or remove it",
                   options.state, options.state);
}

template <class T>
void refuse_change(const SampleOptions& options, const char* name, const T& wanted, const T& saved,
                   bool branches_may = false) {
  if (!given(options, name) || wanted == saved) return;
  throw UsageError(fmt::format(
      "{} {}: the samples of {} were begun with {}; leave it out{}", name, wanted, options.resume, saved,
      branches_may ? ", or go on in another way with --branch 1" : ", or begin anew without --resume"));
}

// Options that a state has and a command line may repeat but not change.
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
    LONGSTRIDE_CHECK(!fs::is_regular_file(options.state, ignored),
                     "--state {}: it is there already; choose another file, or remove it", options.state);
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

std::string beside(const std::string& file, const std::string& name) {
  return (fs::path(file).parent_path() / name).string();
}

// A state may come from anybody, so that it decides neither in which folder its output goes nor what is
// replaced: it goes beside the state, and takes the place of nothing but what the state itself wrote.
void use_output_of_state(SampleJob& job) {
  const std::string name = fs::path(job.session.output).filename().string();
  const std::string before = std::exchange(job.session.output, beside(job.state, name));
  job.output_of_state = true;
  if (name.empty() || name.starts_with('.'))
    throw UsageError(fmt::format("--resume {}: its output would be {}; say with --output what to write",
                                 job.state, job.session.output));
  const int64_t count = job.modality().records ? 1 : std::ssize(job.session.sequences);
  for (int64_t i = 0; i < count; ++i) check_own_output(job, numbered_output(job.session.output, i, count));
  if (fs::path(before).lexically_normal() != fs::path(job.session.output).lexically_normal())
    say("the output was {}; without --output it goes beside the state: {}", before, job.session.output);
}

void check_length(const SampleJob& job) {
  const int64_t context = job.config.model.context;
  int64_t total = 0;
  for (const Sequence& sequence : job.session.sequences)
    LONGSTRIDE_CHECK(!__builtin_add_overflow(total, sequence.length, &total),
                     "{} samples of {} bytes are more than can be counted", job.session.sequences.size(),
                     sequence.length);
  for (const Sequence& sequence : job.session.sequences)
    LONGSTRIDE_CHECK(!job.modality().records || sequence.length == context,
                     "a picture of {} bytes; those of the model have {}", sequence.length, context);
  LONGSTRIDE_CHECK(!job.modality().records || job.session.length == context,
                   "--length {}: a picture always has {} bytes", job.session.length, context);
}

SampleJob job_from_state(const SampleOptions& options) {
  SampleJob job;
  Session saved = load_session(options.resume);
  // Settings of the state come first, so that the command line has the last word.
  std::vector<std::string> overrides{"compute.precision=" + saved.precision};
  const std::vector<std::string> settings = settings_of_bits(saved.settings);
  overrides.insert(overrides.end(), settings.begin(), settings.end());
  overrides.insert(overrides.end(), options.overrides.begin(), options.overrides.end());
  job.config = load_run_config(options.run, overrides);
  LONGSTRIDE_CHECK(job.config.data.kind == saved.kind,
                   "--resume {}: its samples are {}, those of {} are {}; it was saved for {}", options.resume,
                   saved.kind, options.run, job.config.data.kind, saved.run);
  const int64_t context = job.config.model.context;
  check_resumed(options, saved, context);
  job.saved_on = saved.device;
  job.resumed = options.branch == 0;
  job.state = job.resumed ? options.resume : options.state;
  job.session = job.resumed ? std::move(saved) : branch(saved, branch_options(options, context));
  job.session.settings = settings_of_bits({overrides.begin() + 1, overrides.end()});
  if (!job.resumed || given(options, "--output"))
    job.session.output = wanted_output(options, job.modality(), "branches");
  else if (!job.session.output.empty())
    use_output_of_state(job);
  return job;
}

SampleJob job_from_options(const SampleOptions& options) {
  check_new(options);
  SampleJob job;
  job.config = load_run_config(options.run, options.overrides);
  if (job.modality().records && given(options, "--hop"))
    throw UsageError("--hop: pictures end where the context does; it is for text and sound");
  Session& session = job.session;
  session.weights = options.weights;
  session.exact_scores = options.exact_scores;
  session.settings = options.overrides;
  session.kind = job.config.data.kind;
  session.length = options.length > 0 ? options.length : job.config.model.context;
  session.hop = options.hop;
  session.sampler = {options.temperature, options.top_k, options.top_p, options.seed};
  session.output = wanted_output(options, job.modality(), "sample");
  job.state = options.state;
  return job;
}

std::string beginning_of(const std::string& digest) { return digest.substr(0, 8); }

}  // namespace

void check_own_output(const SampleJob& job, const std::string& file) {
  if (!job.output_of_state || is_own(job.session.written, file)) return;
  fail(
      "{} is there, and {} did not write it as it is; it was left alone. --output {} replaces it, another "
      "name "
      "keeps it",
      file, job.state, file);
}

std::string numbered_output(const std::string& path, int64_t index, int64_t count) {
  if (count == 1) return path;
  const fs::path whole(path);
  return (whole.parent_path() /
          fmt::format("{}-{}{}", whole.stem().string(), index + 1, whole.extension().string()))
      .string();
}

SampleJob prepare_job(const SampleOptions& options) {
  if (given(options, "--save-every") && options.state.empty() &&
      (options.resume.empty() || options.branch > 0))
    throw UsageError("--save-every: there is no --state to save");
  SamplerConfig{options.temperature, options.top_k, options.top_p, 0}.check();
  SampleJob job = options.resume.empty() ? job_from_options(options) : job_from_state(options);
  use_instructions(job.config.compute);
  job.windows = windows_of(job.config.model, job.session.hop);
  if (job.modality().records) job.shape = picture_shape(job.config);
  check_length(job);
  check_files(job, options.resume.empty() ? options.count : std::ssize(job.session.sequences));
  if (!options.resume.empty()) return job;

  Session& session = job.session;
  int64_t total = 0;
  LONGSTRIDE_CHECK(!__builtin_mul_overflow(options.count, session.length, &total),
                   "{} samples of {} bytes are more than can be counted", options.count, session.length);
  const std::vector<uint8_t> prime = load_prime(options, job.config, session.length, job.windows, job.shape);
  for (int64_t i = 0; i < options.count; ++i)
    session.sequences.push_back(
        sequence_after(prime, session.length, session.sampler, static_cast<uint32_t>(i)));
  return job;
}

LoadedModel load_model(const SampleOptions& options, SampleJob& job) {
  Session& session = job.session;
  const bool from_state = !options.resume.empty();
  const auto load = [&]() -> LoadedModel {
    const int64_t step = from_state ? session.step : options.step;
    try {
      return LoadedModel(
          options.run, job.config.compute,
          {.step = step, .int8 = session.weights == "int8", .digest = from_state ? session.model : ""});
    } catch (const Error& error) {
      if (!from_state) throw;
      fail("{} (the state {} was saved with step {} of {})", error.what(), options.resume, session.step,
           session.run);
    }
  };
  LoadedModel loaded = load();
  if (from_state) {
    LONGSTRIDE_CHECK(session.model == loaded.digest(),
                     "--resume {}: it was saved with another model, {} (step {} of {}); {} has {} at that "
                     "step; a state goes on with its own model only",
                     options.resume, beginning_of(session.model), session.step, session.run, options.run,
                     beginning_of(loaded.digest()));
    if (job.resumed && name_of(loaded.product()) != session.precision)
      throw UsageError(
          fmt::format("--set compute.precision: the samples of {} were begun with {}, not {}; "
                      "leave it out, or go on in another way with --branch 1",
                      options.resume, session.precision, name_of(loaded.product())));
  }
  const std::string device = describe_device(loaded.device());
  if (job.resumed && job.saved_on != device)
    say("note: {} was saved on {}, this is {}; what was drawn is drawn again and compared, what comes after "
        "may still differ from what would have come there",
        options.resume, job.saved_on, device);
  session.model = loaded.digest();
  session.run = options.run;
  session.step = loaded.step();
  session.precision = name_of(loaded.product());
  session.device = device;
  return loaded;
}

}  // namespace longstride::cli

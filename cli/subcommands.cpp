#include "cli/subcommands.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "longstride/base/check.h"
#include "longstride/base/text.h"
#include "longstride/device/device.h"
#include "longstride/device/instructions.h"
#include "longstride/run/choices.h"
#include "longstride/run/config.h"

#include "cli/command_line.h"
#include "cli/shell_files.h"
#include "cli/standard_streams.h"

namespace longstride::cli {

namespace {

// The configuration's fields with their defaults by recipe, for the help of the commands that take --set.
std::string describe_fields() {
  RunConfig paper = paper_defaults(), fast = fast_defaults();
  paper.train.recipe = fast.train.recipe = "auto";
  std::string text =
      "Configuration fields (TOML sections; --set section.key=value overrides one). In brackets: what it is\n"
      "where the config does not say, fast and paper by train.recipe:\n";
  const FieldList of_paper = paper.fields(), of_fast = fast.fields();
  for (size_t i = 0; i < of_paper.all().size(); ++i) {
    const Field& field = of_paper.all()[i];
    const std::string papers = field.value_as_toml(), fasts = of_fast.all()[i].value_as_toml();
    const bool open = fasts == "0" || fasts == "\"\"" || fasts == "\"auto\"";
    text += fmt::format(
        "  {:<26} {} [{}]\n", field.key(), field.help,
        papers == fasts ? papers : fmt::format("fast: {}; paper: {}", open ? "chosen" : fasts, papers));
  }
  return text;
}

constexpr IntegerRange kCheckpoint{.least = 0};
constexpr IntegerRange kLengths{.least = 0, .most = int64_t{1} << 50};
constexpr IntegerRange kCounts{.least = 1, .most = 100'000'000};

// A --set of the device that says something else would be passed over. Of several --set of one field the last counts.
void set_device(std::vector<std::string>& overrides, const std::string& device) {
  check_device_name(device);
  for (const std::string& before : overrides) {
    const size_t equals = before.find('=');
    if (trim(std::string_view(before).substr(0, equals)) == "compute.device" &&
        trim(std::string_view(before).substr(equals + 1)) != device)
      throw UsageError(fmt::format("--device {} and --set {}: one of them", device, before));
  }
  overrides.push_back("compute.device=" + device);
}

void add_set(Command& command, std::vector<std::string>& overrides, const std::string& example) {
  command
      .add_repeated(
          "--set", [&overrides](const std::string& text) { overrides.push_back(text); },
          "override a config field, as in --set " + example + " (repeatable; of one field the last counts)")
      .type_name("KEY=VALUE");
}

void add_overrides(Command& command, std::vector<std::string>& overrides,
                   const std::string& example = "compute.threads=2") {
  add_set(command, overrides, example);
  command
      .add_checked(
          "--device", [&overrides](const std::string& device) { set_device(overrides, device); },
          "cpu, cuda, cuda:N or auto; as compute.device of a config")
      .type_name("DEVICE");
}

void add_weights(Command& command, std::string& weights, const std::string& help) {
  command.add_choice("--weights", weights, {"auto", "int8"}, help);
}

// The format itself is set before the command line is read: main() looks for it.
// Where messages are JSON the result is too; see settled().
template <class Options>
void add_json_and_log_format(Command& command, Options& options) {
  command.add_flag("--json", options.json, "print the result as JSON");
  command.add_choice("--log-format", options.log_format, {"text", "json"},
                     "json: every message and the result as one JSON object a line");
}
template <class Options>
Options& settled(Options& options) {
  options.json = options.json || options.log_format == "json";
  return options;
}

Option add_data_changed(Command& command, bool& data_changed) {
  return command.add_flag(
      "--data-changed", data_changed,
      "take the run's data as they are now, although they are not those that it was trained on");
}

void add_train(CLI::App& app, TrainOptions& o, int& result) {
  Command c(app, "train", "train a model from a config, or go on with a run");
  c.add("target", o.target, "a config file, or a run directory to go on with")
      .required()
      .type_name("CONFIG|RUN");
  c.add("--run", o.run, "directory of the new run [runs/NAME of the config]").type_name("DIR");
  add_overrides(c, o.overrides, "train.steps=100");
  c.add_flag("--resume", o.resume, "go on if the run directory already holds this run, else begin it");
  c.add("--step", o.step, kCheckpoint, "go on from this checkpoint, discarding later ones [the newest]");
  c.add("--ranks", o.ranks, {.least = 1, .most = 1024},
        "train by this many processes of this machine together, each with its part of every batch");
  c.add("--gpus", o.gpus, {.least = 1, .most = 1024},
        "train on this many GPUs of this machine: a rank for each");
  c.add("--parallel", o.parallel,
        "what ranks share: data=A,sequence=B gives each sequence to B ranks, each batch to A groups of them")
      .type_name("data=A,sequence=B");
  add_data_changed(c, o.data_changed);
  c.add_flag("--quiet", o.quiet, "no progress line");
  add_json_and_log_format(c, o);
  c.footer(
      "Example:\n  longstride train configs/fortunes.toml --run runs/fortunes --set train.minutes=5\n\n" +
      describe_fields());
  c.run([&] { result = run_train(settled(o)); });
}

void add_sweep(CLI::App& app, SweepOptions& o, int& result) {
  Command c(app, "sweep", "a run for each combination of values of a config's fields, and their table");
  c.add("config", o.config, "a config file").required().type_name("CONFIG");
  c.add_repeated(
       "--vary", [&o](const std::string& text) { o.vary.push_back(text); },
       "a field and its values, as in --vary train.learning_rate=1e-3,2e-3 (repeatable)")
      .type_name("KEY=VALUE,...");
  c.add("--folder", o.folder, "folder of the runs [runs/NAME of the config]").type_name("DIR");
  add_overrides(c, o.overrides, "train.steps=100");
  c.add("--gpus", o.gpus, {.least = 1, .most = 1024},
        "runs at a time, each on a GPU of its own [all that are there]");
  add_data_changed(c, o.data_changed);
  c.add_flag("--json", o.json, "print the table as JSON");
  c.footer(
      "The same command again leaves finished runs as they are and goes on with the others.\n\n"
      "Example:\n  longstride sweep configs/fortunes.toml --vary train.learning_rate=1e-3,2e-3 "
      "--vary model.width=64,128");
  c.run([&] { result = run_sweep(o); });
}

void add_eval(CLI::App& app, EvalOptions& o, int& result) {
  Command c(app, "eval", "bits per byte of a run's model on held-out data");
  c.add("run", o.run, "run directory").required().type_name("RUN");
  c.add("--file", o.file, "evaluate this file instead of the run's own data").type_name("FILE");
  c.add_choice("--split", o.split, {"train", "validation", "test"}, "part of the run's data")
      .shown_default("validation");
  c.add("--min-context", o.min_context, {.least = 0},
        "score only bytes that have seen this much context; a list prints a table");
  c.add("--max-bytes", o.max_bytes, {.least = 0}, "evaluate at most this many bytes; 0 = all");
  c.add("--batch", o.batch, {.least = 0}, "windows at a time; 0 = chosen");
  c.add("--step", o.step, kCheckpoint, "checkpoint to load [the best]");
  add_weights(c, o.weights,
              "int8: evaluate the model with its weights in eight bits, and say what that costs");
  c.add("--curve", o.curve,
        "write the loss by position in the window to this CSV file; - for standard output")
      .type_name("FILE");
  c.add("--entropy", o.entropy,
        "write the bits of every byte: .csv as a table, .html as a heat map over text or pictures")
      .type_name("FILE");
  add_overrides(c, o.overrides);
  add_data_changed(c, o.data_changed);
  add_json_and_log_format(c, o);
  c.footer("Example:\n  longstride eval runs/enwik8 --split test --min-context 6144,9216,12160");
  c.run([&] { result = run_eval(settled(o)); });
}

void add_sample(CLI::App& app, SampleOptions& o, int& result) {
  Command c(app, "sample", "let a run's model write text, paint pictures or play sound");
  c.add("run", o.run, "run directory").required().type_name("RUN");
  c.add("-n,--count", o.count, kCounts, "samples").shown_default("1");
  c.add("--length", o.length, kLengths,
        "bytes a sample, prime included; 0 = the context. Text and sound go on beyond it");
  c.add("--hop", o.hop, {.least = 0, .most = 1, .least_excluded = true},
        "beyond the context: the part of it by which the model's window moves on when it is full")
      .shown_default("0.5");
  c.add("--temperature", o.temperature, {.least = 0}, "0 = always the likeliest byte").shown_default("1");
  c.add("--top-k", o.top_k, {.least = 0}, "only the k likeliest bytes; 0 = all");
  c.add("--top-p", o.top_p, {.least = 0, .most = 1, .least_excluded = true},
        "only the likeliest bytes that make up this probability")
      .shown_default("1");
  c.add("--seed", o.seed, "the same seed gives the same samples; up to 64 bits").shown_default("0");
  c.add("--prime", o.prime,
        "file to go on from, - for standard input, or a record of the run's data as validation:3")
      .type_name("FILE");
  c.add("--prime-fraction", o.prime_fraction, {.least = 0, .most = 1, .least_excluded = true},
        "part of the prime to use; pictures: the part from the top [0.5]");
  c.add("--prime-seconds", o.prime_seconds, {.least = 0, .least_excluded = true},
        "sound: seconds of the prime to use");
  c.add("-o,--output", o.output,
        "file to write or replace, - for standard output [text: the terminal; sample.png, sample.wav]")
      .type_name("FILE");
  c.add("--state", o.state, "keep the state in this file, so that --resume can go on from it")
      .type_name("FILE");
  c.add("--save-every", o.save_every, {.least = 0}, "seconds between saves of the state").shown_default("30");
  c.add("--resume", o.resume,
        "go on from this state with its options, to the very bytes that it would have come to")
      .type_name("FILE");
  c.add("--branch", o.branch, kCounts,
        "go on in N other ways from each sample, leaving the state as it is; may have "
        "its own --temperature, --top-k, --top-p, --length, --seed and --state")
      .needs("--resume");
  c.add("--streams", o.streams, kCounts,
        "samples side by side at most [what fits the memory, up to 64 on a GPU and 16 on a CPU]");
  c.add_flag("--exact-scores", o.exact_scores,
             "keep keys in f32 and multiply them with queries in f32, whatever the precision of the rest");
  c.add("--step", o.step, kCheckpoint, "checkpoint to load [the best]");
  add_weights(c, o.weights,
              "int8: weights in eight bits, faster where memory sets the pace; eval says what it costs");
  add_overrides(c, o.overrides);
  add_data_changed(c, o.data_changed);
  add_json_and_log_format(c, o);
  c.footer(
      "Examples:\n  echo -n 'It was a dark and' | longstride sample runs/fortunes --prime -\n"
      "  longstride sample runs/cifar10 --count 16 --output grid.png\n"
      "  longstride sample runs/enwik8 --length 1000000 --state long.state --output long.txt\n"
      "  longstride sample runs/enwik8 --resume long.state");
  c.run([&o, &result, c] {
    o.given = c.given();
    result = run_sample(settled(o));
  });
}

void add_compress(CLI::App& app, CompressOptions& o, int& result) {
  Command c(app, "compress", "a file without loss in the bits that a run's model predicts");
  c.add("run", o.run, "run directory").required().type_name("RUN");
  c.add("file", o.file, "text: any file; pictures: a PNG; sound: a WAV of 8-bit mu-law")
      .required()
      .type_name("FILE");
  c.add("-o,--output", o.output, "file to write, - for standard output [FILE.lsc]").type_name("FILE");
  c.add_flag("--force", o.force, "replace the output if it is there");
  c.add("--step", o.step, kCheckpoint, "checkpoint to load [the best]");
  add_weights(c, o.weights,
              "int8: weights in eight bits, faster where memory sets the pace; eval says what it costs");
  c.add_flag("--with-model", o.with_model,
             "put the model into the file, so that decompress needs no run; the result tells its size");
  c.add_flag("--portable", o.portable,
             "compute in integers on the CPU, so that the file can be decompressed on any machine");
  add_overrides(c, o.overrides);
  c.add_flag("--json", o.json, "print the result as JSON");
  c.footer(
      "Only the same model on a device that computes the same bits can decompress the file; with --portable "
      "that is any.\n\n"
      "Example:\n  longstride compress runs/fortunes fortunes.txt && "
      "longstride decompress runs/fortunes fortunes.txt.lsc -o again.txt");
  c.run([&] { result = run_compress(o); });
}

void add_decompress(CLI::App& app, DecompressOptions& o, int& result) {
  Command c(app, "decompress", "the file that compress was given");
  c.add("run", o.run, "directory of the run that compressed it; none for a file that holds its model")
      .required()
      .type_name("RUN|FILE");
  c.add("file", o.file, "what compress wrote").type_name("FILE");
  c.add("-o,--output", o.output, "file to write, - for standard output [FILE without .lsc]")
      .type_name("FILE");
  c.add_flag("--force", o.force, "replace the output if it is there");
  add_overrides(c, o.overrides);
  c.add_flag("--json", o.json, "print the result as JSON");
  c.footer(
      "Checkpoint, weights, precision and settings are those that FILE names.\n\n"
      "Examples:\n  longstride decompress runs/fortunes fortunes.txt.lsc\n"
      "  longstride decompress with-its-model.lsc -o again.txt");
  c.run([&] {
    if (o.file.empty()) std::swap(o.run, o.file);
    result = run_decompress(o);
  });
}

void add_inspect(CLI::App& app, InspectOptions& o, int& result) {
  Command c(app, "inspect", "parameters, cost, memory and reach of a model");
  c.add("target", o.target, "a config file or a run directory").required().type_name("CONFIG|RUN");
  add_overrides(c, o.overrides, "train.steps=100");
  c.add("--draw", o.draw, "draw the attention pattern to this .png or .svg").type_name("FILE");
  c.add("--query", o.query, {.least = 0},
        "what this position sees too, from 0 on, among all positions in their rows")
      .needs("--draw");
  c.add("--draw-reach", o.draw_reach,
        "draw what each position sees through 1, 2, .. layers to this .png or .svg")
      .type_name("FILE");
  c.add("--attention", o.attention,
        "of a run: what the heads of a layer look at in held-out data, drawn to this .png or .svg, and in "
        "numbers")
      .type_name("FILE");
  c.add("--layer", o.layer, {.least = 1}, "that --attention looks at")
      .shown_default("1")
      .needs("--attention");
  add_data_changed(c, o.data_changed).needs("--attention");
  c.add("--pixels", o.pixels, {.least = 16, .most = 8192}, "largest side of a drawn pattern")
      .shown_default("512");
  c.add_flag("--time", o.time,
             "measure steps on this machine, for some seconds or from an earlier time, and tell how long the "
             "run takes");
  c.add_flag("--measure", o.measure_anew, "measure anew what an earlier --time has measured").needs("--time");
  c.add("--price", o.price, {.least = 0, .most = 1e9},
        "of an hour of this machine, to tell what the run costs")
      .needs("--time");
  c.add_choice("--fit", o.fit, {"batch", "context", "layers"},
               "make this as large as the memory allows, and inspect that");
  c.add("--room", o.room, {.least = 1}, "bytes that training may take, as 80Gi [what is free]")
      .needs("--fit");
  c.add_flag("--json", o.json, "print the result as JSON");
  c.footer(
      "Examples:\n  longstride inspect configs/enwik8.toml --draw pattern.png --query 5000\n"
      "  longstride inspect configs/enwik8.toml --time --price 2.5\n"
      "  longstride inspect configs/enwik8.toml --fit context --room 80Gi\n"
      "  longstride inspect runs/text --attention heads.png --layer 5\n\n" +
      describe_fields());
  c.run([&o, &result, c] {
    o.given = c.given();
    result = run_inspect(o);
  });
}

void add_init(CLI::App& app, InitOptions& o, int& result) {
  Command c(app, "init", "write a short config for some data and this machine");
  c.add("data", o.path, "file, archive or folder to learn from").required().type_name("DATA");
  c.add("-o,--output", o.output, "file to write, - for standard output [the data's name with .toml]")
      .type_name("FILE");
  c.add_flag("--force", o.force, "replace the output if it is there");
  c.add("--minutes", o.minutes, {.least = 0, .most = 1e7, .least_excluded = true},
        "time to train; more time makes a larger model")
      .shown_default("10");
  c.add("--gpu-memory", o.gpu_memory, {.least = 1}, "bytes of a GPU that training may take, as 8Gi");
  add_overrides(c, o.overrides);
  c.footer("Example:\n  longstride init my.log.xz --minutes 30 && longstride train my.log.toml");
  c.run([&] { result = run_init(o); });
}

void add_data(CLI::App& app, DataOptions& o, int& result) {
  Command c(app, "data", "what longstride makes of some data, before anything is learnt");
  c.add("data", o.path, "file, archive or folder").required().type_name("DATA");
  c.add("--preview", o.preview,
        "write the beginning to this file: a grid of pictures (.png), a waveform (.png, .svg), text")
      .type_name("FILE");
  c.add("--measure", o.measure, {.least = 0, .most = 1 << 30}, "measure entropies and xz on so many bytes")
      .shown_default("8Mi");
  add_set(c, o.overrides, "data.kind=text");
  c.add_flag("--json", o.json, "print the result as JSON");
  c.footer("Examples:\n  longstride data my.log.xz\n  longstride data pictures/ --preview grid.png");
  c.run([&] { result = run_data(o); });
}

void add_runs(CLI::App& app, RunsOptions& o, int& result) {
  Command c(app, "runs", "a table of the runs in a folder, with state and best bits");
  c.add("folder", o.folder, "folder that holds runs, at any depth").type_name("DIR").shown_default("runs");
  c.add_choice("--sort", o.sort, {"name", "best", "time"}, "order of the rows; time: the latest first");
  c.add_flag("--json", o.json, "print the table as JSON");
  c.footer("Example:\n  longstride runs runs --sort best");
  c.run([&] { result = run_runs(o); });
}

void add_report(CLI::App& app, ReportOptions& o, int& result) {
  Command c(app, "report", "one HTML page about runs: curves, samples, differences, commands");
  c.add_words("run", o.runs, "run directories, or folders that hold runs").required().type_name("RUN");
  c.add("-o,--output", o.output, "file to write or replace, - for standard output")
      .type_name("FILE")
      .shown_default("report.html");
  c.add("--title", o.title, "heading of the page [the run's name]").type_name("TEXT");
  c.add_flag("--watch", o.watch, "write the page again, which loads itself again, while a run is trained");
  c.add("--every", o.every, {.least = 1, .most = 86400}, "seconds between two pages")
      .shown_default("30")
      .needs("--watch");
  c.add("--samples", o.samples, {.least = 0, .most = 64},
        "draw so many samples with each checkpoint that has none yet, and keep them in RUN/samples");
  c.footer(
      "The page needs no network. Samples that --samples kept are shown by every later report.\n\n"
      "Examples:\n  longstride report runs/fortunes --samples 4\n"
      "  longstride report runs/a runs/b -o compared.html\n  longstride report runs --watch");
  c.run([&] { result = run_report(o); });
}

void add_scaling(CLI::App& app, ScalingOptions& o, int& result) {
  Command c(app, "scaling", "power laws of the loss against parameters, data and compute, fitted to runs");
  c.add_words("run", o.runs, "run directories, or folders that hold runs").required().type_name("RUN");
  c.add("-o,--output", o.output, "draw the laws and the runs to this .svg").type_name("FILE");
  c.add_flag("--json", o.json, "print the laws as JSON");
  c.footer("Example:\n  longstride scaling runs/sizes -o scaling.svg");
  c.run([&] { result = run_scaling(o); });
}

void add_verify(CLI::App& app, VerifyOptions& o, int& result) {
  Command c(app, "verify", "whether runs, compressed files and states are what was written");
  c.add_words("path", o.paths, "run directories, folders that hold runs, compressed files, states of samples")
      .required()
      .type_name("RUN|FILE");
  c.add_flag("--json", o.json, "print the table as JSON");
  c.footer(
      "Reads everything and changes nothing; ends with 1 if anything is damaged.\n\n"
      "Example:\n  longstride verify runs/fortunes fortunes.txt.lsc");
  c.run([&] { result = run_verify(o); });
}

void add_selftest(CLI::App& app, SelftestOptions& o, int& result) {
  Command c(app, "selftest", "every op and pattern against the fp64 reference on this machine");
  const auto take_device = [&o](const std::string& device) { check_device_name(device), o.device = device; };
  c.add_checked("--device", take_device, "cpu, cuda, cuda:N or auto")
      .type_name("DEVICE")
      .shown_default("auto");
  c.add_choice("--instructions", o.instructions, instruction_names(), "as compute.instructions of a config");
  c.add("--only", o.only, "these groups of checks alone, as in --only attention,\"layer norm\"")
      .type_name("GROUP[,GROUP...]");
  c.add_flag("--thorough", o.thorough, "all the shapes that the tests use");
  c.add_flag("--json", o.json, "print the result as JSON");
  c.footer("Example:\n  longstride selftest");
  c.run([&] { result = run_selftest(o); });
}

// For packages and installations; the help does not show them.
void add_shell_files(CLI::App& app, std::string& shell) {
  Command completions_of(app, "completions", "the completions of a shell");
  completions_of.add_choice("shell", shell, {"bash", "zsh", "fish"}, "the shell").required();
  completions_of.run([&app, &shell] {
    std::vector<std::string> settings;
    RunConfig config;
    const FieldList fields = config.fields();
    for (const Field& field : fields.all()) settings.push_back(field.key() + "=");
    write_result(completions(app, shell, settings));
  });
  completions_of.hide();
  Command manual(app, "man", "the manual page");
  manual.run([&app] { write_result(manual_page(app, describe_fields())); });
  manual.hide();
}

}  // namespace

void Subcommands::add_to(CLI::App& app, char** arguments) {
  train_.arguments = sweep_.arguments = arguments;
  add_train(app, train_, result_);
  add_sweep(app, sweep_, result_);
  add_eval(app, eval_, result_);
  add_sample(app, sample_, result_);
  add_compress(app, compress_, result_);
  add_decompress(app, decompress_, result_);
  add_inspect(app, inspect_, result_);
  add_init(app, init_, result_);
  add_data(app, data_, result_);
  add_runs(app, runs_, result_);
  add_report(app, report_, result_);
  add_scaling(app, scaling_, result_);
  add_verify(app, verify_, result_);
  add_selftest(app, selftest_, result_);
  add_shell_files(app, shell_);
}

}  // namespace longstride::cli

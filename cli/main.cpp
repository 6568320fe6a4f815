// The longstride binary: reads the command line, runs one subcommand, and turns every error into one line.
// Exit codes: 0 done, 1 an error in files, data or training, 2 a command line that cannot be understood.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "longstride/base/check.h"
#include "longstride/base/text.h"
#include "longstride/device/instructions.h"
#include "longstride/run/config.h"

#include "cli/commands.h"

namespace longstride::cli {
namespace {

// The configuration's fields with their defaults, for the help of the commands that take --set.
std::string describe_fields() {
  RunConfig defaults;
  std::string text = "Configuration fields (TOML sections; --set section.key=value overrides one):\n";
  const FieldList list = defaults.fields();
  for (const Field& field : list.all())
    text += fmt::format("  {:<26} {} [{}]\n", field.key(), field.help, field.value_as_toml());
  return text;
}

void add_overrides(CLI::App* command, std::vector<std::string>& overrides) {
  command->add_option("--set", overrides, "override a config field, as in --set train.steps=100 (repeatable)")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

void add_device(CLI::App* command, std::vector<std::string>& overrides) {
  const auto override_device = [&overrides](const std::string& device) {
    overrides.push_back("compute.device=" + device);
  };
  command
      ->add_option_function<std::string>("--device", override_device,
                                         "cpu, cuda, cuda:N or auto; as compute.device of a config")
      ->type_name("DEVICE");
}

void add_weights(CLI::App* command, std::string& weights, const std::string& help) {
  command->add_option("--weights", weights, help)
      ->check(CLI::IsMember({"auto", "int8"}))
      ->capture_default_str();
}

void add_train(CLI::App& app, TrainOptions& o, int& result) {
  CLI::App* c = app.add_subcommand("train", "train a model from a config, or go on with a run");
  c->add_option("target", o.target, "a config file, or a run directory to go on with")
      ->required()
      ->type_name("CONFIG|RUN");
  c->add_option("--run", o.run, "directory of the new run [runs/NAME of the config]")->type_name("DIR");
  add_overrides(c, o.overrides);
  add_device(c, o.overrides);
  c->add_flag("--resume", o.resume, "go on if the run directory already holds this run, else begin it");
  c->add_option("--step", o.step, "go on from this checkpoint, discarding later ones [the newest]")
      ->check(CLI::NonNegativeNumber);
  c->add_flag("--quiet", o.quiet, "no progress line");
  c->add_flag("--json", o.json, "print the result as JSON");
  c->footer(
      "Example:\n  longstride train configs/fortunes.toml --run runs/fortunes --set train.minutes=5\n\n" +
      describe_fields());
  c->callback([&] { result = run_train(o); });
}

void add_eval(CLI::App& app, EvalOptions& o, int& result) {
  CLI::App* c = app.add_subcommand("eval", "bits per byte of a run's model on held-out data");
  c->add_option("run", o.run, "run directory")->required()->type_name("RUN");
  c->add_option("--file", o.file, "evaluate this file instead of the run's own data")->type_name("FILE");
  c->add_option("--split", o.split, "part of the run's data")
      ->check(CLI::IsMember({"train", "validation", "test"}))
      ->capture_default_str();
  c->add_option("--min-context", o.min_context,
                "score only bytes that have seen this much context; a list prints a table")
      ->delimiter(',')
      ->type_name("N[,N...]");
  c->add_option("--max-bytes", o.max_bytes, "evaluate at most this many bytes; 0 = all");
  c->add_option("--batch", o.batch, "windows at a time; 0 = chosen")->check(CLI::NonNegativeNumber);
  c->add_option("--step", o.step, "checkpoint to load [the best]");
  add_weights(c, o.weights,
              "int8: evaluate the model with its weights in eight bits, and say what that costs");
  c->add_option("--curve", o.curve, "write the loss by position in the window to this CSV file")
      ->type_name("FILE");
  add_overrides(c, o.overrides);
  add_device(c, o.overrides);
  c->add_flag("--json", o.json, "print the result as JSON");
  c->footer("Example:\n  longstride eval runs/enwik8 --split test --min-context 6144,9216,12160");
  c->callback([&] { result = run_eval(o); });
}

void add_sample(CLI::App& app, SampleOptions& o, int& result) {
  CLI::App* c = app.add_subcommand("sample", "let a run's model write text, paint pictures or play sound");
  c->add_option("run", o.run, "run directory")->required()->type_name("RUN");
  c->add_option("-n,--count", o.count, "samples")->check(CLI::PositiveNumber)->capture_default_str();
  c->add_option("--length", o.length,
                "bytes a sample, prime included; 0 = the context. Text and sound go on beyond it")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--hop", o.hop,
                "beyond the context: the part of it by which the model's window moves on when it is full")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  c->add_option("--temperature", o.temperature, "0 = always the likeliest byte")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  c->add_option("--top-k", o.top_k, "only the k likeliest bytes; 0 = all")->check(CLI::NonNegativeNumber);
  c->add_option("--top-p", o.top_p, "only the likeliest bytes that make up this probability")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  c->add_option("--seed", o.seed, "the same seed gives the same samples")->capture_default_str();
  c->add_option("--prime", o.prime,
                "file to go on from, - for standard input, or a record of the run's data as validation:3")
      ->type_name("FILE");
  c->add_option("--prime-fraction", o.prime_fraction,
                "part of the prime to use; pictures: the part from the top [0.5]")
      ->check(CLI::Range(0.0, 1.0));
  c->add_option("--prime-seconds", o.prime_seconds, "sound: seconds of the prime to use")
      ->check(CLI::NonNegativeNumber);
  c->add_option("-o,--output", o.output, "file to write [text: the terminal; sample.png, sample.wav]")
      ->type_name("FILE");
  c->add_option("--state", o.state, "keep the state in this file, so that --resume can go on from it")
      ->type_name("FILE");
  c->add_option("--save-every", o.save_every, "seconds between saves of the state")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  c->add_option("--resume", o.resume,
                "go on from this state with its options, to the very bytes that it would have come to")
      ->type_name("FILE");
  c->add_option("--branch", o.branch,
                "with --resume: go on in N other ways from each sample, leaving the state as it is; may have "
                "its own --temperature, --top-k, --top-p, --length, --seed and --state")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  c->add_option("--streams", o.streams,
                "samples side by side at most [what fits the memory, up to 64 on a GPU and 16 on a CPU]")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  c->add_flag("--exact-scores", o.exact_scores,
              "keep keys in f32 and multiply them with queries in f32, whatever the precision of the rest");
  c->add_option("--step", o.step, "checkpoint to load [the best]");
  add_weights(c, o.weights,
              "int8: weights in eight bits, faster where memory sets the pace; eval says what it costs");
  add_overrides(c, o.overrides);
  add_device(c, o.overrides);
  c->add_flag("--json", o.json, "print the result as JSON");
  c->footer(
      "Examples:\n  echo -n 'It was a dark and' | longstride sample runs/fortunes --prime -\n"
      "  longstride sample runs/cifar10 --count 16 --output grid.png\n"
      "  longstride sample runs/enwik8 --length 1000000 --state long.state --output long.txt\n"
      "  longstride sample runs/enwik8 --resume long.state");
  c->callback([&o, &result, c] {
    for (const CLI::Option* option : c->get_options())
      if (option->count() > 0) o.given.push_back(option->get_name());
    result = run_sample(o);
  });
}

void add_compress(CLI::App& app, CompressOptions& o, int& result) {
  CLI::App* c = app.add_subcommand("compress", "a file without loss in the bits that a run's model predicts");
  c->add_option("run", o.run, "run directory")->required()->type_name("RUN");
  c->add_option("file", o.file, "text: any file; pictures: a PNG; sound: a WAV of 8-bit mu-law")
      ->required()
      ->type_name("FILE");
  c->add_option("-o,--output", o.output, "file to write [FILE.lsc]")->type_name("FILE");
  c->add_flag("--force", o.force, "replace the output if it is there");
  c->add_option("--step", o.step, "checkpoint to load [the best]");
  add_weights(c, o.weights,
              "int8: weights in eight bits, faster where memory sets the pace; eval says what it costs");
  add_overrides(c, o.overrides);
  add_device(c, o.overrides);
  c->add_flag("--json", o.json, "print the result as JSON");
  c->footer(
      "Only the same model on a device that computes the same bits can decompress the file.\n\n"
      "Example:\n  longstride compress runs/fortunes fortunes.txt && "
      "longstride decompress runs/fortunes fortunes.txt.lsc -o again.txt");
  c->callback([&] { result = run_compress(o); });
}

void add_decompress(CLI::App& app, DecompressOptions& o, int& result) {
  CLI::App* c = app.add_subcommand("decompress", "the file that compress was given");
  c->add_option("run", o.run, "directory of the run that compressed it")->required()->type_name("RUN");
  c->add_option("file", o.file, "what compress wrote")->required()->type_name("FILE");
  c->add_option("-o,--output", o.output, "file to write [FILE without .lsc]")->type_name("FILE");
  c->add_flag("--force", o.force, "replace the output if it is there");
  add_overrides(c, o.overrides);
  add_device(c, o.overrides);
  c->add_flag("--json", o.json, "print the result as JSON");
  c->footer(
      "Checkpoint, weights, precision and settings are those that FILE names.\n\n"
      "Example:\n  longstride decompress runs/fortunes fortunes.txt.lsc");
  c->callback([&] { result = run_decompress(o); });
}

void add_inspect(CLI::App& app, InspectOptions& o, int& result) {
  CLI::App* c = app.add_subcommand("inspect", "parameters, cost, memory and reach of a model");
  c->add_option("target", o.target, "a config file or a run directory")->required()->type_name("CONFIG|RUN");
  add_overrides(c, o.overrides);
  add_device(c, o.overrides);
  c->add_option("--draw", o.draw, "draw the attention pattern to this .png or .svg")->type_name("FILE");
  c->add_option("--pixels", o.pixels, "largest side of a drawn pattern")
      ->check(CLI::Range(16, 8192))
      ->capture_default_str();
  c->add_flag("--json", o.json, "print the result as JSON");
  c->footer("Example:\n  longstride inspect configs/enwik8.toml --draw pattern.png\n\n" + describe_fields());
  c->callback([&] { result = run_inspect(o); });
}

void add_selftest(CLI::App& app, SelftestOptions& o, int& result) {
  CLI::App* c =
      app.add_subcommand("selftest", "every op and pattern against the fp64 reference on this machine");
  c->add_option("--device", o.device, "cpu, cuda or auto")->capture_default_str();
  c->add_option("--instructions", o.instructions, "as compute.instructions of a config")
      ->check(CLI::IsMember(instruction_names()))
      ->capture_default_str();
  c->add_option("--only", o.only, "these groups of checks alone, as in --only attention,\"layer norm\"")
      ->delimiter(',')
      ->type_name("GROUP[,GROUP...]");
  c->add_flag("--thorough", o.thorough, "all the shapes that the tests use");
  c->add_flag("--json", o.json, "print the result as JSON");
  c->footer("Example:\n  longstride selftest");
  c->callback([&] { result = run_selftest(o); });
}

// CLI11 would only say that a subcommand is missing.
void check_command(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  std::vector<std::string> known;
  for (const CLI::App* command : app.get_subcommands({})) known.push_back(command->get_name());
  if (std::find(known.begin(), known.end(), argv[1]) != known.end()) return;
  const std::string near = nearest(argv[1], known);
  throw UsageError(fmt::format("there is no command '{}'{} (see 'longstride --help')", argv[1],
                               near.empty() ? "" : "; did you mean '" + near + "'?"));
}

int run(int argc, char** argv) {
  CLI::App app("Sparse Transformers over long byte sequences: train, evaluate, sample and compress.",
               "longstride");
  app.set_version_flag("--version", std::string("longstride ") + LONGSTRIDE_VERSION);
  app.require_subcommand(1);
  app.set_help_all_flag("--help-all", "help of all commands");
  app.footer(
      "Example:\n  longstride train configs/fortunes.toml\n  longstride sample runs/fortunes\n\n"
      "longstride COMMAND --help says more, with an example.");
  TrainOptions train;
  EvalOptions eval;
  SampleOptions sample;
  CompressOptions compress;
  DecompressOptions decompress;
  InspectOptions inspect;
  SelftestOptions selftest;
  int result = 0;
  add_train(app, train, result);
  add_eval(app, eval, result);
  add_sample(app, sample, result);
  add_compress(app, compress, result);
  add_decompress(app, decompress, result);
  add_inspect(app, inspect, result);
  add_selftest(app, selftest, result);
  check_command(app, argc, argv);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    throw UsageError(
        fmt::format("{} (see 'longstride {}--help')", error.what(),
                    app.get_subcommands().empty() ? "" : app.get_subcommands()[0]->get_name() + " "));
  }
  return result;
}

int complain(int code, const char* what) {
  fmt::print(stderr, "longstride: {}\n", what);
  return code;
}

}  // namespace
}  // namespace longstride::cli

int main(int argc, char** argv) {
  using longstride::cli::complain;
  try {
    return longstride::cli::run(argc, argv);
  } catch (const longstride::UsageError& error) {
    return complain(2, error.what());
  } catch (const std::bad_alloc&) {
    return complain(
        1, "not enough memory; a smaller train.micro_batch, or train.activations=recompute, needs less");
  } catch (const std::exception& error) {
    return complain(1, error.what());
  }
}

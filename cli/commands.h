// The subcommands of the binary, one in each file. All return the exit code and throw Error or UsageError.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace longstride::cli {

struct TrainOptions {
  std::string target;  // a config file, or a run directory to go on with
  std::string run;     // where the run goes; empty: runs/<name of the config>
  std::vector<std::string> overrides;
  bool resume = false;
  bool data_changed = false;  // data that changed are taken as they are now
  int64_t step = -1;          // checkpoint to go on from; -1: the newest
  bool quiet = false;
  bool json = false;
  std::string log_format = "text";  // "json" means json too
  int64_t ranks = 0;           // processes that train it together, started here; 0: as many as were started
  int64_t gpus = 0;            // the same, each on a GPU of its own
  std::string parallel;        // data=N,sequence=N: what the ranks share
  char** arguments = nullptr;  // of this process
};
int run_train(const TrainOptions& options);

struct SweepOptions {
  std::string config;
  std::vector<std::string> vary;  // each section.key=value,value,...
  std::string folder;             // empty: runs/<name of the config>
  std::vector<std::string> overrides;
  int64_t gpus = 0;           // runs at a time, each on a GPU of its own; 0: as many as there are
  bool data_changed = false;  // data that changed are taken as they are now
  bool json = false;
  char** arguments = nullptr;  // of this process
};
// Returns 128 + the signal's number if it was interrupted.
int run_sweep(const SweepOptions& options);

struct ScalingOptions {
  std::vector<std::string> runs;  // or folders of runs
  std::string output;             // a .svg
  bool json = false;
};
int run_scaling(const ScalingOptions& options);

struct EvalOptions {
  std::string run;
  std::string file;                    // instead of the run's own data
  std::string split;                   // train, validation or test; "": validation
  bool data_changed = false;           // data that changed are taken as they are now
  std::vector<int64_t> min_context;    // empty: the windows do not overlap
  int64_t max_bytes = 0;               // 0: all
  int64_t batch = 0;                   // 0: chosen
  int64_t step = -1;                   // checkpoint; -1: the best
  std::string weights = "auto";        // auto: in the precision of products; int8
  std::string curve;                   // file for the loss by position
  std::string entropy;                 // file for the bits of every byte
  std::vector<std::string> overrides;  // of the data and compute sections
  bool json = false;
  std::string log_format = "text";  // "json" means json too
};
int run_eval(const EvalOptions& options);

struct SampleOptions {
  std::string run;
  int64_t count = 1;
  int64_t length = 0;  // of each sample, prime included; 0: the context
  double hop = 0.5;    // by this part of the context windows move on beyond it
  double temperature = 1.0;
  int64_t top_k = 0;
  double top_p = 1.0;
  uint64_t seed = 0;
  bool data_changed = false;     // data that changed are taken as they are now
  std::string prime;             // a file, or - for standard input
  double prime_fraction = 0;     // pictures: the part, from the top, that the prime provides
  double prime_seconds = 0;      // sound: how much of the prime's beginning to use; 0: as much as fits
  std::string weights = "auto";  // auto: in the precision of products; int8
  bool exact_scores = false;     // products of queries and keys in f32
  int64_t streams = 0;           // the most samples side by side; 0: chosen
  std::string output;      // .png, .wav or any file; empty: the terminal for text, sample.png, sample.wav
  std::string state;       // file to keep the state in
  double save_every = 30;  // seconds
  std::string resume;      // a state to go on from
  int64_t branch = 0;      // continuations of each of its samples; 0: only the one that it would have had
  int64_t step = -1;
  std::vector<std::string> overrides;
  bool json = false;
  std::string log_format = "text";  // "json" means json too
  std::vector<std::string> given;   // names of the options on the command line
};
// Returns 128 + the signal's number if it was interrupted.
int run_sample(const SampleOptions& options);

struct CompressOptions {
  std::string run, file;
  std::string output;  // empty: FILE.lsc
  bool force = false;  // replace an existing file
  int64_t step = -1;
  std::string weights = "auto";  // auto: in the precision of products; int8
  bool with_model = false;       // put the model into the file
  bool portable = false;         // in integers, which any machine decodes
  std::vector<std::string> overrides;
  bool json = false;
};
// Both return 128 + the signal's number, with nothing written, if they were interrupted.
int run_compress(const CompressOptions& options);

struct DecompressOptions {
  std::string run, file;  // no run: the file holds its model
  std::string output;     // empty: FILE without .lsc
  bool force = false;
  std::vector<std::string> overrides;
  bool json = false;
};
int run_decompress(const DecompressOptions& options);

struct InspectOptions {
  std::string target;  // a config file or a run directory
  std::vector<std::string> overrides;
  std::string draw;           // a .png or .svg
  int64_t query = -1;         // whose view --draw shows too; -1: none
  std::string draw_reach;     // likewise
  std::string attention;      // likewise, of a trained model
  int64_t layer = 1;          // that --attention looks at, from 1
  bool data_changed = false;  // for it, data that changed are taken as they are now
  int64_t pixels = 512;
  bool time = false, measure_anew = false;
  std::string fit;   // "batch", "context" or "layers"; empty: the config as it is
  int64_t room = 0;  // bytes that training may take; 0: what is free
  double price = 0;  // of an hour
  bool json = false;
  std::vector<std::string> given;  // names of the options on the command line
};
int run_inspect(const InspectOptions& options);

struct InitOptions {
  std::string path;    // the data
  std::string output;  // empty: the data's name with .toml
  double minutes = 10;
  int64_t gpu_memory = 0;  // bytes that training may take; 0: what is free
  bool force = false;
  std::vector<std::string> overrides;  // of the compute section
};
int run_init(const InitOptions& options);

struct DataOptions {
  std::string path;
  std::string preview;                 // a file for it; empty: on the terminal
  int64_t measure = 8 << 20;           // bytes for the yardsticks
  std::vector<std::string> overrides;  // of the data section
  bool json = false;
};
int run_data(const DataOptions& options);

struct RunsOptions {
  std::string folder = "runs";
  std::string sort = "name";
  bool json = false;
};
int run_runs(const RunsOptions& options);

struct ReportOptions {
  std::vector<std::string> runs;  // or folders of runs
  std::string output = "report.html";
  std::string title;    // empty: the run's name
  bool watch = false;   // write it again while a run is trained
  int64_t every = 30;   // seconds between two writings
  int64_t samples = 0;  // to draw of each checkpoint
};
int run_report(const ReportOptions& options);

struct VerifyOptions {
  std::vector<std::string> paths;  // runs, folders of runs, files
  bool json = false;
};
int run_verify(const VerifyOptions& options);

struct SelftestOptions {
  std::string device = "auto";
  std::string instructions = "auto";
  std::vector<std::string> only;  // groups of checks; empty: all
  bool thorough = false;
  bool json = false;
};
int run_selftest(const SelftestOptions& options);

}  // namespace longstride::cli

// The subcommands of the program: their options, their help, and what each runs.
#pragma once

#include <string>

#include <CLI/CLI.hpp>

#include "cli/commands.h"

namespace longstride::cli {

// Lives as long as the app that it was added to.
class Subcommands {
 public:
  // `arguments` are those of the program, for commands that start it once more. Parsing then runs the subcommand.
  void add_to(CLI::App& app, char** arguments);

  // The exit code of what has run.
  int result() const { return result_; }

 private:
  TrainOptions train_;
  SweepOptions sweep_;
  EvalOptions eval_;
  SampleOptions sample_;
  CompressOptions compress_;
  DecompressOptions decompress_;
  InspectOptions inspect_;
  InitOptions init_;
  DataOptions data_;
  RunsOptions runs_;
  ReportOptions report_;
  ScalingOptions scaling_;
  VerifyOptions verify_;
  SelftestOptions selftest_;
  std::string shell_;
  int result_ = 0;
};

}  // namespace longstride::cli

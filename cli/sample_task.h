// The task of a `longstride sample` command: a job and the files around it.
#pragma once

#include <string>

#include "longstride/sample/job.h"

#include "cli/commands.h"

namespace longstride::cli {

struct SampleTask {
  SampleJob job;                 // fields of the model are filled by load_model
  std::string state;             // file that keeps the session; empty: none
  bool resumed = false;          // it goes on as if it had not stopped
  bool output_of_state = false;  // the output's name comes from the state, not the command line
  std::string saved_on;          // the device in words, if resumed
};

// Reads the prime or the state, and checks everything that can be checked before a model is loaded. Sets the
// instruction set. Throws Error or UsageError.
SampleTask prepare_task(const SampleOptions& options);

// Loads the job's model and completes job.session. Throws Error if the state was made with another model.
LoadedModel load_model(const SampleOptions& options, SampleTask& task);

}  // namespace longstride::cli

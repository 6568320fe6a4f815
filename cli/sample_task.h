// What the command line of `longstride sample` asks for: a job and the files around it.
#pragma once

#include <string>

#include "longstride/sample/job.h"

#include "cli/commands.h"

namespace longstride::cli {

struct SampleTask {
  SampleJob job;                 // fields of the model are filled by load_model
  std::string state;             // file that keeps the session; empty: none
  bool resumed = false;          // goes on as if it had not stopped
  bool output_of_state = false;  // its name is the state's, not the command line's
  std::string saved_on;          // the device in words, if resumed
};

// Reads the prime or the state, and looks at everything that can be wrong before a model is loaded. Puts the
// instruction set into force. Throws Error or UsageError.
SampleTask prepare_task(const SampleOptions& options);

// The job's model; completes job.session. Throws Error if a state was made with another one.
LoadedModel load_model(const SampleOptions& options, SampleTask& task);

}  // namespace longstride::cli

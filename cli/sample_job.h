// What `longstride sample` is to do: from the command line, or from the state that an earlier run left.
#pragma once

#include <string>

#include "longstride/data/corpus.h"
#include "longstride/data/modalities/modality.h"
#include "longstride/run/run_directory.h"
#include "longstride/sample/session.h"

#include "cli/commands.h"

namespace longstride::cli {

struct SampleJob {
  RunConfig config;
  ImageShape shape;      // of pictures
  Session session;       // what is known at the beginning; fields of the model are filled by load_model
  std::string state;     // file that keeps the session; empty: none
  bool resumed = false;  // goes on as if it had not stopped
  bool output_of_state = false;  // its name is the state's, not the command line's
  std::string saved_on;          // the device in words, if resumed
  Windows windows;
  const Modality& modality() const { return modality_of(config.data); }
};

// Reads the prime or the state, and looks at everything that can be wrong before a model is loaded. Puts the
// instruction set into force. Throws Error or UsageError.
SampleJob prepare_job(const SampleOptions& options);

// Throws Error if the state chose the name of `file`, which is there and not as the state left it.
void check_own_output(const SampleJob& job, const std::string& file);

// "a.wav" as "a-3.wav", if there are several.
std::string numbered_output(const std::string& path, int64_t index, int64_t count);

// The job's model; completes job.session. Throws Error if a state was made with another one.
LoadedModel load_model(const SampleOptions& options, SampleJob& job);

}  // namespace longstride::cli

// A job: what is to be drawn, from which model, and how. One that begins and one that goes on differ only in where
// their session comes from.
//
// The caller gives the run's configuration and a session, whose fields say what is wanted or what an earlier
// process saved; prepare() derives the rest, add_sequences() begins new samples, and a model is loaded and noted in
// the session. Names of options, files to write and lines for people are the caller's: a command line and a
// program that holds everything in memory go the same way.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "longstride/data/corpus.h"
#include "longstride/data/modalities/modality.h"
#include "longstride/run/run_directory.h"
#include "longstride/sample/session.h"

namespace longstride {

struct SampleJob {
  RunConfig config;
  Session session;
  // By prepare().
  Windows windows;
  ImageShape shape;  // of pictures
  const Modality& modality() const { return modality_of(config.data); }
};

// Derives the windows and the shape of pictures from config and session. Throws Error if they do not go together
// or if the sequences are longer than can be counted.
void prepare(SampleJob& job);

// `count` sequences of session.length bytes that go on from `prime`, each with a random stream of its own. Throws
// Error if they are longer than can be counted.
void add_sequences(SampleJob& job, int64_t count, const std::vector<uint8_t>& prime);

// ---- the model ----

// The model of `run` that the job names: step session.step (-1: the best), in the form session.weights. Throws
// Error.
LoadedModel load_model(const SampleJob& job, const std::string& run);
// The very model that drew the session. `state` names its file in messages. Throws Error.
LoadedModel load_model_again(const SampleJob& job, const std::string& run, const std::string& state);
// How the model differs from the one that drew the session, for the end of a message; "" if it is the same.
std::string difference_of_model(const Session& session, const LoadedModel& loaded, const std::string& run);
// Notes in the session which model of which run draws it from now on, and on what.
void note_model(Session& session, const LoadedModel& loaded, const std::string& run);

// ---- the decoder ----

struct SampleDecoder {
  DecoderOptions options;
  int64_t bytes = 0;  // that it takes of the device's memory
};
// A decoder for the sequences that are not finished: at most `streams` side by side (0: chosen), and no more than
// the device has memory for.
SampleDecoder plan_decoder(const LoadedModel& loaded, const Session& session, const Windows& windows,
                           int64_t streams = 0);

}  // namespace longstride

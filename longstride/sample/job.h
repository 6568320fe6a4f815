// A job: what is to be drawn, from which model, and how. A job that begins and one that goes on differ only
// in where their session comes from.
//
// The caller gives the run's configuration and a session, whose fields say what is wanted or what an
// earlier process saved. prepare() derives the rest, add_sequences() begins new samples, load_model() loads
// the model, and note_model() notes it in the session. Names of options, files to write and lines for
// people belong to the caller. So a command line and a program that holds everything in memory use a job in
// the same way.
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
  // Set by prepare().
  Windows windows;
  ImageShape shape;  // of pictures
  const Modality& modality() const { return modality_of(config.data); }
};

// Derives the windows and the shape of pictures from config and session. Throws Error if they do not go together
// or if the sequences are longer than can be counted.
void prepare(SampleJob& job);

// Adds `count` sequences of session.length bytes that go on from `prime`, each with a random stream of its
// own. Throws Error if they are longer than can be counted.
void add_sequences(SampleJob& job, int64_t count, const std::vector<uint8_t>& prime);

// ---- the model ----

// Loads the model of `run` that the session names: step session.step (-1: the best), in the form
// session.weights. Throws Error.
LoadedModel load_model(const SampleJob& job, const std::string& run);
// Loads the same model that drew the session. `state` is the name of its file for messages. Throws Error.
LoadedModel load_model_again(const SampleJob& job, const std::string& run, const std::string& state);
// How the model differs from the one that drew the session, as the end of a message; "" if it is the same.
std::string difference_of_model(const Session& session, const LoadedModel& loaded, const std::string& run);
// Notes in the session which model of which run draws it from now on, and on which device.
void note_model(Session& session, const LoadedModel& loaded, const std::string& run);

// ---- the decoder ----

struct SampleDecoder {
  DecoderOptions options;
  int64_t bytes = 0;  // of the device's memory
};
// Options of a decoder for the sequences that are not finished: at most `streams` side by side (0: chosen),
// and no more than fit into the device's memory.
SampleDecoder plan_decoder(const LoadedModel& loaded, const Session& session, const Windows& windows,
                           int64_t streams = 0);

}  // namespace longstride

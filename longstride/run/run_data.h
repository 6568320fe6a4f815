// Where a run's data lie and what they were: RUN/data.json keeps size and checksum of each part, so that a
// run is not trained or scored on other data without a word.
#pragma once

#include <string>

#include "longstride/data/corpus.h"
#include "longstride/run/config.h"

namespace longstride {

// Makes the paths of the data and of the cache absolute; they are relative to the current folder. Paths that
// cannot stand in a TOML file (no UTF-8) stay as they are.
void make_paths_absolute(DataConfig& config);

// A note for people if one of the run's paths is relative, as in runs of older versions; else "".
std::string note_relative_paths(const DataConfig& config, const std::string& run);

// open_splits; what is not there is an Error that says which folder a relative path belongs to and, for the
// data of a run, how to name another place. `run` is empty for data that no run has yet.
Splits open_run_data(const DataConfig& config, const std::string& run);

// What a config takes from its pictures: their shape, so that a run knows it without the data, and with
// `axes`, where it names no axes of positions, rows, columns and channels. Throws Error if the context is not
// one picture, or the model cannot have such axes.
void take_pictures(RunConfig& config, const Corpus& corpus, bool axes);

// The shape of the pictures that a run paints: from its configuration, else from its data, else from three
// position axes. Throws Error if none of them tells, or if a picture has not model.context bytes.
ImageShape picture_shape(const RunConfig& config);

// Writes RUN/data.json. Throws Error.
void record_run_data(const std::string& run, const DataConfig& config, const Splits& splits);

// Throws Error, which says what changed, if a part of the run's data is not what record_run_data wrote down.
// A run without RUN/data.json is taken as it is; returns whether there is one.
bool check_run_data(const std::string& run, const DataConfig& config, const Splits& splits);
// The same for one part: train, validation or test.
bool check_run_data(const std::string& run, const DataConfig& config, const Splits& splits,
                    const std::string& part);
// Sizes and checksums of all parts, for other processes to compare.
std::string data_digest(const Splits& splits);
// Is the validation part the one that was recorded? True without a record, false if it cannot be read.
bool same_validation(const std::string& run, const DataConfig& config, const Splits& splits);

}  // namespace longstride

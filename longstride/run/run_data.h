// Where a run's data are and what they were. RUN/data.json keeps size and checksum of each part, so that a
// run is never silently trained or scored on other data.
#pragma once

#include <string>

#include "longstride/data/corpus.h"
#include "longstride/run/config.h"

namespace longstride {

// Makes the paths of the data and of the cache absolute; they are relative to the current folder. Paths that
// a TOML file cannot hold (not UTF-8) stay as they are.
void make_paths_absolute(DataConfig& config);

// A note for people if one of the run's paths is relative, as in runs of older versions; else "".
std::string note_relative_paths(const DataConfig& config, const std::string& run);

// open_splits, with better errors: if something is missing, the Error says which folder a relative path
// belongs to and, for the data of a run, how to name another place. `run` is empty for data that no run has
// yet.
Splits open_run_data(const DataConfig& config, const std::string& run);

// Copies the shape of the pictures into the config, so that a run knows it without the data. With `axes`, a
// config that names no axes of positions gets rows, columns and channels. Throws Error if the context is not
// one picture, or the model cannot have such axes.
void take_pictures(RunConfig& config, const Corpus& corpus, bool axes);

// The shape of the pictures that a run paints: from its configuration, else from its data, else from three
// position axes. Throws Error if none of them gives it, or if a picture does not have model.context bytes.
ImageShape picture_shape(const RunConfig& config);

// Writes RUN/data.json. Throws Error.
void record_run_data(const std::string& run, const DataConfig& config, const Splits& splits);

// Throws Error, which says what changed, if a part of the run's data is not what record_run_data recorded. A
// run without RUN/data.json is accepted; returns whether it has one.
bool check_run_data(const std::string& run, const DataConfig& config, const Splits& splits);
// The same for one part: train, validation or test.
bool check_run_data(const std::string& run, const DataConfig& config, const Splits& splits,
                    const std::string& part);
// Throws Error if RUN/data.json is there and cannot be understood. Does not look at the data.
void check_run_record(const std::string& run);
// Sizes and checksums of all parts, for other processes to compare.
std::string data_digest(const Splits& splits);
// Is the validation part the one that was recorded? True without a record, false if it cannot be read.
bool same_validation(const std::string& run, const DataConfig& config, const Splits& splits);

}  // namespace longstride

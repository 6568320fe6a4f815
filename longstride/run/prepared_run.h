// A run that is about to be trained. Everything that can be refused is checked once, cheapest checks first,
// and before anything in the run is changed.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "longstride/checkpoint/checkpoint.h"
#include "longstride/data/corpus.h"
#include "longstride/run/config.h"
#include "longstride/run/run_lock.h"

namespace longstride {

struct RunRequest {
  std::string directory;
  RunConfig config;
  int64_t from_step = -1;     // checkpoint to go on from; -1: the newest without damage
  bool go_on = true;          // false: a directory that holds checkpoints is refused
  bool data_changed = false;  // true: takes the data as they are now, even if they are not those of the run
  // The words of the command that trains the run, to keep in RUN/commands.jsonl; empty: none.
  std::vector<std::string> command = {};
  std::string advice = {};  // if the run is refused: what to do, for the end of the message
};

// The lock of a directory that holds a run; nothing for another directory. Take it before the run's
// configuration is read. Throws Error as RunLock does.
std::optional<RunLock> lock_existing_run(const std::string& directory, const Notes& note);

class PreparedRun {
 public:
  // `lock` is the result of lock_existing_run. Checks the directory, the model, the data and the checkpoint.
  // The only thing that it makes is a new directory with its lock, and without commit() that is removed
  // again. Throws Error.
  PreparedRun(RunRequest request, std::optional<RunLock> lock, const Notes& note);
  ~PreparedRun();
  PreparedRun(const PreparedRun&) = delete;
  PreparedRun& operator=(const PreparedRun&) = delete;

  const std::string& directory() const { return directory_; }
  // Includes what is known only from the data: the shape of pictures.
  const RunConfig& config() const { return config_; }
  const Splits& splits() const { return splits_; }
  bool resumes() const { return checkpoint_.has_value(); }
  // An earlier start left the directory without a checkpoint.
  bool begins_anew() const { return begins_anew_; }
  // What the config left open, as "model.context = 256, ..."; empty for nothing.
  const std::string& chosen() const { return chosen_; }
  // The checkpoint to go on from; null for a run that begins.
  const OpenCheckpoint* checkpoint() const { return checkpoint_ ? &*checkpoint_ : nullptr; }
  // Closes the checkpoint's files.
  void close_checkpoint() { checkpoint_.reset(); }

  // The run goes on with another validation part, so its best evaluation so far is not comparable.
  bool validation_changed() const { return validation_changed_; }

  // Writes the configuration, the command and, where they are new, the sizes and checksums of the data. From here on the
  // run exists, or goes on. Throws Error.
  void commit();

 private:
  void check_directory(const RunRequest& request) const;
  void check_model();
  void open_data(const RunRequest& request, bool trained, const Notes& note);
  void open_checkpoint(int64_t from_step, const Notes& note);
  void make_directory(const Notes& note);
  void remove_made();

  std::string directory_, chosen_;
  std::vector<std::string> command_;
  RunConfig config_;
  std::optional<RunLock> lock_;
  Splits splits_;
  std::optional<OpenCheckpoint> checkpoint_;
  std::vector<std::string> made_;  // folders, the outermost first
  bool begins_anew_ = false, committed_ = false, record_data_ = true, validation_changed_ = false;
};

}  // namespace longstride

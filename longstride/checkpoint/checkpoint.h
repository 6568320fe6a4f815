// The checkpoints of a run. Each is a folder RUN/checkpoints/step-00001234/ with
//   model.safetensors  the weights to use
//   state.safetensors  what training needs besides the weights, to go on as if it had not stopped
//   checksums.json     size and checksum of both
// It appears whole or not at all. docs/file-formats.md describes the files.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "longstride/base/check.h"
#include "longstride/checkpoint/safetensors.h"

namespace longstride {

struct CheckpointContents {
  std::vector<NamedTensor> model;
  std::vector<NamedTensor> state;
  Metadata metadata;        // of the state file: the training state as strings
  Metadata model_metadata;  // of the model file, besides "format" and "step"
};

// Numbers in the metadata. The text must be the number and nothing else. Throw Error naming `what`.
int64_t parse_whole_number(const std::string& text, const std::string& what);  // 0 or more, decimal
double parse_exact_number(const std::string& text, const std::string& what);   // finite; 0x1.8p+3 as well

struct CheckpointInfo {
  int64_t step = 0;
  std::string path;  // of the folder
};

// Creates the run's folders and removes what a killed process left there. Call it when training starts.
void prepare_run_directory(const std::string& run_directory);

// Throws Error if the run's folders exist but no checkpoint could be saved in them, so that training does
// not find out hours later. Changes nothing.
void check_can_save(const std::string& run_directory);

// Saves the state after `step` steps and returns the checkpoint's folder. A checkpoint of the same step is
// replaced. When this returns, the files are on the disk. After an Error (no space, ...) there is no new
// checkpoint, and older ones stay.
std::string save_checkpoint(const std::string& run_directory, int64_t step,
                            const CheckpointContents& contents);

// Adds what became known of a saved state later: entries that replace or complete its metadata, in
// amended.json, a small file in the checkpoint's folder. It appears whole or not at all. If the step is
// saved again, it is gone. Throws Error.
void amend_checkpoint(const std::string& run_directory, int64_t step, const Metadata& metadata);

// Whether there are amendments in the checkpoint's folder that count as none because they are damaged.
bool amendment_is_damaged(const std::string& checkpoint_folder);

// The checkpoints that have all their files, by ascending step.
std::vector<CheckpointInfo> list_checkpoints(const std::string& run_directory);
// The checkpoint of this step; throws Error naming the steps that exist.
CheckpointInfo find_checkpoint(const std::string& run_directory, int64_t step);

enum class Verify { checksums, sizes };

// A checkpoint's folder was copied or renamed. Which course of training it belongs to, only people can say.
class MisnamedCheckpoint : public Error {
 public:
  using Error::Error;
};

// A checkpoint that is known to be undamaged. Tensors of its files live as long as this object.
class OpenCheckpoint {
 public:
  // Reads both files whole and compares their checksums, or only their sizes. Throws Error naming the
  // damaged file and the older checkpoints to resume from; MisnamedCheckpoint if it is whole but of another
  // step than its folder's name.
  explicit OpenCheckpoint(const CheckpointInfo& info, Verify verify = Verify::checksums);

  int64_t step() const { return info_.step; }
  const std::string& path() const { return info_.path; }
  const SafetensorsFile& model() const { return model_; }
  const SafetensorsFile& state() const { return state_; }
  // Metadata of the state, with the amendments. A damaged amendment counts as none.
  const Metadata& metadata() const { return metadata_; }

 private:
  struct Mappings {
    MappedFile model, state;
  };
  static Mappings verified(const CheckpointInfo& info, Verify verify);
  OpenCheckpoint(const CheckpointInfo& info, Mappings mappings);

  CheckpointInfo info_;
  SafetensorsFile model_, state_;
  Metadata metadata_;
};

// The newest checkpoint without damage, if any, and one line about each damaged one that was skipped.
struct IntactCheckpoint {
  std::optional<CheckpointInfo> found;
  std::optional<OpenCheckpoint> opened;  // the same, opened, so that it is read and compared only once
  std::vector<std::string> warnings;
};
// Throws MisnamedCheckpoint, and Error where the system cannot open or map the newest: that is no damage.
IntactCheckpoint newest_intact(const std::string& run_directory);

// RUN/best.json: the step with the best evaluation so far, and its `value`. The caller decides which is
// better.
struct BestCheckpoint {
  int64_t step = 0;
  double value = 0;
};
void mark_best(const std::string& run_directory, int64_t step, double value);
// Empty without best.json; throws Error if it cannot be understood.
std::optional<BestCheckpoint> read_best(const std::string& run_directory);

// Removes best.json, if it is there. Throws Error.
void forget_best(const std::string& run_directory);

// Removes all checkpoints but the `keep_last` >= 1 newest and, if keep_best, the one in best.json. Throws
// Error.
void prune_checkpoints(const std::string& run_directory, int64_t keep_last, bool keep_best = true);

// Removes the checkpoints after `step`, and best.json if it names one of them. Training resumed from `step`
// takes another course, and a checkpoint of the old course must not count as the newest.
void discard_checkpoints_after(const std::string& run_directory, int64_t step);

// Makes RUN/model.safetensors the model of that step. It is another name of the same file, so it costs no
// space and stays when the checkpoint is removed.
void publish_model(const std::string& run_directory, int64_t step);
// The step of RUN/model.safetensors; empty without such a file. Throws Error if it is damaged.
std::optional<int64_t> published_step(const std::string& run_directory);

// Keeps the weights of `file`, those of `step`, for files that can be read with no others (an archive, a
// sampling state). They get another name of the same file in RUN/pins/, which pruning and going back do not
// touch. `digest` tells apart weights of the same step. Does nothing if they are kept already. Throws Error,
// for example if the folder cannot be written.
void pin_model(const std::string& run_directory, int64_t step, const std::string& digest,
               const std::string& file);
// The files of a step that pin_model kept.
std::vector<std::string> pinned_models(const std::string& run_directory, int64_t step);

}  // namespace longstride

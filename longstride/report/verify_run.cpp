#include "longstride/report/verify_run.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <system_error>

#include "longstride/base/check.h"
#include "longstride/base/despite_signals.h"
#include "longstride/base/text.h"
#include "longstride/checkpoint/checkpoint.h"
#include "longstride/report/metrics_reader.h"
#include "longstride/report/run_view.h"
#include "longstride/run/run_data.h"
#include "longstride/run/run_directory.h"
#include "longstride/train/trainer.h"

namespace longstride {

namespace fs = std::filesystem;

namespace {

class Verifier {
 public:
  explicit Verifier(const std::string& run) : run_(run) {}

  // `look` throws what is wrong, and returns a remark. A file that is not there is looked at only if it `must` be.
  void file(const fs::path& path, const char* how, bool must, const std::function<std::string()>& look) {
    std::error_code error;
    if (!must && !fs::exists(fs::symlink_status(path, error)) && !error) return;
    VerifiedFile& found = files_.emplace_back();
    found.path = path.string();
    found.how = how;
    const auto bytes = fs::file_size(path, error);
    if (!error) found.bytes = static_cast<int64_t>(bytes);
    try {
      found.remark = look();
    } catch (const std::exception& problem) {
      found.problem = problem.what();
    }
  }

  // What a folder holds, sorted. One that is there and cannot be listed is told as a file that cannot be read: what is
  // in it may be damaged.
  std::vector<fs::path> names_in(const fs::path& folder) {
    std::vector<fs::path> found;
    std::error_code error;
    for (fs::directory_iterator entry = entries_of(folder, error), end; !error && entry != end;
         entry.increment(error))
      found.push_back(entry->path());
    if (error && error != std::errc::no_such_file_or_directory)
      file(folder, "read", true, [&]() -> std::string { fail("cannot list it: {}", error.message()); });
    std::sort(found.begin(), found.end());
    return found;
  }

  void texts() {
    file(fs::path(run_) / "config.toml", "read", true, [&] {
      config_ = read_run_config(run_);
      return "";
    });
    file(fs::path(run_) / "data.json", "read", false, [&] {
      check_run_record(run_);
      return "";
    });
    file(fs::path(run_) / "best.json", "read", false, [&] {
      read_best(run_);
      return "";
    });
  }

  void checkpoints() {
    const fs::path folder = fs::path(run_) / "checkpoints";
    std::vector<fs::path> found = names_in(folder);
    std::erase_if(found, [](const fs::path& path) { return !path.filename().string().starts_with("step-"); });
    const std::vector<CheckpointInfo> whole = list_checkpoints(run_);
    for (const fs::path& path : found) checkpoint(path, whole);
  }

  // Other names of weights. What they hold must be the model that their name or their step says.
  void weights() {
    const fs::path published = fs::path(run_) / "model.safetensors";
    file(published, "digest", false, [&]() -> std::string {
      const std::optional<int64_t> step = published_step(run_);
      const auto original = models_.find(step.value_or(-1));
      if (original == models_.end()) {
        if (config_) weights_digest(config_->model, SafetensorsFile(published.string()));
        return "no checkpoint of its step to compare it with";
      }
      std::error_code ignored;
      if (fs::equivalent(published, original->second.path, ignored)) return "";
      const SafetensorsFile copy(published.string());
      LONGSTRIDE_CHECK(!config_ || weights_digest(config_->model, copy) == original->second.digest,
                       "{} does not hold the weights of step {}", published.string(), *step);
      return "";
    });
    std::vector<fs::path> pins = names_in(fs::path(run_) / "pins");
    std::erase_if(pins, [](const fs::path& path) { return path.extension() != ".safetensors"; });
    for (const fs::path& pin : pins)
      file(pin, "digest", true, [&] {
        const SafetensorsFile weights(pin.string());
        if (!config_) return "its digest needs config.toml";
        const std::string stem = pin.stem().string(), digest = weights_digest(config_->model, weights);
        const std::string named = stem.substr(stem.rfind('-') + 1);
        LONGSTRIDE_CHECK(!named.empty() && digest.starts_with(named), "{} holds other weights, of digest {}",
                         pin.string(), digest.substr(0, named.size()));
        return "";
      });
  }

  void lines() {
    file(fs::path(run_) / "metrics.jsonl", "read", false, [&] {
      MetricsReader metrics((fs::path(run_) / "metrics.jsonl").string());
      metrics.refresh();
      return joined(metrics.remarks());
    });
    file(fs::path(run_) / "commands.jsonl", "read", false, [&] {
      std::vector<std::string> remarks = view_run(run_).remarks;
      std::erase_if(remarks, [](const std::string& remark) { return !remark.starts_with("commands.jsonl"); });
      return joined(remarks);
    });
  }

  std::vector<VerifiedFile> take() { return std::move(files_); }

 private:
  struct Model {
    std::string path, digest;
  };

  static std::string joined(const std::vector<std::string>& lines) {
    std::string all;
    for (const std::string& line : lines) all += (all.empty() ? "" : "; ") + line;
    return all;
  }

  // Both files of a checkpoint have their digests in checksums.json.
  void checkpoint(const fs::path& path, const std::vector<CheckpointInfo>& whole) {
    file(path, "digest", true, [&] {
      const auto info = std::find_if(whole.begin(), whole.end(), [&](const CheckpointInfo& candidate) {
        return fs::path(candidate.path).filename() == path.filename();
      });
      LONGSTRIDE_CHECK(info != whole.end(),
                       "{} lacks one of its files model.safetensors, state.safetensors and checksums.json",
                       path.string());
      const OpenCheckpoint opened(*info);
      TrainState::from_metadata(opened.metadata());
      Model& model = models_[info->step];
      model.path = opened.model().path();
      if (config_) model.digest = weights_digest(config_->model, opened.model());
      return amendment_is_damaged(info->path) ? "amended.json is damaged and counts as none" : "";
    });
    int64_t bytes = 0;
    std::error_code error;
    for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
      std::error_code ignored;
      const auto size = entry->file_size(ignored);
      if (!ignored) bytes += static_cast<int64_t>(size);
    }
    files_.back().bytes = bytes;
  }

  std::string run_;
  std::optional<RunConfig> config_;
  std::map<int64_t, Model> models_;  // by step, of checkpoints that are whole
  std::vector<VerifiedFile> files_;
};

}  // namespace

std::vector<VerifiedFile> verify_run(const std::string& run) {
  LONGSTRIDE_CHECK(is_run_directory(run), "{}: no run directory", run);
  Verifier verifier(run);
  verifier.texts();
  verifier.checkpoints();
  verifier.weights();
  verifier.lines();
  return verifier.take();
}

}  // namespace longstride

#include "longstride/sweep/runner.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>
#include <utility>

#include "longstride/base/check.h"
#include "longstride/base/interrupt.h"

namespace longstride {

namespace {

// The last complaint in a log, from this byte on.
std::string complaint_in(const std::string& log, int64_t from) {
  std::ifstream file(log);
  file.seekg(from);
  const std::string opening = "longstride: ";
  std::string last;
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(opening)) last = line.substr(opening.size());
  return last;
}

int64_t size_of(const std::string& path) {
  std::error_code missing;
  const auto size = std::filesystem::file_size(path, missing);
  return missing ? 0 : static_cast<int64_t>(size);
}

// Whether a run's complaint is about the GPU, not about what it was asked to do: by the CUDA runtime (device/cuda_check.h), or about
// the driver (device/cuda.cpp).
bool blames_gpu(const std::string& problem) {
  return problem.find("(cudaError") != std::string::npos || problem.find("NVIDIA") != std::string::npos;
}

class Runner {
 public:
  Runner(std::vector<SweepRow>& rows, const SweepWork& work) : rows_(rows), work_(work) {
    for (const std::string& gpu : work.places) at_.push_back({gpu, nullptr, {}, 0});
  }

  void run() {
    for (SweepRow& row : rows_) {
      if (work_.look_at(row))
        row.state = SweepState::finished, work_.over(row, true);
      else if (row.seconds > 0)
        row.state = SweepState::stopped;
      if (row.state != SweepState::finished) waiting_.push_back(&row);
    }
    for (bool busy = true; busy;) {
      std::vector<const SweepRow*> under_way;
      const bool ends = InterruptGuard::requested();
      if (ends && !std::exchange(passed_on_, true)) pass_on();
      // What one place gives back another may take.
      for (Place& place : at_)
        if (place.row != nullptr) take_result(place);
      for (Place& place : at_) {
        if (place.row == nullptr && !ends) begin_next(place);
        if (place.row != nullptr) under_way.push_back(place.row);
      }
      busy = !under_way.empty();
      work_.under_way(under_way);
      if (busy) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    if (InterruptGuard::requested()) return;
    for (SweepRow* row : waiting_) {  // every GPU that might take them is left
      if (row->problem.empty()) row->problem = "no GPU is left on which runs do not fail";
      row->state = SweepState::failed;
      work_.over(*row, false);
    }
  }

 private:
  // Where one run at a time goes on.
  struct Place {
    std::string gpu;
    SweepRow* row = nullptr;
    std::optional<Child> child;
    int64_t log_began = 0;
    int faults = 0;  // runs in a row that failed by the GPU's fault
  };
  static constexpr int kMostFaults = 2;

  void begin_next(Place& place) {
    if (place.faults >= kMostFaults) return;
    const auto next = std::find_if(waiting_.begin(), waiting_.end(), [&](const SweepRow* row) {
      return row->not_on.empty() || row->not_on != place.gpu;
    });
    if (next == waiting_.end()) return;
    SweepRow& row = **next;
    waiting_.erase(next);
    row.problem.clear();
    ChildCommand command;
    command.words = work_.command(row);
    if (!place.gpu.empty()) command.environment.emplace_back("CUDA_VISIBLE_DEVICES", place.gpu);
    command.log = row.log;
    place.log_began = size_of(row.log);
    place.child.emplace(command);
    place.row = &row;
  }

  void take_result(Place& place) {
    const std::optional<int> code = place.child->ended();
    if (!code) return;
    SweepRow& row = *std::exchange(place.row, nullptr);
    place.child.reset();
    const bool finished = work_.look_at(row);
    if (*code == 0 && finished) {
      row.state = SweepState::finished;
      place.faults = 0;
    } else if (InterruptGuard::requested()) {
      row.state = SweepState::stopped;
    } else {
      row.state = SweepState::failed;
      row.problem = complaint_in(row.log, place.log_began);
      if (row.problem.empty())
        row.problem = *code > 128 ? fmt::format("ended by signal {}", *code - 128)
                                  : fmt::format("ended with code {}", *code);
      if (at_.size() > 1 && blames_gpu(row.problem)) {
        if (row.not_on.empty()) {
          ++place.faults;
          row.state = SweepState::waiting;
          row.not_on = place.gpu;
          waiting_.push_front(&row);
          work_.elsewhere(row, place.faults == kMostFaults);
          return;
        }
        for (Place& other : at_)
          if (other.gpu == row.not_on && other.faults > 0) --other.faults;
      } else {
        place.faults = 0;
      }
    }
    work_.over(row, false);
  }

  // A terminal's Ctrl-C reaches the runs by itself; a signal to this process alone does not, and twice within a second
  // is once.
  void pass_on() {
    for (const Place& place : at_)
      if (place.row != nullptr) place.child->send(InterruptGuard::signal_number());
    work_.ending();
  }

  std::vector<SweepRow>& rows_;
  const SweepWork& work_;
  std::vector<Place> at_;
  std::deque<SweepRow*> waiting_;
  bool passed_on_ = false;
};

}  // namespace

const char* name_of(SweepState state) {
  switch (state) {
    case SweepState::finished:
      return "finished";
    case SweepState::stopped:
      return "stopped";
    case SweepState::failed:
      return "failed";
    case SweepState::waiting:
      break;
  }
  return "not begun";
}

void train_sweep(std::vector<SweepRow>& rows, const SweepWork& work) { Runner(rows, work).run(); }

}  // namespace longstride

// Jobs of the program that are disturbed: killed at some moment, or with one operation of the system failing.
// Each begins from the same files, and what it leaves is compared with what it leaves undisturbed.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace longstride::reliability {

inline constexpr int kAll = -1;

// How one call of the program is disturbed or watched. See fault_shim.cpp.
struct Disturbance {
  int64_t at = 0;          // the number of the operation; 0: none
  std::string kind{};      // FAULT_KIND
  bool lasts = false;      // FAULT_LASTS
  int rank = kAll;         // of several: whose operation it is
  int64_t kill_after = 0;  // microseconds until SIGKILL; 0: never
  int victim = 0;          // of that: 0 is the program, n its n-th process, kAll all of them
  std::string journal{};   // if not "", power_shim.cpp is loaded instead and writes this file
};

struct Ended {
  int code = -1;  // exit status; -1 if a signal ended it
  int signal = 0;
  double seconds = 0;
  std::string err;  // standard error
};

// One line of the shim's log.
struct Operation {
  int64_t number = 0;
  std::string call, name, site;  // the name within the folder as it is, temporary numbers and all
  int rank = -1;                 // -1: the program itself
};

struct Job {
  std::string name;
  std::string begin;  // arguments, as the shell reads them
  std::string go_on;  // after a kill, if `go_on_with` is there; "": the same
  std::string go_on_with;
  std::vector<std::string> outputs;  // files and runs that it makes or replaces
  int processes = 1;                 // more: it starts so many, and waits for them
};

constexpr size_t kJobs = 22;

// A folder in which jobs are run. The shim's folder is `work`, always the same one, for a run keeps the
// absolute path of its data.
class Workshop {
 public:
  // Makes the files that the jobs begin with, by the program itself. Throws std::runtime_error.
  explicit Workshop(std::string folder);

  const std::vector<Job>& jobs() const { return jobs_; }
  // Of several processes, for what need not know which of them does an operation.
  const std::vector<Job>& rank_jobs() const { return rank_jobs_; }
  std::string work() const { return folder_ + "/work"; }

  // Puts the files back that the jobs begin with.
  void restore();
  // Runs the program in the work folder, until it and all that it started have ended. `log` gets its operations, if it
  // is not null. Throws std::runtime_error if something that it started outlives it by a minute.
  Ended run(const std::string& arguments, const Disturbance& how = {}, std::vector<Operation>* log = nullptr);
  Ended begin(const Job& job, const Disturbance& how = {}, std::vector<Operation>* log = nullptr) {
    return run(job.begin, how, log);
  }
  // As a user would after a kill.
  Ended go_on(const Job& job, const Disturbance& how = {});

  // What the job's outputs are worth now: by name, the content without what differs from one time to the
  // next, which is times and speeds.
  std::map<std::string, std::string> worth(const Job& job) const;
  // What is wrong with files under their final names right after a kill or a failure: half ones, damaged
  // ones, outputs that are neither the old nor the new. "" if nothing is.
  std::string damage(const Job& job, const std::map<std::string, std::string>& old_worth,
                     const std::map<std::string, std::string>& new_worth) const;
  // Names of files under construction that are left.
  std::vector<std::string> temporaries() const;

 private:
  std::string folder_;
  std::vector<Job> jobs_, rank_jobs_;
};

// Contents of files, by name, without checkpoints but the newest of the run `run`. When a rank dies, the others save where
// they are; such a checkpoint may have the place of one that an undisturbed run keeps.
std::map<std::string, std::string> without_older_checkpoints(std::map<std::string, std::string> worth);

// The name without temporary numbers, steps, times and hosts: what kind of file it is.
std::string role_of(const std::string& name);

}  // namespace longstride::reliability

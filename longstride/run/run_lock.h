// The lock of a run directory: one process at a time trains a run.
#pragma once

#include <functional>
#include <string>
#include <utility>

namespace longstride {

// Receives lines for people.
using Notes = std::function<void(const std::string&)>;

struct RunLockOptions {
  const char* work = "this run";  // what the holder trains, and what else the user may do, for messages
  const char* otherwise = "begin another run with --run";
  double patience = 5;  // seconds to wait for a process that is about to end
  Notes note = {};      // receives a line if a process is waited for or the file system has no locks
  // Stands for flock(descriptor, LOCK_EX | LOCK_NB) in tests.
  std::function<int(int descriptor)> try_lock = {};
};

// Held while a process trains in a run directory. The file RUN/.lock names the holder.
class RunLock {
 public:
  // Throws Error that names the holder if another process keeps the lock, and for the system's errors. Where
  // the file system has no locks, this is noted, and the run is not protected.
  explicit RunLock(const std::string& run_directory, const RunLockOptions& options = {});
  ~RunLock();
  RunLock(RunLock&& other) noexcept : path_(std::move(other.path_)), file_(std::exchange(other.file_, -1)) {}
  RunLock& operator=(RunLock&&) = delete;

  // Gives up the lock and removes its file, for a directory that will be removed.
  void remove();

 private:
  std::string path_;
  int file_ = -1;
};

}  // namespace longstride

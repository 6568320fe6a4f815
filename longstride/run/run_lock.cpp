#include "longstride/run/run_lock.h"

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <sstream>
#include <thread>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/base/despite_signals.h"

namespace longstride {

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kPause = std::chrono::milliseconds(50);

std::string host_name() {
  char name[256] = {};
  if (gethostname(name, sizeof name - 1) != 0 || name[0] == '\0') return "localhost";
  return name;
}

// What the holder writes into the lock's file.
struct Holder {
  long long process = 0;  // 0: not known
  std::string host;
  bool here() const { return process > 0 && host == host_name(); }
  std::string describe() const {
    if (process <= 0) return "another process";
    return here() ? fmt::format("process {}", process) : fmt::format("process {} on {}", process, host);
  }
};

Holder read_holder(int file) {
  char text[512] = {};
  const ssize_t count = pread(file, text, sizeof text - 1, 0);
  Holder holder;
  std::istringstream in(count > 0 ? std::string(text, static_cast<size_t>(count)) : "");
  std::string word;
  if (!(in >> word >> holder.process) || word != "pid" || !(in >> word >> holder.host) || word != "host")
    return {};
  return holder;
}

void write_holder(int file) {
  const std::string text = fmt::format("pid {}\nhost {}\n", getpid(), host_name());
  // A lock without its holder's name is still a lock.
  if (ftruncate(file, 0) != 0 || pwrite(file, text.data(), text.size(), 0) < 0) return;
}

// Whether the descriptor's file still has that name: its last holder may have removed it.
bool is_still_there(int file, const std::string& path) {
  struct stat opened {
  }, named{};
  return fstat(file, &opened) == 0 && lstat(path.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
         opened.st_dev == named.st_dev;
}

int open_lock_file(const std::string& run_directory, const std::string& path) {
  constexpr int kFlags = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
  const int file = despite_signals([&] { return open(path.c_str(), kFlags, 0644); });
  LONGSTRIDE_CHECK(file >= 0, "cannot write in {}: {} ({})", run_directory, last_system_error(), path);
  struct stat status {};
  if (fstat(file, &status) == 0 && S_ISREG(status.st_mode)) return file;
  close(file);
  fail("{} is no regular file; remove it", path);
}

int system_lock(int descriptor) { return flock(descriptor, LOCK_EX | LOCK_NB); }

}  // namespace

RunLock::RunLock(const std::string& run_directory, const RunLockOptions& options)
    : path_((std::filesystem::path(run_directory) / ".lock").string()) {
  const auto try_lock = options.try_lock ? options.try_lock : system_lock;
  const auto note = [&](const std::string& line) {
    if (options.note) options.note(line);
  };
  const Clock::time_point give_up = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                                       std::chrono::duration<double>(options.patience));
  bool said = false;
  for (;;) {
    if (file_ < 0) file_ = open_lock_file(run_directory, path_);
    if (try_lock(file_) == 0) {
      if (is_still_there(file_, path_)) break;
      close(std::exchange(file_, -1));
      continue;
    }
    const int error = errno;
    if (error == EINTR) continue;
    if (error == ENOSYS || error == ENOLCK || error == EOPNOTSUPP || error == EINVAL) {
      note(fmt::format(
          "{}: this file system has no locks ({}), so nothing keeps a second process from training "
          "this run too; see to it that none does",
          run_directory, last_system_error()));
      break;
    }
    const Holder holder = read_holder(file_);
    const bool held = error == EWOULDBLOCK || error == EACCES;
    if (held && Clock::now() < give_up) {
      if (!said)
        note(fmt::format("{}: waiting for {}, which trains {}", run_directory, holder.describe(),
                         options.work));
      said = true;
      std::this_thread::sleep_for(kPause);
      continue;
    }
    close(std::exchange(file_, -1));
    errno = error;
    LONGSTRIDE_CHECK(held, "{}: cannot lock the run: {}", run_directory, last_system_error());
    fail("{}: {} is training {}; wait for its end, stop it first{}, or {}", run_directory, holder.describe(),
         options.work, holder.here() ? fmt::format(" (kill {})", holder.process) : "", options.otherwise);
  }
  write_holder(file_);
}

RunLock::~RunLock() {
  if (file_ >= 0) close(file_);
}

void RunLock::remove() {
  if (file_ < 0) return;
  unlink(path_.c_str());
  close(std::exchange(file_, -1));
}

}  // namespace longstride

// Loaded before the C library (LD_PRELOAD), this stands between the program and the system. It counts and
// logs what the program does with the files of one folder, and lets one of these operations fail, do half its
// work, or be the last thing that the process does.
//
//   FAULT_ROOT  the folder, absolute and without links; operations elsewhere are neither counted nor touched
//   FAULT_LOG   a file outside it that gets one line an operation: number, call, path in the folder, call site, rank
//   FAULT_AT    the number of the operation that goes wrong, from 1; none if not given
//   FAULT_KIND  the errno's number, or: short, kill-before, kill-after, kill-half
//   FAULT_RANK  of several ranks the one that is disturbed, by its RANK; each counts its own operations
//   FAULT_LASTS if set, what takes space fails from there on, as on a full disk
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/reliability/shim_path.h"

namespace {

using longstride::reliability::Path;

struct Plan {
  const char* root = std::getenv("FAULT_ROOT");
  const char* kind = std::getenv("FAULT_KIND");
  const char* rank = std::getenv("RANK");
  long at = is_meant() ? std::atol(std::getenv("FAULT_AT")) : 0;
  bool lasts = std::getenv("FAULT_LASTS") != nullptr;
  int log = -1;
  bool is_meant() const {
    const char* meant = std::getenv("FAULT_RANK");
    return std::getenv("FAULT_AT") != nullptr &&
           (meant == nullptr || (rank != nullptr && std::strcmp(rank, meant) == 0));
  }
  Plan() {
    const char* path = std::getenv("FAULT_LOG");
    if (path != nullptr)
      log = static_cast<int>(
          syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  }
};

const Plan& plan() {
  static const Plan the_plan;
  return the_plan;
}

std::atomic<long> count{0};

enum class Turn { none, error, half, kill_before, kill_after, kill_half };

void log_operation(long number, const char* call, const char* name, const void* caller) {
  Dl_info module{};
  dladdr(caller, &module);
  const char* file = module.dli_fname == nullptr ? "?" : module.dli_fname;
  const char* slash = std::strrchr(file, '/');
  char line[3 * PATH_MAX];
  const int length =
      std::snprintf(line, sizeof line, "%ld\t%s\t%s\t%s+%#tx\t%s\n", number, call, name,
                    slash == nullptr ? file : slash + 1,
                    static_cast<const char*>(caller) - static_cast<const char*>(module.dli_fbase),
                    plan().rank == nullptr ? "" : plan().rank);
  syscall(SYS_write, plan().log, line, length);
}

// Counts an operation and tells what becomes of it; for an error errno is set. `grows`: it takes space.
Turn turn_of(const char* call, const Path& path, bool grows, const void* caller) {
  const char* name = path.inside(plan().root);
  if (name == nullptr) return Turn::none;
  const int kept = errno;
  const long number = ++count;
  if (plan().log >= 0) log_operation(number, call, name, caller);
  errno = kept;
  const bool now = number == plan().at;
  const bool full = plan().lasts && plan().at > 0 && number > plan().at && grows;
  const char* kind = plan().kind;
  if ((!now && !full) || kind == nullptr) return Turn::none;
  if (std::strcmp(kind, "short") == 0) return Turn::half;
  if (std::strcmp(kind, "kill-before") == 0) return Turn::kill_before;
  if (std::strcmp(kind, "kill-after") == 0) return Turn::kill_after;
  if (std::strcmp(kind, "kill-half") == 0) return Turn::kill_half;
  errno = std::atoi(kind);
  return Turn::error;
}

void die() {
  syscall(SYS_kill, getpid(), SIGKILL);
  for (;;) pause();
}

// Does an operation that is done whole or not at all.
template <class Call>
long done_by(Turn turn, Call call) {
  if (turn == Turn::error) return -1;
  if (turn == Turn::kill_before || turn == Turn::kill_half) die();
  const long result = call();
  if (turn == Turn::kill_after) die();
  return result;
}

// Does one that may do a part of `bytes`.
template <class Call>
ssize_t moved_by(Turn turn, size_t bytes, Call call) {
  if (turn == Turn::error) return -1;
  if (turn == Turn::kill_before) die();
  const bool part = turn == Turn::half || turn == Turn::kill_half;
  const ssize_t result = call(part && bytes > 1 ? bytes / 2 : bytes);
  if (turn == Turn::kill_after || turn == Turn::kill_half) die();
  return result;
}

int open_at(int folder, const char* name, int flags, mode_t mode, const void* caller) {
  const bool creates = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
  const Turn turn = turn_of(creates ? "create" : "open", Path(folder, name), creates, caller);
  return static_cast<int>(done_by(turn, [&] { return syscall(SYS_openat, folder, name, flags, mode); }));
}

mode_t mode_of(int flags, va_list arguments) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? static_cast<mode_t>(va_arg(arguments, int)) : 0;
}

int rename_at(const char* call, const char* from, const char* to, unsigned flags, const void* caller) {
  const Turn turn = turn_of(call, Path(AT_FDCWD, to), false, caller);
  return static_cast<int>(
      done_by(turn, [&] { return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags); }));
}

int remove_at(int folder, const char* name, int flags, const void* caller) {
  const Turn turn = turn_of("remove", Path(folder, name), false, caller);
  return static_cast<int>(done_by(turn, [&] { return syscall(SYS_unlinkat, folder, name, flags); }));
}

ssize_t read_at(int descriptor, void* to, size_t bytes, const void* caller) {
  return moved_by(turn_of("read", Path(descriptor), false, caller), bytes,
                  [&](size_t part) { return syscall(SYS_read, descriptor, to, part); });
}

ssize_t pread_at(int descriptor, void* to, size_t bytes, off_t offset, const void* caller) {
  return moved_by(turn_of("pread", Path(descriptor), false, caller), bytes,
                  [&](size_t part) { return syscall(SYS_pread64, descriptor, to, part, offset); });
}

int sync_file(int descriptor, const void* caller) {
  return static_cast<int>(done_by(turn_of("fsync", Path(descriptor), false, caller),
                                  [&] { return syscall(SYS_fsync, descriptor); }));
}

void* map_file(void* address, size_t bytes, int protection, int flags, int descriptor, off_t offset,
               const void* caller) {
  // Memory that is no file's is not counted.
  const Turn turn = descriptor < 0 ? Turn::none : turn_of("mmap", Path(descriptor), false, caller);
  return reinterpret_cast<void*>(done_by(
      turn, [&] { return syscall(SYS_mmap, address, bytes, protection, flags, descriptor, offset); }));
}

}  // namespace

extern "C" {

int open(const char* name, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_at(AT_FDCWD, name, flags, mode, __builtin_return_address(0));
}

int open64(const char* name, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_at(AT_FDCWD, name, flags, mode, __builtin_return_address(0));
}

int openat(int folder, const char* name, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_at(folder, name, flags, mode, __builtin_return_address(0));
}

int close(int descriptor) {
  const Turn turn = turn_of("close", Path(descriptor), false, __builtin_return_address(0));
  if (turn == Turn::kill_before || turn == Turn::kill_half) die();
  const int error = errno;
  const auto result = static_cast<int>(syscall(SYS_close, descriptor));  // an error closes it all the same
  if (turn == Turn::kill_after) die();
  if (turn != Turn::error) return result;
  errno = error;
  return -1;
}

ssize_t write(int descriptor, const void* from, size_t bytes) {
  return moved_by(turn_of("write", Path(descriptor), true, __builtin_return_address(0)), bytes,
                  [&](size_t part) { return syscall(SYS_write, descriptor, from, part); });
}

ssize_t pwrite(int descriptor, const void* from, size_t bytes, off_t offset) {
  return moved_by(turn_of("write", Path(descriptor), true, __builtin_return_address(0)), bytes,
                  [&](size_t part) { return syscall(SYS_pwrite64, descriptor, from, part, offset); });
}

ssize_t read(int descriptor, void* to, size_t bytes) {
  return read_at(descriptor, to, bytes, __builtin_return_address(0));
}

ssize_t pread(int descriptor, void* to, size_t bytes, off_t offset) {
  return pread_at(descriptor, to, bytes, offset, __builtin_return_address(0));
}

int fsync(int descriptor) { return sync_file(descriptor, __builtin_return_address(0)); }

int ftruncate(int descriptor, off_t bytes) {
  return static_cast<int>(done_by(turn_of("truncate", Path(descriptor), false, __builtin_return_address(0)),
                                  [&] { return syscall(SYS_ftruncate, descriptor, bytes); }));
}

int flock(int descriptor, int operation) {
  return static_cast<int>(done_by(turn_of("lock", Path(descriptor), false, __builtin_return_address(0)),
                                  [&] { return syscall(SYS_flock, descriptor, operation); }));
}

int rename(const char* from, const char* to) {
  return rename_at("rename", from, to, 0, __builtin_return_address(0));
}

int renameat2(int, const char* from, int, const char* to, unsigned flags) {
  return rename_at(flags == 0 ? "rename" : "rename specially", from, to, flags, __builtin_return_address(0));
}

int link(const char* from, const char* to) {
  const Turn turn = turn_of("link", Path(AT_FDCWD, to), true, __builtin_return_address(0));
  return static_cast<int>(
      done_by(turn, [&] { return syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0); }));
}

int mkdir(const char* name, mode_t mode) {
  const Turn turn = turn_of("mkdir", Path(AT_FDCWD, name), true, __builtin_return_address(0));
  return static_cast<int>(done_by(turn, [&] { return syscall(SYS_mkdirat, AT_FDCWD, name, mode); }));
}

int unlink(const char* name) { return remove_at(AT_FDCWD, name, 0, __builtin_return_address(0)); }

int rmdir(const char* name) { return remove_at(AT_FDCWD, name, AT_REMOVEDIR, __builtin_return_address(0)); }

int unlinkat(int folder, const char* name, int flags) {
  return remove_at(folder, name, flags, __builtin_return_address(0));
}

int remove(const char* name) {
  struct stat status {};
  const bool folder = lstat(name, &status) == 0 && S_ISDIR(status.st_mode);
  return remove_at(AT_FDCWD, name, folder ? AT_REMOVEDIR : 0, __builtin_return_address(0));
}

void* mmap(void* address, size_t bytes, int protection, int flags, int descriptor, off_t offset) {
  return map_file(address, bytes, protection, flags, descriptor, offset, __builtin_return_address(0));
}

void* mmap64(void* address, size_t bytes, int protection, int flags, int descriptor, off_t offset) {
  return map_file(address, bytes, protection, flags, descriptor, offset, __builtin_return_address(0));
}

// What a compiler that hardens its output calls instead (_FORTIFY_SOURCE).
int __open_2(const char* name, int flags) {
  return open_at(AT_FDCWD, name, flags, 0, __builtin_return_address(0));
}
ssize_t __read_chk(int descriptor, void* to, size_t bytes, size_t) {
  return read_at(descriptor, to, bytes, __builtin_return_address(0));
}
ssize_t __pread_chk(int descriptor, void* to, size_t bytes, off_t offset, size_t) {
  return pread_at(descriptor, to, bytes, offset, __builtin_return_address(0));
}

}  // extern "C"

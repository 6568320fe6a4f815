// Loaded before the C library (LD_PRELOAD), this writes down, in order, all that the program does to the files
// of one folder: what it writes where, which names it makes and removes, and what it brings to the disk
// (fsync). disk.cpp tells from that what may be left when the power goes at any moment.
//
//   POWER_ROOT     the folder, absolute and without links
//   POWER_JOURNAL  a file outside it that gets the records of power_journal.h
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/reliability/power_journal.h"
#include "tests/reliability/shim_path.h"

namespace {

using longstride::reliability::Deed;
using longstride::reliability::Path;
using longstride::reliability::RecordHeader;

struct Plan {
  const char* root = std::getenv("POWER_ROOT");
  int journal = -1;
  Plan() {
    const char* path = std::getenv("POWER_JOURNAL");
    if (path != nullptr)
      journal = static_cast<int>(
          syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  }
};

const Plan& plan() {
  static const Plan the_plan;
  return the_plan;
}

// Held over a deed and its record, so that the records stand in the order of the deeds.
std::mutex& order() {
  static std::mutex the_order;
  return the_order;
}

const char* inside(const Path& path) { return plan().journal < 0 ? nullptr : path.inside(plan().root); }

void record(Deed deed, const char* path, uint64_t inode, int64_t number, const void* data, size_t bytes) {
  RecordHeader header{deed, static_cast<uint32_t>(std::strlen(path)), inode, number, bytes};
  iovec parts[] = {{&header, sizeof header},
                   {const_cast<char*>(path), header.path_bytes},
                   {const_cast<void*>(data), bytes}};
  // A journal with a gap would show wrong states: better no program than that.
  const auto whole = static_cast<long>(sizeof header + header.path_bytes + bytes);
  if (syscall(SYS_writev, plan().journal, parts, 3) != whole) std::abort();
}

void record_name(Deed deed, const char* path, const char* other = "", int64_t number = 0) {
  record(deed, path, 0, number, other, std::strlen(other));
}

// Does `call`, and if it went well, `note`; only that if the path is not watched.
template <class Call, class Note>
long noted(const char* watched, Call call, Note note) {
  if (watched == nullptr) return call();
  const std::lock_guard<std::mutex> held(order());
  const long result = call();
  const int kept = errno;
  if (result >= 0) note(result);
  errno = kept;
  return result;
}

uint64_t inode_of(int descriptor) {
  struct stat status {};
  return fstat(descriptor, &status) == 0 ? status.st_ino : 0;
}

int open_at(int folder, const char* name, int flags, mode_t mode) {
  const Path path(folder, name);
  const bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT) != 0;
  const bool named = (flags & O_TMPFILE) != O_TMPFILE;  // what has no name is gone without power
  const char* watched = writes && named ? inside(path) : nullptr;
  return static_cast<int>(noted(
      watched, [&] { return syscall(SYS_openat, folder, name, flags, mode); },
      [&](long descriptor) {
        record(Deed::open, watched, inode_of(static_cast<int>(descriptor)), flags, nullptr, 0);
      }));
}

mode_t mode_of(int flags, va_list arguments) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? static_cast<mode_t>(va_arg(arguments, int)) : 0;
}

int rename_at(const char* from, const char* to, unsigned flags) {
  const Path source(AT_FDCWD, from), target(AT_FDCWD, to);
  const char* watched = inside(source);
  return static_cast<int>(noted(
      watched, [&] { return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags); },
      [&](long) {
        const char* second = inside(target);
        if (second == nullptr) std::abort();  // out of the folder: no job does that
        record_name(Deed::rename, watched, second, flags);
      }));
}

int link_at(const char* from, const char* to) {
  const Path source(AT_FDCWD, from), target(AT_FDCWD, to);
  const char* watched = inside(target);
  return static_cast<int>(noted(
      watched, [&] { return syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0); },
      [&](long) {
        const char* first = inside(source);
        if (first == nullptr) std::abort();
        record_name(Deed::link, first, watched);
      }));
}

int remove_at(int folder, const char* name, int flags) {
  const Path path(folder, name);
  const char* watched = inside(path);
  return static_cast<int>(noted(
      watched, [&] { return syscall(SYS_unlinkat, folder, name, flags); },
      [&](long) { record_name(Deed::remove, watched); }));
}

int sync_file(int descriptor, long call) {
  const Path path(descriptor);
  const char* watched = inside(path);
  return static_cast<int>(noted(
      watched, [&] { return syscall(call, descriptor); },
      [&](long) {
        struct stat status {};
        fstat(descriptor, &status);
        record(Deed::sync, watched, status.st_ino, S_ISDIR(status.st_mode) ? 1 : 0, nullptr, 0);
      }));
}

}  // namespace

extern "C" {

int open(const char* name, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_at(AT_FDCWD, name, flags, mode);
}

int open64(const char* name, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_at(AT_FDCWD, name, flags, mode);
}

int openat(int folder, const char* name, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_at(folder, name, flags, mode);
}

ssize_t write(int descriptor, const void* from, size_t bytes) {
  return noted(
      inside(Path(descriptor)), [&] { return syscall(SYS_write, descriptor, from, bytes); },
      [&](long written) {
        // Where it went, also for files that are appended to.
        const off_t end = lseek(descriptor, 0, SEEK_CUR);
        record(Deed::write, "", inode_of(descriptor), end - written, from, static_cast<size_t>(written));
      });
}

ssize_t pwrite(int descriptor, const void* from, size_t bytes, off_t offset) {
  return noted(
      inside(Path(descriptor)), [&] { return syscall(SYS_pwrite64, descriptor, from, bytes, offset); },
      [&](long written) {
        record(Deed::write, "", inode_of(descriptor), offset, from, static_cast<size_t>(written));
      });
}

int fsync(int descriptor) { return sync_file(descriptor, SYS_fsync); }
int fdatasync(int descriptor) { return sync_file(descriptor, SYS_fdatasync); }

int ftruncate(int descriptor, off_t bytes) {
  return static_cast<int>(noted(
      inside(Path(descriptor)), [&] { return syscall(SYS_ftruncate, descriptor, bytes); },
      [&](long) { record(Deed::truncate, "", inode_of(descriptor), bytes, nullptr, 0); }));
}

int rename(const char* from, const char* to) { return rename_at(from, to, 0); }
int renameat2(int, const char* from, int, const char* to, unsigned flags) {
  return rename_at(from, to, flags);
}
int link(const char* from, const char* to) { return link_at(from, to); }

int mkdir(const char* name, mode_t mode) {
  const Path path(AT_FDCWD, name);
  const char* watched = inside(path);
  return static_cast<int>(noted(
      watched, [&] { return syscall(SYS_mkdirat, AT_FDCWD, name, mode); },
      [&](long) { record_name(Deed::mkdir, watched); }));
}

int unlink(const char* name) { return remove_at(AT_FDCWD, name, 0); }
int rmdir(const char* name) { return remove_at(AT_FDCWD, name, AT_REMOVEDIR); }
int unlinkat(int folder, const char* name, int flags) { return remove_at(folder, name, flags); }

int remove(const char* name) {
  struct stat status {};
  const bool folder = lstat(name, &status) == 0 && S_ISDIR(status.st_mode);
  return remove_at(AT_FDCWD, name, folder ? AT_REMOVEDIR : 0);
}

}  // extern "C"

#include "longstride/base/output_file.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/base/despite_signals.h"

namespace longstride {

namespace fs = std::filesystem;

namespace {

constexpr int kMostLinks = 40;          // as the system's own limit
constexpr long kProcessFiles = 0x9fa0;  // the type of /proc, where links stand for open files
constexpr int kPermissionBits = 0777;

std::string folder_of(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

bool is_process_file(const std::string& link) {
  struct statfs system {};
  return statfs(folder_of(link).c_str(), &system) == 0 && static_cast<long>(system.f_type) == kProcessFiles;
}

// The descriptor that a link in /proc names, if it is one of this process; -1 otherwise.
int own_descriptor(const std::string& link) {
  std::error_code error;
  const fs::path folder = fs::canonical(folder_of(link), error), self = fs::canonical("/proc/self", error);
  const auto [end, ignored] = std::mismatch(self.begin(), self.end(), folder.begin(), folder.end());
  const std::string name = fs::path(link).filename().string();
  int number = -1;
  const auto [rest, wrong] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error || end != self.end() || folder.filename() != "fd" || wrong != std::errc() || *rest != '\0')
    return -1;
  return number;
}

// Descriptors that this process opened itself are closed when it becomes another program (FD_CLOEXEC). That
// flag tells them from those that it was given.
bool was_given(int descriptor) {
  const int flags = fcntl(descriptor, F_GETFD);
  return flags >= 0 && (flags & FD_CLOEXEC) == 0;
}

OutputPlace descriptor_place(const std::string& path, int descriptor) {
  LONGSTRIDE_CHECK(was_given(descriptor), "cannot write {}: descriptor {} is not open", path, descriptor);
  return {path, true, descriptor, true};
}

int open_directly(const OutputPlace& place) {
  if (place.descriptor >= 0) return fcntl(place.descriptor, F_DUPFD_CLOEXEC, 0);
  return despite_signals([&] { return open(place.path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY); });
}

}  // namespace

OutputPlace find_output(const std::string& path) {
  if (path == "-") return descriptor_place("standard output", STDOUT_FILENO);
  OutputPlace place{path};
  struct stat status {};
  for (int links = 0; lstat(place.path.c_str(), &status) == 0 && S_ISLNK(status.st_mode); ++links) {
    LONGSTRIDE_CHECK(links < kMostLinks, "cannot write {}: its symbolic links lead nowhere", path);
    if (is_process_file(place.path)) {
      const int descriptor = own_descriptor(place.path);
      if (descriptor >= 0) return descriptor_place(path, descriptor);
      return {place.path, true, -1, true};
    }
    std::error_code error;
    const fs::path target = fs::read_symlink(place.path, error);
    LONGSTRIDE_CHECK(!error, "cannot read the link {}: {}", place.path, error.message());
    place.path = (fs::path(place.path).parent_path() / target).string();
  }
  if (stat(place.path.c_str(), &status) != 0) {
    if (const int descriptor = is_process_file(place.path) ? own_descriptor(place.path) : -1; descriptor >= 0)
      return descriptor_place(path, descriptor);
    return place;
  }
  LONGSTRIDE_CHECK(!S_ISDIR(status.st_mode), "cannot write {}: that is a folder", path);
  place.exists = true;
  place.direct = !S_ISREG(status.st_mode);
  return place;
}

bool is_standard_output(const OutputPlace& place) {
  if (place.descriptor >= 0) return place.descriptor == STDOUT_FILENO;
  struct stat there {
  }, here{};
  return place.direct && stat(place.path.c_str(), &there) == 0 && fstat(STDOUT_FILENO, &here) == 0 &&
         there.st_dev == here.st_dev && there.st_ino == here.st_ino && S_ISFIFO(there.st_mode);
}

void check_output(const std::string& path, const std::string& option) {
  OutputPlace place;
  try {
    place = find_output(path);
  } catch (const Error& error) {
    fail("{} {}: {}", option, path, error.what());
  }
  if (place.direct) {
    LONGSTRIDE_CHECK(place.descriptor >= 0 || access(place.path.c_str(), W_OK) == 0,
                     "{} {}: cannot write it: {}", option, path, last_system_error());
    return;
  }
  const std::string folder = folder_of(place.path);
  std::error_code ignored;
  LONGSTRIDE_CHECK(fs::is_directory(folder, ignored), "{} {}: there is no folder {}", option, path, folder);
  try {
    check_creatable(place.path);
  } catch (const Error& error) {
    fail("{} {}: cannot write in {}: {}", option, path, folder, error.what());
  }
}

void write_output(const std::string& path, const FileWriter& writer, const OutputOptions& options) {
  const OutputPlace place = find_output(path);
  if (place.direct) {
    const int descriptor = open_directly(place);
    LONGSTRIDE_CHECK(descriptor >= 0, "cannot write {}: {}", path, last_system_error());
    return write_descriptor(descriptor, path, writer);
  }
  AtomicFileOptions atomic{.replace = options.replace, .mode = options.mode};
  struct stat status {};
  if (place.exists && stat(place.path.c_str(), &status) == 0) {
    const int there = static_cast<int>(status.st_mode) & kPermissionBits;
    atomic.mode = options.mode < 0 ? there : there & options.mode;
  }
  write_file_atomically(place.path, writer, atomic);
}

}  // namespace longstride

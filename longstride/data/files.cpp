#include "longstride/data/files.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <filesystem>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/base/despite_signals.h"
#include "longstride/base/printable.h"
#include "longstride/base/text.h"

namespace longstride::data {

namespace fs = std::filesystem;

SourceFile stat_file(const std::string& path) {
  struct stat status {};
  LONGSTRIDE_CHECK(::stat(path.c_str(), &status) == 0, "cannot read {}: {}", path, last_system_error());
  LONGSTRIDE_CHECK(!S_ISDIR(status.st_mode), "cannot read {}: it is a folder", path);
  LONGSTRIDE_CHECK(S_ISREG(status.st_mode), "cannot read {}: it is neither a file nor a folder", path);
  const auto nanoseconds = [](const timespec& time) {
    return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
  };
  return {path, status.st_size, nanoseconds(status.st_mtim), nanoseconds(status.st_ctim), status.st_ino};
}

namespace {

bool is_run_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path / "config.toml", ignored) && fs::is_directory(path / "checkpoints", ignored);
}

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (number_ >= 0) ::close(number_);
}

FileDescriptor open_for_reading(const std::string& path) {
  FileDescriptor file(
      despite_signals([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); }));
  LONGSTRIDE_CHECK(file.get() >= 0, "cannot read {}: {}", path, last_system_error());
  return file;
}

size_t read_some(int file, std::span<uint8_t> bytes, const std::string& label) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::read(file, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    LONGSTRIDE_CHECK(count >= 0, "cannot read {}: {}", label, last_system_error());
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  return done;
}

std::vector<uint8_t> bytes_at(int file, int64_t begin, size_t count, const std::string& label) {
  std::vector<uint8_t> bytes(count);
  LONGSTRIDE_CHECK(::lseek(file, begin, SEEK_SET) == begin, "cannot read {}: {}", label, last_system_error());
  bytes.resize(read_some(file, bytes, label));
  return bytes;
}

bool write_all(int file, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(file, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count == 0) errno = EIO;  // else it would be tried for ever
    if (count <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return true;
}

FileDescriptor unnamed_file(const std::string& folder) {
  const int direct =
      despite_signals([&] { return ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600); });
  if (direct >= 0) return FileDescriptor(direct);
  // Not every file system has such files. One with a name may stay if the process is killed just now.
  std::string name = folder + "/longstride-XXXXXX";
  FileDescriptor file(despite_signals([&] { return ::mkostemp(name.data(), O_CLOEXEC); }));
  if (file.get() >= 0) ::unlink(name.c_str());
  return file;
}

std::vector<uint8_t> read_whole_file(const std::string& path, int64_t limit) {
  const FileDescriptor file = open_for_reading(path);
  const int64_t size = stat_file(path).size;
  LONGSTRIDE_CHECK(size <= limit, "cannot read {}: it has {}, at most {} are expected here", path,
                   human_bytes(static_cast<double>(size)), human_bytes(static_cast<double>(limit)));
  std::vector<uint8_t> bytes(static_cast<size_t>(size));
  bytes.resize(read_some(file.get(), bytes, path));
  return bytes;
}

std::vector<SourceFile> list_files(const std::string& path, std::string* remark) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return {stat_file(path)};
  LONGSTRIDE_CHECK(!is_run_folder(path), "{} is a run of longstride, not data", path);
  std::vector<SourceFile> files;
  std::vector<std::string> dangling;
  fs::recursive_directory_iterator entries, end;
  do {
    entries = fs::recursive_directory_iterator(path, error);
  } while (error == std::errc::interrupted);
  for (; !error && entries != end; entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    if (is_hidden(name)) {
      entries.disable_recursion_pending();
      continue;
    }
    // Files of a run change from one session to the next; they are not data.
    std::error_code ignored;
    if (entries->is_directory(ignored) && is_run_folder(entries->path())) {
      entries.disable_recursion_pending();
      continue;
    }
    std::error_code unreadable;  // a dangling link: skipped like other names that are not files
    if (entries->is_regular_file(unreadable))
      files.push_back(stat_file(entries->path().string()));
    else if (entries->is_symlink(ignored) && !fs::exists(entries->path(), unreadable))
      dangling.push_back(entries->path().string());
  }
  LONGSTRIDE_CHECK(!error, "cannot read the folder {}: {}", path, error.message());
  LONGSTRIDE_CHECK(!files.empty(), "the folder {} holds no files (hidden ones are not read)", path);
  if (remark != nullptr && !dangling.empty())
    *remark =
        fmt::format("{} link{} to nothing skipped ({}{})", dangling.size(), dangling.size() == 1 ? "" : "s",
                    printable_line(*std::min_element(dangling.begin(), dangling.end())),
                    dangling.size() == 1 ? "" : ", ...");
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  return files;
}

bool is_hidden(const std::string& relative_path) {
  for (const std::string& component : split(relative_path, '/'))
    if (component.starts_with('.') && component != "." && component != "..") return true;
  return false;
}

std::string lower_extension(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  const size_t dot = path.find_last_of('.');
  if (dot == std::string::npos || (slash != std::string::npos && dot < slash)) return "";
  std::string extension = path.substr(dot + 1);
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension;
}

}  // namespace longstride::data

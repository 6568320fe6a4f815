#include "longstride/base/atomic_file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/base/despite_signals.h"
#include "longstride/base/mapped_file.h"

namespace longstride {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kTemporaryPrefix = ".tmp-";

std::string parent_of(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

// ".tmp-NAME-", where NAME is that of `path`, shortened so that the two numbers after it still fit into the
// longest name of the folder's file system. A character of several bytes is not cut in two.
std::string temporary_prefix_for(const std::string& path) {
  constexpr size_t kUsualLongest = 255, kNumbers = 32;
  const std::string name = fs::path(path).filename().string();
  const long longest = pathconf(parent_of(path).c_str(), _PC_NAME_MAX);
  const size_t most = longest > 0 ? static_cast<size_t>(longest) : kUsualLongest;
  size_t kept = std::min(name.size(), most - std::min(most, kTemporaryPrefix.size() + 1 + kNumbers));
  while (kept < name.size() && kept > 0 && (name[kept] & 0xC0) == 0x80) --kept;
  return fmt::format("{}{}-", kTemporaryPrefix, std::string_view(name).substr(0, kept));
}

// A new name beside `path`. The process id and a count keep apart files that are built at the same time. A
// killed process with the same id (in a container it is often 1) may have left the name behind; such a name
// is skipped.
std::string temporary_name_for(const std::string& path) {
  static std::atomic<uint64_t> count{0};
  const fs::path prefix = fs::path(path).parent_path() / temporary_prefix_for(path);
  for (;;) {
    const std::string name = fmt::format("{}{}-{}", prefix.string(), getpid(), count.fetch_add(1));
    if (access(name.c_str(), F_OK) != 0) return name;
  }
}

// "123-0", a process and a count.
bool are_numbers(std::string_view text) {
  const size_t line = text.find('-');
  const auto digits = [](std::string_view part) {
    return !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
  };
  return line != std::string_view::npos && digits(text.substr(0, line)) && digits(text.substr(line + 1));
}

// ".tmp-NAME-123-0" for any NAME.
bool is_temporary_name(std::string_view name) {
  if (!name.starts_with(kTemporaryPrefix)) return false;
  const size_t last = name.rfind('-');
  const size_t before = name.rfind('-', last - 1);
  return before != std::string_view::npos && before > kTemporaryPrefix.size() &&
         are_numbers(name.substr(before + 1));
}

// A file, or a folder that holds only files, as this code builds them.
bool is_temporary_content(const fs::path& path) {
  std::error_code error;
  const fs::file_type type = fs::symlink_status(path, error).type();
  if (type != fs::file_type::directory) return type == fs::file_type::regular;
  for (fs::directory_iterator entry = entries_of(path, error), end; !error && entry != end;
       entry.increment(error))
    if (!fs::is_regular_file(entry->symlink_status())) return false;
  return !error;
}

// Calls create(temporary name) until it finds a name that is free, and returns that name. create sets errno
// and returns success.
template <class Create>
std::string create_temporary(const std::string& path, Create create) {
  for (;;) {
    std::string name = temporary_name_for(path);
    if (create(name)) return name;
    LONGSTRIDE_CHECK(errno == EEXIST, "cannot create {}: {}", path, reason_with_advice());
  }
}

int open_file(const std::string& path, int flags, mode_t mode = 0) {
  return despite_signals([&] { return open(path.c_str(), flags, mode); });
}

int sync_file(int descriptor) {
  return despite_signals([&] { return fsync(descriptor); });
}

// An exclusive lock for as long as the descriptor is open; the system drops it when the process dies. Some
// file systems have no locks. There a second process may sweep up what a first one is building; nothing else
// is lost.
void hold_lock(int descriptor) { flock(descriptor, LOCK_EX | LOCK_NB); }

// Where the file system cannot tell, the folder counts as held: unfinished work is worth more than a tidy
// folder. Network file systems lock only descriptors that are open for writing, which a folder cannot be.
bool is_held(const std::string& path) {
  constexpr int kFlags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  int descriptor = open_file(path, O_RDWR | kFlags);
  if (descriptor < 0) descriptor = open_file(path, O_RDONLY | kFlags);
  if (descriptor < 0) return errno != ENOENT;
  const bool held = flock(descriptor, LOCK_EX | LOCK_NB) != 0;
  close(descriptor);
  return held;
}

void remove_tree(const std::string& path) {
  std::error_code error;
  do {
    fs::remove_all(path, error);
  } while (error == std::errc::interrupted);
  LONGSTRIDE_CHECK(!error, "cannot remove {}: {}", path, error.message());
}

// A folder that is brought to the disk once its names have changed. Opened before, so that what may fail then comes
// before the change.
class FolderToSync {
 public:
  explicit FolderToSync(std::string path)
      : path_(std::move(path)), descriptor_(open_file(path_, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    LONGSTRIDE_CHECK(descriptor_ >= 0, "cannot open folder {}: {}", path_, reason_with_advice());
  }
  ~FolderToSync() { close(descriptor_); }
  FolderToSync(const FolderToSync&) = delete;
  FolderToSync& operator=(const FolderToSync&) = delete;

  // Some file systems cannot do that for folders and say EINVAL.
  void sync() const {
    const bool synced = sync_file(descriptor_) == 0 || errno == EINVAL || errno == ENOTSUP;
    LONGSTRIDE_CHECK(synced, "cannot bring folder {} to the disk: {}", path_, reason_with_advice());
  }

 private:
  std::string path_;
  int descriptor_;
};

// A file under construction. `shown_path` is the name that its user knows.
class OutputFile : public ByteSink {
 public:
  OutputFile(int descriptor, std::string shown_path)
      : descriptor_(descriptor), shown_path_(std::move(shown_path)) {}
  ~OutputFile() override {
    if (descriptor_ >= 0) close(descriptor_);
  }

  using ByteSink::write;
  void write(const void* data, int64_t bytes) override {
    const char* next = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t written = ::write(descriptor_, next, static_cast<size_t>(bytes));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0 && errno == EPIPE)
        throw PipeClosed(fmt::format("cannot write {}: nobody reads it", shown_path_));
      LONGSTRIDE_CHECK(written > 0, "cannot write {}: {}", shown_path_, reason_with_advice());
      next += written;
      bytes -= written;
    }
  }

  void bring_to_disk() {
    LONGSTRIDE_CHECK(sync_file(descriptor_) == 0, "cannot write {}: {}", shown_path_, reason_with_advice());
  }

  // What was not brought to the disk may turn out not to be writable only now, on network file systems.
  void finish() {
    const bool closed = close(std::exchange(descriptor_, -1)) == 0 || errno == EINTR;
    LONGSTRIDE_CHECK(closed, "cannot write {}: {}", shown_path_, reason_with_advice());
  }

 private:
  int descriptor_;
  std::string shown_path_;
};

int create_new_file(const std::string& path, mode_t mode = 0666) {
  return open_file(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
}

// Moves a finished temporary to its final name; removes it if that fails.
void rename_into_place(const std::string& temporary, const std::string& path) {
  if (rename(temporary.c_str(), path.c_str()) == 0) return;
  const std::string reason = reason_with_advice();
  unlink(temporary.c_str());
  fail("cannot replace {}: {}", path, reason);
}

// The same, but only if the name is free. File systems without such a rename can mostly link. Where neither
// works, all that is left is to look first.
bool rename_without_replacing(const std::string& temporary, const std::string& path) {
  if (renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) == 0) return true;
  if (errno == EEXIST) return false;
  if (link(temporary.c_str(), path.c_str()) == 0) return unlink(temporary.c_str()), true;
  if (errno == EEXIST) return false;
  struct stat status {};
  if (lstat(path.c_str(), &status) == 0) return errno = EEXIST, false;
  return rename(temporary.c_str(), path.c_str()) == 0;
}

void move_into_place(const std::string& temporary, const std::string& path, bool replace) {
  if (replace) return rename_into_place(temporary, path);
  if (rename_without_replacing(temporary, path)) return;
  const std::string reason =
      errno == EEXIST ? "a file of that name appeared meanwhile and was left as it is" : reason_with_advice();
  unlink(temporary.c_str());
  fail("cannot create {}: {}", path, reason);
}

}  // namespace

void sync_directory(const std::string& path) { FolderToSync(path).sync(); }

std::string reason_with_advice() {
  const int error = errno;
  const std::string reason = last_system_error();
  if (error == ENOSPC || error == EDQUOT) return reason + "; free some space or write to another disk";
  if (error == EFBIG) return reason + "; raise the file size limit (ulimit -f) or write to another disk";
  if (error == EACCES || error == EPERM || error == EROFS)
    return reason + "; choose a folder that you may write to";
  if (error == ENOENT || error == ENOTDIR) return reason + "; the folder above it must exist";
  return reason;
}

void write_file_atomically(const std::string& path, const FileWriter& writer,
                           const AtomicFileOptions& options) {
  constexpr mode_t kPrivate = 0600;
  int descriptor = -1;
  const std::string temporary = create_temporary(path, [&](const std::string& name) {
    return (descriptor = options.mode < 0 ? create_new_file(name) : create_new_file(name, kPrivate)) >= 0;
  });
  OutputFile file(descriptor, path);
  hold_lock(descriptor);
  std::optional<FolderToSync> folder;
  try {
    writer(file);
    // Some file systems have no permissions, which is no reason to lose the file.
    if (options.mode >= 0 && fchmod(descriptor, static_cast<mode_t>(options.mode)) != 0) errno = 0;
    file.bring_to_disk();
    folder.emplace(parent_of(path));
  } catch (...) {
    unlink(temporary.c_str());
    throw;
  }
  move_into_place(temporary, path, options.replace);
  folder->sync();
}

void write_descriptor(int descriptor, const std::string& shown_path, const FileWriter& writer) {
  OutputFile file(descriptor, shown_path);
  writer(file);
  file.finish();
}

void check_creatable(const std::string& path) {
  struct stat status {};
  LONGSTRIDE_CHECK(lstat(path.c_str(), &status) == 0 || errno == ENOENT, "cannot create {}: {}", path,
                   reason_with_advice());
  int descriptor = -1;
  // Named after the file, so that whoever writes it next removes what a killed process left.
  const std::string probe = create_temporary(
      path, [&](const std::string& name) { return (descriptor = create_new_file(name)) >= 0; });
  close(descriptor);
  unlink(probe.c_str());
}

AtomicDirectory::AtomicDirectory(std::string final_path) : final_path_(std::move(final_path)) {
  temporary_path_ =
      create_temporary(final_path_, [](const std::string& name) { return mkdir(name.c_str(), 0777) == 0; });
  lock_ = open_file(temporary_path_, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ >= 0) hold_lock(lock_);
}

AtomicDirectory::~AtomicDirectory() {
  if (!committed_) {
    // One by one, which needs no open file: there may be none left.
    for (const std::string& name : names_) unlink((temporary_path_ + "/" + name).c_str());
    if (rmdir(temporary_path_.c_str()) != 0) {
      std::error_code ignored;
      fs::remove_all(temporary_path_, ignored);
    }
  }
  if (lock_ >= 0) close(lock_);
}

void AtomicDirectory::write_file(const std::string& name, const FileWriter& writer) {
  const std::string path = temporary_path_ + "/" + name, shown_path = final_path_ + "/" + name;
  const int descriptor = create_new_file(path);
  LONGSTRIDE_CHECK(descriptor >= 0, "cannot create {}: {}", shown_path, reason_with_advice());
  names_.push_back(name);
  OutputFile file(descriptor, shown_path);
  writer(file);
  file.bring_to_disk();
}

void AtomicDirectory::commit() {
  sync_directory(temporary_path_);
  const std::string parent = parent_of(final_path_);
  if (rename(temporary_path_.c_str(), final_path_.c_str()) == 0) {
    committed_ = true;
    return sync_directory(parent);
  }
  LONGSTRIDE_CHECK(errno == ENOTEMPTY || errno == EEXIST, "cannot create {}: {}", final_path_,
                   reason_with_advice());
  // A folder with content is there already. To exchange the two names keeps one of them under the name at
  // all times. Where the file system cannot do that, the old folder is moved aside first.
  if (renameat2(AT_FDCWD, temporary_path_.c_str(), AT_FDCWD, final_path_.c_str(), RENAME_EXCHANGE) != 0) {
    const std::string aside = temporary_name_for(final_path_);
    LONGSTRIDE_CHECK(rename(final_path_.c_str(), aside.c_str()) == 0, "cannot replace {}: {}", final_path_,
                     reason_with_advice());
    if (rename(temporary_path_.c_str(), final_path_.c_str()) != 0) {
      const std::string reason = reason_with_advice();
      rename(aside.c_str(), final_path_.c_str());
      fail("cannot replace {}: {}", final_path_, reason);
    }
    temporary_path_ = aside;
  }
  committed_ = true;
  sync_directory(parent);
  remove_tree(temporary_path_);
}

bool is_temporary(const std::string& path) {
  return is_temporary_name(fs::path(path).filename().string()) && is_temporary_content(path);
}

int remove_stale_temporaries(const std::string& folder, std::string_view name) {
  const std::string prefix =
      name.empty() ? "" : temporary_prefix_for((fs::path(folder) / std::string(name)).string());
  const auto is_ours = [&](const std::string& found) {
    return name.empty()
               ? is_temporary_name(found)
               : found.starts_with(prefix) && are_numbers(std::string_view(found).substr(prefix.size()));
  };
  std::error_code error;
  std::vector<std::string> stale;
  for (fs::directory_iterator entry = entries_of(folder, error), end; !error && entry != end;
       entry.increment(error))
    if (is_ours(entry->path().filename().string()) && is_temporary_content(entry->path()) &&
        !is_held(entry->path().string()))
      stale.push_back(entry->path().string());
  if (error == std::errc::no_such_file_or_directory) return 0;
  LONGSTRIDE_CHECK(!error, "cannot list folder {}: {}", folder, error.message());
  for (const std::string& path : stale) remove_tree(path);
  return static_cast<int>(stale.size());
}

void remove_directory_atomically(const std::string& path) {
  const std::string aside = temporary_name_for(path);
  LONGSTRIDE_CHECK(rename(path.c_str(), aside.c_str()) == 0, "cannot remove {}: {}", path,
                   reason_with_advice());
  // Without power some file systems would keep the old name and lose the content, and nobody would remove that.
  try {
    sync_directory(parent_of(path));
  } catch (...) {
    remove_tree(aside);
    throw;
  }
  remove_tree(aside);
}

void link_file_atomically(const std::string& existing, const std::string& path) {
  const std::string temporary = temporary_name_for(path);
  if (link(existing.c_str(), temporary.c_str()) != 0) {
    const MappedFile source(existing);
    return write_file_atomically(path, [&](ByteSink& sink) { sink.write(source.data(), source.bytes()); });
  }
  rename_into_place(temporary, path);
  // Renaming one name of a file over another name of the same file does nothing and leaves both.
  unlink(temporary.c_str());
  sync_directory(parent_of(path));
}

void link_file_if_absent(const std::string& existing, const std::string& path) {
  if (link(existing.c_str(), path.c_str()) == 0) return sync_directory(parent_of(path));
  if (errno == EEXIST) return;
  const fs::path place(path);
  remove_stale_temporaries(parent_of(path), place.filename().string());  // of copies that were not finished
  const MappedFile source(existing);
  write_file_atomically(path, [&](ByteSink& sink) { sink.write(source.data(), source.bytes()); });
}

void check_file_or_absent(const std::string& path) {
  std::error_code ignored;
  if (fs::symlink_status(path, ignored).type() == fs::file_type::not_found) return;
  const fs::file_type type = fs::status(path, ignored).type();
  if (type == fs::file_type::not_found) fail("{} is a link to nothing; remove it", path);
  if (type != fs::file_type::regular && type != fs::file_type::unknown && type != fs::file_type::none)
    fail("{} is no regular file; remove it", path);
}

void make_directories(const std::string& path) {
  std::error_code error;
  std::vector<std::string> parents;  // of what is missing
  for (fs::path folder = fs::path(path).lexically_normal(); !folder.empty() && !fs::exists(folder, error);) {
    if (!folder.has_filename()) folder = folder.parent_path();  // a slash at the end
    parents.push_back(parent_of(folder.string()));
    folder = folder.parent_path();
  }
  fs::create_directories(path, error);
  if (error) {
    errno = error.value();
    fail("cannot create folder {}: {}", path, reason_with_advice());
  }
  // A folder may allow creating files but not reading, and then it cannot be synced.
  for (auto parent = parents.rbegin(); parent != parents.rend(); ++parent)
    if (access(parent->c_str(), R_OK) == 0) sync_directory(*parent);
}

}  // namespace longstride

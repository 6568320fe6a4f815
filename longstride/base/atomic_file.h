// Files and folders that appear whole or not at all. Each is built under a temporary name beside its final
// one (".tmp-NAME-PROCESS-COUNT"), brought to the disk (fsync), and only then renamed; a process that is
// killed leaves the old state and a temporary that remove_stale_temporaries sweeps up.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "longstride/base/error.h"

namespace longstride {

// Where a file format writes its bytes.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  // Throws Error naming the file and the system's reason (no space, no permission, ...), PipeClosed for a pipe that
  // nobody reads any more.
  virtual void write(const void* data, int64_t bytes) = 0;
  void write(std::string_view text) { write(text.data(), static_cast<int64_t>(text.size())); }
};

// Whoever read an output that is a pipe has seen enough. Programs end then as SIGPIPE would end them.
class PipeClosed : public Error {
 public:
  using Error::Error;
};

// Why writing failed, by errno, and what can be done about it.
std::string reason_with_advice();

using FileWriter = std::function<void(ByteSink&)>;

struct AtomicFileOptions {
  bool replace = true;  // false: throws Error if the name is taken when all is written
  int mode = -1;        // permission bits; -1: what the umask leaves of 0666
};

// Creates or replaces the file `path` with what `writer` writes. Readers see the old content or the new,
// never a part. If anything fails, the temporary is removed, the old file stays, and the error is thrown:
// that of `writer`, or an Error with path and reason. Whatever has the name is replaced, links too; use
// output_file.h for names that users choose.
void write_file_atomically(const std::string& path, const FileWriter& writer,
                           const AtomicFileOptions& options = {});

// Writes to an open descriptor and closes it. Throws Error that names it `shown_path`.
void write_descriptor(int descriptor, const std::string& shown_path, const FileWriter& writer);

// Throws Error with path and reason if no file could be created under the name.
void check_creatable(const std::string& path);

// A folder that is built under a temporary name and moves to its final one with commit().
class AtomicDirectory {
 public:
  // The parent folder must exist. Throws Error.
  explicit AtomicDirectory(std::string final_path);
  // Without commit() everything written is removed.
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  // Writes one new file of the folder and brings it to the disk.
  void write_file(const std::string& name, const FileWriter& writer);
  // Moves the folder to its final path; a folder that is there already is replaced.
  void commit();

  const std::string& temporary_path() const { return temporary_path_; }

 private:
  std::string final_path_, temporary_path_;
  std::vector<std::string> names_;  // of its files
  int lock_ = -1;  // an open descriptor of the folder; its lock tells that the builder is alive
  bool committed_ = false;
};

// Whether this code would have made a temporary of that name and content.
bool is_temporary(const std::string& path);

// Removes the temporaries that killed processes left directly in `folder`. Those of living processes stay,
// and so does everything whose name or content this code would not have made. A folder that does not exist
// has none. With `name`, removes only those of the file or folder of that name. Returns how many were
// removed. Throws Error if one cannot be removed.
int remove_stale_temporaries(const std::string& folder, std::string_view name = {});

// Removes a folder and its content; it disappears from its name in one step. Throws Error.
void remove_directory_atomically(const std::string& path);

// Makes `path` another name of the file `existing`, replacing what was there in one step; copies where the
// file system has no hard links. Throws Error.
void link_file_atomically(const std::string& existing, const std::string& path);

// The same if there is no `path` yet; otherwise does nothing. A link appears in one step, so that no temporary
// is needed, which would keep the file's space if the process were killed. Throws Error.
void link_file_if_absent(const std::string& existing, const std::string& path);

// Throws Error if the name belongs to something that is neither a file nor a link to one. To write to a pipe
// or a device could wait for ever, and through a dangling link the file would appear elsewhere.
void check_file_or_absent(const std::string& path);

// Brings a folder's list of names to the disk: a file that was made in it has its name there only then. Does
// nothing for file systems that cannot. Throws Error.
void sync_directory(const std::string& path);

// Creates the folder and the folders above it as needed, and brings the new names to the disk. Throws Error.
void make_directories(const std::string& path);

}  // namespace longstride

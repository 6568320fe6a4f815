// One file of the cache: how it is written, read, checked and locked.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "longstride/base/checksum.h"
#include "longstride/data/cache.h"
#include "longstride/data/files.h"

namespace longstride::data {

[[noreturn]] void fail_to_write_cache(const std::string& folder, const std::string& reason);

// Nothing if the file is absent. Nothing either for a file that is damaged, of another version, not this
// user's or root's, or writable by others; `complaint` then says why.
std::optional<CachedFile> find_cache_file(const std::string& path, std::string& complaint);

// Held while one process decodes into a cache file. It is a file NAME.lock, open to this user only, removed
// at the end. Where the file system has no locks, nobody holds it.
class CacheLock {
 public:
  // `wait` is called before waiting for another process. Without `wait`, does not wait.
  CacheLock(const std::string& path, const std::function<void()>& wait);
  ~CacheLock();
  CacheLock(const CacheLock&) = delete;
  CacheLock& operator=(const CacheLock&) = delete;
  bool held() const { return file_.get() >= 0; }

 private:
  std::string path_;
  FileDescriptor file_;
};

// Removes what killed processes of this user left unfinished in `folder`: only files whose names have
// exactly the form that CacheWriter gives, and whose lock no process holds. `held` is the cache file whose
// lock the caller holds.
void remove_unfinished(const std::string& folder, const std::string& held);

// A cache file that is being written. It has a temporary name that nobody can foresee, and is removed unless
// finished.
class CacheWriter {
 public:
  CacheWriter(std::string folder, const std::string& path, std::string source, const DataObserver& observer);
  ~CacheWriter();

  void write(std::span<const uint8_t> bytes);
  void mark(const std::string& key);
  bool in_order() const;
  // Writes the pieces between another writer's marks in the order of their keys.
  void write_ordered(CacheWriter& other);
  // Names the file `path` and opens it.
  CachedFile finish(const std::string& path, const Decoded& decoded);

 private:
  struct Piece {
    std::string key;
    int64_t begin = 0, end = 0;  // among the decoded bytes
  };
  void flush();
  void leave_free_space() const;

  std::string folder_, source_, temporary_;
  const DataObserver& observer_;
  FileDescriptor file_;
  std::vector<uint8_t> buffer_;
  int64_t written_ = 0;
  Checksum checksum_;
  std::vector<Piece> pieces_;
  double begun_ = 0;
  bool told_ = false;
};

}  // namespace longstride::data

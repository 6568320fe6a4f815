#include "longstride/data/cache.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string_view>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "longstride/base/check.h"

namespace longstride::data {

namespace fs = std::filesystem;

namespace {

constexpr size_t kHeaderBytes = 4096;
constexpr size_t kBufferBytes = size_t{4} << 20;
constexpr const char* kMagic = "longstride decoded data 1";
constexpr const char* kPartial = ".partial";

// FNV-1a, twice with different offsets: 128 bits are enough that two sources never share a name.
std::string hash_of(std::string_view text) {
  uint64_t first = 0xcbf29ce484222325u, second = 0x9ae16a3b2f90404fu;
  for (const char c : text) {
    first = (first ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
    second = (second ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
    second ^= second >> 29;
  }
  return fmt::format("{:016x}{:016x}", first, second);
}

[[noreturn]] void fail_to_write(const std::string& folder, const std::string& reason) {
  fail("cannot write decoded data into the cache folder {}: {}; set data.cache to a folder with room for it",
       folder, reason);
}

std::string header_text(int64_t bytes, const ImageShape& shape, const std::string& source) {
  std::string text = fmt::format("{}\nbytes {}\nshape {} {} {}\nsource {}\n", kMagic, bytes, shape.height,
                                 shape.width, shape.channels, source);
  text.resize(kHeaderBytes, '\n');
  return text;
}

// Nothing if the file is absent or not what it should be; it is then decoded again.
std::optional<CachedFile> find(const std::string& path) {
  if (::access(path.c_str(), R_OK) != 0) return std::nullopt;
  CachedFile result{std::make_shared<const InputFile>(path), kHeaderBytes, {}};
  const int64_t size = result.file->bytes();
  if (size <= static_cast<int64_t>(kHeaderBytes)) return std::nullopt;
  std::string header(kHeaderBytes, ' ');
  result.file->read(0, {reinterpret_cast<uint8_t*>(header.data()), header.size()});
  long long payload = 0, height = 0, width = 0, channels = 0;
  const std::string format = std::string(kMagic) + "\nbytes %lld\nshape %lld %lld %lld\n";
  if (std::sscanf(header.c_str(), format.c_str(), &payload, &height, &width, &channels) != 4)
    return std::nullopt;
  if (payload != size - static_cast<int64_t>(kHeaderBytes)) return std::nullopt;
  result.shape = {height, width, channels};
  return result;
}

// Holds the folder's lock, if the file system has one, until destroyed.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder)
      : file_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    int status = -1;
    do {
      status = file_.get() >= 0 ? ::flock(file_.get(), LOCK_EX) : -1;
    } while (status != 0 && errno == EINTR);
    held_ = status == 0;
  }
  bool held() const { return held_; }

 private:
  FileDescriptor file_;
  bool held_ = false;
};

// A killed process leaves its unfinished file. Whoever holds the lock knows that nobody is writing one.
void remove_unfinished(const std::string& folder) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code ignored;
    if (entry->path().extension() == kPartial) fs::remove(entry->path(), ignored);
  }
}

class Writer {
 public:
  // `stage` tells apart the temporary files of one process.
  Writer(const std::string& folder, const std::string& path, int stage, const DecodeProgress& progress)
      : folder_(folder),
        path_(path),
        temporary_(fmt::format("{}.{}-{}{}", path, ::getpid(), stage, kPartial)),
        progress_(progress) {
    file_ = FileDescriptor(::open(temporary_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (file_.get() < 0) fail_to_write(folder_, last_system_error());
    buffer_.resize(kHeaderBytes);  // filled in by finish
    flush();
    written_ = 0;
  }
  ~Writer() {
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }

  void write(std::span<const uint8_t> bytes) {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    if (buffer_.size() >= kBufferBytes) flush();
  }

  void mark(const std::string& key) {
    pieces_.push_back({key, written_ + static_cast<int64_t>(buffer_.size()), 0});
  }
  bool in_order() const { return std::is_sorted(pieces_.begin(), pieces_.end(), before); }

  // Writes the pieces of another writer in the order of their keys.
  void write_ordered(Writer& other) {
    other.flush();
    std::vector<Piece>& pieces = other.pieces_;
    for (size_t i = 0; i < pieces.size(); ++i)
      pieces[i].end = i + 1 < pieces.size() ? pieces[i + 1].begin : other.written_;
    std::stable_sort(pieces.begin(), pieces.end(), before);
    std::vector<uint8_t> block(1 << 20);
    for (const Piece& piece : pieces) {
      for (int64_t at = piece.begin; at < piece.end;) {
        const auto wanted = static_cast<size_t>(std::min<int64_t>(piece.end - at, 1 << 20));
        const ssize_t count =
            ::pread(other.file_.get(), block.data(), wanted, at + static_cast<int64_t>(kHeaderBytes));
        LONGSTRIDE_CHECK(count > 0, "cannot read {} back: {}", other.temporary_, last_system_error());
        write(std::span(block).first(static_cast<size_t>(count)));
        at += count;
      }
    }
  }

  void finish(const ImageShape& shape, const std::string& source) {
    flush();
    LONGSTRIDE_CHECK(written_ > 0, "{} is empty once decoded", source);
    const std::string header = header_text(written_, shape, source);
    if (::lseek(file_.get(), 0, SEEK_SET) != 0 ||
        !write_all(file_.get(), {reinterpret_cast<const uint8_t*>(header.data()), header.size()}) ||
        ::fsync(file_.get()) != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0)
      fail_to_write(folder_, last_system_error());
    temporary_.clear();
  }

 private:
  struct Piece {
    std::string key;
    int64_t begin = 0, end = 0;  // among the decoded bytes
  };
  static bool before(const Piece& a, const Piece& b) { return a.key < b.key; }

  void flush() {
    if (!write_all(file_.get(), buffer_)) fail_to_write(folder_, last_system_error());
    written_ += static_cast<int64_t>(buffer_.size());
    buffer_.clear();
    if (progress_) progress_(written_);
  }

  std::string folder_, path_, temporary_;
  const DecodeProgress& progress_;
  FileDescriptor file_;
  std::vector<uint8_t> buffer_;
  int64_t written_ = 0;
  std::vector<Piece> pieces_;
};

}  // namespace

std::string default_cache_folder() {
  const char* cache_home = std::getenv("XDG_CACHE_HOME");
  if (cache_home != nullptr && *cache_home != '\0') return std::string(cache_home) + "/longstride";
  const char* home = std::getenv("HOME");
  LONGSTRIDE_CHECK(home != nullptr && *home != '\0',
                   "no folder for decoded data: neither HOME nor XDG_CACHE_HOME is set; set data.cache");
  return std::string(home) + "/.cache/longstride";
}

CachedFile decode_once(const std::string& requested_folder, const std::string& source,
                       const std::vector<SourceFile>& files, const std::string& encoding,
                       const Decoder& decode, const DecodeProgress& progress) {
  const std::string folder = requested_folder.empty() ? default_cache_folder() : requested_folder;
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail_to_write(folder, error.message());
  // A cache below the source would be read as data the next time.
  const std::string source_path = fs::canonical(source).string();
  LONGSTRIDE_CHECK(
      !fs::is_directory(source) || !(fs::canonical(folder).string() + "/").starts_with(source_path + "/"),
      "the cache folder {} lies inside the data {}; set data.cache to another place", folder, source);

  std::string key = encoding + "\n" + source_path + "\n";
  for (const SourceFile& file : files) key += fmt::format("{}\n{} {}\n", file.path, file.size, file.modified);
  const std::string path = fmt::format("{}/{}", folder, hash_of(key));
  if (auto found = find(path)) return *found;

  const FolderLock lock(folder);
  if (auto found = find(path)) return *found;  // another process made it while this one waited
  if (lock.held()) remove_unfinished(folder);
  Writer writer(folder, path, 1, progress);
  const ImageShape shape = decode(
      folder, [&](std::span<const uint8_t> bytes) { writer.write(bytes); },
      [&](const std::string& key) { writer.mark(key); });
  if (writer.in_order()) {
    writer.finish(shape, source);
  } else {
    Writer ordered(folder, path, 2, progress);
    ordered.write_ordered(writer);
    ordered.finish(shape, source);
  }
  auto made = find(path);
  LONGSTRIDE_CHECK(made.has_value(), "cannot read {} back from the cache folder {}", path, folder);
  return *made;
}

}  // namespace longstride::data

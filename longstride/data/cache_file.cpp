#include "longstride/data/cache_file.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <random>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/base/despite_signals.h"
#include "longstride/base/text.h"

namespace longstride::data {

namespace fs = std::filesystem;

namespace {

constexpr size_t kHeaderBytes = 4096;
constexpr size_t kBufferBytes = size_t{4} << 20;
constexpr size_t kLongestRemark = 1000;
constexpr const char* kMagic = "longstride decoded data 2";
constexpr std::string_view kPartial = ".partial";
constexpr size_t kHashDigits = 32, kRandomDigits = 16;
// Decoding leaves this much of the disk free for others and for checkpoints: a twentieth, at most this.
constexpr uint64_t kMostLeftFree = uint64_t{256} << 20;
constexpr double kLongDecoding = 2;  // seconds before a line says what is going on

double now_in_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The lines that the checksum covers after the decoded bytes.
std::string header_fields(int64_t bytes, const Decoded& decoded) {
  const ImageShape& shape = decoded.shape;
  return fmt::format("{}\nbytes {}\nshape {} {} {}\nremark {}\n", kMagic, bytes, shape.height, shape.width,
                     shape.channels, decoded.remark);
}

std::string header_text(const std::string& fields, const std::string& checksum, const std::string& source) {
  std::string text = fmt::format("{}checksum {}\nsource {}\n", fields, checksum, source);
  text.resize(kHeaderBytes, '\n');
  return text;
}

// The value of the next line, which must begin with `name`. Removes the line from `text`.
std::optional<std::string> next_line(std::string_view& text, std::string_view name) {
  const size_t end = text.find('\n');
  if (end == std::string_view::npos || !text.starts_with(name)) return std::nullopt;
  std::string value(text.substr(name.size(), end - name.size()));
  text.remove_prefix(end + 1);
  return value;
}

// The files whose checksum this process has verified; a run opens its data several times.
bool is_verified(int descriptor, bool now_verified) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) return false;
  using Identity = std::tuple<dev_t, ino_t, off_t, int64_t, int64_t>;
  static std::mutex mutex;
  static std::set<Identity> verified;
  const Identity identity{status.st_dev, status.st_ino, status.st_size,
                          int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec,
                          int64_t{status.st_ctim.tv_sec} * 1'000'000'000 + status.st_ctim.tv_nsec};
  const std::lock_guard<std::mutex> guard(mutex);
  if (now_verified) verified.insert(identity);
  return verified.count(identity) > 0;
}

// The file that was found, or why it is not taken.
struct Opened {
  std::optional<CachedFile> file;
  std::string complaint;
};

// Verifies the checksum unless this process has done so.
Opened open_cache_file(InputFile input) {
  const std::string path = input.path();
  const auto damaged = [&](std::string_view what) {
    return Opened{std::nullopt, fmt::format("the cache file {} is damaged ({})", path, what)};
  };
  const int64_t size = input.bytes();
  if (size <= static_cast<int64_t>(kHeaderBytes)) return damaged("too short");
  std::string header(kHeaderBytes, ' ');
  input.read(0, {reinterpret_cast<uint8_t*>(header.data()), header.size()});
  std::string_view rest = header;
  const auto magic = next_line(rest, kMagic), bytes = next_line(rest, "bytes "),
             shape = next_line(rest, "shape "), remark = next_line(rest, "remark ");
  const std::string fields = header.substr(0, header.size() - rest.size());
  const auto checksum = next_line(rest, "checksum ");
  long long height = 0, width = 0, channels = 0;
  if (!magic || !bytes || !shape || !remark || !checksum ||
      std::sscanf(shape->c_str(), "%lld %lld %lld", &height, &width, &channels) != 3)
    return damaged("its header");
  if (*bytes != std::to_string(size - static_cast<int64_t>(kHeaderBytes)))
    return damaged(fmt::format("it has {} bytes of data, {} were written", size - kHeaderBytes, *bytes));
  if (!is_verified(input.descriptor(), false)) {
    Checksum sum;
    std::vector<uint8_t> block(std::min<size_t>(kBufferBytes, static_cast<size_t>(size)));
    for (int64_t at = kHeaderBytes; at < size;) {
      const auto part = std::span(block).first(
          static_cast<size_t>(std::min<int64_t>(size - at, static_cast<int64_t>(block.size()))));
      input.read(at, part);
      sum.update(part.data(), static_cast<int64_t>(part.size()));
      at += static_cast<int64_t>(part.size());
    }
    sum.update(fields.data(), static_cast<int64_t>(fields.size()));
    if (sum.hex() != *checksum) return damaged("its checksum");
    is_verified(input.descriptor(), true);
  }
  CachedFile result;
  result.file = std::make_shared<const InputFile>(std::move(input));
  result.offset = kHeaderBytes;
  result.shape = {height, width, channels};
  result.remark = *remark;
  return {result, ""};
}

// Hexadecimal digits in the form that longstride writes.
bool is_hex(std::string_view text, size_t digits) {
  return text.size() == digits && std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return std::isdigit(c) != 0 || (c >= 'a' && c <= 'f');
         });
}

bool is_number(std::string_view text) {
  return !text.empty() && text.size() < 12 &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
}

// HASH.RANDOM.partial -> HASH; nothing for any other name. Earlier versions wrote HASH.PID-NUMBER.partial.
std::optional<std::string> hash_of_unfinished(const std::string& name) {
  std::string_view rest = name;
  if (!rest.ends_with(kPartial)) return std::nullopt;
  rest.remove_suffix(kPartial.size());
  if (rest.size() <= kHashDigits || rest[kHashDigits] != '.' ||
      !is_hex(rest.substr(0, kHashDigits), kHashDigits))
    return std::nullopt;
  const std::string_view who = rest.substr(kHashDigits + 1);
  const size_t dash = who.find('-');
  bool ours = is_hex(who, kRandomDigits);
  if (dash != std::string_view::npos && is_number(who.substr(0, dash)) && is_number(who.substr(dash + 1)))
    ours = ::kill(static_cast<pid_t>(std::strtol(std::string(who).c_str(), nullptr, 10)), 0) != 0 &&
           errno == ESRCH;
  return ours ? std::optional(std::string(rest.substr(0, kHashDigits))) : std::nullopt;
}

std::string random_digits() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}", random(), random());
}

}  // namespace

void fail_to_write_cache(const std::string& folder, const std::string& reason) {
  fail("cannot write decoded data into the cache folder {}: {}; set data.cache to a folder with room for it",
       folder, reason);
}

std::optional<CachedFile> find_cache_file(const std::string& path, std::string& complaint) {
  const int descriptor =
      despite_signals([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW); });
  if (descriptor < 0) {
    if (errno != ENOENT)
      complaint = fmt::format("cannot read the cache file {}: {}", path, last_system_error());
    return std::nullopt;
  }
  FileDescriptor file(descriptor);
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    complaint = fmt::format("the cache file {} is no regular file", path);
    return std::nullopt;
  }
  // Another user who may write it would decide what is learnt. Files that this process has made itself are
  // known.
  if (!is_verified(descriptor, false)) {
    if (status.st_uid != ::geteuid() && status.st_uid != 0)
      complaint = fmt::format("the cache file {} belongs to another user and is not taken", path);
    else if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
      complaint = fmt::format("the cache file {} can be written by other users and is not taken", path);
    if (!complaint.empty()) return std::nullopt;
  }
  try {
    Opened opened = open_cache_file(InputFile(file.release(), path));
    if (!opened.file) complaint = opened.complaint;
    return opened.file;
  } catch (const Error& error) {
    complaint = error.what();
    return std::nullopt;
  }
}

CacheLock::CacheLock(const std::string& path, const std::function<void()>& wait) : path_(path + ".lock") {
  for (bool told = false;;) {
    constexpr int kFlags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    FileDescriptor file(despite_signals([&] { return ::open(path_.c_str(), kFlags, S_IRUSR | S_IWUSR); }));
    struct stat status {};
    if (file.get() < 0 || ::fstat(file.get(), &status) != 0 || status.st_uid != ::geteuid()) return;
    int locked = despite_signals([&] { return ::flock(file.get(), LOCK_EX | LOCK_NB); });
    if (locked != 0 && errno == EWOULDBLOCK) {
      if (!wait) return;
      if (!std::exchange(told, true)) wait();
      locked = despite_signals([&] { return ::flock(file.get(), LOCK_EX); });
    }
    if (locked != 0) return;  // no locks here
    // The last holder removes the file at the end, so the name may be another file's by now.
    struct stat named {};
    if (::stat(path_.c_str(), &named) != 0 || named.st_ino != status.st_ino || named.st_dev != status.st_dev)
      continue;
    file_ = std::move(file);
    return;
  }
}

CacheLock::~CacheLock() {
  if (held()) ::unlink(path_.c_str());
}

void remove_unfinished(const std::string& folder, const std::string& held) {
  std::error_code error;
  for (fs::directory_iterator entry = entries_of(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const auto hash = hash_of_unfinished(entry->path().filename().string());
    struct stat status {};
    if (!hash || ::lstat(entry->path().c_str(), &status) != 0 || !S_ISREG(status.st_mode) ||
        status.st_uid != ::geteuid())
      continue;
    const std::string path = folder + "/" + *hash;
    if (path == held || CacheLock(path, nullptr).held()) ::unlink(entry->path().c_str());
  }
}

CacheWriter::CacheWriter(std::string folder, const std::string& path, std::string source,
                         const DataObserver& observer)
    : folder_(std::move(folder)),
      source_(std::move(source)),
      temporary_(fmt::format("{}.{}{}", path, random_digits(), kPartial)),
      observer_(observer),
      begun_(now_in_seconds()) {
  // Readable as the user's mask allows, but writable only for the user: find_cache_file demands that.
  constexpr int kFlags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  file_ = FileDescriptor(despite_signals([&] { return ::open(temporary_.c_str(), kFlags, 0644); }));
  if (file_.get() < 0) {
    const std::string reason = last_system_error();
    temporary_.clear();
    fail_to_write_cache(folder_, reason);
  }
  const std::vector<uint8_t> header(kHeaderBytes);  // filled in by finish
  if (!write_all(file_.get(), header)) {
    const std::string reason = last_system_error();
    ::unlink(temporary_.c_str());
    fail_to_write_cache(folder_, reason);
  }
}

CacheWriter::~CacheWriter() {
  if (observer_.progress) observer_.progress(-1);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void CacheWriter::write(std::span<const uint8_t> bytes) {
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  if (buffer_.size() >= kBufferBytes) flush();
}

void CacheWriter::mark(const std::string& key) {
  pieces_.push_back({key, written_ + static_cast<int64_t>(buffer_.size()), 0});
}

bool CacheWriter::in_order() const {
  return std::is_sorted(pieces_.begin(), pieces_.end(),
                        [](const Piece& a, const Piece& b) { return a.key < b.key; });
}

void CacheWriter::write_ordered(CacheWriter& other) {
  other.flush();
  std::vector<Piece>& pieces = other.pieces_;
  for (size_t i = 0; i < pieces.size(); ++i)
    pieces[i].end = i + 1 < pieces.size() ? pieces[i + 1].begin : other.written_;
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.key < b.key; });
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

CachedFile CacheWriter::finish(const std::string& path, const Decoded& decoded) {
  flush();
  LONGSTRIDE_CHECK(written_ > 0, "{} is empty once decoded", source_);
  Decoded kept = decoded;
  kept.remark.resize(std::min(kept.remark.size(), kLongestRemark));
  const std::string fields = header_fields(written_, kept);
  checksum_.update(fields.data(), static_cast<int64_t>(fields.size()));
  const std::string header = header_text(fields, checksum_.hex(), source_);
  if (::lseek(file_.get(), 0, SEEK_SET) != 0 ||
      !write_all(file_.get(), {reinterpret_cast<const uint8_t*>(header.data()), header.size()}) ||
      despite_signals([&] { return ::fsync(file_.get()); }) != 0 ||
      ::rename(temporary_.c_str(), path.c_str()) != 0)
    fail_to_write_cache(folder_, last_system_error());
  temporary_.clear();
  is_verified(file_.get(), true);
  Opened opened = open_cache_file(InputFile(file_.release(), path));
  LONGSTRIDE_CHECK(opened.file.has_value(), "{}; what was just written there cannot be read back",
                   opened.complaint);
  return *opened.file;
}

void CacheWriter::flush() {
  leave_free_space();
  if (!write_all(file_.get(), buffer_)) fail_to_write_cache(folder_, last_system_error());
  checksum_.update(buffer_.data(), static_cast<int64_t>(buffer_.size()));
  written_ += static_cast<int64_t>(buffer_.size());
  buffer_.clear();
  if (observer_.progress) observer_.progress(written_);
  if (told_ || !observer_.note || now_in_seconds() - begun_ < kLongDecoding) return;
  told_ = true;
  observer_.note(fmt::format("decoding {} into the cache folder {}: {} so far", source_, folder_,
                             human_bytes(static_cast<double>(written_))));
}

// A small compressed file can claim to hold any number of bytes.
void CacheWriter::leave_free_space() const {
  struct statvfs disk {};
  if (::fstatvfs(file_.get(), &disk) != 0 || disk.f_blocks == 0) return;
  const uint64_t block = disk.f_frsize, free = block * disk.f_bavail;
  const uint64_t reserve = std::min<uint64_t>(kMostLeftFree, block * disk.f_blocks / 20);
  if (free >= reserve + buffer_.size()) return;
  fail_to_write_cache(
      folder_,
      fmt::format("{} gave {} so far and only {} are free there, of which {} are left for others", source_,
                  human_bytes(static_cast<double>(written_ + std::ssize(buffer_))),
                  human_bytes(static_cast<double>(free)), human_bytes(static_cast<double>(reserve))));
}

}  // namespace longstride::data

#include "longstride/data/cache.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string_view>

#include "longstride/base/check.h"
#include "longstride/data/cache_file.h"

namespace longstride::data {

namespace fs = std::filesystem;

namespace {

// FNV-1a, twice with different offsets: with 128 bits two sources never share a name in practice.
std::string hash_of(std::string_view text) {
  uint64_t first = 0xcbf29ce484222325u, second = 0x9ae16a3b2f90404fu;
  for (const char c : text) {
    first = (first ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
    second = (second ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
    second ^= second >> 29;
  }
  return fmt::format("{:016x}{:016x}", first, second);
}

// The cache files that would serve a request, best first.
std::vector<std::string> cache_paths(const CacheRequest& request, const std::string& folder) {
  std::string source = fs::canonical(request.source).string() + "\n";
  for (const SourceFile& file : request.files)
    source += fmt::format("{}\n{} {} {} {}\n", file.path, file.size, file.modified, file.changed, file.inode);
  std::vector<std::string> paths;
  for (const std::string& encoding : request.encodings)
    paths.push_back(fmt::format("{}/{}", folder, hash_of(encoding + "\n" + source)));
  return paths;
}

std::optional<CachedFile> find(const CacheRequest& request, const std::vector<std::string>& paths,
                               std::string& complaint) {
  for (const std::string& path : paths) {
    std::optional<CachedFile> found = find_cache_file(path, complaint);
    if (found && request.fits(found->shape)) return found;
  }
  return std::nullopt;
}

// If a source has changed, the decoded bytes may be half old and half new.
void check_sources(const std::vector<SourceFile>& files) {
  for (const SourceFile& file : files) {
    const SourceFile now = stat_file(file.path);
    LONGSTRIDE_CHECK(
        now.size == file.size,
        "{} changed while it was read: it has {} bytes, {} were there; give a copy that stays as "
        "it is",
        file.path, now.size, file.size);
    LONGSTRIDE_CHECK(now.inode == file.inode && now.modified == file.modified,
                     "{} was written while it was read; give a copy that stays as it is", file.path);
  }
}

}  // namespace

std::string default_cache_folder() {
  const char* cache_home = std::getenv("XDG_CACHE_HOME");
  // A relative folder would be another one everywhere; the XDG specification has it ignored.
  if (cache_home != nullptr && *cache_home == '/') return std::string(cache_home) + "/longstride";
  const char* home = std::getenv("HOME");
  LONGSTRIDE_CHECK(
      home != nullptr && *home == '/',
      "no folder for decoded data: neither HOME nor XDG_CACHE_HOME is an absolute path; set data.cache");
  return std::string(home) + "/.cache/longstride";
}

CachedFile decode_once(const CacheRequest& request, const Decoder& decode, const DataObserver& observer) {
  const std::string folder = request.folder.empty() ? default_cache_folder() : request.folder;
  const std::string& source = request.source;
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail_to_write_cache(folder, error.message());
  // A cache below the source would be read as data the next time.
  LONGSTRIDE_CHECK(
      !fs::is_directory(source) ||
          !(fs::canonical(folder).string() + "/").starts_with(fs::canonical(source).string() + "/"),
      "the cache folder {} lies inside the data {}; set data.cache to another place", folder, source);

  const auto note = [&](const std::string& line) {
    if (observer.note) observer.note(line);
  };
  const std::vector<std::string> paths = cache_paths(request, folder);
  std::string complaint;
  if (auto found = find(request, paths, complaint)) return *found;

  const CacheLock lock(paths[0], [&] {
    note(fmt::format("waiting for another process that decodes {} into the cache folder {}", source, folder));
  });
  complaint.clear();
  if (auto found = find(request, paths, complaint)) return *found;  // made during the wait
  if (!complaint.empty()) note(fmt::format("{}; decoding {} again", complaint, source));
  remove_unfinished(folder, lock.held() ? paths[0] : "");

  CacheWriter writer(folder, paths[0], source, observer);
  const Decoded decoded = decode(
      folder, [&](std::span<const uint8_t> bytes) { writer.write(bytes); },
      [&](const std::string& key) { writer.mark(key); });
  check_sources(request.files);
  const std::string& path = paths.at(decoded.encoding);
  if (writer.in_order()) return writer.finish(path, decoded);
  CacheWriter ordered(folder, paths[0], source, observer);
  ordered.write_ordered(writer);
  return ordered.finish(path, decoded);
}

}  // namespace longstride::data

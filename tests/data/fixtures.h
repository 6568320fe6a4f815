// Temporary folders and small input files of every kind. The files are written by other libraries, never by
// the code under test.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/data/corpus.h"

namespace longstride::data_test {

using Bytes = std::vector<uint8_t>;

// A folder for each test, removed afterwards. The cache is beside the inputs.
class DataTest : public ::testing::Test {
 protected:
  DataTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "longstride-data-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    std::filesystem::create_directories(root_ + "/in");
  }
  ~DataTest() override { std::filesystem::remove_all(root_); }

  std::string at(const std::string& name) const { return root_ + "/in/" + name; }
  std::string cache() const { return root_ + "/cache"; }
  DataConfig config(const std::string& kind, const std::string& name) const {
    DataConfig result;
    result.kind = kind;
    result.path = at(name);
    result.cache = cache();
    return result;
  }
  // The names in the cache folder.
  std::vector<std::string> cached() const {
    std::vector<std::string> names;
    if (!std::filesystem::exists(cache())) return names;
    for (const auto& entry : std::filesystem::directory_iterator(cache()))
      names.push_back(entry.path().filename().string());
    return names;
  }

 private:
  std::string root_;
};

inline Bytes bytes_of(const std::string& text) { return Bytes(text.begin(), text.end()); }

inline void write_file(const std::string& path, const Bytes& bytes) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}
inline void write_file(const std::string& path, const std::string& text) { write_file(path, bytes_of(text)); }

inline Bytes read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

inline Bytes all_bytes(const Corpus& corpus) {
  Bytes bytes(static_cast<size_t>(corpus.size()));
  corpus.read(0, bytes);
  return bytes;
}

// Writes the first bytes of `path`, this fraction of them, to `shorter`.
inline void cut(const std::string& path, const std::string& shorter, double fraction) {
  Bytes bytes = read_file(path);
  bytes.resize(static_cast<size_t>(static_cast<double>(bytes.size()) * fraction));
  write_file(shorter, bytes);
}

// Bytes without a pattern that a compressor could use; a linear congruential generator.
inline Bytes noise(size_t count, uint32_t seed) {
  Bytes bytes(count);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>((seed = seed * 1664525u + 1013904223u) >> 24);
  return bytes;
}

// The message of the Error that `action` throws, or "" with a failure noted.
inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no Error was thrown";
  return "";
}

enum class Pack { xz, gzip, zstd, bzip2, lz4, none };
using Members = std::vector<std::pair<std::string, Bytes>>;

void write_compressed(const std::string& path, Pack pack, const Bytes& bytes);
// `count` equal bytes, streamed, for inputs that should not be held in memory.
void write_compressed_run(const std::string& path, Pack pack, uint8_t byte, int64_t count);
void write_tar(const std::string& path, Pack pack, const Members& members);
void write_zip(const std::string& path, const Members& members);

enum class Link { none, hard, symbolic };
struct TarEntry {
  std::string name;
  Bytes bytes;
  Link link = Link::none;
  std::string target = {};
};
// An uncompressed tar; `v7` writes the format of Unix version 7.
Bytes make_tar(const std::vector<TarEntry>& entries, bool v7 = false);

struct PngOptions {
  int colour_type;  // PNG_COLOR_TYPE_*
  int bit_depth = 8;
  bool interlaced = false;
};
// `rows` are the packed samples as PNG stores them, top down. Palettes have the entries (i, 255 - i, 7).
Bytes make_png(const Bytes& rows, int64_t height, int64_t width, const PngOptions& options);
// channels 1 or 3.
Bytes make_jpeg(const Bytes& pixels, int64_t height, int64_t width, int64_t channels, int quality);

// `samples` interleaved, -1 to 1; format of sndfile.h.
void write_sound(const std::string& path, int format, int rate, int channels,
                 const std::vector<float>& samples);
// A sine of `amplitude` and `hertz`, `seconds` long, the same in every channel.
std::vector<float> sine(int rate, int channels, double hertz, double amplitude, double seconds);

}  // namespace longstride::data_test

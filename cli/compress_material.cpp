#include "cli/compress_material.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <string_view>

#include <sys/stat.h>

#include "longstride/base/check.h"
#include "longstride/compress/mulaw_wav.h"
#include "longstride/data/picture.h"

#include "cli/prime.h"

namespace longstride::cli {

namespace {

constexpr int kPermissionBits = 0777;

uint32_t big_endian(std::span<const uint8_t> bytes, size_t at) {
  return uint32_t{bytes[at]} << 24 | uint32_t{bytes[at + 1]} << 16 | uint32_t{bytes[at + 2]} << 8 |
         bytes[at + 3];
}

// What else a PNG may hold, for people.
std::string_view meaning_of(std::string_view chunk) {
  if (chunk == "tRNS") return "transparent pixels";
  if (chunk == "acTL" || chunk == "fcTL" || chunk == "fdAT") return "an animation";
  if (chunk == "gAMA" || chunk == "iCCP" || chunk == "cHRM" || chunk == "sRGB" || chunk == "cICP")
    return "what its colours mean";
  if (chunk == "tEXt" || chunk == "zTXt" || chunk == "iTXt") return "text";
  if (chunk == "eXIf") return "a camera's notes";
  if (chunk == "pHYs") return "the size of its pixels";
  return "more than pixels";
}

// A PNG file that is its pixels and nothing else: not of 16 bits, nothing transparent, no second picture, no
// meaning of colours, no text, nothing behind its end.
void check_plain_png(std::span<const uint8_t> file, const std::string& path) {
  constexpr uint8_t kSignature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  constexpr size_t kDepth = 24, kColour = 25, kInterlace = 28, kFirstChunk = 8;
  constexpr uint8_t kAlpha = 4;
  LONGSTRIDE_CHECK(file.size() > 33 && std::memcmp(file.data(), kSignature, sizeof kSignature) == 0,
                   "{} is no PNG; pictures are compressed from PNG files, one at a time", path);
  LONGSTRIDE_CHECK(file[kDepth] <= 8, "{} has {} bits a channel; the model's pictures have 8", path,
                   file[kDepth]);
  LONGSTRIDE_CHECK((file[kColour] & kAlpha) == 0,
                   "{} has transparent pixels, which the model's pictures have not; remove it", path);
  LONGSTRIDE_CHECK(file[kInterlace] == 0, "{} is interlaced, which would be lost; save it without", path);
  for (size_t at = kFirstChunk; at + 12 <= file.size(); at += size_t{12} + big_endian(file, at)) {
    const std::string_view chunk(reinterpret_cast<const char*>(file.data()) + at + 4, 4);
    const size_t end = at + 12 + big_endian(file, at);
    LONGSTRIDE_CHECK(chunk != "IEND" || end == file.size(),
                     "{} has {} bytes behind the end of its picture, which would be lost; remove them", path,
                     file.size() - end);
    LONGSTRIDE_CHECK(chunk == "IHDR" || chunk == "PLTE" || chunk == "IDAT" || chunk == "IEND",
                     "{} holds {} ({}), which would be lost; remove it, as in: convert {} -strip -define "
                     "png:exclude-chunks=all plain.png",
                     path, meaning_of(chunk), chunk, path);
  }
}

std::string as_text(std::span<const uint8_t> bytes) { return std::string(bytes.begin(), bytes.end()); }

}  // namespace

CompressMaterial::CompressMaterial(const RunConfig& config, const std::string& path)
    : kind_(config.data.kind), file_(path), size_(file_.bytes()) {
  if (kind_ == "image") read_picture(config);
  if (kind_ == "audio") read_sound(config);
}

std::vector<uint8_t> CompressMaterial::read(int64_t begin, int64_t count) const {
  if (kind_ != "text") return {own_.begin() + begin, own_.begin() + begin + count};
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  file_.read(begin, bytes);
  return bytes;
}

int CompressMaterial::file_mode() const {
  struct stat status {};
  LONGSTRIDE_CHECK(fstat(file_.descriptor(), &status) == 0, "cannot read {}: {}", file_.path(),
                   last_system_error());
  return static_cast<int>(status.st_mode) & kPermissionBits;
}

void CompressMaterial::read_picture(const RunConfig& config) {
  const std::string& path = file_.path();
  std::vector<uint8_t> file(static_cast<size_t>(file_.bytes()));
  file_.read(0, file);
  check_plain_png(file, path);
  const ImageShape wanted = picture_shape(config);
  // Before its pixels are decoded, which take the memory that its header claims.
  const auto channels_of = [&](const ImageShape& found) {
    LONGSTRIDE_CHECK(
        found == wanted,
        "{} is a picture of {} x {} x {} (height, width, channels), the model's have {} x {} x {}; "
        "grids of pictures are not supported, compress them one by one",
        path, found.height, found.width, found.channels, wanted.height, wanted.width, wanted.channels);
    return found.channels;
  };
  data::decode_picture(file, path, channels_of, own_);
  size_ = std::ssize(own_);
  shape_ = {wanted.height, wanted.width, wanted.channels};
}

void CompressMaterial::read_sound(const RunConfig& config) {
  std::vector<uint8_t> file(static_cast<size_t>(file_.bytes()));
  file_.read(0, file);
  const WavSamples samples = find_mulaw_samples(file, config.data.sample_rate, file_.path());
  const std::span<const uint8_t> whole(file);
  before_ = as_text(whole.first(static_cast<size_t>(samples.begin)));
  after_ = as_text(whole.subspan(static_cast<size_t>(samples.end)));
  size_ = samples.end - samples.begin;
  own_.assign(file.begin() + samples.begin, file.begin() + samples.end);
  std::transform(own_.begin(), own_.end(), own_.begin(), rank_of_mulaw);
}

void CompressMaterial::describe(CompressedHeader& header) const {
  header.kind = kind_;
  const std::string extension = std::filesystem::path(file_.path()).extension().string();
  if (is_plain_extension(extension)) header.extension = extension;
  header.bytes = size_;
  header.shape = shape_;
  header.before = before_;
  header.after = after_;
}

int64_t write_original(const std::string& path, const CompressedFile& file, const OutputOptions& options,
                       const FrameDecoder& decode) {
  const CompressedHeader& header = file.header();
  int64_t written = 0;
  write_output(
      path,
      [&](ByteSink& sink) {
        const auto put = [&](std::span<const uint8_t> bytes) {
          sink.write(bytes.data(), std::ssize(bytes));
          written += std::ssize(bytes);
        };
        const auto put_text = [&](const std::string& text) {
          sink.write(text);
          written += std::ssize(text);
        };
        std::vector<uint8_t> bytes, pixels;
        put_text(header.before);
        for (const CompressedFrame& frame : file.frames()) {
          bytes.resize(static_cast<size_t>(frame.bytes));
          decode(frame, bytes);
          if (header.kind == "audio")
            std::transform(bytes.begin(), bytes.end(), bytes.begin(), mulaw_of_rank);
          if (header.kind == "image")
            pixels.insert(pixels.end(), bytes.begin(), bytes.end());
          else
            put(bytes);
        }
        if (header.kind == "image")
          put(data::encode_png(pixels, {header.shape[0], header.shape[1], header.shape[2]}));
        put_text(header.after);
      },
      options);
  return written;
}

}  // namespace longstride::cli

#include "cli/compress_material.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "longstride/base/atomic_file.h"
#include "longstride/base/check.h"
#include "longstride/compress/mulaw_wav.h"
#include "longstride/data/encode.h"

#include "cli/prime.h"

namespace longstride::cli {

namespace {

uint32_t big_endian(std::span<const uint8_t> bytes, size_t at) {
  return uint32_t{bytes[at]} << 24 | uint32_t{bytes[at + 1]} << 16 | uint32_t{bytes[at + 2]} << 8 |
         bytes[at + 3];
}

// A PNG file whose pixels are what read_picture gives: not of 16 bits, nothing transparent.
void check_plain_png(std::span<const uint8_t> file, const std::string& path) {
  constexpr uint8_t kSignature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  constexpr size_t kDepth = 24, kColour = 25, kFirstChunk = 8;
  constexpr uint8_t kAlpha = 4;
  LONGSTRIDE_CHECK(file.size() > 33 && std::memcmp(file.data(), kSignature, sizeof kSignature) == 0,
                   "{} is no PNG; pictures are compressed from PNG files, one at a time", path);
  LONGSTRIDE_CHECK(file[kDepth] <= 8, "{} has {} bits a channel; the model's pictures have 8", path,
                   file[kDepth]);
  bool transparent = file[kColour] & kAlpha;
  for (size_t at = kFirstChunk; at + 12 <= file.size(); at += size_t{12} + big_endian(file, at))
    transparent = transparent || std::memcmp(file.data() + at + 4, "tRNS", 4) == 0;
  LONGSTRIDE_CHECK(!transparent, "{} has transparent pixels, which the model's pictures have not; remove it",
                   path);
}

}  // namespace

CompressMaterial::CompressMaterial(const RunConfig& config, const std::string& path)
    : kind_(config.data.kind), file_(path), size_(static_cast<size_t>(file_.bytes())) {
  if (kind_ == "image") read_picture(config);
  if (kind_ == "audio") read_sound(config);
}

void CompressMaterial::read_picture(const RunConfig& config) {
  const std::string& path = file_.path();
  check_plain_png(file_.span(), path);
  Image picture = longstride::read_picture(path);
  const ImageShape wanted = picture_shape(config), &found = picture.shape;
  LONGSTRIDE_CHECK(
      found == wanted,
      "{} is a picture of {} x {} x {} (height, width, channels), the model's have {} x {} x {}; "
      "grids of pictures are not supported, compress them one by one",
      path, found.height, found.width, found.channels, wanted.height, wanted.width, wanted.channels);
  own_ = std::move(picture.pixels);
  shape_ = {found.height, found.width, found.channels};
}

void CompressMaterial::read_sound(const RunConfig& config) {
  const WavSamples samples = find_mulaw_samples(file_.span(), config.data.sample_rate, file_.path());
  begin_ = static_cast<size_t>(samples.begin);
  size_ = static_cast<size_t>(samples.end - samples.begin);
  const std::span<const uint8_t> bytes = file_.span().subspan(begin_, size_);
  own_.resize(size_);
  std::transform(bytes.begin(), bytes.end(), own_.begin(), rank_of_mulaw);
}

void CompressMaterial::describe(CompressedHeader& header) const {
  header.kind = kind_;
  header.extension = std::filesystem::path(file_.path()).extension().string();
  header.bytes = std::ssize(bytes());
  header.shape = shape_;
  if (kind_ != "audio") return;
  const auto text = [&](std::span<const uint8_t> part) { return std::string(part.begin(), part.end()); };
  header.before = text(file_.span().first(begin_));
  header.after = text(file_.span().subspan(begin_ + size_));
}

void write_original(const std::string& path, const CompressedFile& file, const FrameDecoder& decode) {
  const CompressedHeader& header = file.header();
  if (header.kind == "image") {
    std::vector<uint8_t> pixels(static_cast<size_t>(header.bytes));
    size_t at = 0;
    for (const CompressedFrame& frame : file.frames()) {
      decode(frame, std::span(pixels).subspan(at, static_cast<size_t>(frame.bytes)));
      at += static_cast<size_t>(frame.bytes);
    }
    return write_png(path, pixels, header.shape[0], header.shape[1], header.shape[2]);
  }
  write_file_atomically(path, [&](ByteSink& sink) {
    sink.write(header.before);
    std::vector<uint8_t> bytes;
    for (const CompressedFrame& frame : file.frames()) {
      bytes.resize(static_cast<size_t>(frame.bytes));
      decode(frame, bytes);
      if (header.kind == "audio") std::transform(bytes.begin(), bytes.end(), bytes.begin(), mulaw_of_rank);
      sink.write(bytes.data(), frame.bytes);
    }
    sink.write(header.after);
  });
}

}  // namespace longstride::cli

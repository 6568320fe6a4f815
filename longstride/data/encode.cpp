#include "longstride/data/encode.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string_view>

#include "longstride/base/check.h"
#include "longstride/base/output_file.h"
#include "longstride/data/audio.h"
#include "longstride/data/files.h"
#include "longstride/data/mulaw.h"
#include "longstride/data/picture.h"

namespace longstride {

namespace {

constexpr int64_t kPictureFileLimit = int64_t{1} << 30;
constexpr uint8_t kSeparatorGrey = 128;

void append(std::vector<uint8_t>& file, std::string_view text) {
  file.insert(file.end(), text.begin(), text.end());
}

void append_little_endian(std::vector<uint8_t>& file, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) file.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

void check_channels(const std::string& path, int64_t channels) {
  LONGSTRIDE_CHECK(channels == 0 || channels == 1 || channels == 3,
                   "{}: pictures are read with 1 or 3 channels, not {}", path, channels);
}

}  // namespace

void write_png(const std::string& path, std::span<const uint8_t> pixels, int64_t height, int64_t width,
               int64_t channels) {
  const std::vector<uint8_t> png = data::encode_png(pixels, {height, width, channels});
  write_output(path, [&](ByteSink& sink) { sink.write(png.data(), static_cast<int64_t>(png.size())); });
}

void write_png_grid(const std::string& path, const std::vector<std::vector<uint8_t>>& items, int64_t height,
                    int64_t width, int64_t channels, int64_t columns) {
  LONGSTRIDE_CHECK(!items.empty(), "cannot write {}: no pictures", path);
  const auto count = static_cast<int64_t>(items.size());
  if (columns <= 0) columns = static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(count))));
  columns = std::min(columns, count);
  const int64_t rows = (count + columns - 1) / columns;
  const int64_t gap = std::max(height, width) >= 64 ? 2 : 1;
  const ImageShape grid{rows * (height + gap) - gap, columns * (width + gap) - gap, channels};
  std::vector<uint8_t> pixels(static_cast<size_t>(grid.bytes()), kSeparatorGrey);
  for (int64_t item = 0; item < count; ++item) {
    const std::vector<uint8_t>& picture = items[static_cast<size_t>(item)];
    LONGSTRIDE_CHECK(static_cast<int64_t>(picture.size()) == height * width * channels,
                     "cannot write {}: picture {} has {} bytes, {} x {} x {} need {}", path, item,
                     picture.size(), height, width, channels, height * width * channels);
    const int64_t top = item / columns * (height + gap), left = item % columns * (width + gap);
    for (int64_t y = 0; y < height; ++y)
      std::copy_n(picture.begin() + y * width * channels, width * channels,
                  pixels.begin() + ((top + y) * grid.width + left) * channels);
  }
  write_png(path, pixels, grid.height, grid.width, channels);
}

void write_wav(const std::string& path, std::span<const uint8_t> mulaw, int64_t rate) {
  const uint64_t data_bytes = 2 * static_cast<uint64_t>(mulaw.size());
  LONGSTRIDE_CHECK(rate > 0 && rate <= 0x7fffffff, "cannot write {}: a sample rate of {}", path, rate);
  LONGSTRIDE_CHECK(data_bytes <= 0xffffff00u, "cannot write {}: {} samples are more than a WAV file holds",
                   path, mulaw.size());
  std::vector<uint8_t> file;
  file.reserve(44 + static_cast<size_t>(data_bytes));
  append(file, "RIFF");
  append_little_endian(file, 36 + data_bytes, 4);
  append(file, "WAVEfmt ");
  append_little_endian(file, 16, 4);  // bytes of this chunk
  append_little_endian(file, 1, 2);   // PCM
  append_little_endian(file, 1, 2);   // channels
  append_little_endian(file, static_cast<uint64_t>(rate), 4);
  append_little_endian(file, static_cast<uint64_t>(2 * rate), 4);  // bytes a second
  append_little_endian(file, 2, 2);                                // bytes a frame
  append_little_endian(file, 16, 2);                               // bits a sample
  append(file, "data");
  append_little_endian(file, data_bytes, 4);
  for (const uint8_t byte : mulaw)
    append_little_endian(file, static_cast<uint16_t>(std::lround(mulaw_decode(byte) * 32767.0f)), 2);
  write_output(path, [&](ByteSink& sink) { sink.write(file.data(), static_cast<int64_t>(file.size())); });
}

Image read_picture(const std::string& path, int64_t channels) {
  check_channels(path, channels);
  Image picture;
  picture.shape = data::decode_picture(
      data::read_whole_file(path, kPictureFileLimit), path,
      [&](const ImageShape& native) { return channels == 0 ? native.channels : channels; }, picture.pixels);
  return picture;
}

std::vector<uint8_t> encode_image_file(const std::string& path, int64_t height, int64_t width,
                                       int64_t channels) {
  std::vector<uint8_t> pixels;
  // The header tells the shape, so that a wrong one costs no memory.
  const auto choose = [&](const ImageShape& native) {
    LONGSTRIDE_CHECK(native.height == height && native.width == width,
                     "{} is {} x {} (height x width), expected {} x {}; resize it", path, native.height,
                     native.width, height, width);
    return channels == 0 ? native.channels : channels;
  };
  check_channels(path, channels);
  data::decode_picture(data::read_whole_file(path, kPictureFileLimit), path, choose, pixels);
  return pixels;
}

std::vector<uint8_t> read_audio(const std::string& path, int64_t rate) {
  std::vector<uint8_t> bytes;
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::temp_directory_path(error);
  LONGSTRIDE_CHECK(!error, "no folder for temporary files: {}; set TMPDIR", error.message());
  data::decode_audio(
      data::list_files(path), rate, folder.string(),
      [&](std::span<const uint8_t> more) { bytes.insert(bytes.end(), more.begin(), more.end()); },
      [](const std::string&) {});
  return bytes;
}

}  // namespace longstride

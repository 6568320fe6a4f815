#include "longstride/data/modalities/image.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "longstride/base/check.h"
#include "longstride/base/output_file.h"
#include "longstride/data/files.h"
#include "longstride/data/image.h"
#include "longstride/data/picture.h"
#include "longstride/data/plain_png.h"

namespace longstride {

namespace {

using std::string_view_literals::operator""sv;

constexpr std::array kLooks{
    Magic{"\x89PNG\r\n\x1A\n"sv, "a PNG picture"},
    Magic{"\xFF\xD8\xFF"sv, "a JPEG picture"},
    Magic{"\x93NUMPY"sv, "a NumPy array"},
    Magic{"\0\0\x08\3\0"sv, "an IDX file of pictures"},
    Magic{"\0\0\x08\4\0"sv, "an IDX file of pictures"},
};
constexpr std::array kOtherLooks{
    Magic{"RIFF????WEBP"sv, "a WebP picture"},
    Magic{"GIF87a"sv, "a GIF picture"},
    Magic{"GIF89a"sv, "a GIF picture"},
    Magic{"II*\0"sv, "a TIFF picture"},
    Magic{"MM\0*"sv, "a TIFF picture"},
    Magic{"BM????\0\0\0\0"sv, "a BMP picture"},
    Magic{"P5\n"sv, "a PGM picture"},
    Magic{"P6\n"sv, "a PPM picture"},
    Magic{"8BPS\0\1"sv, "a Photoshop picture"},
    Magic{"\0\0\1\0?\0"sv, "an icon"},
    Magic{"\0\0\0\x0CjP  "sv, "a JPEG 2000 picture"},
    Magic{"\0\0\0\x0CJXL "sv, "a JPEG XL picture"},
    Magic{"\0\0\0?ftyphei"sv, "a HEIC picture"},
    Magic{"\0\0\0?ftypmif1"sv, "a HEIF picture"},
    Magic{"\0\0\0?ftypavif"sv, "an AVIF picture"},
};
constexpr int64_t kPictureFileLimit = int64_t{1} << 30;
constexpr uint8_t kSeparatorGrey = 128, kNotPainted = 128;

std::string describe(const DataConfig&, int64_t size, const ImageShape& shape) {
  return fmt::format("{} picture{} of {} x {} x {}", size / shape.bytes(), size == shape.bytes() ? "" : "s",
                     shape.height, shape.width, shape.channels);
}

// A picture's size is not part of it: a run that has learnt it from the data finds the same bytes again.
std::vector<std::string> encodings(const DataConfig& config) {
  std::vector<std::string> encodings{"image 3"};
  if (config.image_channels != 0)
    encodings.push_back(fmt::format("image 3 channels {}", config.image_channels));
  return encodings;
}

data::Decoded decode(const DataConfig& config, const std::vector<data::SourceFile>& files, const std::string&,
                     const data::DecodeSink& sink, const data::ItemMark& mark) {
  const ImageShape wanted{config.image_height, config.image_width, config.image_channels};
  return data::decode_images(files, wanted, sink, mark);
}

std::vector<uint8_t> prime(const std::string& path, const DataConfig&, const ImageShape& shape) {
  return encode_image_file(path, shape.height, shape.width, shape.channels);
}

void write(const std::string& path, std::span<const std::span<const uint8_t>> samples, const DataConfig&,
           const ImageShape& shape) {
  std::vector<std::vector<uint8_t>> pictures;
  for (const std::span<const uint8_t> sample : samples)
    pictures.emplace_back(sample.begin(), sample.end())
        .resize(static_cast<size_t>(shape.bytes()), kNotPainted);
  write_png_grid(path, pictures, shape.height, shape.width, shape.channels);
}

Material material(std::span<const uint8_t> file, const std::string& path, const DataConfig&,
                  const std::function<ImageShape()>& shape) {
  data::check_plain_png(file, path);
  const ImageShape wanted = shape();
  // Checked before the pixels are decoded, because they take the memory that the header claims.
  const auto channels_of = [&](const ImageShape& found) {
    LONGSTRIDE_CHECK(
        found == wanted,
        "{} is a picture of {} x {} x {} (height, width, channels), the model's have {} x {} x {}; "
        "grids of pictures are not supported, compress them one by one",
        path, found.height, found.width, found.channels, wanted.height, wanted.width, wanted.channels);
    return found.channels;
  };
  Material found;
  found.shape = data::decode_picture(file, path, channels_of, found.bytes);
  return found;
}

std::vector<uint8_t> restore(std::vector<uint8_t> bytes, const ImageShape& shape) {
  return data::encode_png(bytes, shape);
}

void check_channels(const std::string& path, int64_t channels) {
  LONGSTRIDE_CHECK(channels == 0 || channels == 1 || channels == 3,
                   "{}: pictures are read with 1 or 3 channels, not {}", path, channels);
}

}  // namespace

constinit const Modality kImage{
    .name = "image",
    .as_is = false,
    .records = true,
    .timed = false,
    .one = "picture",
    .all = "pictures",
    .verb = "are",
    .reads =
        "pictures, and arrays of uint8 (data.image_height, data.image_width and data.image_channels are "
        "taken from the data if they are not set)",
    .formats = "PNG or JPEG",
    .describe = describe,
    .looks = kLooks,
    .other_looks = kOtherLooks,
    .encodings = encodings,
    .decode = decode,
    .prime = prime,
    .extension = ".png",
    .write = write,
    .material = material,
    .restore = restore,
    .fast = {.contexts = {12288, 3072, 1024, 256},
             .cpu_minutes = 30,
             .cpu_context = 2,
             .cpu_batch_bytes = 4096,
             .strided = true,
             .short_contexts_first = false},
};

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
  // The header gives the shape, so that a wrong one costs no memory.
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

}  // namespace longstride

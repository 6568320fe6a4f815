#include "longstride/data/picture.h"

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <string_view>

#include <jerror.h>
#include <jpeglib.h>
#include <png.h>

#include "longstride/base/check.h"
#include "longstride/base/text.h"
#include "longstride/data/looks.h"

namespace longstride::data {

namespace {

constexpr int64_t kMostSide = 1 << 20, kMostPixels = int64_t{1} << 30;  // the latter in bytes
// What a byte of a file becomes at most: deflate packs no better, and a JPEG needs a bit for each block of each
// component, which covers 32 x 32 pixels at most, of which a file has few.
constexpr int64_t kMostByDeflate = 1032, kMostByJpeg = 4096;
constexpr const char* kAdvice = "the file is damaged or cut off; fetch or make it again";

// Both libraries report errors by longjmp. So each step is a function of its own, whose locals need no
// destructor. The owning structs are in the callers.

struct PngDecoder {
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::span<const uint8_t> rest;
  size_t packed_row = 0;  // bytes of a row as the file has it
  std::string message;
  ~PngDecoder() { png_destroy_read_struct(&png, &info, nullptr); }
};

void png_on_error(png_structp png, png_const_charp message) {
  static_cast<PngDecoder*>(png_get_error_ptr(png))->message = message;
  png_longjmp(png, 1);
}

void png_on_warning(png_structp, png_const_charp) {}

void png_on_read(png_structp png, png_bytep bytes, size_t count) {
  auto& rest = static_cast<PngDecoder*>(png_get_io_ptr(png))->rest;
  if (rest.size() < count) png_error(png, "the file ends early");
  std::memcpy(bytes, rest.data(), count);
  rest = rest.subspan(count);
}

bool png_read_header(PngDecoder* decoder) {
  if (setjmp(png_jmpbuf(decoder->png)) != 0) return false;
  png_set_read_fn(decoder->png, decoder, png_on_read);
  png_read_info(decoder->png, decoder->info);
  decoder->packed_row = png_get_rowbytes(decoder->png, decoder->info);
  png_set_expand(decoder->png);
  png_set_scale_16(decoder->png);
  png_set_strip_alpha(decoder->png);
  png_set_interlace_handling(decoder->png);
  png_read_update_info(decoder->png, decoder->info);
  return true;
}

bool png_read_pixels(PngDecoder* decoder, png_bytepp rows) {
  if (setjmp(png_jmpbuf(decoder->png)) != 0) return false;
  png_read_image(decoder->png, rows);
  png_read_end(decoder->png, nullptr);
  return true;
}

struct JpegDecoder {
  jpeg_decompress_struct jpeg{};
  jpeg_error_mgr errors{};
  std::jmp_buf jump{};
  char message[JMSG_LENGTH_MAX] = {};
  ~JpegDecoder() { jpeg_destroy_decompress(&jpeg); }
};

void jpeg_on_error(j_common_ptr common) {
  auto* decoder = static_cast<JpegDecoder*>(common->client_data);
  common->err->format_message(common, decoder->message);
  std::longjmp(decoder->jump, 1);
}

// libjpeg only warns of data that end early or cannot be decoded, and fills the rest with grey.
void jpeg_on_message(j_common_ptr common, int level) {
  const int code = common->err->msg_code;
  if (level < 0 && code != JWRN_EXTRANEOUS_DATA && code != JWRN_JFIF_MAJOR && code != JWRN_ADOBE_XFORM)
    jpeg_on_error(common);
}

bool jpeg_start(JpegDecoder* decoder, const uint8_t* bytes, size_t size) {
  decoder->jpeg.err = jpeg_std_error(&decoder->errors);
  decoder->errors.error_exit = jpeg_on_error;
  decoder->errors.emit_message = jpeg_on_message;
  decoder->jpeg.client_data = decoder;
  if (setjmp(decoder->jump) != 0) return false;
  jpeg_create_decompress(&decoder->jpeg);
  jpeg_mem_src(&decoder->jpeg, bytes, size);
  jpeg_read_header(&decoder->jpeg, TRUE);
  return true;
}

bool jpeg_read_pixels(JpegDecoder* decoder, uint8_t* pixels, size_t row_bytes) {
  if (setjmp(decoder->jump) != 0) return false;
  decoder->jpeg.dct_method = JDCT_ISLOW;
  jpeg_start_decompress(&decoder->jpeg);
  while (decoder->jpeg.output_scanline < decoder->jpeg.output_height) {
    JSAMPROW row = pixels + decoder->jpeg.output_scanline * row_bytes;
    jpeg_read_scanlines(&decoder->jpeg, &row, 1);
  }
  jpeg_finish_decompress(&decoder->jpeg);
  return true;
}

// Receives the native shape before decoding, and the bytes that a file of such a picture has at least. Returns
// where the decoder writes the pixels.
using Announce = std::function<uint8_t*(const ImageShape& native, int64_t least_file)>;

void decode_png(std::span<const uint8_t> file, const std::string& label, const Announce& announce) {
  PngDecoder decoder;
  decoder.rest = file;
  decoder.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &decoder, png_on_error, png_on_warning);
  if (decoder.png != nullptr) decoder.info = png_create_info_struct(decoder.png);
  LONGSTRIDE_CHECK(decoder.info != nullptr, "{}: no memory to decode it", label);
  if (!png_read_header(&decoder)) fail("cannot decode {}: {} ({})", label, decoder.message, kAdvice);
  const ImageShape native{png_get_image_height(decoder.png, decoder.info),
                          png_get_image_width(decoder.png, decoder.info),
                          png_get_channels(decoder.png, decoder.info)};
  LONGSTRIDE_CHECK(
      png_get_rowbytes(decoder.png, decoder.info) == static_cast<size_t>(native.width * native.channels),
      "cannot decode {}: an unknown layout of pixels", label);
  const int64_t packed = static_cast<int64_t>(decoder.packed_row) * native.height;
  uint8_t* pixels = announce(native, packed / kMostByDeflate);
  std::vector<png_bytep> rows(static_cast<size_t>(native.height));
  for (size_t row = 0; row < rows.size(); ++row)
    rows[row] = pixels + row * static_cast<size_t>(native.width * native.channels);
  if (!png_read_pixels(&decoder, rows.data()))
    fail("cannot decode {}: {} ({})", label, decoder.message, kAdvice);
}

void decode_jpeg(std::span<const uint8_t> file, const std::string& label, const Announce& announce) {
  JpegDecoder decoder;
  if (!jpeg_start(&decoder, file.data(), file.size()))
    fail("cannot decode {}: {} ({})", label, decoder.message, kAdvice);
  const bool grey = decoder.jpeg.jpeg_color_space == JCS_GRAYSCALE;
  LONGSTRIDE_CHECK(decoder.jpeg.num_components == 1 || decoder.jpeg.num_components == 3,
                   "cannot decode {}: a JPEG of {} components (CMYK?); convert it to RGB", label,
                   decoder.jpeg.num_components);
  decoder.jpeg.out_color_space = grey ? JCS_GRAYSCALE : JCS_RGB;
  const ImageShape native{decoder.jpeg.image_height, decoder.jpeg.image_width, grey ? 1 : 3};
  uint8_t* pixels = announce(native, native.bytes() / kMostByJpeg);
  if (!jpeg_read_pixels(&decoder, pixels, static_cast<size_t>(native.width * native.channels)))
    fail("cannot decode {}: {} ({})", label, decoder.message, kAdvice);
}

bool begins_like_png(std::span<const uint8_t> head) {
  return head.size() >= 8 && png_sig_cmp(head.data(), 0, 8) == 0;
}

bool begins_like_jpeg(std::span<const uint8_t> head) {
  return head.size() >= 3 && head[0] == 0xFF && head[1] == 0xD8 && head[2] == 0xFF;
}

}  // namespace

bool begins_like_picture(std::span<const uint8_t> head) {
  return begins_like_png(head) || begins_like_jpeg(head);
}

ImageShape decode_picture(std::span<const uint8_t> file, const std::string& label,
                          const ChooseChannels& choose, std::vector<uint8_t>& pixels) {
  LONGSTRIDE_CHECK(!file.empty(), "{} is empty", label);
  LONGSTRIDE_CHECK(begins_like_picture(file), "{} is neither a PNG nor a JPEG{}", label, look_hint(file));
  ImageShape native, shape;
  std::vector<uint8_t> decoded;
  const Announce announce = [&](const ImageShape& found, int64_t least_file) {
    native = shape = found;
    shape.channels = choose(native);
    // A few bytes of header can claim any size.
    LONGSTRIDE_CHECK(
        native.height <= kMostSide && native.width <= kMostSide && native.bytes() <= kMostPixels,
        "{} is a picture of {} x {} (height x width), which is too large: at most {} are decoded", label,
        native.height, native.width, human_bytes(static_cast<double>(kMostPixels)));
    LONGSTRIDE_CHECK(least_file <= std::ssize(file),
                     "cannot decode {}: {} x {} pixels (height x width) do not fit in its {} bytes ({})",
                     label, native.height, native.width, file.size(), kAdvice);
    decoded.resize(static_cast<size_t>(native.bytes()));
    return decoded.data();
  };
  if (begins_like_png(file))
    decode_png(file, label, announce);
  else
    decode_jpeg(file, label, announce);

  const auto count = static_cast<size_t>(native.height * native.width);
  if (native.channels == shape.channels) {
    pixels.insert(pixels.end(), decoded.begin(), decoded.end());
  } else if (native.channels == 1) {
    for (size_t i = 0; i < count; ++i) pixels.insert(pixels.end(), 3, decoded[i]);
  } else {
    for (size_t i = 0; i < count; ++i) {
      const uint8_t* rgb = &decoded[3 * i];
      pixels.push_back(static_cast<uint8_t>((299 * rgb[0] + 587 * rgb[1] + 114 * rgb[2] + 500) / 1000));
    }
  }
  return shape;
}

std::vector<uint8_t> encode_png(std::span<const uint8_t> pixels, const ImageShape& shape) {
  LONGSTRIDE_CHECK(shape.height > 0 && shape.width > 0 && shape.channels >= 1 && shape.channels <= 4 &&
                       shape.bytes() == static_cast<int64_t>(pixels.size()),
                   "a PNG of {} x {} x {} from {} bytes", shape.height, shape.width, shape.channels,
                   pixels.size());
  constexpr png_uint_32 formats[] = {PNG_FORMAT_GRAY, PNG_FORMAT_GA, PNG_FORMAT_RGB, PNG_FORMAT_RGBA};
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(shape.width);
  image.height = static_cast<png_uint_32>(shape.height);
  image.format = formats[shape.channels - 1];
  // The bound holds for any content, so one pass of compression is enough.
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::vector<uint8_t> file(size);
  const bool done = png_image_write_to_memory(&image, file.data(), &size, 0, pixels.data(), 0, nullptr) != 0;
  LONGSTRIDE_CHECK(done, "cannot make a PNG: {}", image.message);
  file.resize(size);
  // The library also writes a meaning of the colours, which nobody has given.
  constexpr ptrdiff_t kHeaderEnd = 33, kLengthBytes = 4;
  constexpr std::string_view kPixels = "IDAT";
  const auto begin = file.begin() + kHeaderEnd;
  const auto data = std::search(begin, file.end(), kPixels.begin(), kPixels.end());
  if (data != file.end()) file.erase(begin, data - kLengthBytes);
  return file;
}

}  // namespace longstride::data

#include "tests/data/fixtures.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include <archive.h>
#include <archive_entry.h>
#include <jpeglib.h>
#include <png.h>
#include <sndfile.h>

namespace longstride::data_test {

namespace {

class ArchiveWriter {
 public:
  ArchiveWriter(const std::string& path, Pack pack, int (*format)(archive*)) : archive_(archive_write_new()) {
    check(format(archive_));
    if (pack == Pack::xz) check(archive_write_add_filter_xz(archive_));
    if (pack == Pack::gzip) check(archive_write_add_filter_gzip(archive_));
    if (pack == Pack::zstd) check(archive_write_add_filter_zstd(archive_));
    if (pack == Pack::bzip2) check(archive_write_add_filter_bzip2(archive_));
    if (pack == Pack::lz4) check(archive_write_add_filter_lz4(archive_));
    check(archive_write_open_filename(archive_, path.c_str()));
  }
  ~ArchiveWriter() {
    check(archive_write_close(archive_));
    archive_write_free(archive_);
  }
  void entry(const std::string& name, int64_t size, Link link = Link::none, const std::string& target = "") {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, name.c_str());
    const bool folder = name.ends_with('/');
    archive_entry_set_filetype(entry, folder ? AE_IFDIR : AE_IFREG);
    archive_entry_set_perm(entry, folder ? 0755 : 0644);
    if (size >= 0) archive_entry_set_size(entry, size);
    if (link == Link::hard) archive_entry_set_hardlink(entry, target.c_str());
    if (link == Link::symbolic) {
      archive_entry_set_filetype(entry, AE_IFLNK);
      archive_entry_set_symlink(entry, target.c_str());
    }
    check(archive_write_header(archive_, entry));
    archive_entry_free(entry);
  }
  void data(const Bytes& bytes) {
    if (!bytes.empty() && archive_write_data(archive_, bytes.data(), bytes.size()) < 0) check(ARCHIVE_FATAL);
  }

 private:
  void check(int status) {
    if (status == ARCHIVE_OK) return;
    ADD_FAILURE() << archive_error_string(archive_);
  }
  archive* archive_;
};

void write_members(ArchiveWriter& writer, const Members& members) {
  for (const auto& [name, bytes] : members) {
    writer.entry(name, static_cast<int64_t>(bytes.size()));
    writer.data(bytes);
  }
}

}  // namespace

void write_compressed(const std::string& path, Pack pack, const Bytes& bytes) {
  ArchiveWriter writer(path, pack, archive_write_set_format_raw);
  writer.entry("data", -1);
  writer.data(bytes);
}

void write_compressed_run(const std::string& path, Pack pack, uint8_t byte, int64_t count) {
  ArchiveWriter writer(path, pack, archive_write_set_format_raw);
  writer.entry("data", -1);
  const Bytes block(1 << 20, byte);
  for (int64_t left = count; left > 0; left -= static_cast<int64_t>(block.size()))
    writer.data(
        Bytes(block.begin(), block.begin() + std::min<int64_t>(left, static_cast<int64_t>(block.size()))));
}

void write_tar(const std::string& path, Pack pack, const Members& members) {
  ArchiveWriter writer(path, pack, archive_write_set_format_pax_restricted);
  write_members(writer, members);
}

void write_zip(const std::string& path, const Members& members) {
  ArchiveWriter writer(path, Pack::none, archive_write_set_format_zip);
  write_members(writer, members);
}

Bytes make_tar(const std::vector<TarEntry>& entries, bool v7) {
  const std::string path = ::testing::TempDir() + "longstride-" + std::to_string(::getpid()) + ".tar";
  {
    ArchiveWriter writer(path, Pack::none,
                         v7 ? archive_write_set_format_v7tar : archive_write_set_format_pax_restricted);
    for (const TarEntry& entry : entries) {
      writer.entry(entry.name, static_cast<int64_t>(entry.bytes.size()), entry.link, entry.target);
      writer.data(entry.bytes);
    }
  }
  Bytes tar = read_file(path);
  std::filesystem::remove(path);
  return tar;
}

Bytes make_png(const Bytes& rows, int64_t height, int64_t width, const PngOptions& options) {
  Bytes file;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(
      png, &file,
      [](png_structp at, png_bytep bytes, size_t count) {
        auto* out = static_cast<Bytes*>(png_get_io_ptr(at));
        out->insert(out->end(), bytes, bytes + count);
      },
      nullptr);
  png_set_IHDR(png, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height),
               options.bit_depth, options.colour_type,
               options.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  if (options.colour_type == PNG_COLOR_TYPE_PALETTE) {
    std::vector<png_color> palette(size_t{1} << options.bit_depth);
    for (size_t i = 0; i < palette.size(); ++i)
      palette[i] = {static_cast<png_byte>(i), static_cast<png_byte>(255 - i), 7};
    png_set_PLTE(png, info, palette.data(), static_cast<int>(palette.size()));
  }
  // A reader with colour management would apply this gamma. Pixels must come through unchanged.
  png_set_gAMA_fixed(png, info, 100000);
  const size_t row_bytes = rows.size() / static_cast<size_t>(height);
  std::vector<png_bytep> pointers;
  for (int64_t y = 0; y < height; ++y)
    pointers.push_back(const_cast<png_bytep>(rows.data()) + static_cast<size_t>(y) * row_bytes);
  png_set_rows(png, info, pointers.data());
  png_write_png(png, info, PNG_TRANSFORM_IDENTITY, nullptr);
  png_destroy_write_struct(&png, &info);
  return file;
}

Bytes make_jpeg(const Bytes& pixels, int64_t height, int64_t width, int64_t channels, int quality) {
  jpeg_compress_struct jpeg{};
  jpeg_error_mgr errors{};
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_compress(&jpeg);
  unsigned char* memory = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&jpeg, &memory, &size);
  jpeg.image_height = static_cast<JDIMENSION>(height);
  jpeg.image_width = static_cast<JDIMENSION>(width);
  jpeg.input_components = static_cast<int>(channels);
  jpeg.in_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(&jpeg);
  jpeg_set_quality(&jpeg, quality, TRUE);
  jpeg_start_compress(&jpeg, TRUE);
  while (jpeg.next_scanline < jpeg.image_height) {
    auto* row =
        const_cast<JSAMPROW>(pixels.data()) + jpeg.next_scanline * static_cast<size_t>(width * channels);
    jpeg_write_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_compress(&jpeg);
  Bytes file(memory, memory + size);
  jpeg_destroy_compress(&jpeg);
  std::free(memory);
  return file;
}

void write_sound(const std::string& path, int format, int rate, int channels,
                 const std::vector<float>& samples) {
  SF_INFO info{};
  info.format = format;
  info.samplerate = rate;
  info.channels = channels;
  SNDFILE* sound = sf_open(path.c_str(), SFM_WRITE, &info);
  ASSERT_NE(sound, nullptr) << sf_strerror(nullptr);
  const auto frames = static_cast<sf_count_t>(samples.size() / static_cast<size_t>(channels));
  // Written in blocks, because the Vorbis encoder of libsndfile overflows the stack on one large write.
  for (sf_count_t done = 0; done < frames;) {
    const sf_count_t count = std::min<sf_count_t>(1024, frames - done);
    ASSERT_EQ(sf_writef_float(sound, samples.data() + done * channels, count), count);
    done += count;
  }
  sf_close(sound);
}

std::vector<float> sine(int rate, int channels, double hertz, double amplitude, double seconds) {
  std::vector<float> samples;
  for (int64_t frame = 0; frame < std::llround(seconds * rate); ++frame)
    for (int channel = 0; channel < channels; ++channel)
      samples.push_back(static_cast<float>(
          amplitude * std::sin(2 * 3.14159265358979323846 * hertz * static_cast<double>(frame) / rate)));
  return samples;
}

}  // namespace longstride::data_test

// Data: pictures, sound, archives and compressed files. The first byte of an input chooses the file's name, since
// readers look at its ending.
#include <algorithm>
#include <array>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include <png.h>
#include <sndfile.h>
#include <zlib.h>

#include "longstride/base/check.h"
#include "longstride/data/audio.h"
#include "longstride/data/files.h"
#include "longstride/data/image.h"
#include "longstride/data/items.h"

#include "tests/data/fixtures.h"
#include "tests/fuzz/target.h"

namespace longstride::fuzz {

namespace {

constexpr int64_t kMostDecoded = int64_t{64} << 20;  // what a full disk would stop

Playground& playground() {
  static Playground one;
  return one;
}

Bytes named(uint8_t name, const Bytes& content) {
  Bytes input;
  input.reserve(content.size() + 1);
  input.push_back(name);
  input.insert(input.end(), content.begin(), content.end());
  return input;
}

// zstd reserves the window that a stream names, up to 2 GiB, which hides what else is reserved. Such streams
// belong to the archives.
bool is_zstd(std::span<const uint8_t> input) {
  constexpr std::array<uint8_t, 3> kEnd{0xB5, 0x2F, 0xFD};
  return input.size() > 4 && std::equal(kEnd.begin(), kEnd.end(), input.begin() + 2);
}

// Takes decoded bytes of an input.
struct Taker {
  std::span<const uint8_t> input;
  int64_t bytes = 0;
  Bytes last;  // the end of the former piece, since the secret may be cut in two
  void operator()(std::span<const uint8_t> piece) {
    bytes += std::ssize(piece);
    Bytes joined = last;
    joined.insert(joined.end(), piece.begin(), piece.end());
    Playground::check_no_secret(joined, input);
    last.assign(joined.end() - std::min<ptrdiff_t>(64, std::ssize(joined)), joined.end());
    LONGSTRIDE_CHECK(bytes <= kMostDecoded, "no space left");
  }
};

template <size_t Count>
std::vector<data::SourceFile> put(std::span<const uint8_t> input,
                                  const std::array<const char*, Count>& names) {
  const std::string path = playground().put(names[input[0] % Count], input.subspan(1));
  return {data::stat_file(path)};
}

// What `write` writes under a name, as an input.
template <class Write>
Bytes written(uint8_t name, const char* file, Write write) {
  const std::string folder = playground().folder() + "/made";
  std::filesystem::create_directories(folder);
  write(folder + "/" + file);
  Bytes result = named(name, data_test::read_file(folder + "/" + file));
  std::filesystem::remove_all(folder);
  return result;
}

constexpr std::array<const char*, 5> kPictures{"a.png", "a.jpg", "a.npy", "a-idx3-ubyte", "a.bin"};

std::vector<Bytes> picture_seeds() {
  using namespace data_test;
  std::vector<Bytes> seeds;
  seeds.push_back(named(0, make_png(noise(48, 1), 4, 4, {.colour_type = PNG_COLOR_TYPE_RGB})));
  seeds.push_back(
      named(0, make_png(noise(4, 2), 4, 4, {.colour_type = PNG_COLOR_TYPE_PALETTE, .bit_depth = 2})));
  seeds.push_back(named(0, make_png(noise(128, 3), 4, 4, {PNG_COLOR_TYPE_RGB_ALPHA, 16, true})));
  seeds.push_back(named(1, make_jpeg(noise(192, 4), 8, 8, 3, 50)));
  seeds.push_back(named(1, make_jpeg(noise(64, 5), 8, 8, 1, 90)));
  const std::string header =
      "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 2, 3), }            \n";
  Bytes npy = data_test::bytes_of("\x93NUMPY\x01");
  npy.insert(npy.end(), {0, static_cast<uint8_t>(header.size()), 0});
  npy.insert(npy.end(), header.begin(), header.end());
  npy.resize(npy.size() + 24, 7);
  seeds.push_back(named(2, npy));
  seeds.push_back(named(3, {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8}));
  seeds.push_back(named(3, {0, 0, 8, 4, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3}));
  seeds.push_back(named(4, Bytes(3073, 4)));
  // Headers of a few bytes that claim the largest pictures that are decoded.
  Bytes png = make_png(noise(48, 1), 4, 4, {.colour_type = PNG_COLOR_TYPE_RGB});
  png[18] = png[22] = 0x40, png[19] = png[23] = 0;
  seeds.push_back(named(0, png));
  Bytes jpeg = make_jpeg(noise(192, 4), 8, 8, 3, 50);
  for (size_t at = 2; at + 9 < jpeg.size(); ++at)
    if (jpeg[at] == 0xFF && jpeg[at + 1] == 0xC0) jpeg[at + 5] = jpeg[at + 7] = 0x40;
  seeds.push_back(named(1, jpeg));
  return seeds;
}

// Chance would take too long to find the checksums of a PNG's chunks.
void mend_chunks(std::span<uint8_t> png) {
  constexpr size_t kSignature = 8, kBeside = 12;  // length, kind and checksum of a chunk
  const auto word = [&](size_t at) {
    return uint64_t{png[at]} << 24 | uint64_t{png[at + 1]} << 16 | uint64_t{png[at + 2]} << 8 | png[at + 3];
  };
  for (size_t at = kSignature; at + kBeside <= png.size();) {
    const uint64_t length = word(at);
    if (length > png.size() - at - kBeside) return;
    const uint64_t sum = crc32(0, png.data() + at + 4, static_cast<unsigned>(length) + 4);
    at += 8 + length;
    for (size_t byte = 0; byte < 4; ++byte) png[at++] = static_cast<uint8_t>(sum >> (24 - 8 * byte));
  }
}

void run_picture(std::span<const uint8_t> given) {
  if (given.empty() || is_zstd(given)) return;
  Bytes input(given.begin(), given.end());
  if (input[0] % kPictures.size() == 0) mend_chunks(std::span(input).subspan(1));
  Taker taker{.input = input, .last = {}};
  refused_or_done(
      [&] { data::decode_images(put(input, kPictures), {}, std::ref(taker), [](const std::string&) {}); });
  playground().check_untouched();
}

constexpr std::array<const char*, 8> kSounds{"a.wav",  "a.flac", "a.ogg", "a.mp3",
                                             "a.aiff", "a.au",   "a.w64", "a.caf"};

std::vector<Bytes> sound_seeds() {
  using namespace data_test;
  const std::vector<float> tone = sine(8000, 1, 440, 0.5, 0.02);
  const std::array<int, 8> formats{SF_FORMAT_WAV | SF_FORMAT_PCM_16,  SF_FORMAT_FLAC | SF_FORMAT_PCM_16,
                                   SF_FORMAT_OGG | SF_FORMAT_VORBIS,  0,
                                   SF_FORMAT_AIFF | SF_FORMAT_PCM_24, SF_FORMAT_AU | SF_FORMAT_ULAW,
                                   SF_FORMAT_W64 | SF_FORMAT_PCM_U8,  SF_FORMAT_CAF | SF_FORMAT_FLOAT};
  std::vector<Bytes> seeds;
  for (uint8_t name = 0; name < formats.size(); ++name)
    if (formats[name] != 0)
      seeds.push_back(written(
          name, "made", [&](const std::string& path) { write_sound(path, formats[name], 8000, 1, tone); }));
  seeds.push_back(written(0, "made", [&](const std::string& path) {
    write_sound(path, SF_FORMAT_WAV | SF_FORMAT_IMA_ADPCM, 8000, 1, tone);
  }));
  // Three silent frames of MPEG 2 layer III, mono, 8 kbit/s at 16 kHz, behind a tag.
  Bytes mp3 = data_test::bytes_of(std::string("ID3\x04\0\0\0\0\0\x02", 10));
  mp3.resize(12);
  for (int frame = 0; frame < 3; ++frame) {
    const size_t begin = mp3.size();
    mp3.resize(begin + 36);
    mp3[begin] = 0xFF, mp3[begin + 1] = 0xF3, mp3[begin + 2] = 0x18, mp3[begin + 3] = 0xC0;
  }
  seeds.push_back(named(3, mp3));
  // A header of 1,024 channels.
  Bytes wide = seeds[0];
  wide[1 + 22] = 0, wide[1 + 23] = 4;
  seeds.push_back(wide);
  return seeds;
}

void run_sound(std::span<const uint8_t> input) {
  if (input.empty() || is_zstd(input)) return;
  Taker taker{.input = input, .last = {}};
  refused_or_done([&] {
    const auto files = put(input, kSounds);
    data::decode_audio(files, 12000, playground().folder(), std::ref(taker), [](const std::string&) {});
  });
  playground().check_untouched();
}

constexpr std::array<const char*, 9> kArchives{"a.tar", "a.zip",     "a.tar.gz", "a.tar.xz", "a.tar.zst",
                                               "a.bz2", "a.txt.lz4", "a.gz",     "a"};

std::vector<Bytes> archive_seeds() {
  using namespace data_test;
  const Members members{{"a.txt", data_test::bytes_of("one")}, {"b/c.txt", data_test::bytes_of("two")}};
  std::vector<Bytes> seeds;
  const auto tar = [&](uint8_t name, Pack pack) {
    seeds.push_back(written(name, "made", [&](const std::string& path) { write_tar(path, pack, members); }));
  };
  tar(0, Pack::none), tar(2, Pack::gzip), tar(3, Pack::xz), tar(4, Pack::zstd);
  seeds.push_back(written(1, "made", [&](const std::string& path) { write_zip(path, members); }));
  const auto compressed = [&](uint8_t name, Pack pack) {
    seeds.push_back(written(name, "made", [&](const std::string& path) {
      write_compressed(path, pack, data_test::bytes_of("some text, some text"));
    }));
  };
  compressed(5, Pack::bzip2), compressed(6, Pack::lz4), compressed(7, Pack::gzip);
  // Links and names that lead out of the archive.
  const std::string secret = Playground::secret_path();
  for (const Link link : {Link::hard, Link::symbolic})
    for (const std::string& target : {secret, std::string("../longstride-fuzz-secret/secret"),
                                      std::string("a.txt"), std::string("b.txt")})
      seeds.push_back(
          named(0, make_tar({{"a.txt", data_test::bytes_of("one")}, {"b.txt", {}, link, target}})));
  seeds.push_back(
      named(0, make_tar({{secret, data_test::bytes_of("x")}, {"../../up.txt", data_test::bytes_of("y")}})));
  seeds.push_back(written(
      7, "made", [&](const std::string& path) { write_compressed_run(path, Pack::gzip, 0, 1 << 20); }));
  return seeds;
}

void run_archive(std::span<const uint8_t> input) {
  if (input.empty()) return;
  Taker taker{.input = input, .last = {}};
  refused_or_done([&] {
    const auto files = put(input, kArchives);
    Bytes block(1 << 14);
    data::visit_items(files, [&](data::Item& item) {
      while (const size_t count = item.read(block)) taker(std::span(block).first(count));
    });
  });
  refused_or_done(
      [&] { data::peek_items(put(input, kArchives), [&](data::Item& item) { item.peek(512); }); });
  playground().check_untouched();
}

}  // namespace

const Target kPictureTarget{"picture", picture_seeds, run_picture, 8192};
const Target kSoundTarget{"sound", sound_seeds, run_sound, 8192};
const Target kArchiveTarget{"archive", archive_seeds, run_archive, 16384};

}  // namespace longstride::fuzz

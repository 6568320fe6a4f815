// Compares pictures of every format with bytes that the test computes itself.
#include "longstride/data/modalities/image.h"

#include <algorithm>
#include <cstdint>
#include <exception>
#include <fstream>
#include <functional>
#include <string>
#include <tuple>

#include <gmock/gmock.h>
#include <png.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "longstride/data/corpus.h"
#include "longstride/data/picture.h"
#include "longstride/data/plain_png.h"

#include "tests/data/fixtures.h"

namespace longstride {
namespace {

using data_test::Bytes;
using data_test::bytes_of;
using data_test::error_of;
using data_test::make_png;
using data_test::Pack;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ImageTest : public data_test::DataTest {
 protected:
  Bytes read(const DataConfig& config, ImageShape expected) {
    const Corpus corpus = open_corpus(config, config.path);
    EXPECT_EQ(corpus.shape(), expected) << corpus.description();
    EXPECT_EQ(corpus.record_bytes(), expected.bytes());
    return data_test::all_bytes(corpus);
  }
  Bytes read(const std::string& name, ImageShape expected) { return read(config("image", name), expected); }
  std::string error(const DataConfig& config) {
    return error_of([&] { open_corpus(config, config.path); });
  }
  std::string error(const std::string& name) { return error(config("image", name)); }
};

Bytes cifar_records(int count, Bytes* interleaved) {
  Bytes file;
  for (int record = 0; record < count; ++record) {
    file.push_back(static_cast<uint8_t>(record % 10));
    const Bytes planes = data_test::noise(3072, static_cast<uint32_t>(record));
    file.insert(file.end(), planes.begin(), planes.end());
    for (size_t y = 0; y < 32; ++y)
      for (size_t x = 0; x < 32; ++x)
        for (size_t channel = 0; channel < 3; ++channel)
          interleaved->push_back(planes[channel * 1024 + y * 32 + x]);
  }
  return file;
}

TEST_F(ImageTest, CifarBecomesInterleaved) {
  Bytes expected;
  const Bytes file = cifar_records(13, &expected);
  data_test::write_file(at("a.bin"), file);
  data_test::write_compressed(at("a.bin.xz"), Pack::xz, file);
  data_test::write_tar(at("a.tar.gz"), Pack::gzip,
                       {{"cifar/readme.html", bytes_of("text")}, {"cifar/a.bin", file}});
  for (const char* name : {"a.bin", "a.bin.xz", "a.tar.gz"})
    EXPECT_EQ(read(name, {32, 32, 3}), expected) << name;

  data_test::write_file(at("short.bin"), Bytes(file.begin(), file.end() - 100));
  EXPECT_THAT(error("short.bin"),
              AllOf(HasSubstr("short.bin"), HasSubstr("record 12"), HasSubstr("cut off")));
  Bytes other = file;
  other[3073] = 77;
  data_test::write_file(at("other.bin"), other);
  EXPECT_THAT(error("other.bin"), HasSubstr("label 77"));
}

Bytes idx(std::vector<uint32_t> sizes, const Bytes& pixels) {
  Bytes file{0, 0, 8, static_cast<uint8_t>(sizes.size())};
  for (const uint32_t size : sizes)
    for (int shift = 24; shift >= 0; shift -= 8) file.push_back(static_cast<uint8_t>(size >> shift));
  file.insert(file.end(), pixels.begin(), pixels.end());
  return file;
}

TEST_F(ImageTest, Idx) {
  const Bytes pixels = data_test::noise(300 * 4 * 5, 1);
  data_test::write_file(at("train-images-idx3-ubyte"), idx({300, 4, 5}, pixels));
  data_test::write_compressed(at("images.gz"), Pack::gzip, idx({300, 4, 5}, pixels));
  data_test::write_file(at("colour"), idx({100, 4, 5, 3}, pixels));
  EXPECT_EQ(read("train-images-idx3-ubyte", {4, 5, 1}), pixels);
  EXPECT_EQ(read("images.gz", {4, 5, 1}), pixels);
  EXPECT_EQ(read("colour", {4, 5, 3}), pixels);

  data_test::write_file(at("short"), idx({301, 4, 5}, pixels));
  EXPECT_THAT(error("short"), AllOf(HasSubstr("20 of 6020 bytes"), HasSubstr("cut off")));
  data_test::write_file(at("long"), idx({299, 4, 5}, pixels));
  EXPECT_THAT(error("long"), HasSubstr("goes on after"));
  data_test::write_file(at("huge"), idx({~0u, ~0u, ~0u}, pixels));
  EXPECT_THAT(error("huge"), HasSubstr("claims"));
  data_test::write_file(at("labels"), idx({6000}, pixels));
  EXPECT_THAT(error("labels"), HasSubstr("no picture"));
}

Bytes npy(const std::string& type, const std::string& order, const std::string& shape, const Bytes& pixels,
          int version) {
  std::string header =
      fmt::format("{{'descr': '{}', 'fortran_order': {}, 'shape': {}, }}\n", type, order, shape);
  Bytes file = bytes_of("\x93NUMPY");
  file.push_back(static_cast<uint8_t>(version));
  file.push_back(0);
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i)
    file.push_back(static_cast<uint8_t>(header.size() >> (8 * i)));
  file.insert(file.end(), header.begin(), header.end());
  file.insert(file.end(), pixels.begin(), pixels.end());
  return file;
}

TEST_F(ImageTest, Npy) {
  const Bytes pixels = data_test::noise(7 * 3 * 4 * 2, 1);
  data_test::write_file(at("a.npy"), npy("|u1", "False", "(7, 3, 4, 2)", pixels, 1));
  data_test::write_file(at("b.npy"), npy("|u1", "False", "(14, 3, 4)", pixels, 2));
  data_test::write_zip(at("c.npz"), {{"images.npy", npy("|u1", "False", "(14, 3, 4)", pixels, 1)}});
  EXPECT_EQ(read("a.npy", {3, 4, 2}), pixels);
  EXPECT_EQ(read("b.npy", {3, 4, 1}), pixels);
  EXPECT_EQ(read("c.npz", {3, 4, 1}), pixels);

  data_test::write_file(at("float.npy"), npy("<f4", "False", "(7, 3, 4, 2)", pixels, 1));
  EXPECT_THAT(error("float.npy"), AllOf(HasSubstr("<f4"), HasSubstr("uint8")));
  data_test::write_file(at("fortran.npy"), npy("|u1", "True", "(7, 3, 4, 2)", pixels, 1));
  EXPECT_THAT(error("fortran.npy"), HasSubstr("ascontiguousarray"));
  data_test::write_file(at("flat.npy"), npy("|u1", "False", "(168,)", pixels, 1));
  EXPECT_THAT(error("flat.npy"), HasSubstr("1 axes"));
  data_test::write_file(at("short.npy"), npy("|u1", "False", "(8, 3, 4, 2)", pixels, 1));
  EXPECT_THAT(error("short.npy"), HasSubstr("cut off"));
  data_test::write_file(at("stub.npy"), bytes_of("\x93NUMPY"));
  EXPECT_THAT(error("stub.npy"), HasSubstr("header ends early"));
}

TEST_F(ImageTest, PngOfEveryKindBecomesTheWantedChannels) {
  const Bytes rgb = data_test::noise(5 * 7 * 3, 1);
  Bytes rgba, rgb16, grey(35), grey3, grey_alpha, palette, palette_rgb;
  for (size_t i = 0; i < 35; ++i) {
    rgba.insert(rgba.end(), {rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2], static_cast<uint8_t>(5 * i)});
    grey[i] = static_cast<uint8_t>(7 * i);
    grey3.insert(grey3.end(), 3, grey[i]);
    grey_alpha.insert(grey_alpha.end(), {grey[i], static_cast<uint8_t>(200 - i)});
    palette.push_back(static_cast<uint8_t>(6 * i));
    palette_rgb.insert(palette_rgb.end(), {palette[i], static_cast<uint8_t>(255 - palette[i]), 7});
  }
  for (const uint8_t value : rgb) rgb16.insert(rgb16.end(), {value, value});  // 257 times the value
  const std::vector<std::tuple<std::string, Bytes, Bytes, int64_t>> cases{
      {"rgb", make_png(rgb, 5, 7, {PNG_COLOR_TYPE_RGB}), rgb, 3},
      {"rgb interlaced", make_png(rgb, 5, 7, {PNG_COLOR_TYPE_RGB, 8, true}), rgb, 3},
      {"rgba", make_png(rgba, 5, 7, {PNG_COLOR_TYPE_RGBA}), rgb, 3},
      {"rgb16", make_png(rgb16, 5, 7, {PNG_COLOR_TYPE_RGB, 16}), rgb, 3},
      {"palette", make_png(palette, 5, 7, {PNG_COLOR_TYPE_PALETTE}), palette_rgb, 3},
      {"grey", make_png(grey, 5, 7, {PNG_COLOR_TYPE_GRAY}), grey, 1},
      {"grey alpha", make_png(grey_alpha, 5, 7, {PNG_COLOR_TYPE_GRAY_ALPHA}), grey, 1}};
  for (const auto& [name, file, expected, channels] : cases) {
    data_test::write_file(at(name + ".png"), file);
    EXPECT_EQ(read(name + ".png", {5, 7, channels}), expected) << name;
  }
  DataConfig wanted = config("image", "grey.png");
  wanted.image_channels = 3;
  EXPECT_EQ(read(wanted, {5, 7, 3}), grey3);
  wanted = config("image", "rgb.png");
  wanted.image_channels = 1;
  const Bytes luma = read(wanted, {5, 7, 1});
  for (size_t i = 0; i < 35; ++i)
    EXPECT_NEAR(luma[i], 0.299 * rgb[3 * i] + 0.587 * rgb[3 * i + 1] + 0.114 * rgb[3 * i + 2], 0.51);
  // One bit for each pixel: 1 0 1 0 ... in each row.
  data_test::write_file(at("bits.png"), make_png({0xAA, 0xAA}, 2, 8, {PNG_COLOR_TYPE_GRAY, 1}));
  EXPECT_THAT(read("bits.png", {2, 8, 1}),
              ::testing::ElementsAre(255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0));
}

TEST_F(ImageTest, JpegIsNearTheOriginal) {
  Bytes smooth;
  for (int y = 0; y < 24; ++y)
    for (int x = 0; x < 16; ++x)
      smooth.insert(smooth.end(),
                    {static_cast<uint8_t>(8 * y), static_cast<uint8_t>(10 * x), static_cast<uint8_t>(99)});
  data_test::write_file(at("a.jpg"), data_test::make_jpeg(smooth, 24, 16, 3, 100));
  const Bytes decoded = read("a.jpg", {24, 16, 3});
  for (size_t i = 0; i < smooth.size(); ++i) ASSERT_NEAR(decoded[i], smooth[i], 12) << i;
  const Bytes grey(64, 90);
  data_test::write_file(at("b.jpeg"), data_test::make_jpeg(grey, 8, 8, 1, 100));
  for (const uint8_t value : read("b.jpeg", {8, 8, 1})) ASSERT_NEAR(value, 90, 1);
}

TEST_F(ImageTest, FoldersAndArchivesGiveTheirPicturesInOrder) {
  const auto picture = [](uint8_t value) { return make_png(Bytes(12, value), 2, 2, {PNG_COLOR_TYPE_RGB}); };
  data_test::write_file(at("f/b.png"), picture(2));
  data_test::write_file(at("f/a/z.PNG"), picture(1));
  data_test::write_file(at("f/readme.txt"), "no picture");
  data_test::write_file(at("f/.c.png"), picture(9));
  data_test::write_file(at("f/grey.png"), make_png(Bytes(4, 3), 2, 2, {PNG_COLOR_TYPE_GRAY}));
  Bytes expected;
  for (const uint8_t value : {1, 2, 3}) expected.insert(expected.end(), 12, value);
  EXPECT_EQ(read("f", {2, 2, 3}), expected);
  // Archives come in the order of the names too, whatever their own order.
  const data_test::Members members{{"top/b.png", picture(2)},
                                   {"readme", bytes_of("x")},
                                   {"top/c.png", picture(3)},
                                   {"top/a.png", picture(1)}};
  data_test::write_zip(at("a.zip"), members);
  data_test::write_tar(at("a.tar.xz"), Pack::xz, members);
  EXPECT_EQ(read("a.zip", {2, 2, 3}), expected);
  EXPECT_EQ(read("a.tar.xz", {2, 2, 3}), expected);
}

// In the published archive the test batch is in the middle.
TEST_F(ImageTest, CifarArchiveIsOrderedByName) {
  Bytes expected, train2, test;
  const Bytes first = cifar_records(1500, &expected), second = cifar_records(30, &train2);
  const Bytes last = cifar_records(7, &test);
  data_test::write_tar(at("a.tar.gz"), Pack::gzip,
                       {{"cifar/data_batch_2.bin", second},
                        {"cifar/test_batch.bin", last},
                        {"cifar/readme.html", bytes_of("text")},
                        {"cifar/data_batch_1.bin", first}});
  expected.insert(expected.end(), train2.begin(), train2.end());
  expected.insert(expected.end(), test.begin(), test.end());
  EXPECT_EQ(read("a.tar.gz", {32, 32, 3}), expected);
  EXPECT_THAT(cached(), ::testing::SizeIs(1)) << "a temporary file was left";
}

TEST_F(ImageTest, PicturesThatDoNotFitAreNamed) {
  data_test::write_file(at("f/a.png"), make_png(Bytes(12, 1), 2, 2, {PNG_COLOR_TYPE_RGB}));
  data_test::write_file(at("f/b.png"), make_png(Bytes(18, 1), 3, 2, {PNG_COLOR_TYPE_RGB}));
  EXPECT_THAT(error("f"), AllOf(HasSubstr("f/b.png is 3 x 2 x 3"), HasSubstr("expected 2 x 2 x 3"),
                                HasSubstr("f/a.png, the first"), HasSubstr("resize it")));
  DataConfig wanted = config("image", "f/a.png");
  wanted.image_height = 4;
  EXPECT_THAT(error(wanted), AllOf(HasSubstr("expected 4 x 2 x 3"), HasSubstr("data.image_height")));
  data_test::write_file(at("g/a.png"), make_png(Bytes(4, 1), 2, 2, {PNG_COLOR_TYPE_GRAY}));
  data_test::write_file(at("g/b.png"), make_png(Bytes(12, 1), 2, 2, {PNG_COLOR_TYPE_RGB}));
  EXPECT_THAT(error("g"), AllOf(HasSubstr("b.png has colour"), HasSubstr("data.image_channels")));
  wanted = config("image", "g");
  wanted.image_channels = 2;
  EXPECT_THAT(error(wanted), HasSubstr("1 or 3 channels"));
  EXPECT_THAT(cached(), IsEmpty());
}

TEST_F(ImageTest, WhatIsNoPictureOrCutOffIsRefused) {
  data_test::write_file(at("notes.txt"), "only words");
  EXPECT_THAT(error("notes.txt"),
              AllOf(HasSubstr("notes.txt is no picture"), HasSubstr("set data.kind to text")));
  data_test::write_file(at("f/a.txt"), "words");
  data_test::write_file(at("f/b.txt"), "words");
  EXPECT_THAT(error("f"), HasSubstr("no picture among the 2 files"));
  data_test::write_file(at("fake.png"), "only words");
  EXPECT_THAT(error("fake.png"), HasSubstr("neither a PNG nor a JPEG"));
  data_test::write_file(at("a.png"), make_png(data_test::noise(3000, 1), 25, 40, {PNG_COLOR_TYPE_RGB}));
  data_test::write_file(at("a.jpg"), data_test::make_jpeg(data_test::noise(3000, 1), 25, 40, 3, 90));
  for (const std::string name : {"png", "jpg"}) {
    // The very last bytes of a JPEG may be missing without loss only up to its end marker, which is required.
    for (const double part : {0.999, 0.7, 0.3, 0.01}) {
      data_test::cut(at("a." + name), at("cut." + name), part);
      EXPECT_THAT(error("cut." + name), AllOf(HasSubstr("cut." + name), HasSubstr("cut off")))
          << name << " " << part;
    }
  }
  Bytes damaged = data_test::read_file(at("a.png"));
  damaged[damaged.size() / 2] ^= 1;
  data_test::write_file(at("bad.png"), damaged);
  EXPECT_THAT(error("bad.png"), AllOf(HasSubstr("bad.png"), HasSubstr("damaged")));
  EXPECT_THAT(cached(), IsEmpty());
}

TEST_F(ImageTest, PngRoundTripIsExact) {
  for (const int64_t channels : {1, 3}) {
    const Bytes pixels = data_test::noise(static_cast<size_t>(13 * 9 * channels), 5);
    write_png(at("out.png"), pixels, 13, 9, channels);
    const Image picture = read_picture(at("out.png"));
    EXPECT_EQ(picture.shape, (ImageShape{13, 9, channels}));
    EXPECT_EQ(picture.pixels, pixels);
    EXPECT_EQ(encode_image_file(at("out.png"), 13, 9, channels), pixels);
  }
  EXPECT_THAT(error_of([&] { encode_image_file(at("out.png"), 9, 13, 3); }),
              AllOf(HasSubstr("13 x 9"), HasSubstr("expected 9 x 13")));
  EXPECT_THAT(error_of([&] { write_png(at("out.png"), Bytes(5), 2, 2, 1); }), HasSubstr("from 5 bytes"));
  EXPECT_THAT(error_of([&] { write_png(at("none/out.png"), Bytes(4), 2, 2, 1); }),
              HasSubstr("cannot create"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(at("")), {}), 1) << "a temporary file was left";
}

TEST_F(ImageTest, GridPlacesEveryPicture) {
  std::vector<Bytes> items;
  for (uint8_t item = 0; item < 5; ++item) items.push_back(Bytes(2 * 3 * 3, static_cast<uint8_t>(10 * item)));
  write_png_grid(at("grid.png"), items, 2, 3, 3);
  const Image grid = read_picture(at("grid.png"));
  ASSERT_EQ(grid.shape, (ImageShape{2 * 3 - 1, 3 * 4 - 1, 3}));
  for (int64_t y = 0; y < 5; ++y)
    for (int64_t x = 0; x < 11; ++x) {
      const int64_t item = y / 3 * 3 + x / 4;
      const bool gap = y % 3 == 2 || x % 4 == 3 || item >= 5;
      ASSERT_EQ(grid.pixels[static_cast<size_t>((y * 11 + x) * 3)], gap ? 128 : 10 * item) << y << " " << x;
    }
  write_png_grid(at("row.png"), items, 2, 3, 3, 10);
  EXPECT_EQ(read_picture(at("row.png")).shape, (ImageShape{2, 5 * 4 - 1, 3}));
  items[3].pop_back();
  EXPECT_THAT(error_of([&] { write_png_grid(at("x.png"), items, 2, 3, 3); }),
              HasSubstr("picture 3 has 17 bytes"));
}

Bytes npy_of_shape(const std::string& shape, size_t bytes) {
  std::string header = "{'descr': '|u1', 'fortran_order': False, 'shape': " + shape + "}\n";
  std::string file = "\x93NUMPY\x01";
  file += '\0';
  file += static_cast<char>(header.size());
  file += '\0';
  Bytes result = data_test::bytes_of(file + header);
  result.resize(result.size() + bytes, 7);
  return result;
}

TEST_F(ImageTest, ArraysThatAreNoPicturesAreNamed) {
  data_test::write_file(at("none.npy"), npy_of_shape("", 99));
  data_test::write_file(at("negative.npy"), npy_of_shape("(40, -4, -4, 3), ", 1920));
  data_test::write_file(at("second.npy"), npy_of_shape("(4, 3, 8, 8), ", 768));
  for (const auto& [name, words] :
       {std::pair{"none.npy", "shape"}, {"negative.npy", "claims"}, {"second.npy", "transpose"}})
    EXPECT_THAT(data_test::error_of([&, name = name] { open_corpus(config("image", name), at(name)); }),
                ::testing::AllOf(::testing::HasSubstr(name), ::testing::HasSubstr(words)));
  data_test::write_file(at("f/labels.npy"), npy_of_shape("(4,), ", 4));
  data_test::write_file(at("f/pictures.npy"), npy_of_shape("(4, 2, 2), ", 16));
  const Corpus corpus = open_corpus(config("image", "f"), at("f"));
  EXPECT_EQ(corpus.size(), 16);
  EXPECT_THAT(corpus.description(), ::testing::HasSubstr("skipped 1 file: 1 .npy; the first: "));
  EXPECT_THAT(corpus.description(), ::testing::HasSubstr("labels.npy"));
}

TEST_F(ImageTest, AHugeHeaderIsRefusedBeforeItsPixelsTakeMemory) {
  Bytes png = data_test::make_png(Bytes(3, 0), 1, 1, {.colour_type = PNG_COLOR_TYPE_RGB});
  png[17] = 1, png[18] = png[19] = 0;  // height and width in the header, whose checksum is then wrong
  data_test::write_file(at("huge.png"), png);
  EXPECT_THAT(data_test::error_of([&] { open_corpus(config("image", "huge.png"), at("huge.png")); }),
              ::testing::HasSubstr("huge.png"));
}

// The header claims a larger picture than there is; its checksum is right.
Bytes png_that_claims(uint32_t height, uint32_t width) {
  Bytes png = data_test::make_png(Bytes(3, 0), 1, 1, {.colour_type = PNG_COLOR_TYPE_RGB});
  constexpr size_t kType = 12, kWidth = 16, kHeight = 20, kCrc = 29;
  const auto put = [&](size_t at, uint32_t value) {
    for (size_t i = 0; i < 4; ++i) png[at + i] = static_cast<uint8_t>(value >> (24 - 8 * i));
  };
  put(kWidth, width), put(kHeight, height);
  uint32_t crc = 0xffffffffu;
  for (size_t i = kType; i < kCrc; ++i) {
    crc ^= png[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  put(kCrc, ~crc);
  return png;
}

// The message with which `work` ends in a process of its own, which may use 64 MiB more memory than it has.
std::string error_in_little_memory(const std::function<void()>& work) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  const pid_t child = fork();
  if (child == 0) {
    long pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const auto most = static_cast<rlim_t>(pages * sysconf(_SC_PAGESIZE) + (64 << 20));
    const rlimit limit{most, most};
    std::string message = "no limit";
    if (setrlimit(RLIMIT_AS, &limit) == 0) {
      try {
        work();
        message = "no error";
      } catch (const std::exception& error) {
        message = error.what();
      }
    }
    _exit(write(ends[1], message.data(), message.size()) < 0);
  }
  close(ends[1]);
  char text[4096];
  const ssize_t count = read(ends[0], text, sizeof text);
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return {text, static_cast<size_t>(std::max<ssize_t>(count, 0))};
}

TEST_F(ImageTest, AHeaderOfAnotherShapeIsRefusedBeforeItsPixelsTakeMemory) {
  data_test::write_file(at("claims.png"), png_that_claims(20000, 16000));
  EXPECT_THAT(error_in_little_memory([&] { encode_image_file(at("claims.png"), 4, 4, 3); }),
              ::testing::AllOf(::testing::HasSubstr("claims.png"), ::testing::HasSubstr("20000 x 16000"),
                               ::testing::HasSubstr("expected 4 x 4")));
  EXPECT_THAT(
      error_in_little_memory([&] { open_corpus(config("image", "claims.png"), at("claims.png")); }),
      ::testing::AllOf(::testing::HasSubstr("claims.png"), ::testing::HasSubstr("do not fit in its")));
  data_test::write_file(at("huge.png"), png_that_claims(1 << 16, 1 << 16));
  EXPECT_THAT(error_in_little_memory([&] { open_corpus(config("image", "huge.png"), at("huge.png")); }),
              ::testing::AllOf(::testing::HasSubstr("huge.png"), ::testing::HasSubstr("too large")));
}

TEST_F(ImageTest, AJpegCannotClaimMoreThanItsBytesHold) {
  Bytes jpeg = data_test::make_jpeg(data_test::noise(192, 4), 8, 8, 3, 50);
  for (size_t at = 2; at + 9 < jpeg.size(); ++at)
    if (jpeg[at] == 0xFF && jpeg[at + 1] == 0xC0) jpeg[at + 5] = jpeg[at + 7] = 0x40;
  data_test::write_file(at("claims.jpg"), jpeg);
  EXPECT_THAT(
      error_in_little_memory([&] { open_corpus(config("image", "claims.jpg"), at("claims.jpg")); }),
      ::testing::AllOf(::testing::HasSubstr("claims.jpg"), ::testing::HasSubstr("do not fit in its")));
}

TEST_F(ImageTest, LargeBlankPicturesAreStillDecoded) {
  const int64_t side = 2048;
  const Bytes blank(static_cast<size_t>(side * side), 255);
  data_test::write_file(at("blank/a.jpg"), data_test::make_jpeg(blank, side, side, 1, 50));
  data_test::write_file(at("blank/b.png"),
                        data_test::make_png(Bytes(static_cast<size_t>(side * side / 8), 0), side, side,
                                            {.colour_type = PNG_COLOR_TYPE_GRAY, .bit_depth = 1}));
  EXPECT_EQ(open_corpus(config("image", "blank"), at("blank")).size(), 2 * side * side);
}

TEST_F(ImageTest, ExtentsAreLimited) {
  DataConfig wrapping = config("image", "none.png");
  wrapping.image_height = 4611686018427387908, wrapping.image_width = 4, wrapping.image_channels = 3;
  EXPECT_THAT(data_test::error_of([&] { open_corpus(wrapping, wrapping.path); }),
              ::testing::HasSubstr("image_height"));
}

TEST_F(ImageTest, ATextOfThreeLettersIsNoCompressedFile) {
  data_test::write_file(at("t/a"), "BZh");
  const Corpus corpus = open_corpus(config("text", "t"), at("t"));
  EXPECT_EQ(data_test::all_bytes(corpus), data_test::bytes_of("BZh"));
}

TEST_F(ImageTest, AnEmptyPictureBesideOthersIsNamed) {
  data_test::write_file(at("e/a.npy"), npy_of_shape("(4, 2, 2), ", 16));
  data_test::write_file(at("e/b.png"), "");
  EXPECT_THAT(data_test::error_of([&] { open_corpus(config("image", "e"), at("e")); }),
              ::testing::AllOf(::testing::HasSubstr("b.png"), ::testing::HasSubstr("is empty")));
}

// A picture that is compressed must come back as it was.
TEST(PlainPng, WhateverWouldBeLostIsNamed) {
  const Bytes rgb(5 * 7 * 3, 9);
  const auto refusal = [](const Bytes& png) {
    return error_of([&] { data::check_plain_png(png, "a.png"); });
  };
  const Bytes plain = data::encode_png(rgb, {5, 7, 3});
  EXPECT_NO_THROW(data::check_plain_png(plain, "a.png"));
  EXPECT_THAT(refusal(Bytes(plain.begin(), plain.begin() + 33)), HasSubstr("is no PNG"));
  const auto with = [&](size_t at, int value) {
    Bytes png = plain;
    png[at] = static_cast<uint8_t>(value);
    return png;
  };
  EXPECT_THAT(refusal(with(24, 16)), HasSubstr("16 bits a channel"));
  EXPECT_THAT(refusal(with(25, 6)), HasSubstr("transparent pixels"));
  EXPECT_THAT(refusal(with(28, 1)), HasSubstr("is interlaced"));
  Bytes longer = plain;
  longer.resize(plain.size() + 3);
  EXPECT_THAT(refusal(longer), HasSubstr("3 bytes behind the end"));
  // The length of the last part, which is empty.
  EXPECT_THAT(refusal(with(plain.size() - 9, 200)), HasSubstr("is damaged or cut off"));
  constexpr std::ptrdiff_t kBehindHead = 33;
  for (const auto& [chunk, meaning] :
       std::vector<std::pair<std::string, std::string>>{{"tRNS", "transparent pixels"},
                                                        {"acTL", "an animation"},
                                                        {"gAMA", "what its colours mean"},
                                                        {"tEXt", "text"},
                                                        {"eXIf", "a camera's notes"},
                                                        {"pHYs", "the size of its pixels"},
                                                        {"abCd", "more than pixels"}}) {
    Bytes png = plain;
    const Bytes part = bytes_of(std::string(4, '\0') + chunk + std::string(4, '\0'));
    png.insert(png.begin() + kBehindHead, part.begin(), part.end());
    EXPECT_THAT(refusal(png), HasSubstr("holds " + meaning + " (" + chunk + ")"));
  }
}

}  // namespace
}  // namespace longstride

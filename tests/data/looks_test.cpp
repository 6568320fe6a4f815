// Data of another kind than the one asked for is recognised by its first bytes.
#include <array>

#include <gmock/gmock.h>
#include <png.h>
#include <sndfile.h>

#include "longstride/data/corpus.h"

#include "tests/data/fixtures.h"

namespace longstride {
namespace {

using data_test::Bytes;
using data_test::bytes_of;
using data_test::error_of;
using data_test::Pack;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class LooksTest : public data_test::DataTest {
 protected:
  // The notes while `name` is opened as text.
  std::vector<std::string> notes(const std::string& name) const {
    std::vector<std::string> lines;
    open_corpus(config("text", name), at(name),
                {.note = [&](const std::string& line) { lines.push_back(line); }, .progress = {}});
    return lines;
  }
  std::string note_of(const std::string& name, const Bytes& bytes) const {
    data_test::write_file(at(name), bytes);
    const std::vector<std::string> lines = notes(name);
    EXPECT_THAT(lines, SizeIs(1)) << name;
    return lines.empty() ? "" : lines[0];
  }
};

Bytes padded(const std::string& head) {
  Bytes bytes = bytes_of(head);
  bytes.resize(600, 1);
  return bytes;
}

Bytes png(uint8_t value) { return data_test::make_png(Bytes(4, value), 2, 2, {PNG_COLOR_TYPE_GRAY}); }

TEST_F(LooksTest, TextThatIsSomethingElseIsNoted) {
  using std::string_literals::operator""s;
  for (const auto& [name, head, look, advice] : std::vector<std::array<std::string, 4>>{
           {"a.png", "\x89PNG\r\n\x1a\n", "a PNG picture", "data.kind = \"image\""},
           {"a.jpg", "\xff\xd8\xff\xe0", "a JPEG picture", "data.kind = \"image\""},
           {"a.npy", "\x93NUMPY\x01", "a NumPy array", "data.kind = \"image\""},
           {"a-idx3", "\0\0\x08\3\0"s, "an IDX file", "data.kind = \"image\""},
           {"a.wav", "RIFF\x10\0\0\0WAVEfmt "s, "a WAV sound", "data.kind = \"audio\""},
           {"a.flac", "fLaC", "a FLAC sound", "data.kind = \"audio\""},
           {"a.ogg", "OggS", "an Ogg sound", "data.kind = \"audio\""},
           {"a.mp3", "ID3\3", "an MP3 sound", "data.kind = \"audio\""},
           {"b.mp3", "\xff\xfb\x90\x44", "an MP3 sound", "data.kind = \"audio\""},
           {"a.aiff", "FORM....AIFF", "an AIFF sound", "data.kind = \"audio\""},
           {"a.gif", "GIF89a", "a GIF picture", "as PNG or JPEG"},
           {"a.webp", "RIFF....WEBP", "a WebP picture", "as PNG or JPEG"},
           {"a.m4a",
            "\0\0\0\x20"
            "ftypM4A "s,
            "an MPEG-4 sound", "as WAV"},
           {"a.7z", "7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack"},
           {"a.so",
            "\x7f"
            "ELF",
            "an ELF program", "no other data.kind"},
           {"a.safetensors", "\x20\0\0\0\0\0\0\0{\"weight\":"s, "a safetensors file", "no other data.kind"},
           {"a.pdf", "%PDF-1.7", "a PDF document", "no other data.kind"}}) {
    EXPECT_THAT(note_of(name, padded(head)),
                AllOf(HasSubstr(at(name) + " looks like " + look), HasSubstr(advice)));
    EXPECT_EQ(data_test::all_bytes(open_corpus(config("text", name), at(name))).size(), 600u);
  }
}

TEST_F(LooksTest, TextIsNotNoted) {
  data_test::write_file(at("a.txt"), "words in lines\nand more\n");
  data_test::write_file(at("short"), "B");
  data_test::write_file(at("wide.txt"), Bytes{0xFF, 0xFE, 'w', 0, 'o', 0, 'r', 0, 'd', 0});
  data_test::write_file(at("noise"), data_test::noise(5000, 8));
  data_test::write_compressed(at("a.gz"), Pack::gzip, bytes_of("words"));
  for (const char* name : {"a.txt", "short", "wide.txt", "noise", "a.gz"})
    EXPECT_THAT(notes(name), IsEmpty()) << name;
}

TEST_F(LooksTest, FoldersAndArchivesAreNotedOnceAtEachOpening) {
  data_test::Members members{{"f/readme.txt", bytes_of("words")}};
  for (int i = 0; i < 40; ++i) {
    const std::string name = "f/" + std::to_string(i);
    members.emplace_back(name + (i % 2 == 0 ? ".png" : ".jpg"),
                         i % 2 == 0 ? png(1) : data_test::make_jpeg(Bytes(64, 1), 8, 8, 1, 90));
  }
  for (const auto& [name, bytes] : members) data_test::write_file(at(name), bytes);
  data_test::write_tar(at("a.tar.xz"), Pack::xz, members);
  data_test::write_zip(at("a.zip"), members);
  data_test::write_compressed(at("one.png.gz"), Pack::gzip, png(1));
  for (const char* name : {"f", "a.tar.xz", "a.zip", "one.png.gz"})
    for (int time = 0; time < 2; ++time)  // the second time from the cache
      EXPECT_THAT(notes(name), ElementsAre(AllOf(HasSubstr(at(name)), HasSubstr("picture"),
                                                 HasSubstr("data.kind = \"image\""))))
          << name;
  // A few pictures among texts are not mentioned.
  for (int i = 0; i < 4; ++i) data_test::write_file(at("g/" + std::to_string(i) + ".txt"), "words");
  data_test::write_file(at("g/a.png"), png(1));
  EXPECT_THAT(notes("g"), IsEmpty());
}

TEST_F(LooksTest, ErrorsSayWhatWasFoundInstead) {
  data_test::write_sound(at("a.wav"), SF_FORMAT_WAV | SF_FORMAT_PCM_16, 12000, 1, {0.5f, 0.25f});
  data_test::write_file(at("a.png"), png(1));
  data_test::write_file(at("f/a.png"), png(1));
  data_test::write_file(at("f/b.png"), png(1));
  const auto error = [&](const std::string& kind, const std::string& name) {
    return error_of([&] { open_corpus(config(kind, name), at(name)); });
  };
  EXPECT_THAT(error("image", "a.wav"), AllOf(HasSubstr("a.wav is no picture"), HasSubstr("a WAV sound"),
                                             HasSubstr("data.kind = \"audio\" reads")));
  EXPECT_THAT(error("audio", "a.png"), AllOf(HasSubstr("a.png is no sound"), HasSubstr("a PNG picture"),
                                             HasSubstr("data.kind = \"image\" reads")));
  data_test::write_file(at("web.png"), padded("RIFF....WEBP"));
  EXPECT_THAT(error("image", "web.png"),
              AllOf(HasSubstr("web.png is neither a PNG nor a JPEG"), HasSubstr("a WebP picture")));
  EXPECT_THAT(error("audio", "f"),
              AllOf(HasSubstr("no sound among the 2 files"), HasSubstr("a PNG picture")));
  EXPECT_THAT(cached(), IsEmpty());
}

TEST_F(LooksTest, WeightsNamedBinAreNoPictures) {
  Bytes weights = data_test::noise(40000, 4);
  weights[0] = 77;
  data_test::write_file(at("model.bin"), weights);
  EXPECT_THAT(error_of([&] { open_corpus(config("image", "model.bin"), at("model.bin")); }),
              AllOf(HasSubstr("model.bin is no CIFAR-10 binary batch"), HasSubstr("labels from 0 to 9")));
  data_test::write_file(at("f/a.png"), png(5));
  data_test::write_file(at("f/model.bin"), weights);
  const Corpus corpus = open_corpus(config("image", "f"), at("f"));
  EXPECT_EQ(data_test::all_bytes(corpus), Bytes(4, 5));
  EXPECT_THAT(corpus.description(), HasSubstr("skipped 1 file: 1 .bin; the first: " + at("f/model.bin")));
}

}  // namespace
}  // namespace longstride

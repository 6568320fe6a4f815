// The ends of sounds: whole, joined, of unknown length, cut off.
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <sndfile.h>

#include "longstride/data/corpus.h"
#include "longstride/data/modalities/audio.h"

#include "tests/data/fixtures.h"

namespace longstride {
namespace {

using namespace std::string_literals;
using data_test::Bytes;
using data_test::error_of;
using data_test::write_file;
using data_test::write_sound;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kRate = 8000;
constexpr size_t kFrames = 16000;

std::string number(uint64_t value, int bytes, bool big) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> 8 * (big ? bytes - 1 - i : i));
  return text;
}
std::string little(uint64_t value, int bytes = 4) { return number(value, bytes, false); }
std::string big(uint64_t value, int bytes = 4) { return number(value, bytes, true); }

std::string samples(bool big_endian) {
  std::string text;
  for (size_t i = 0; i < kFrames; ++i) text += number(i * 37 % 8000, 2, big_endian);
  return text;
}

constexpr uint64_t kDataBytes = 2 * kFrames;
const std::string kFormat =
    little(1, 2) + little(1, 2) + little(kRate) + little(2 * kRate) + little(2, 2) + little(16, 2);

std::string wav(uint64_t riff = 36 + kDataBytes, uint64_t data = kDataBytes) {
  return std::string("RIFF") + little(riff) + "WAVEfmt " + little(16) + kFormat + "data" + little(data) +
         samples(false);
}
std::string au(uint64_t size) {
  return std::string(".snd") + big(24) + big(size) + big(3) + big(kRate) + big(1) + samples(true);
}
std::string aiff(uint64_t form, uint64_t sound, uint64_t frames) {
  return std::string("FORM") + big(form) + "AIFFCOMM" + big(18) + big(1, 2) + big(frames) + big(16, 2) +
         big(0x400B, 2) + big(0xFA00000000000000u, 8) + "SSND" + big(sound) + big(0) + big(0) + samples(true);
}
std::string rf64(uint64_t riff, uint64_t data, uint64_t frames) {
  return std::string("RF64") + big(0xffffffff) + "WAVEds64" + little(28) + little(riff, 8) + little(data, 8) +
         little(frames, 8) + little(0) + "fmt " + little(16) + kFormat + "data" + big(0xffffffff) +
         samples(false);
}
std::string w64(uint64_t riff, uint64_t data) {
  const std::string guid = std::string("\xF3\xAC\xD3\x11\x8C\xD1") + big(0x00C04F8EDB8A, 6);
  return std::string("riff") + big(0x2E91CF11A5D628DB, 8) + big(0x04C10000) + little(riff, 8) + "wave" +
         guid + "fmt " + guid + little(40, 8) + kFormat + "data" + guid + little(data, 8) + samples(false);
}
std::string caf(uint64_t data) {
  return std::string("caff") + big(1, 2) + big(0, 2) + "desc" + big(32, 8) + big(0x40BF400000000000, 8) +
         "lpcm" + big(0) + big(2) + big(1) + big(1) + big(16) + "data" + big(data, 8) + big(0) +
         samples(true);
}

// Silent MP3 frames of MPEG version 1 (id 3), 2 (id 2) or 2.5 (id 0), of one channel, without Xing header.
std::string mp3(int id, int rate, int rate_index, int kbps, int kbps_index, int frames) {
  const int scaled = (id == 3 ? 144 : 72) * kbps * 1000;
  std::string text;
  for (int frame = 0, rest = 0; frame < frames; ++frame) {
    rest += scaled % rate;
    const int padding = rest >= rate ? 1 : 0;
    rest -= padding * rate;
    text += std::string("\xFF") + number(0xE3 | id << 3, 1, true) +
            number(kbps_index << 4 | rate_index << 2 | padding << 1, 1, true) + "\xC4" +
            std::string(scaled / rate + padding - 4, '\0');
  }
  return text;
}
std::string mp3_128(int frames) { return mp3(3, 44100, 0, 128, 9, frames); }

std::string ape_tag() {
  const auto part = [](uint64_t flags) {
    return std::string("APETAGEX") + little(2000) + little(100 + 32) + little(1) + little(flags) +
           little(0, 8);
  };
  return part(0xA0000000) + std::string(100, 'x') + part(0x80000000);
}

// Lyrics3 with its length, as version 2 has it, or without, as version 1.
std::string lyrics(bool with_length) {
  const std::string words = "LYRICSBEGIN" + std::string(89, 'l');
  return words + (with_length ? "000100LYRICS200" : "LYRICSEND");
}

class SoundEnds : public data_test::DataTest {
 protected:
  size_t frames_of(const std::string& name, int64_t rate = kRate) const {
    DataConfig wanted = config("audio", name);
    wanted.sample_rate = rate;
    return static_cast<size_t>(open_corpus(wanted, wanted.path).size());
  }
  std::string error(const std::string& name) const {
    return error_of([&] { frames_of(name); });
  }
  std::string content(const std::string& name) const {
    const Bytes bytes = data_test::read_file(at(name));
    return std::string(bytes.begin(), bytes.end());
  }
};

TEST_F(SoundEnds, EveryFrameOfAnMp3Counts) {
  const std::string id3 =
      std::string("ID3") + big(0x0300, 2) + big(0, 1) + big(0x00000200) + std::string(256, 'i');
  const std::string id3v1 = std::string("TAG") + std::string(125, ' ');
  const std::vector<std::tuple<const char*, std::string, int, size_t>> cases{
      {"variable", mp3(3, 44100, 0, 320, 14, 20) + mp3(3, 44100, 0, 32, 1, 300), 44100, 320 * 1152},
      {"constant", mp3_128(200), 44100, 200 * 1152},
      {"48", mp3(3, 48000, 1, 128, 9, 90), 48000, 90 * 1152},
      {"22", mp3(2, 22050, 0, 64, 8, 100), 22050, 100 * 576},
      {"16", mp3(2, 16000, 2, 64, 8, 100), 16000, 100 * 576},
      {"8", mp3(0, 8000, 2, 32, 4, 100), 8000, 100 * 576},
      {"joined", mp3_128(20) + mp3_128(30), 44100, 50 * 1152},
      {"id3", id3 + mp3_128(20), 44100, 20 * 1152},
      {"id3v1", mp3_128(20) + id3v1, 44100, 20 * 1152},
      {"ape", mp3_128(20) + ape_tag() + id3v1, 44100, 20 * 1152},
      {"tags between", mp3_128(20) + id3v1 + id3 + mp3_128(30), 44100, 50 * 1152},
      {"lyrics", mp3_128(20) + lyrics(true) + id3v1, 44100, 20 * 1152},
      {"lyrics between", mp3_128(20) + lyrics(true) + mp3_128(20) + lyrics(false) + mp3_128(30), 44100,
       70 * 1152},
      {"ape between", mp3_128(20) + ape_tag() + mp3_128(30), 44100, 50 * 1152},
      {"free rate", mp3(3, 48000, 1, 100, 0, 50), 48000, 50 * 1152},
      {"zeros", mp3_128(20) + std::string(5000, '\0'), 44100, 20 * 1152},
      {"broadcast", std::string(300, 'x') + mp3_128(20), 44100, 20 * 1152}};
  for (const auto& [name, bytes, rate, frames] : cases) {
    write_file(at(name), bytes);
    EXPECT_EQ(frames_of(name, rate), frames) << name;
  }
  const std::string inside = mp3(3, 44100, 0, 320, 14, 20) + mp3(3, 44100, 0, 32, 1, 300);
  const std::string format = little(0x55, 2) + little(1, 2) + little(44100) + little(16000) + little(1, 2) +
                             little(0, 2) + little(12, 2) + little(1, 2) + little(2) + little(417, 2) +
                             little(1, 2) + little(1393, 2);
  write_file(at("mp3.wav"), std::string("RIFF") + little(20 + format.size() + inside.size()) + "WAVEfmt " +
                                little(format.size()) + format + "data" + little(inside.size()) + inside);
  EXPECT_EQ(frames_of("mp3.wav", 44100), 320 * 1152u);
  const std::string whole = mp3_128(20);
  write_file(at("cut.mp3"), whole.substr(0, whole.size() - 1));
  EXPECT_THAT(error("cut.mp3"),
              AllOf(HasSubstr("cut.mp3"), HasSubstr("1 of 418 bytes of its last MP3 frame")));
  write_file(at("cut.mp3"), whole.substr(0, whole.size() - 416));
  EXPECT_THAT(error("cut.mp3"), HasSubstr("cut.mp3"));
  // Fraunhofer's encoder counts the bytes and the frames in its first frame.
  std::string counted = mp3_128(21);
  counted.replace(36, 4, "VBRI").replace(46, 8, big(counted.size()) + big(20));
  write_file(at("counted.mp3"), counted);
  EXPECT_GE(frames_of("counted.mp3", 44100), 20 * 1152u);
  write_file(at("cut.mp3"), counted + mp3_128(1));
  EXPECT_GE(frames_of("cut.mp3", 44100), 21 * 1152u);
  counted.replace(46, 8, big(counted.size() + 418) + big(21));
  write_file(at("cut.mp3"), counted);
  EXPECT_THAT(error("cut.mp3"), AllOf(HasSubstr("cut.mp3"), HasSubstr("1 of 21 MP3 frames are missing")));
  write_file(at("hole.mp3"),
             whole.substr(0, 3000) + std::string(2000, 'x') + whole.substr(5000) + mp3_128(20));
  EXPECT_THAT(error("hole.mp3"), HasSubstr("no MP3 frames"));
}

TEST_F(SoundEnds, SizesLeftOpenMeanAllThatFollows) {
  constexpr uint64_t kAll = ~uint64_t{0};
  const std::vector<std::pair<const char*, std::string>> cases{
      {"sox.wav", wav(0x7ffff024, 0x7ffff000)},
      {"ffmpeg.wav", wav(0xffffffff, 0xffffffff)},
      {"between.wav", wav(0x90000024, 0x90000000)},
      {"zero.wav", wav(36 + kDataBytes, 0)},
      {"unfinished.wav", wav(36, 0)},
      {"nothing.wav", wav(0, 0)},
      {"open.au", au(0xffffffff)},
      {"zero.au", au(0)},
      {"sox.aiff", aiff(0x7f00002e, 0x7f000008, 0x3f800000)},
      {"zero.aiff", aiff(0, 0, 0)},
      {"head.aiff", aiff(46, 8, 0)},
      {"zero.rf64", rf64(0, 0, 0)},
      {"open.rf64", rf64(kAll, kAll, kAll)},
      {"zero.w64", w64(0, 0)},
      {"open.w64", w64(kAll >> 1, kAll >> 1)},
      {"open.caf", caf(kAll)}};
  for (const auto& [name, bytes] : cases) {
    write_file(at(name), bytes);
    EXPECT_EQ(frames_of(name), kFrames) << name;
  }
  data_test::write_zip(at("all.zip"), {{"sox.wav", data_test::bytes_of(cases[0].second)},
                                       {"zero.wav", data_test::bytes_of(cases[3].second)}});
  EXPECT_EQ(frames_of("all.zip"), 2 * kFrames);
  EXPECT_EQ(read_audio(at("ffmpeg.wav"), kRate).size(), kFrames);
  // Bytes after an empty sound are not a sound.
  write_file(at("empty.wav"), std::string("RIFF") + little(48) + "WAVEfmt " + little(16) + kFormat + "data" +
                                  little(0) + "note" + little(4) + "text");
  EXPECT_THAT(error("empty.wav"), HasSubstr("holds no sound"));
}

TEST_F(SoundEnds, EveryContainerThatStatesItsSizeIsCompared) {
  const std::vector<std::pair<const char*, int>> formats{
      {"wav", SF_FORMAT_WAV | SF_FORMAT_PCM_16},
      {"rifx", SF_FORMAT_WAV | SF_FORMAT_PCM_16 | SF_ENDIAN_BIG},
      {"aiff", SF_FORMAT_AIFF | SF_FORMAT_PCM_16},
      {"aifc", SF_FORMAT_AIFF | SF_FORMAT_ULAW},
      {"au", SF_FORMAT_AU | SF_FORMAT_PCM_16},
      {"le.au", SF_FORMAT_AU | SF_FORMAT_PCM_16 | SF_ENDIAN_LITTLE},
      {"w64", SF_FORMAT_W64 | SF_FORMAT_PCM_16},
      {"rf64", SF_FORMAT_RF64 | SF_FORMAT_PCM_16},
      {"voc", SF_FORMAT_VOC | SF_FORMAT_PCM_16},
      {"voc8", SF_FORMAT_VOC | SF_FORMAT_PCM_U8},
      {"nist", SF_FORMAT_NIST | SF_FORMAT_PCM_16},
      {"svx", SF_FORMAT_SVX | SF_FORMAT_PCM_16},
      {"caf", SF_FORMAT_CAF | SF_FORMAT_PCM_16},
      {"avr", SF_FORMAT_AVR | SF_FORMAT_PCM_16},
      {"mat4", SF_FORMAT_MAT4 | SF_FORMAT_PCM_16},
      {"mat5", SF_FORMAT_MAT5 | SF_FORMAT_PCM_16},
      {"sds", SF_FORMAT_SDS | SF_FORMAT_PCM_16},
      {"wve", SF_FORMAT_WVE | SF_FORMAT_ALAW},
      {"mpc", SF_FORMAT_MPC2K | SF_FORMAT_PCM_16},
      {"htk", SF_FORMAT_HTK | SF_FORMAT_PCM_16},
      {"flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_16},
      {"ogg", SF_FORMAT_OGG | SF_FORMAT_VORBIS},
      {"mp3", SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III}};
  for (const auto& [name, format] : formats) {
    const std::string whole = std::string("whole.") + name, part = std::string("cut.") + name;
    write_sound(at(whole), format, kRate, 1, data_test::sine(kRate, 1, 440, 0.5, 2));
    EXPECT_EQ(frames_of(whole), kFrames) << name;
    for (const double fraction : {0.97, 0.6}) {
      data_test::cut(at(whole), at(part), fraction);
      EXPECT_THAT(error(part), HasSubstr(part)) << name << " " << fraction;
    }
  }
  write_file(at("cut.au"), au(kDataBytes).substr(0, 24 + 20000));
  EXPECT_THAT(error("cut.au"), HasSubstr("12000 of 32000 bytes of its sound are missing"));
}

TEST_F(SoundEnds, ContainersThatStateNoSizeAreReadToTheEnd) {
  const std::vector<std::pair<const char*, int>> formats{
      {"ircam", SF_FORMAT_IRCAM | SF_FORMAT_PCM_16},
      {"be.ircam", SF_FORMAT_IRCAM | SF_FORMAT_PCM_16 | SF_ENDIAN_BIG},
      {"paf", SF_FORMAT_PAF | SF_FORMAT_PCM_16},
      {"le.paf", SF_FORMAT_PAF | SF_FORMAT_PCM_16 | SF_ENDIAN_LITTLE},
      {"pvf", SF_FORMAT_PVF | SF_FORMAT_PCM_16}};
  for (const auto& [name, format] : formats) {
    write_sound(at(name), format, kRate, 1, data_test::sine(kRate, 1, 440, 0.5, 2));
    EXPECT_EQ(frames_of(name), kFrames) << name;
    // In the middle of a sample.
    const std::string whole = content(name);
    write_file(at("cut"), whole.substr(0, whole.size() - 1));
    EXPECT_THAT(error("cut"), HasSubstr("cut")) << name;
  }
  // Its rate is always this one.
  write_sound(at("xi"), SF_FORMAT_XI | SF_FORMAT_DPCM_16, 44100, 1, data_test::sine(kRate, 1, 440, 0.5, 2));
  EXPECT_EQ(frames_of("xi", 44100), kFrames);
}

TEST_F(SoundEnds, AnMp3ThatCountsItsFramesIsCompared) {
  write_sound(at("a.mp3"), SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III, kRate, 1,
              data_test::sine(kRate, 1, 440, 0.5, 2));
  // Frames are shorter than 200 bytes here, so some of these cuts lie between two.
  const std::string whole = content("a.mp3");
  for (size_t size = whole.size() * 3 / 4; size < whole.size() * 3 / 4 + 200; ++size) {
    write_file(at("cut.mp3"), whole.substr(0, size));
    EXPECT_THAT(error("cut.mp3"), AnyOf(HasSubstr("missing"), HasSubstr("not whole"))) << size;
  }
}

TEST_F(SoundEnds, HeadersThatMakeNoSenseAreRefused) {
  for (const std::string& text : {std::string("NIST_1A"), std::string("PVF1\n"), "RIFF\0\0\0\0WAVE"s,
                                  std::string("fLaC"), std::string("OggS"), "caff\0\1\0\0"s,
                                  std::string("ID3"), "RIFF\0\0\0\0WAVE"s + std::string(1000000, '\0')}) {
    write_file(at("odd.wav"), text);
    EXPECT_THAT(error("odd.wav"), HasSubstr("odd.wav")) << text.substr(0, 12);
  }
}

TEST_F(SoundEnds, JoinedFilesAreReadToTheLast) {
  const std::vector<std::pair<const char*, int>> formats{
      {"a.ogg", SF_FORMAT_OGG | SF_FORMAT_VORBIS},   {"a.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_16},
      {"a.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_16},   {"a.au", SF_FORMAT_AU | SF_FORMAT_PCM_16},
      {"a.aiff", SF_FORMAT_AIFF | SF_FORMAT_PCM_16}, {"a.mp3", SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III}};
  for (const auto& [name, format] : formats) {
    write_sound(at(name), format, kRate, 1, data_test::sine(kRate, 1, 440, 0.5, 2));
    write_sound(at("other"), format, 2 * kRate, 2, data_test::sine(2 * kRate, 2, 440, 0.5, 1));
    write_file(at("joined"), content(name) + content(name) + content("other"));
    EXPECT_NEAR(static_cast<double>(frames_of("joined")), 2 * kFrames + kRate, 2) << name;
    const std::string first = content(name);
    write_file(at("cut"), content("other") + first.substr(0, first.size() * 9 / 10));
    EXPECT_THAT(error("cut"), HasSubstr("cut")) << name;
  }
  write_sound(at("a.opus"), SF_FORMAT_OGG | SF_FORMAT_OPUS, 48000, 1, data_test::sine(48000, 1, 440, 0.5, 1));
  write_file(at("joined"), content("a.opus") + content("a.opus"));
  EXPECT_EQ(frames_of("joined", 48000), 2 * 48000u);
}

TEST_F(SoundEnds, AnOggFileNeedsItsEndPage) {
  write_sound(at("a.ogg"), SF_FORMAT_OGG | SF_FORMAT_VORBIS, kRate, 1,
              data_test::sine(kRate, 1, 440, 0.5, 30));
  const std::string whole = content("a.ogg");
  write_file(at("cut.ogg"), whole.substr(0, whole.rfind("OggS")));
  EXPECT_THAT(error("cut.ogg"), AllOf(HasSubstr("cut.ogg"), HasSubstr("end page")));
  write_file(at("two.ogg"), whole.substr(0, whole.rfind("OggS")) + whole);
  EXPECT_THAT(error("two.ogg"), HasSubstr("end page"));
  std::string damaged = whole;
  damaged[damaged.size() / 2] ^= 1;
  write_file(at("damaged.ogg"), damaged);
  EXPECT_THAT(error("damaged.ogg"), HasSubstr("is not whole"));
  EXPECT_THAT(cached(), IsEmpty());
}

// A FLAC stream whose header does not state its length. Encoders that write into a pipe leave it so.
TEST_F(SoundEnds, FlacOfUnknownLength) {
  write_sound(at("a.flac"), SF_FORMAT_FLAC | SF_FORMAT_PCM_16, kRate, 1,
              data_test::sine(kRate, 1, 440, 0.5, 2));
  std::string open = content("a.flac");
  open[21] = static_cast<char>(open[21] & 0xF0);
  for (size_t at = 22; at < 26; ++at) open[at] = 0;
  write_file(at("open.flac"), open);
  EXPECT_EQ(frames_of("open.flac"), kFrames);
  write_file(at("tagged.flac"), open + std::string("TAG") + std::string(125, ' '));
  EXPECT_EQ(frames_of("tagged.flac"), kFrames);
  for (const double fraction : {0.99, 0.6}) {
    data_test::cut(at("open.flac"), at("cut.flac"), fraction);
    EXPECT_THAT(error("cut.flac"), HasSubstr("cut.flac")) << fraction;
  }
}

}  // namespace
}  // namespace longstride

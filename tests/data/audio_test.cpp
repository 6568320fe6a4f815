#include "longstride/data/audio.h"

#include <cmath>
#include <tuple>

#include <gmock/gmock.h>
#include <sndfile.h>

#include "longstride/data/corpus.h"
#include "longstride/data/modalities/audio.h"
#include "longstride/data/mulaw.h"

#include "tests/data/fixtures.h"

namespace longstride {
namespace {

using data_test::Bytes;
using data_test::error_of;
using data_test::Pack;
using data_test::sine;
using data_test::write_sound;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kWav = SF_FORMAT_WAV | SF_FORMAT_PCM_16;

TEST(MuLaw, FollowsTheFormula) {
  EXPECT_EQ(mulaw_encode(0.0f), 128);
  EXPECT_EQ(mulaw_encode(1.0f), 255);
  EXPECT_EQ(mulaw_encode(-1.0f), 0);
  EXPECT_EQ(mulaw_encode(7.0f), 255);
  EXPECT_EQ(mulaw_encode(-7.0f), 0);
  // f(0.1) = ln 26.5 / ln 256 = 0.590988, (f + 1) 127.5 = 202.85;  f(-0.01) = -ln 3.55 / ln 256 = -0.228478
  // -> 98.37
  EXPECT_EQ(mulaw_encode(0.1f), 203);
  EXPECT_EQ(mulaw_encode(-0.01f), 98);
  for (int byte = 0; byte < 255; ++byte)
    EXPECT_LT(mulaw_decode(static_cast<uint8_t>(byte)), mulaw_decode(static_cast<uint8_t>(byte + 1)));
  for (int byte = 0; byte < 128; ++byte)
    EXPECT_EQ(mulaw_decode(static_cast<uint8_t>(byte)), -mulaw_decode(static_cast<uint8_t>(255 - byte)));
  EXPECT_FLOAT_EQ(mulaw_decode(255), 1.0f);
}

TEST(MuLaw, EncodingADecodedByteGivesTheByte) {
  for (int byte = 0; byte < 256; ++byte)
    EXPECT_EQ(mulaw_encode(mulaw_decode(static_cast<uint8_t>(byte))), byte);
}

// Measures of a signal: its root mean square and the frequency with the most energy, by a plain Fourier sum.
struct Measured {
  double rms, hertz;
};
Measured measure(const Bytes& bytes, int rate, size_t begin, size_t count) {
  double squares = 0;
  for (size_t i = begin; i < begin + count; ++i) squares += std::pow(mulaw_decode(bytes[i]), 2);
  double best = 0, best_hertz = 0;
  for (double hertz = 20; hertz < rate / 2.0; hertz += 5) {
    double real = 0, imaginary = 0;
    for (size_t i = begin; i < begin + count; ++i) {
      const double angle = 6.283185307179586 * hertz * static_cast<double>(i) / rate;
      real += mulaw_decode(bytes[i]) * std::cos(angle);
      imaginary += mulaw_decode(bytes[i]) * std::sin(angle);
    }
    if (const double power = real * real + imaginary * imaginary; power > best)
      best = power, best_hertz = hertz;
  }
  return {std::sqrt(squares / static_cast<double>(count)), best_hertz};
}

class AudioTest : public data_test::DataTest {
 protected:
  Bytes read(const std::string& name, int64_t rate = 12000) const {
    DataConfig wanted = config("audio", name);
    wanted.sample_rate = rate;
    const Corpus corpus = open_corpus(wanted, wanted.path);
    EXPECT_EQ(corpus.record_bytes(), 0);
    return data_test::all_bytes(corpus);
  }
  std::string error(const std::string& name) const {
    return error_of([&] { read(name); });
  }
};

TEST_F(AudioTest, EveryFormatKeepsPitchAndLoudness) {
  const std::vector<std::tuple<const char*, int, int, int, double>> cases{
      {"a.wav", kWav, 12000, 1, 0.001},
      {"a48.wav", kWav, 48000, 2, 0.001},
      {"a.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_24, 44100, 2, 0.001},
      {"a8.wav", SF_FORMAT_WAV | SF_FORMAT_FLOAT, 8000, 1, 0.001},
      {"ulaw.wav", SF_FORMAT_WAV | SF_FORMAT_ULAW, 12000, 1, 0.01},
      {"a.aiff", SF_FORMAT_AIFF | SF_FORMAT_PCM_24, 22050, 3, 0.001},
      {"a.ogg", SF_FORMAT_OGG | SF_FORMAT_VORBIS, 44100, 2, 0.02},
      {"a.mp3", SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III, 44100, 2, 0.02}};
  for (const auto& [name, format, rate, channels, tolerance] : cases) {
    write_sound(at(name), format, rate, channels, sine(rate, channels, 1000, 0.5, 1.5));
    const Bytes bytes = read(name);
    // MP3 rounds up to whole frames.
    EXPECT_NEAR(static_cast<double>(bytes.size()), 18000, name == std::string("a.mp3") ? 900 : 2) << name;
    const Measured heard = measure(bytes, 12000, 6000, 2400);
    EXPECT_NEAR(heard.hertz, 1000, 1) << name;
    EXPECT_NEAR(heard.rms, 0.5 / std::sqrt(2.0), 0.003 + tolerance) << name;
  }
}

TEST_F(AudioTest, WithoutResamplingEverySampleIsTheFormula) {
  std::vector<float> samples;
  for (int i = -32768; i < 32768; i += 17) samples.push_back(static_cast<float>(i) / 32768.0f);
  write_sound(at("a.wav"), SF_FORMAT_WAV | SF_FORMAT_FLOAT, 12000, 1, samples);
  const Bytes bytes = read("a.wav");
  ASSERT_EQ(bytes.size(), samples.size());
  for (size_t i = 0; i < bytes.size(); ++i) {
    const double x = samples[i];
    const double f = (x < 0 ? -1 : 1) * std::log(1 + 255 * std::abs(x)) / std::log(256.0);
    ASSERT_NEAR(bytes[i], (f + 1) * 127.5, 0.5001) << i;
  }
}

TEST_F(AudioTest, ChannelsAreMixedToTheirMean) {
  std::vector<float> samples;
  for (int frame = 0; frame < 1000; ++frame) samples.insert(samples.end(), {0.6f, -0.2f});
  write_sound(at("a.wav"), SF_FORMAT_WAV | SF_FORMAT_FLOAT, 12000, 2, samples);
  for (const uint8_t byte : read("a.wav")) ASSERT_EQ(byte, mulaw_encode(0.2f));
}

TEST_F(AudioTest, WhatLiesAboveTheNewBandIsRemoved) {
  write_sound(at("a.wav"), kWav, 48000, 1, sine(48000, 1, 9000, 0.5, 1));
  EXPECT_LT(measure(read("a.wav"), 12000, 4000, 2400).rms, 0.001);
}

TEST_F(AudioTest, FoldersAndArchivesAreConcatenated) {
  write_sound(at("b.wav"), kWav, 12000, 1, std::vector<float>(500, 0.5f));
  write_sound(at("a.wav"), kWav, 12000, 1, std::vector<float>(300, -0.5f));
  const Bytes low = data_test::read_file(at("a.wav")), high = data_test::read_file(at("b.wav"));
  data_test::write_file(at("f/1.wav"), low);
  data_test::write_file(at("f/2/x.WAV"), high);
  data_test::write_file(at("f/readme.txt"), "words");
  data_test::write_tar(at("a.tar.xz"), Pack::xz,
                       {{"z.wav", high}, {"readme", data_test::bytes_of("words")}, {"a.wav", low}});
  data_test::write_zip(at("a.zip"), {{"z.wav", high}, {"a.wav", low}});
  data_test::write_compressed(at("a.wav.xz"), Pack::xz, low);
  Bytes expected(300, mulaw_encode(-0.5f));
  EXPECT_EQ(read("a.wav.xz"), expected);
  expected.insert(expected.end(), 500, mulaw_encode(0.5f));
  for (const char* name : {"f", "a.tar.xz", "a.zip"}) EXPECT_EQ(read(name), expected) << name;
  EXPECT_THAT(cached(), ::testing::SizeIs(4)) << "a temporary file was left";
}

TEST_F(AudioTest, EachRateHasItsOwnCache) {
  write_sound(at("a.wav"), kWav, 24000, 1, sine(24000, 1, 440, 0.5, 1));
  EXPECT_EQ(read("a.wav", 24000).size(), 24000u);
  EXPECT_EQ(read("a.wav", 12000).size(), 12000u);
  EXPECT_EQ(read("a.wav", 24000).size(), 24000u);
}

TEST_F(AudioTest, WavRoundTripKeepsEveryByte) {
  Bytes bytes;
  for (int byte = 0; byte < 256; ++byte) bytes.push_back(static_cast<uint8_t>(byte));
  write_wav(at("out.wav"), bytes, 12000);
  SF_INFO info{};
  SNDFILE* sound = sf_open(at("out.wav").c_str(), SFM_READ, &info);
  ASSERT_NE(sound, nullptr);
  EXPECT_EQ(info.format, SF_FORMAT_WAV | SF_FORMAT_PCM_16);
  EXPECT_EQ(info.samplerate, 12000);
  EXPECT_EQ(info.frames, 256);
  EXPECT_EQ(info.channels, 1);
  std::vector<short> samples(256);
  EXPECT_EQ(sf_read_short(sound, samples.data(), 256), 256);
  sf_close(sound);
  EXPECT_EQ(samples[255], 32767);
  EXPECT_EQ(samples[0], -32767);
  EXPECT_EQ(read_audio(at("out.wav"), 12000), bytes);
  EXPECT_EQ(read("out.wav"), bytes);
}

TEST_F(AudioTest, CutOffSoundIsRefused) {
  write_sound(at("a.wav"), kWav, 12000, 1, sine(12000, 1, 440, 0.5, 1));
  write_sound(at("a.flac"), SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 12000, 1, sine(12000, 1, 440, 0.5, 1));
  write_sound(at("a.ogg"), SF_FORMAT_OGG | SF_FORMAT_VORBIS, 44100, 1, sine(44100, 1, 440, 0.5, 3));
  for (const std::string suffix : {"wav", "flac", "ogg"}) {
    for (const double part : {0.99, 0.5, 0.0005}) {
      data_test::cut(at("a." + suffix), at("cut." + suffix), part);
      EXPECT_THAT(error("cut." + suffix), HasSubstr("cut." + suffix)) << suffix << " " << part;
    }
  }
  data_test::cut(at("a.wav"), at("cut.wav"), 0.9);
  EXPECT_THAT(error("cut.wav"), AllOf(HasSubstr("missing"), HasSubstr("cut off")));
  EXPECT_THAT(cached(), IsEmpty());
}

TEST_F(AudioTest, ClippedSamplesAndSkippedFilesAreCounted) {
  data_test::write_file(at("f/readme.txt"), "words");
  write_sound(at("f/a.wav"), SF_FORMAT_WAV | SF_FORMAT_FLOAT, 12000, 1, {1.0f, 1.5f, -1.0f, -2.0f, 0.0f});
  write_sound(at("f/b.wav"), SF_FORMAT_WAV | SF_FORMAT_FLOAT, 12000, 2, {1.5f, 0.4f, 1.5f, 1.5f});
  const auto notes = [&](const std::string& name) {
    return data::decode_audio(
        data::list_files(at(name)), 12000, at(""), [](std::span<const uint8_t>) {},
        [](const std::string&) {});
  };
  EXPECT_EQ(notes("f").samples, 7);
  EXPECT_EQ(notes("f").clipped, 3);
  EXPECT_EQ(notes("f").remark(),
            "skipped 1 file: 1 .txt; the first: " + at("f/readme.txt") + "; 3 of 7 samples clipped");
  EXPECT_EQ(notes("f/b.wav").remark(), "1 of 2 samples clipped");
  write_sound(at("quiet.wav"), kWav, 12000, 1, {1.0f, -1.0f, 0.5f});
  EXPECT_EQ(notes("quiet.wav").remark(), "");
  const DataConfig wanted = config("audio", "f/b.wav");
  EXPECT_THAT(open_corpus(wanted, wanted.path).description(), HasSubstr("1 of 2 samples clipped"));
}

TEST_F(AudioTest, WhatIsNoSoundIsRefused) {
  data_test::write_file(at("notes.txt"), "only words, and not even many of them");
  EXPECT_THAT(error("notes.txt"),
              AllOf(HasSubstr("notes.txt is no sound"), HasSubstr("set data.kind to text")));
  data_test::write_file(at("f/a.txt"), "words");
  data_test::write_file(at("f/b.txt"), "words");
  EXPECT_THAT(error("f"), HasSubstr("no sound among the 2 files"));
  write_sound(at("none.wav"), kWav, 12000, 1, {});
  EXPECT_THAT(error("none.wav"), HasSubstr("holds no sound"));
  write_sound(at("nan.wav"), SF_FORMAT_WAV | SF_FORMAT_FLOAT, 12000, 1, {0.0f, std::nanf(""), 0.0f});
  EXPECT_THAT(error("nan.wav"), HasSubstr("no number at frame 1"));
  write_sound(at("slow.wav"), kWav, 12000, 1, sine(12000, 1, 440, 0.5, 0.1));
  DataConfig odd = config("audio", "slow.wav");
  odd.sample_rate = 50;
  EXPECT_THAT(error_of([&] { open_corpus(odd, odd.path); }), HasSubstr("data.sample_rate"));
  EXPECT_THAT(cached(), IsEmpty());
}

}  // namespace
}  // namespace longstride

#include "longstride/data/modalities/audio.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <string_view>

#include "longstride/base/check.h"
#include "longstride/base/output_file.h"
#include "longstride/base/text.h"
#include "longstride/data/audio.h"
#include "longstride/data/files.h"
#include "longstride/data/mulaw.h"
#include "longstride/data/mulaw_wav.h"

namespace longstride {

namespace {

using std::string_view_literals::operator""sv;

constexpr std::array kLooks{
    Magic{"RIFF????WAVE"sv, "a WAV sound"},
    Magic{"RIFX????WAVE"sv, "a WAV sound"},
    Magic{"RF64????WAVE"sv, "a WAV sound"},
    Magic{"riff\x2E\x91\xCF\x11"sv, "a W64 sound"},
    Magic{"fLaC"sv, "a FLAC sound"},
    Magic{"OggS"sv, "an Ogg sound"},
    Magic{"ID3"
          "\2"sv,
          "an MP3 sound"},
    Magic{"ID3"
          "\3"sv,
          "an MP3 sound"},
    Magic{"ID3"
          "\4"sv,
          "an MP3 sound"},
    Magic{"FORM????AIF"sv, "an AIFF sound"},
    Magic{"FORM????8SVX"sv, "an SVX sound"},
    Magic{"FORM????16SV"sv, "an SVX sound"},
    Magic{".snd\0"sv, "an AU sound"},
    Magic{"caff\0"sv, "a CAF sound"},
    Magic{"Creative Voice File\x1A"sv, "a VOC sound"},
    Magic{"NIST_1A\n"sv, "a SPHERE sound"},
};
constexpr std::array kOtherLooks{
    Magic{"\0\0\0?ftypM4A"sv, "an MPEG-4 sound"},
    Magic{"\x30\x26\xB2\x75\x8E\x66\xCF\x11"sv, "a Windows Media file"},
    Magic{"\xFF\xF1"sv, "an AAC sound"},
    Magic{"\xFF\xF9"sv, "an AAC sound"},
    Magic{"wvpk"sv, "a WavPack sound"},
    Magic{"MAC \x96\x0F"sv, "a Monkey's Audio sound"},
    Magic{"#!AMR"sv, "an AMR sound"},
};

std::string describe(const DataConfig& config, int64_t size, const ImageShape&) {
  return fmt::format("{} of sound at {} Hz",
                     human_seconds(static_cast<double>(size) / static_cast<double>(config.sample_rate)),
                     config.sample_rate);
}

std::vector<std::string> encodings(const DataConfig& config) {
  return {fmt::format("audio 4 mulaw {}", config.sample_rate)};
}

data::Decoded decode(const DataConfig& config, const std::vector<data::SourceFile>& files,
                     const std::string& folder, const data::DecodeSink& sink, const data::ItemMark& mark) {
  return {{}, data::decode_audio(files, config.sample_rate, folder, sink, mark).remark()};
}

std::vector<uint8_t> prime(const std::string& path, const DataConfig& config, const ImageShape&) {
  return read_audio(path, config.sample_rate);
}

void write(const std::string& path, std::span<const std::span<const uint8_t>> samples,
           const DataConfig& config, const ImageShape&) {
  LONGSTRIDE_CHECK(samples.size() == 1, "cannot write {}: {} sounds need files of their own", path,
                   samples.size());
  write_wav(path, samples[0], config.sample_rate);
}

std::string as_text(std::span<const uint8_t> bytes) { return std::string(bytes.begin(), bytes.end()); }

Material material(std::span<const uint8_t> file, const std::string& path, const DataConfig& config,
                  const std::function<ImageShape()>&) {
  const WavSamples samples = find_mulaw_samples(file, config.sample_rate, path);
  const auto begin = static_cast<size_t>(samples.begin), end = static_cast<size_t>(samples.end);
  Material found;
  found.before = as_text(file.first(begin));
  found.after = as_text(file.subspan(end));
  found.bytes.resize(end - begin);
  std::transform(file.begin() + samples.begin, file.begin() + samples.end, found.bytes.begin(),
                 rank_of_mulaw);
  return found;
}

std::vector<uint8_t> restore(std::vector<uint8_t> bytes, const ImageShape&) {
  std::transform(bytes.begin(), bytes.end(), bytes.begin(), mulaw_of_rank);
  return bytes;
}

void append(std::vector<uint8_t>& file, std::string_view text) {
  file.insert(file.end(), text.begin(), text.end());
}

void append_little_endian(std::vector<uint8_t>& file, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) file.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

}  // namespace

constinit const Modality kAudio{
    .name = "audio",
    .as_is = false,
    .records = false,
    .timed = true,
    .one = "sound",
    .all = "sound",
    .verb = "is",
    .reads = "sounds (data.sample_rate sets how finely)",
    .formats = "WAV, FLAC or MP3",
    .describe = describe,
    .looks = kLooks,
    .other_looks = kOtherLooks,
    .encodings = encodings,
    .decode = decode,
    .prime = prime,
    .extension = ".wav",
    .write = write,
    .material = material,
    .restore = restore,
    .fast = {.contexts = {16384, 4096, 1024, 256},
             .cpu_minutes = 4,
             .cpu_context = 1,
             .cpu_batch_bytes = 4096,
             .strided = true,
             .short_contexts_first = false},
};

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
  append_little_endian(file, static_cast<uint64_t>(2 * rate), 4);  // bytes per second
  append_little_endian(file, 2, 2);                                // bytes per frame
  append_little_endian(file, 16, 2);                               // bits per sample
  append(file, "data");
  append_little_endian(file, data_bytes, 4);
  for (const uint8_t byte : mulaw)
    append_little_endian(file, static_cast<uint16_t>(std::lround(mulaw_decode(byte) * 32767.0f)), 2);
  write_output(path, [&](ByteSink& sink) { sink.write(file.data(), static_cast<int64_t>(file.size())); });
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

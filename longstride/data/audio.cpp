#include "longstride/data/audio.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <string_view>

#include <fcntl.h>
#include <samplerate.h>
#include <sndfile.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/data/mulaw.h"

namespace longstride::data {

namespace {

constexpr size_t kBlockFrames = 1 << 14;
constexpr const char* kAdvice = "it is damaged or cut off; fetch or make it again";
constexpr std::array<std::string_view, 18> kExtensions{"wav", "wave", "flac", "ogg",  "oga", "opus",
                                                       "mp3", "aif",  "aiff", "aifc", "au",  "snd",
                                                       "caf", "w64",  "rf64", "voc",  "sf",  "mp2"};

uint32_t little_endian(const uint8_t* bytes) {
  return bytes[0] | uint32_t{bytes[1]} << 8 | uint32_t{bytes[2]} << 16 | uint32_t{bytes[3]} << 24;
}

uint8_t byte_at(int file, int64_t offset) {
  uint8_t byte = 0;
  return ::pread(file, &byte, 1, offset) == 1 ? byte : 0;
}

// libsndfile takes a WAV whose data end early for a shorter one; the sizes in its chunks tell.
void check_wav_is_whole(int file, int64_t size, const std::string& label) {
  std::array<uint8_t, 12> head{};
  if (::pread(file, head.data(), head.size(), 0) != 12) return;
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  if (!text.starts_with("RIFF") || text.substr(8, 4) != "WAVE") return;
  for (int64_t at = 12;;) {
    std::array<uint8_t, 8> chunk{};
    const bool read = ::pread(file, chunk.data(), chunk.size(), at) == 8;
    LONGSTRIDE_CHECK(read, "{}: the WAV file ends before its sound; {}", label, kAdvice);
    const int64_t bytes = little_endian(&chunk[4]);
    const bool sound = std::string_view(reinterpret_cast<const char*>(chunk.data()), 4) == "data";
    // Programs that write into a pipe leave 0 or the largest number here.
    if (sound && (bytes == 0 || bytes >= 0x7fffff00)) return;
    LONGSTRIDE_CHECK(at + 8 + bytes <= size, "{}: {} of {} bytes of the WAV file's {} are missing; {}", label,
                     at + 8 + bytes - size, bytes, sound ? "sound" : "header", kAdvice);
    if (sound) return;
    at += 8 + bytes + (bytes & 1);
  }
}

// An Ogg file consists of pages that tell their sizes; libsndfile silently drops a last one that is cut off.
void check_ogg_is_whole(int file, int64_t size, const std::string& label) {
  constexpr int64_t largest_page = 27 + 255 + 255 * 255;
  std::vector<uint8_t> tail(static_cast<size_t>(std::min(size, 2 * largest_page)));
  const int64_t base = size - static_cast<int64_t>(tail.size());
  if (byte_at(file, 0) != 'O' || byte_at(file, 1) != 'g' || byte_at(file, 2) != 'g' ||
      byte_at(file, 3) != 'S')
    return;
  if (::pread(file, tail.data(), tail.size(), base) != static_cast<ssize_t>(tail.size())) return;
  const size_t at = std::string_view(reinterpret_cast<const char*>(tail.data()), tail.size()).rfind("OggS");
  bool whole =
      at != std::string_view::npos && at + 27 <= tail.size() && at + 27 + tail[at + 26] <= tail.size();
  if (whole) {
    size_t end = at + 27 + tail[at + 26];
    for (size_t segment = 0; segment < tail[at + 26]; ++segment) end += tail[at + 27 + segment];
    whole = end <= tail.size();
  }
  LONGSTRIDE_CHECK(whole, "{}: the last page of the Ogg file is not whole; {}", label, kAdvice);
}

// Mono samples at the wanted rate to mu-law bytes.
class Encoder {
 public:
  Encoder(int64_t source_rate, int64_t rate, const std::string& label, const DecodeSink& sink)
      : ratio_(static_cast<double>(rate) / static_cast<double>(source_rate)), label_(label), sink_(sink) {
    if (source_rate == rate) return;
    LONGSTRIDE_CHECK(src_is_valid_ratio(ratio_) != 0, "{}: cannot resample {} Hz to {} Hz", label,
                     source_rate, rate);
    int error = 0;
    resampler_.reset(src_new(SRC_SINC_MEDIUM_QUALITY, 1, &error));
    LONGSTRIDE_CHECK(resampler_ != nullptr, "{}: cannot resample: {}", label, src_strerror(error));
    output_.resize(static_cast<size_t>(std::ceil(static_cast<double>(kBlockFrames) * std::max(1.0, ratio_))) +
                   64);
  }

  void write(std::span<const float> samples, bool last) {
    if (!resampler_) return emit(samples);
    SRC_DATA data{};
    data.data_in = samples.data();
    data.input_frames = static_cast<long>(samples.size());
    data.data_out = output_.data();
    data.output_frames = static_cast<long>(output_.size());
    data.src_ratio = ratio_;
    data.end_of_input = last ? 1 : 0;
    for (;;) {
      const int error = src_process(resampler_.get(), &data);
      LONGSTRIDE_CHECK(error == 0, "{}: cannot resample: {}", label_, src_strerror(error));
      emit({output_.data(), static_cast<size_t>(data.output_frames_gen)});
      data.data_in += data.input_frames_used;
      data.input_frames -= data.input_frames_used;
      if (data.output_frames_gen == 0 && (data.input_frames == 0 || data.input_frames_used == 0)) return;
    }
  }

 private:
  void emit(std::span<const float> samples) {
    bytes_.resize(samples.size());
    std::transform(samples.begin(), samples.end(), bytes_.begin(), mulaw_encode);
    sink_(bytes_);
  }

  struct Free {
    void operator()(SRC_STATE* state) const { src_delete(state); }
  };
  double ratio_;
  const std::string& label_;
  const DecodeSink& sink_;
  std::unique_ptr<SRC_STATE, Free> resampler_;
  std::vector<float> output_;
  std::vector<uint8_t> bytes_;
};

struct Close {
  void operator()(SNDFILE* sound) const { sf_close(sound); }
};

void decode_file(int file, int64_t rate, const std::string& label, const DecodeSink& sink) {
  const int64_t size = ::lseek(file, 0, SEEK_END);
  ::lseek(file, 0, SEEK_SET);
  LONGSTRIDE_CHECK(size > 0, "{} is empty", label);
  SF_INFO info{};
  const std::unique_ptr<SNDFILE, Close> sound(sf_open_fd(file, SFM_READ, &info, 0));
  LONGSTRIDE_CHECK(
      sound != nullptr,
      "{} is no sound that libsndfile reads (WAV, FLAC, Ogg, MP3, ...): {}; if it is a sound, {}; for "
      "other files set data.kind to text or image",
      label, sf_strerror(nullptr), kAdvice);
  check_wav_is_whole(file, size, label);
  check_ogg_is_whole(file, size, label);
  LONGSTRIDE_CHECK(info.frames > 0, "{} holds no sound", label);

  Encoder encoder(info.samplerate, rate, label, sink);
  const auto channels = static_cast<size_t>(info.channels);
  std::vector<float> frames(kBlockFrames * channels), mono(kBlockFrames);
  int64_t total = 0;
  for (bool last = false; !last;) {
    const sf_count_t count = sf_readf_float(sound.get(), frames.data(), kBlockFrames);
    LONGSTRIDE_CHECK(sf_error(sound.get()) == SF_ERR_NO_ERROR, "{}: {}; {}", label, sf_strerror(sound.get()),
                     kAdvice);
    total += count;
    last = count < static_cast<sf_count_t>(kBlockFrames);
    for (size_t frame = 0; frame < static_cast<size_t>(count); ++frame) {
      double sum = 0;
      for (size_t channel = 0; channel < channels; ++channel) sum += frames[frame * channels + channel];
      mono[frame] = static_cast<float>(sum / static_cast<double>(channels));
      LONGSTRIDE_CHECK(std::isfinite(mono[frame]), "{}: a sample that is no number at frame {}; {}", label,
                       total - count + static_cast<int64_t>(frame), kAdvice);
    }
    encoder.write({mono.data(), static_cast<size_t>(count)}, last);
  }
  LONGSTRIDE_CHECK(total >= info.frames, "{}: {} of {} frames are missing; {}", label, info.frames - total,
                   info.frames, kAdvice);
}

// A file without a name, gone when closed, that holds the rest of the item: libsndfile seeks, archives do
// not.
FileDescriptor spool(Item& item, const std::string& folder) {
  std::string name = folder + "/sound-XXXXXX";
  FileDescriptor file(::mkostemp(name.data(), O_CLOEXEC));
  LONGSTRIDE_CHECK(file.get() >= 0, "cannot unpack {} into the cache folder {}: {}; set data.cache",
                   item.label(), folder, last_system_error());
  ::unlink(name.c_str());
  std::vector<uint8_t> block(1 << 20);
  while (const size_t count = item.read(block))
    LONGSTRIDE_CHECK(
        write_all(file.get(), std::span(block).first(count)),
        "cannot unpack {} into the cache folder {}: {}; set data.cache to a folder with room for it",
        item.label(), folder, last_system_error());
  return file;
}

}  // namespace

void decode_audio(const std::vector<SourceFile>& files, int64_t rate, const std::string& folder,
                  const DecodeSink& sink, const ItemMark& mark) {
  int64_t decoded = 0, skipped = 0;
  std::string example;
  visit_items(files, [&](Item& item) {
    const bool named_like_sound =
        std::find(kExtensions.begin(), kExtensions.end(), item.extension()) != kExtensions.end();
    const bool alone = files.size() == 1 && item.label() == files[0].path;
    if (!named_like_sound && !alone) {
      if (skipped++ == 0) example = item.label();
      return;
    }
    const FileDescriptor file =
        item.plain_path().empty() ? spool(item, folder) : open_for_reading(item.plain_path());
    mark(item.key());
    decode_file(file.get(), rate, item.label(), sink);
    ++decoded;
  });
  LONGSTRIDE_CHECK(decoded > 0,
                   "no sound among the {} files of data.path ({}, ...): names ending in .wav, .flac, .ogg, "
                   ".mp3 and the like are read (see docs/data.md)",
                   skipped, example);
}

}  // namespace longstride::data

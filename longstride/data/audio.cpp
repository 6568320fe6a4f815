#include "longstride/data/audio.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <string_view>

#include <fcntl.h>
#include <samplerate.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/data/looks.h"
#include "longstride/data/mulaw.h"
#include "longstride/data/sound_reader.h"

namespace longstride::data {

namespace {

constexpr size_t kBlockFrames = 1 << 14;
constexpr size_t kBlockSamples = 1 << 18;  // of all channels; a header may claim a thousand channels
constexpr std::array<std::string_view, 35> kExtensions{
    "wav",  "wave",  "flac", "ogg", "oga", "opus", "mp3", "aif",  "aiff", "aifc", "au",  "snd",
    "caf",  "w64",   "rf64", "voc", "sf",  "mp2",  "mp1", "mpga", "nist", "sph",  "svx", "8svx",
    "16sv", "ircam", "avr",  "paf", "pvf", "sds",  "wve", "xi",   "htk",  "bwf",  "rifx"};

// Turns mono samples at the wanted rate into mu-law bytes.
class Encoder {
 public:
  Encoder(int64_t source_rate, int64_t rate, const std::string& label, const DecodeSink& sink,
          SoundNotes& notes)
      : ratio_(static_cast<double>(rate) / static_cast<double>(source_rate)),
        label_(label),
        sink_(sink),
        notes_(notes) {
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
    notes_.samples += std::ssize(samples);
    notes_.clipped +=
        std::count_if(samples.begin(), samples.end(), [](float sample) { return std::abs(sample) > 1.0f; });
    sink_(bytes_);
  }

  struct Free {
    void operator()(SRC_STATE* state) const { src_delete(state); }
  };
  double ratio_;
  const std::string& label_;
  const DecodeSink& sink_;
  SoundNotes& notes_;
  std::unique_ptr<SRC_STATE, Free> resampler_;
  std::vector<float> output_;
  std::vector<uint8_t> bytes_;
};

// Decodes the samples of one sound, mixed to one channel.
void decode_part(const SoundPart& part, int64_t rate, const DecodeSink& sink, SoundNotes& notes) {
  const std::string& label = part.view.label();
  const std::unique_ptr<SoundReader> sound = open_sound(part);
  Encoder encoder(sound->rate(), rate, label, sink, notes);
  const auto channels = static_cast<size_t>(sound->channels());
  const size_t block = std::min(kBlockFrames, std::max<size_t>(1, kBlockSamples / channels));
  std::vector<float> frames(block * channels), mono(block);
  int64_t total = 0;
  for (bool last = false; !last;) {
    const int64_t count = sound->read(frames);
    last = count < static_cast<int64_t>(block);
    for (size_t frame = 0; frame < static_cast<size_t>(count); ++frame) {
      double sum = 0;
      for (size_t channel = 0; channel < channels; ++channel) sum += frames[frame * channels + channel];
      mono[frame] = static_cast<float>(sum / static_cast<double>(channels));
      LONGSTRIDE_CHECK(std::isfinite(mono[frame]), "{}: a sample that is no number at frame {}; {}", label,
                       total + static_cast<int64_t>(frame), kSoundAdvice);
    }
    total += count;
    encoder.write({mono.data(), static_cast<size_t>(count)}, last);
  }
  LONGSTRIDE_CHECK(total > 0, "{} holds no sound", label);
}

void decode_file(int file, int64_t rate, const std::string& label, const DecodeSink& sink,
                 SoundNotes& notes) {
  const SoundView view(file, label);
  LONGSTRIDE_CHECK(view.size() > 0, "{} is empty", label);
  const std::vector<SoundPart> parts = split_sound(view);
  LONGSTRIDE_CHECK(!parts.empty(), "{} holds no sound", label);
  for (const SoundPart& part : parts) decode_part(part, rate, sink, notes);
}

// The rest of the item in a file without a name, which is gone when closed. libsndfile seeks, which archives
// cannot.
FileDescriptor spool(Item& item, const std::string& folder) {
  FileDescriptor file = unnamed_file(folder);
  LONGSTRIDE_CHECK(file.get() >= 0, "cannot unpack {} into the cache folder {}: {}; set data.cache",
                   item.label(), folder, last_system_error());
  std::vector<uint8_t> block(1 << 20);
  while (const size_t count = item.read(block))
    LONGSTRIDE_CHECK(
        write_all(file.get(), std::span(block).first(count)),
        "cannot unpack {} into the cache folder {}: {}; set data.cache to a folder with room for it",
        item.label(), folder, last_system_error());
  return file;
}

}  // namespace

std::string SoundNotes::remark() const {
  const std::string loud =
      clipped > 0 ? fmt::format("{} of {} samples clipped", clipped, samples) : std::string();
  return join_remarks({skipped.remark(), unpacked, loud});
}

SoundNotes decode_audio(const std::vector<SourceFile>& files, int64_t rate, const std::string& folder,
                        const DecodeSink& sink, const ItemMark& mark) {
  SoundNotes notes;
  int64_t decoded = 0;
  std::string hint;  // what the first other file looks like
  notes.unpacked = visit_items(
      files,
      [&](Item& item) {
        const bool named_like_sound =
            std::find(kExtensions.begin(), kExtensions.end(), item.extension()) != kExtensions.end();
        const bool alone = files.size() == 1 && item.label() == files[0].path;
        if (!named_like_sound && !alone) {
          if (hint.empty()) hint = look_hint(item);
          return notes.skipped.add(item);
        }
        LONGSTRIDE_CHECK(!is_no_sound(item, named_like_sound), "{} is no sound{}", item.label(),
                         look_hint(item));
        const FileDescriptor file =
            item.plain_path().empty() ? spool(item, folder) : open_for_reading(item.plain_path());
        mark(item.key());
        decode_file(file.get(), rate, item.label(), sink, notes);
        ++decoded;
      },
      kExtensions);
  LONGSTRIDE_CHECK(decoded > 0 || notes.skipped.count() > 0,
                   "{} holds no sound: what is in it is empty or hidden",
                   files.size() == 1 ? files[0].path : std::string("data.path"));
  LONGSTRIDE_CHECK(decoded > 0,
                   "no sound among the {} files of data.path ({}, ...): names ending in .wav, .flac, .ogg, "
                   ".mp3 and the like are read (see docs/data.md){}",
                   notes.skipped.count(), notes.skipped.first(), hint);
  return notes;
}

}  // namespace longstride::data

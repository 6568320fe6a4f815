#include "longstride/data/sound_reader.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include <mpg123.h>
#include <sndfile.h>

#include "longstride/base/check.h"
#include "longstride/data/flac_stream.h"
#include "longstride/data/mpeg_frames.h"
#include "longstride/data/ogg_links.h"
#include "longstride/data/sound_layout.h"

namespace longstride::data {

namespace {

constexpr int64_t kSearchedForMpeg = 1 << 16;

// A view with a position, for the callbacks of decoders.
struct Cursor {
  SoundView view;
  int64_t at = 0;

  int64_t seek(int64_t offset, int whence) {
    const int64_t base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? at : view.size();
    if (base + offset < 0) return -1;
    return at = base + offset;
  }
  // -1 if reading fails; exceptions must not pass through C.
  int64_t read(void* bytes, int64_t count) {
    try {
      const size_t got = view.read(at, {static_cast<uint8_t*>(bytes), static_cast<size_t>(count)});
      at += static_cast<int64_t>(got);
      return static_cast<int64_t>(got);
    } catch (const Error& error) {
      failure = error.what();
      return -1;
    }
  }
  // Throws the error that stopped a callback.
  void check() const {
    if (!failure.empty()) throw Error(failure);
  }
  std::string failure;
};

Cursor& cursor(void* data) { return *static_cast<Cursor*>(data); }

struct CloseSndfile {
  void operator()(SNDFILE* sound) const { sf_close(sound); }
};

class SndfileReader : public SoundReader {
 public:
  explicit SndfileReader(const SoundView& view) : cursor_{view, 0, {}} {
    static SF_VIRTUAL_IO callbacks{[](void* data) -> sf_count_t { return cursor(data).view.size(); },
                                   [](sf_count_t offset, int whence, void* data) -> sf_count_t {
                                     return cursor(data).seek(offset, whence);
                                   },
                                   [](void* bytes, sf_count_t count, void* data) -> sf_count_t {
                                     return std::max<int64_t>(0, cursor(data).read(bytes, count));
                                   },
                                   nullptr, [](void* data) -> sf_count_t { return cursor(data).at; }};
    SF_INFO info{};
    sound_.reset(sf_open_virtual(&callbacks, SFM_READ, &info, &cursor_));
    cursor_.check();
    if (sound_ == nullptr) return;
    rate_ = info.samplerate;
    channels_ = info.channels;
    frames_ = info.frames;
    const int codec = info.format & SF_FORMAT_SUBMASK;
    is_mpeg_ = codec == SF_FORMAT_MPEG_LAYER_I || codec == SF_FORMAT_MPEG_LAYER_II ||
               codec == SF_FORMAT_MPEG_LAYER_III;
  }
  bool is_open() const { return sound_ != nullptr; }
  int64_t frames() const { return frames_; }
  bool is_mpeg() const { return is_mpeg_; }

  int64_t read(std::span<float> samples) override {
    const int64_t wanted = std::ssize(samples) / channels_;
    const int64_t count = sf_readf_float(sound_.get(), samples.data(), wanted);
    cursor_.check();
    const std::string& label = cursor_.view.label();
    LONGSTRIDE_CHECK(sf_error(sound_.get()) == SF_ERR_NO_ERROR, "{}: {}; {}", label,
                     sf_strerror(sound_.get()), kSoundAdvice);
    read_ += count;
    // SF_COUNT_MAX stands for a length that is not stated.
    LONGSTRIDE_CHECK(count == wanted || frames_ == SF_COUNT_MAX || read_ >= frames_,
                     "{}: {} of {} frames are missing; {}", label, frames_ - read_, frames_, kSoundAdvice);
    return count;
  }

 private:
  Cursor cursor_;
  std::unique_ptr<SNDFILE, CloseSndfile> sound_;  // after cursor_, which it reads from until it is closed
  int64_t frames_ = 0, read_ = 0;
  bool is_mpeg_ = false;
};

struct CloseMpeg {
  void operator()(mpg123_handle* mpeg) const { mpg123_delete(mpeg); }
};

class MpegReader : public SoundReader {
 public:
  explicit MpegReader(const SoundView& view) : cursor_{view, 0, {}} {
    static const int ready = mpg123_init();  // needed before mpg123 1.27
    int status = ready;
    mpeg_.reset(mpg123_new(nullptr, &status));
    LONGSTRIDE_CHECK(mpeg_ != nullptr, "{}: cannot decode MP3: {}", view.label(),
                     mpg123_plain_strerror(status));
    // Where frames have a free bit rate, the library finds their size by reading ahead, and not otherwise.
    const bool free_rate = (view.big_endian(2, 1) & 0xF0) == 0;
    check(mpg123_param(
        mpeg_.get(), MPG123_ADD_FLAGS,
        MPG123_FORCE_FLOAT | MPG123_QUIET | MPG123_GAPLESS | (free_rate ? 0 : MPG123_NO_READAHEAD), 0));
    check(mpg123_replace_reader_handle(
        mpeg_.get(),
        [](void* data, void* bytes, size_t count) -> ssize_t {
          return cursor(data).read(bytes, static_cast<int64_t>(count));
        },
        [](void* data, off_t offset, int whence) -> off_t { return cursor(data).seek(offset, whence); },
        nullptr));
    check(mpg123_open_handle(mpeg_.get(), &cursor_));
    long rate = 0;
    int channels = 0, encoding = 0;
    check(mpg123_getformat(mpeg_.get(), &rate, &channels, &encoding));
    rate_ = rate;
    channels_ = channels;
  }

  int64_t read(std::span<float> samples) override {
    const size_t frame_bytes = static_cast<size_t>(channels_) * sizeof(float);
    const size_t wanted = samples.size() / static_cast<size_t>(channels_) * frame_bytes;
    size_t done = 0;
    while (done < wanted) {
      size_t count = 0;
      const int status = mpg123_read(mpeg_.get(), reinterpret_cast<unsigned char*>(samples.data()) + done,
                                     wanted - done, &count);
      done += count;
      if (status == MPG123_DONE) break;
      if (status != MPG123_NEW_FORMAT) check(status);
    }
    return static_cast<int64_t>(done / frame_bytes);
  }

 private:
  void check(int status) const {
    if (status == MPG123_OK) return;
    cursor_.check();
    fail("{}: {}; {}", cursor_.view.label(), mpg123_strerror(mpeg_.get()), kSoundAdvice);
  }

  Cursor cursor_;
  std::unique_ptr<mpg123_handle, CloseMpeg> mpeg_;
};

std::vector<SoundPart> as_parts(const std::vector<SoundView>& views, bool mpeg) {
  std::vector<SoundPart> parts;
  for (const SoundView& view : views) parts.push_back({view, mpeg});
  return parts;
}

}  // namespace

std::vector<SoundPart> split_sound(const SoundView& file) {
  const SoundView sound = without_tags(file);
  if (sound.matches(0, "OggS")) return as_parts(split_ogg(sound), false);
  if (sound.matches(0, "fLaC")) return as_parts(split_flac(sound), false);
  if (find_mpeg_stream(sound, 1) == 0) return as_parts(split_mpeg(sound), true);
  std::vector<SoundPart> parts;
  for (const SoundView& view : split_containers(file)) {
    const SndfileReader reader(view);
    if (reader.is_mpeg()) {  // MP3 in a WAV file, of which libsndfile guesses the length
      for (SoundPart& part : as_parts(split_mpeg(samples_of(view)), true)) parts.push_back(std::move(part));
      continue;
    }
    // A recorded broadcast begins within a frame.
    const int64_t begin = reader.is_open() ? -1 : find_mpeg_stream(sound, kSearchedForMpeg);
    if (begin > 0) return as_parts(split_mpeg(sound.part(begin, sound.size())), true);
    parts.push_back({view, false});
  }
  return parts;
}

std::unique_ptr<SoundReader> open_sound(const SoundPart& part) {
  if (part.mpeg) return std::make_unique<MpegReader>(part.view);
  auto reader = std::make_unique<SndfileReader>(part.view);
  const std::string& label = part.view.label();
  LONGSTRIDE_CHECK(
      reader->is_open(),
      "{} is no sound that libsndfile reads (WAV, FLAC, Ogg, MP3, ...): {}; if it is a sound, {}; for "
      "other files set data.kind to text or image",
      label, sf_strerror(nullptr), kSoundAdvice);
  LONGSTRIDE_CHECK(reader->frames() > 0, "{} holds no sound", label);
  return reader;
}

}  // namespace longstride::data

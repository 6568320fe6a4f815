// Reads samples from sound files of any kind.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "longstride/data/sound_view.h"

namespace longstride::data {

class SoundReader {
 public:
  virtual ~SoundReader() = default;
  int64_t rate() const { return rate_; }  // Hz
  int64_t channels() const { return channels_; }
  // Interleaved samples, where full scale is -1 to 1. Returns the number of frames, fewer than the span
  // holds only at the end. Throws Error for damaged sound and for sound that ends before its header says.
  virtual int64_t read(std::span<float> samples) = 0;

 protected:
  int64_t rate_ = 0, channels_ = 0;
};

// One sound of a file.
struct SoundPart {
  SoundView view;
  bool mpeg = false;  // MP3 or layer I or II; libsndfile reads all others
};

// The sounds in a file, one after another: several if it was joined from files, each with its own rate and
// channels. Throws Error, naming the file, if a sound is not whole as far as headers tell; open_sound finds
// the rest.
std::vector<SoundPart> split_sound(const SoundView& file);

// Throws Error if the part is not a sound, or an empty one.
std::unique_ptr<SoundReader> open_sound(const SoundPart& part);

}  // namespace longstride::data

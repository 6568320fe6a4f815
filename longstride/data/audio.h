// Decodes sound files into one stream of mu-law bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "longstride/data/items.h"
#include "longstride/data/skipped_files.h"

namespace longstride::data {

struct SoundNotes {
  int64_t samples = 0;   // at the new rate
  int64_t clipped = 0;   // how many of them are beyond full scale
  SkippedFiles skipped;  // files that are not named like sounds
  std::string unpacked;  // remarks about the archives

  // "skipped 1 file: 1 .txt; the first: a/readme.txt, 12 of 24000 samples clipped"; empty if there is no
  // remark.
  std::string remark() const;
};

// Decodes every sound in `files` (MP3, and whatever libsndfile reads: WAV, FLAC, Ogg, AIFF, ...), mixes the
// channels to their mean, resamples to `rate` Hz and passes mulaw_encode of the samples to `sink`. Files
// come one after another, and so do sounds that were joined into one file. Members of archives pass through
// an unnamed temporary file in `folder`. In a folder or an archive, files whose names do not end like a
// sound's are skipped. `mark` is called before the bytes of each file. Throws Error for damaged or cut-off
// files and if there is no sound at all.
SoundNotes decode_audio(const std::vector<SourceFile>& files, int64_t rate, const std::string& folder,
                        const DecodeSink& sink, const ItemMark& mark);

}  // namespace longstride::data

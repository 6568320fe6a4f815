// Sound: mu-law bytes, one for each sample (../audio.h reads the files), and WAV files of them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "longstride/data/modalities/modality.h"

namespace longstride {

extern const Modality kAudio;

// mu-law bytes (../mulaw.h) as a WAV file of 16-bit samples at `rate` Hz; reading it with read_audio gives the
// same bytes.
void write_wav(const std::string& path, std::span<const uint8_t> mulaw, int64_t rate);

// A sound file as mu-law bytes at `rate` Hz, as training reads it. Throws Error.
std::vector<uint8_t> read_audio(const std::string& path, int64_t rate);

}  // namespace longstride

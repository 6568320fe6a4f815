// WAV files of 8-bit mu-law samples, as in G.711, and the bytes that stand for them in a model of sound.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace longstride {

// The place of the samples in a file.
struct WavSamples {
  int64_t begin = 0, end = 0;
};

// `file` must be a mono WAV file of 8-bit mu-law samples at `rate` Hz. Otherwise throws Error that names it
// `name` and says what would convert it.
WavSamples find_mulaw_samples(std::span<const uint8_t> file, int64_t rate, const std::string& name);

// A byte of G.711 is inverted and carries the sign in one bit. A model's bytes are in the order of the
// amplitudes (data/mulaw.h). This is the sample's rank in that order, which is within a step or two of the
// same amplitude. Negative zero ranks below zero, so that nothing is lost on the way there and back.
uint8_t rank_of_mulaw(uint8_t sample);
uint8_t mulaw_of_rank(uint8_t rank);

}  // namespace longstride

// Sound as bytes: mu-law companding with mu = 255, the bytes in the order of the amplitudes.
//
//   f(x) = sign(x) ln(1 + 255 |x|) / ln 256,   x in [-1, 1]
//   byte = round(255 (f + 1) / 2)              0 loudest negative, 127 and 128 around silence, 255 loudest
//   positive x    = sign(g) (256^|g| - 1) / 255,        g = 2 byte / 255 - 1
//
// This is the continuous law that G.711 approximates by segments. The bytes of a G.711 file are inverted and
// carry the sign in one bit; here neighbouring bytes are neighbouring amplitudes, so that a model's mistakes
// are small ones.
#pragma once

#include <cstdint>

namespace longstride {

// Clamps to [-1, 1]; exactly zero becomes 128.
uint8_t mulaw_encode(float sample);

// In [-1, 1]; mulaw_encode(mulaw_decode(b)) == b for every b.
float mulaw_decode(uint8_t byte);

}  // namespace longstride

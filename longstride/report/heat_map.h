// The bits of every byte under a model, as a table and as a heat map over the text or the pictures.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "longstride/base/atomic_file.h"
#include "longstride/data/corpus.h"

namespace longstride {

struct ScoredBytes {
  std::span<const uint8_t> bytes;
  std::span<const float> bits;     // of each byte: -log2 of its probability
  std::span<const float> entropy;  // of each byte: what was expected of its place
};

// CSV of a line for each byte: offset, byte (0 to 255), bits, entropy.
void write_bits_table(ByteSink& sink, const ScoredBytes& scored);

// An HTML page that needs nothing else. With a shape the bytes are pictures, each shown beside its bits;
// else they are text, and each character has a colour by the bits of its bytes. Shows the first
// kMostHeatBytes and says so if there are more. Text is escaped.
void write_heat_map(ByteSink& sink, const ScoredBytes& scored, const ImageShape& shape,
                    const std::string& title);

inline constexpr int64_t kMostHeatBytes = 1 << 20;

}  // namespace longstride

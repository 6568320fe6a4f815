// A WAV file of 8-bit mu-law samples with chunks on both sides of them.
#pragma once

#include <cstdint>
#include <string>

namespace longstride {

inline std::string mulaw_file(const std::string& samples, uint32_t rate) {
  const auto number = [](uint32_t value, int bytes) {
    std::string text;
    for (int i = 0; i < bytes; ++i) text.push_back(static_cast<char>(value >> (8 * i)));
    return text;
  };
  const std::string padding(samples.size() % 2, '\0');
  const std::string chunks = "WAVEfmt " + number(16, 4) + number(7, 2) + number(1, 2) + number(rate, 4) +
                             number(rate, 4) + number(1, 2) + number(8, 2) + "data" +
                             number(static_cast<uint32_t>(samples.size()), 4) + samples + padding + "LIST" +
                             number(4, 4) + "INFO";
  return "RIFF" + number(static_cast<uint32_t>(chunks.size()), 4) + chunks;
}

}  // namespace longstride

#include "longstride/data/mulaw_wav.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>

#include "longstride/base/check.h"

namespace longstride {

namespace {

constexpr uint16_t kMulawFormat = 7, kExtensibleFormat = 0xFFFE;
constexpr size_t kExtensibleTag = 24;  // where a fmt chunk of that format has the real one

uint32_t little_endian(std::span<const uint8_t> bytes, size_t at, int count) {
  uint32_t value = 0;
  for (int i = count; i-- > 0;) value = value << 8 | bytes[at + static_cast<size_t>(i)];
  return value;
}

bool has_name(std::span<const uint8_t> bytes, std::string_view name) {
  return bytes.size() >= name.size() && std::memcmp(bytes.data(), name.data(), name.size()) == 0;
}

struct Format {
  uint32_t tag = 0, channels = 0, rate = 0, bits = 0;
  std::string describe() const {
    return fmt::format("{} Hz, {} channel{}, {} bits, format {}", rate, channels, channels == 1 ? "" : "s",
                       bits, tag);
  }
};

Format read_format(std::span<const uint8_t> chunk) {
  Format format{little_endian(chunk, 0, 2), little_endian(chunk, 2, 2), little_endian(chunk, 4, 4),
                little_endian(chunk, 14, 2)};
  if (format.tag == kExtensibleFormat && chunk.size() >= kExtensibleTag + 2)
    format.tag = little_endian(chunk, kExtensibleTag, 2);
  return format;
}

// True if a whole chunk with a name of printable letters begins at `at`, or if the file ends there.
bool chunk_or_end(std::span<const uint8_t> file, size_t at) {
  if (at + 8 > file.size()) return at == file.size();
  const auto name = file.subspan(at, 4);
  return std::all_of(name.begin(), name.end(),
                     [](uint8_t letter) { return letter >= ' ' && letter <= '~'; }) &&
         little_endian(file, at + 4, 4) <= file.size() - at - 8;
}

}  // namespace

WavSamples find_mulaw_samples(std::span<const uint8_t> file, int64_t rate, const std::string& name) {
  const std::string advice = fmt::format(
      "convert it, as in: sox {} -r {} -c 1 -e mu-law -b 8 mulaw.wav (this loses what mu-law cannot hold)",
      name, rate);
  LONGSTRIDE_CHECK(file.size() >= 12 && has_name(file, "RIFF") && has_name(file.subspan(8), "WAVE"),
                   "{} is no WAV file; sound is compressed from 8-bit mu-law mono at {} Hz; {}", name, rate,
                   advice);
  std::optional<Format> format;
  for (size_t at = 12; at + 8 <= file.size();) {
    const std::span<const uint8_t> head = file.subspan(at);
    const size_t begin = at + 8;
    size_t end = std::min(file.size(), begin + little_endian(head, 4, 4));
    if (has_name(head, "fmt ") && end - begin >= 16) format = read_format(file.subspan(begin, end - begin));
    if (has_name(head, "data")) {
      LONGSTRIDE_CHECK(format, "{} is damaged: its samples come before their format", name);
      LONGSTRIDE_CHECK(
          format->tag == kMulawFormat && format->channels == 1 && format->bits == 8 && format->rate == rate,
          "{} has {}; sound is compressed from 8-bit mu-law (format 7) mono at {} Hz; {}", name,
          format->describe(), rate, advice);
      // Programs that write into a pipe leave the size 0 or very large.
      if (end == begin && !chunk_or_end(file, begin)) end = file.size();
      return {static_cast<int64_t>(begin), static_cast<int64_t>(end)};
    }
    at = end + (end - begin) % 2;  // chunks begin at even places
  }
  fail("{} is damaged: a WAV file without samples", name);
}

uint8_t rank_of_mulaw(uint8_t sample) {
  const auto magnitude = static_cast<uint8_t>(~sample & 0x7F);
  return static_cast<uint8_t>(sample & 0x80 ? 128 + magnitude : 127 - magnitude);
}

uint8_t mulaw_of_rank(uint8_t rank) {
  return static_cast<uint8_t>(rank >= 128 ? 0x80 | (~(rank - 128) & 0x7F) : ~(127 - rank) & 0x7F);
}

}  // namespace longstride

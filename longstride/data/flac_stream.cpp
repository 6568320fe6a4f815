#include "longstride/data/flac_stream.h"

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <string_view>

#include "longstride/base/check.h"

namespace longstride::data {

namespace {

using std::string_view_literals::operator""sv;

// A stream begins with its mark and the head of a STREAMINFO block, the last block (0x80) or not.
constexpr size_t kMarkBytes = 8;
constexpr std::array<std::string_view, 2> kMarks{"fLaC\0\0\0\x22"sv, "fLaC\x80\0\0\x22"sv};
constexpr int64_t kLengthAt = 18;  // 8 bytes whose lowest 36 bits are the number of samples
constexpr int64_t kLongestFrame = 8 << 20;
constexpr int kMostCandidates = 16;  // that look like a header, the last first; chance makes few more

uint32_t checksum(std::span<const uint8_t> bytes, uint32_t polynomial, int bits) {
  uint32_t value = 0;
  for (const uint8_t byte : bytes) {
    value ^= uint32_t{byte} << (bits - 8);
    for (int i = 0; i < 8; ++i) value = value << 1 ^ (value >> (bits - 1) & 1 ? polynomial : 0);
  }
  return value & ((uint32_t{1} << bits) - 1);
}

// The length of the frame header that begins here, its checksum included; 0 if none does.
size_t frame_header_bytes(std::span<const uint8_t> bytes) {
  if (bytes.size() < 6 || bytes[0] != 0xFF || (bytes[1] & 0xFE) != 0xF8 || (bytes[3] & 1) != 0) return 0;
  const int block = bytes[2] >> 4, rate = bytes[2] & 15;
  size_t number = 1;  // bytes of the frame's number, coded like UTF-8
  if (bytes[4] >= 0xC0)
    for (number = 2; number < 7 && (bytes[4] & (0x80 >> number)) != 0;) ++number;
  const size_t count = 5 + number +
                       (block == 6   ? 1
                        : block == 7 ? 2
                                     : 0) +
                       (rate == 12                 ? 1
                        : rate == 13 || rate == 14 ? 2
                                                   : 0);
  return count <= bytes.size() && checksum(bytes.first(count), 0x07, 8) == 0 ? count : 0;
}

// True if a frame ends where the view does, by its checksum.
bool ends_with_a_frame(const SoundView& view) {
  std::vector<uint8_t> tail(static_cast<size_t>(std::min(view.size(), kLongestFrame)));
  tail.resize(view.read(view.size() - std::ssize(tail), tail));
  const std::span<const uint8_t> bytes(tail);
  int candidates = 0;
  for (size_t at = bytes.size(); at-- > 0 && candidates < kMostCandidates;) {
    if (frame_header_bytes(bytes.subspan(at)) == 0) continue;
    if (checksum(bytes.subspan(at), 0x8005, 16) == 0) return true;
    ++candidates;
  }
  return false;
}

// Where the next stream begins after the one at `begin`; the end of the view if there is none.
int64_t next_stream(const SoundView& view, int64_t begin) {
  constexpr size_t kBlock = 1 << 20;
  for (int64_t at = begin + 1; at < view.size(); at += kBlock) {
    const std::string block = view.text(at, kBlock + kMarkBytes - 1);
    size_t found = std::string::npos;
    for (const std::string_view mark : kMarks) found = std::min(found, block.find(mark));
    if (found != std::string::npos) return at + static_cast<int64_t>(found);
  }
  return view.size();
}

}  // namespace

std::vector<SoundView> split_flac(const SoundView& view) {
  std::vector<SoundView> streams;
  for (int64_t begin = 0; begin < view.size();) {
    const int64_t end = next_stream(view, begin);
    const SoundView stream = without_tags(view.part(begin, end));
    const uint64_t samples = stream.big_endian(kLengthAt, 8) & ((uint64_t{1} << 36) - 1);
    LONGSTRIDE_CHECK(samples > 0 || ends_with_a_frame(stream), "{} ends within a FLAC frame; {}",
                     view.label(), kSoundAdvice);
    streams.push_back(stream);
    begin = end;
  }
  return streams;
}

}  // namespace longstride::data

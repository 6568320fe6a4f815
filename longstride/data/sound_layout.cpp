#include "longstride/data/sound_layout.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "longstride/base/check.h"

namespace longstride::data {

namespace {

using std::string_view_literals::operator""sv;

// Programs that cannot go back to the header leave 0, the largest number, or (SoX, eSpeak) one near 2^31.
constexpr uint64_t kOpenFrom = 0x7ffff000, kOpenFromAiff = 0x7f000000, kOpenFromWide = uint64_t{1} << 62;
constexpr int64_t kLargest32 = 0xffffffff;
constexpr int kMostParts = 1 << 16;  // chunks of a header; no real sound has more

// A number of the header that counts the samples' bytes and `extra` more.
struct SizeField {
  int64_t at = 0;
  int bytes = 4;
  bool big = false;
  int64_t extra = 0;
};

struct Layout {
  int64_t begin = 0;              // of the samples
  int64_t bytes = 0;              // bytes that the header claims
  bool open = false;              // it claims no size: they go on to the end
  int64_t unit = 1;               // an open sound consists of whole units of this many bytes
  int64_t container_end = 0;      // where the header says that everything ends; 0: it does not say
  bool keeps_tail = false;        // the bytes after the samples are for the decoder too
  std::vector<SizeField> fields;  // shown with the true size if the size was left open
};

int64_t rest(const SoundView& view, int64_t begin) { return std::max<int64_t>(0, view.size() - begin); }

// ---- Containers of chunks: a name, a size, and as many bytes.

struct ChunkFormat {
  std::string_view magic;  // '?' is any byte
  std::string_view samples;
  int64_t first;  // chunk
  int name_bytes, size_bytes;
  bool big;
  int64_t counts_head;  // bytes before the contents that the size includes
  int64_t alignment;
  int64_t prefix;  // bytes of the chunk before its samples
  uint64_t open_from;
  SizeField whole;  // the container's own size
  bool keeps_tail;
};

constexpr std::array<ChunkFormat, 8> kChunkFormats{{
    {"RIFF????WAVE"sv, "data", 12, 4, 4, false, 0, 2, 0, kOpenFrom, {4, 4, false, -8}, true},
    {"RIFX????WAVE"sv, "data", 12, 4, 4, true, 0, 2, 0, kOpenFrom, {4, 4, true, -8}, true},
    {"RF64????WAVEds64"sv, "data", 12, 4, 4, false, 0, 2, 0, kOpenFrom, {20, 8, false, -8}, true},
    {"FORM????AIF"sv, "SSND", 12, 4, 4, true, 0, 2, 8, kOpenFromAiff, {4, 4, true, -8}, true},
    {"FORM????8SVX"sv, "BODY", 12, 4, 4, true, 0, 2, 0, kOpenFrom, {4, 4, true, -8}, false},
    {"FORM????16SV"sv, "BODY", 12, 4, 4, true, 0, 2, 0, kOpenFrom, {4, 4, true, -8}, false},
    {"riff\x2E\x91\xCF\x11"sv, "data", 40, 16, 8, false, 24, 8, 0, kOpenFromWide, {16, 8, false, 0}, false},
    {"caff\0\1"sv, "data", 8, 4, 8, true, 0, 1, 4, kOpenFromWide, {0, 0, true, 0}, true},
}};
constexpr int64_t kWideSizeOfRf64 = 28;

int64_t head_bytes(const ChunkFormat& format) { return format.name_bytes + format.size_bytes; }

// Where the chunk after the one at `at` begins.
int64_t after_chunk(const ChunkFormat& format, int64_t at, uint64_t size) {
  const int64_t end = at + head_bytes(format) + static_cast<int64_t>(size) - format.counts_head;
  return (end + format.alignment - 1) / format.alignment * format.alignment;
}

// True if only whole chunks with names of printable letters follow, from `at` to the end of the view.
bool only_chunks_follow(const ChunkFormat& format, const SoundView& view, int64_t at) {
  while (at + head_bytes(format) <= view.size()) {
    const std::string name = view.text(at, 4);
    if (!std::all_of(name.begin(), name.end(), [](char letter) { return letter >= ' ' && letter <= '~'; }))
      return false;
    const uint64_t size = view.number(at + format.name_bytes, format.size_bytes, format.big);
    if (size < static_cast<uint64_t>(format.counts_head) || size > static_cast<uint64_t>(view.size()))
      return false;
    at = after_chunk(format, at, size);
  }
  return at >= view.size() && at <= view.size() + format.alignment;
}

Layout lay_out_chunks(const ChunkFormat& format, const SoundView& view) {
  const int64_t head = head_bytes(format);
  int64_t at = format.first;
  uint64_t size = 0;
  for (int chunk = 0;; ++chunk, at = after_chunk(format, at, size)) {
    LONGSTRIDE_CHECK(at + head <= view.size() && chunk < kMostParts, "{} ends before its sound; {}",
                     view.label(), kSoundAdvice);
    size = view.number(at + format.name_bytes, format.size_bytes, format.big);
    if (view.matches(at, format.samples)) break;
    LONGSTRIDE_CHECK(
        size >= static_cast<uint64_t>(format.counts_head) && size <= static_cast<uint64_t>(view.size() - at),
        "{}: its header claims a part of {} bytes, more than there are; {}", view.label(), size,
        kSoundAdvice);
  }
  Layout layout;
  layout.begin = at + head + format.prefix;
  layout.keeps_tail = format.keeps_tail;
  layout.fields = {
      {at + format.name_bytes, format.size_bytes, format.big, format.counts_head + format.prefix}};
  uint64_t open_from = format.open_from;
  if (format.whole.at == 20 && size == kLargest32) {
    size = view.little_endian(kWideSizeOfRf64, 8);
    open_from = size == kLargest32 ? kOpenFrom : kOpenFromWide;
    layout.fields = {{kWideSizeOfRf64, 8, false, 0}};
  }
  if (format.whole.bytes > 0) {
    const uint64_t whole = view.number(format.whole.at, format.whole.bytes, format.big);
    if (whole < kOpenFromWide) layout.container_end = static_cast<int64_t>(whole) - format.whole.extra;
    SizeField field = format.whole;
    field.extra += layout.begin;
    layout.fields.push_back(field);
  }
  const int64_t there = rest(view, layout.begin);
  const auto not_samples = static_cast<uint64_t>(format.counts_head + format.prefix);
  if (size <= not_samples) {
    const int64_t behind = size == not_samples ? layout.begin : at + head;
    layout.open = there > 0 && !only_chunks_follow(format, view, behind);
  } else {
    layout.open = size >= open_from && size - not_samples > static_cast<uint64_t>(there);
    // Sizes beyond 2^62 do not come here: they are open, unless the file really has so many bytes.
    if (!layout.open) layout.bytes = static_cast<int64_t>(std::min(size, kOpenFromWide) - not_samples);
  }
  LONGSTRIDE_CHECK(!layout.open || format.size_bytes > 4 || format.whole.bytes > 4 ||
                       view.size() <= kLargest32 - format.alignment,
                   "{} has more than 4 GiB, but its header leaves its size open; convert it, for example to "
                   "FLAC",
                   view.label());
  return layout;
}

// ---- Other containers. Each function gets a view that begins with the format's magic bytes.

Layout told(int64_t begin, uint64_t bytes) {
  Layout layout;
  layout.begin = begin;
  layout.bytes = static_cast<int64_t>(std::min(bytes, kOpenFromWide));
  return layout;
}

// A format whose header has no size.
Layout untold(int64_t begin, uint64_t unit) {
  Layout layout;
  layout.begin = begin;
  layout.open = true;
  layout.unit = std::max<int64_t>(1, static_cast<int64_t>(unit));
  return layout;
}

Layout lay_out_au(const SoundView& view) {
  const bool big = view.matches(0, ".snd");
  const uint64_t size = view.number(8, 4, big);
  Layout layout = told(static_cast<int64_t>(view.number(4, 4, big)), size);
  const int64_t there = rest(view, layout.begin);
  layout.open = (size == 0 && there > 0) || (size >= kOpenFrom && size > static_cast<uint64_t>(there)) ||
                size == kLargest32;
  layout.fields = {{8, 4, big, 0}};
  return layout;
}

constexpr std::string_view kNistMagic = "NIST_1A";

// Lines "name -i number" up to "end_head". The second line has the size of the header.
Layout lay_out_nist(const SoundView& view) {
  const std::string header = view.text(0, 4096);
  const auto value = [&](std::string_view name, uint64_t otherwise) -> uint64_t {
    const size_t at = header.find(fmt::format("\n{} -i ", name));
    return at == std::string::npos ? otherwise
                                   : std::strtoull(header.c_str() + at + name.size() + 5, nullptr, 10);
  };
  const auto begin = static_cast<int64_t>(std::strtoull(header.c_str() + kNistMagic.size(), nullptr, 10));
  const uint64_t unit = value("channel_count", 1) * value("sample_n_bytes", 1);
  const uint64_t frames = value("sample_count", 0);
  if (frames == 0) return untold(begin, unit);
  return told(begin, std::min(frames, uint64_t{1} << 40) * std::min<uint64_t>(unit, 1 << 16));
}

// Blocks of a kind, a size of 3 bytes, and as many bytes. A kind of 0 ends the file.
Layout lay_out_voc(const SoundView& view) {
  constexpr uint64_t kEnd = 0, kSamples = 1, kMoreSamples = 2, kSilence = 3, kRepeat = 6, kNewSamples = 9;
  Layout layout;
  bool found = false;
  auto at = static_cast<int64_t>(view.little_endian(20, 2));
  while (at < view.size()) {
    const uint64_t kind = view.little_endian(at, 1);
    if (kind == kEnd) break;
    const auto size = static_cast<int64_t>(view.little_endian(at + 1, 3));
    const bool samples = kind == kSamples || kind == kNewSamples;
    LONGSTRIDE_CHECK(!found || !(samples || kind == kMoreSamples || kind == kSilence || kind == kRepeat),
                     "{} has several blocks of sound or silence, of which only the first could be read; "
                     "convert it, for example to WAV",
                     view.label());
    if (samples) {
      found = true;
      layout.begin = at + 4;
      layout.bytes = size;
    }
    at += 4 + size;
  }
  layout.container_end = at + 1;
  layout.keeps_tail = true;
  return layout;
}

Layout lay_out_avr(const SoundView& view) {
  const uint64_t channels = view.big_endian(12, 2) == 0 ? 1 : 2;
  return told(128, view.big_endian(26, 4) * channels * (view.big_endian(14, 2) / 8));
}

Layout lay_out_wve(const SoundView& view) { return told(32, view.big_endian(18, 4)); }

Layout lay_out_mpc(const SoundView& view) {
  return told(42, 2 * (view.little_endian(21, 1) == 0 ? 1 : 2) * view.little_endian(30, 4));
}

Layout lay_out_xi(const SoundView& view) {
  const int64_t begin = 298 + 40 * static_cast<int64_t>(view.little_endian(296, 2));
  const uint64_t size = view.little_endian(298, 4);
  return size == 0 ? untold(begin, 1) : told(begin, size);
}

// Packets of 127 bytes. 120 of these hold samples, 7 bits in each byte.
Layout lay_out_sds(const SoundView& view) {
  const uint64_t samples =
      view.little_endian(10, 1) | view.little_endian(11, 1) << 7 | view.little_endian(12, 1) << 14;
  const uint64_t a_packet = 120 / std::max<uint64_t>(1, (view.little_endian(6, 1) + 6) / 7);
  return told(21, a_packet == 0 ? 0 : (samples + a_packet - 1) / a_packet * 127);
}

// Two matrices, each with a head of five numbers and a name: the rate, then the samples.
Layout lay_out_mat4(const SoundView& view) {
  const bool big = view.matches(0, "\0\0\3\xE8"sv);
  constexpr std::array<uint64_t, 6> kElementBytes{8, 4, 4, 2, 2, 1};
  Layout layout;
  for (int64_t matrix = 0, at = 0; matrix < 2; ++matrix) {
    const uint64_t type = view.number(at, 4, big) / 10 % 10;
    layout = told(at + 20 + static_cast<int64_t>(view.number(at + 16, 4, big)),
                  std::min(view.number(at + 4, 4, big) * view.number(at + 8, 4, big), uint64_t{1} << 48));
    layout.bytes *= static_cast<int64_t>(type < kElementBytes.size() ? kElementBytes[type] : 1);
    at = layout.begin + layout.bytes;
  }
  return layout;
}

// Elements of a type, a size and as many bytes, rounded up to multiples of 8. A matrix contains its
// elements. The last one holds the samples.
Layout lay_out_mat5(const SoundView& view) {
  constexpr uint64_t kMatrix = 14;
  const bool big = view.matches(126, "MI");
  Layout layout;
  int64_t at = 128;
  for (int element = 0; element < kMostParts && at + 8 <= view.size(); ++element) {
    const uint64_t type = view.number(at, 4, big), size = view.number(at + 4, 4, big);
    const bool small = type > 0xffff;  // its bytes are in the place of the size
    if (!small && type != kMatrix) layout = told(at + 8, size);
    at += 8 + (small || type == kMatrix ? 0 : static_cast<int64_t>((size + 7) / 8 * 8));
  }
  return layout;
}

Layout lay_out_ircam(const SoundView& view) {
  const uint64_t little = view.little_endian(8, 4);
  const bool big = little == 0 || little > 0xffff;
  return untold(1024, view.number(8, 4, big) * (view.number(12, 4, big) & 0xffff));
}

Layout lay_out_paf(const SoundView& view) {
  constexpr std::array<uint64_t, 3> kUnitBytes{2, 32, 1};
  const bool big = view.matches(0, " paf");
  const uint64_t format = view.number(16, 4, big);
  return untold(2048, view.number(20, 4, big) * (format < kUnitBytes.size() ? kUnitBytes[format] : 1));
}

// "PVF1", then channels, rate and bits in a line of text.
Layout lay_out_pvf(const SoundView& view) {
  const std::string header = view.text(0, 64);
  const size_t end = header.find('\n', 5);
  if (end == std::string::npos) return untold(5, 1);
  char* next = nullptr;
  const uint64_t channels = std::strtoull(header.c_str() + 5, &next, 10);
  std::strtoull(next, &next, 10);
  return untold(static_cast<int64_t>(end) + 1, channels * (std::strtoull(next, nullptr, 10) / 8));
}

struct FlatFormat {
  std::string_view magic;
  Layout (*lay_out)(const SoundView& view);
};
constexpr std::array<FlatFormat, 17> kFlatFormats{{
    {".snd\0"sv, lay_out_au},
    {"dns."sv, lay_out_au},
    {kNistMagic, lay_out_nist},
    {"Creative Voice File\x1A"sv, lay_out_voc},
    {"2BIT"sv, lay_out_avr},
    {"ALawSoundFile**"sv, lay_out_wve},
    {"\1\4"sv, lay_out_mpc},
    {"Extended Instrument:"sv, lay_out_xi},
    {"\xF0\x7E?\1"sv, lay_out_sds},
    {"\0\0\0\0\1\0\0\0\1\0\0\0\0\0\0\0\x0B\0\0\0samplerate"sv, lay_out_mat4},
    {"\0\0\3\xE8\0\0\0\1\0\0\0\1\0\0\0\0\0\0\0\x0Bsamplerate"sv, lay_out_mat4},
    {"MATLAB 5.0 MAT-file"sv, lay_out_mat5},
    {"\x64\xA3?\0"sv, lay_out_ircam},
    {"\0?\xA3\x64"sv, lay_out_ircam},
    {" paf"sv, lay_out_paf},
    {"fap "sv, lay_out_paf},
    {"PVF1\n"sv, lay_out_pvf},
}};

// ----

struct Known {
  std::string_view magic;
  Layout layout;
};

std::optional<Known> lay_out(const SoundView& view) {
  for (const ChunkFormat& format : kChunkFormats)
    if (view.matches(0, format.magic)) return Known{format.magic, lay_out_chunks(format, view)};
  for (const FlatFormat& format : kFlatFormats)
    if (view.matches(0, format.magic)) return Known{format.magic, format.lay_out(view)};
  return std::nullopt;
}

// Where a sound of the same format begins after this one, or 0.
int64_t find_joined(const SoundView& view, const Known& known) {
  const int64_t end = known.layout.begin + known.layout.bytes;
  for (const int64_t at : {known.layout.container_end, end, end + (end & 1)})
    if (at >= end && at > 0 && view.matches(at, known.magic)) return at;
  return 0;
}

}  // namespace

std::vector<SoundView> split_containers(const SoundView& view) {
  std::vector<SoundView> parts;
  for (SoundView left = view;;) {
    const std::optional<Known> known = lay_out(left);
    if (!known) {
      parts.push_back(left);
      return parts;
    }
    const Layout& layout = known->layout;
    LONGSTRIDE_CHECK(layout.begin >= 0 && layout.begin <= left.size(), "{} ends before its sound; {}",
                     view.label(), kSoundAdvice);
    const int64_t there = rest(left, layout.begin), end = layout.begin + layout.bytes;
    if (layout.open) {
      LONGSTRIDE_CHECK(there % layout.unit == 0, "{} ends within a sample; {}", view.label(), kSoundAdvice);
      SoundView part = left;
      for (const SizeField& field : layout.fields)
        part.show_number(field.at, field.bytes, field.big,
                         static_cast<uint64_t>(field.bytes == 4 ? std::min(there + field.extra, kLargest32)
                                                                : there + field.extra));
      parts.push_back(std::move(part));
      return parts;
    }
    LONGSTRIDE_CHECK(layout.bytes <= there, "{}: {} of {} bytes of its sound are missing; {}", view.label(),
                     layout.bytes - there, layout.bytes, kSoundAdvice);
    const int64_t next = find_joined(left, *known);
    if (next == 0) {
      parts.push_back(layout.keeps_tail || layout.bytes == 0 ? left : left.part(0, end));
      return parts;
    }
    parts.push_back(left.part(0, next));
    left = left.part(next, left.size());
  }
}

SoundView samples_of(const SoundView& container) {
  const std::optional<Known> known = lay_out(container);
  if (!known) return container;
  const Layout& layout = known->layout;
  return container.part(layout.begin, layout.open ? container.size() : layout.begin + layout.bytes);
}

}  // namespace longstride::data

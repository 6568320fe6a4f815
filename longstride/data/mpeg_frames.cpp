#include "longstride/data/mpeg_frames.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "longstride/base/check.h"

namespace longstride::data {

namespace {

constexpr int64_t kHeaderBytes = 4;
constexpr int64_t kLongestFreeFrame = 8192;
constexpr int64_t kTrailingBytes = 4096;  // bytes that are no frames, which some programs leave at the end
constexpr int kFramesThatConvince = 4;

// kbit/s by the index in the header; 0 is a free choice.
constexpr std::array<std::array<int, 15>, 5> kBitRates{
    {{0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448},  // version 1, layer I
     {0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384},     // version 1, layer II
     {0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320},      // version 1, layer III
     {0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256},     // versions 2 and 2.5, layer I
     {0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160}}};        // their layers II and III

struct Frame {
  int layer = 3;
  bool low_rate = false;  // versions 2 and 2.5
  bool mono = false;
  int rate = 0;
  int64_t bytes = 0;  // 0: free
  int64_t padding = 0;
  bool fits(const Frame& other) const {
    return layer == other.layer && rate == other.rate && mono == other.mono;
  }
};

std::optional<Frame> parse_frame(const SoundView& view, int64_t at) {
  std::array<uint8_t, kHeaderBytes> head;
  if (view.read(at, head) < head.size() || head[0] != 0xFF || (head[1] & 0xE0) != 0xE0) return std::nullopt;
  const int version = head[1] >> 3 & 3, layer = 4 - (head[1] >> 1 & 3);
  const size_t bit_rate = head[2] >> 4, rate = head[2] >> 2 & 3;
  if (version == 1 || layer == 4 || bit_rate == 15 || rate == 3) return std::nullopt;
  constexpr std::array<int, 3> kRates{44100, 48000, 32000};
  Frame frame;
  frame.layer = layer;
  frame.low_rate = version != 3;
  frame.mono = head[3] >> 6 == 3;
  frame.rate = kRates[rate] >> (version == 3 ? 0 : version == 2 ? 1 : 2);
  frame.padding = (head[2] >> 1 & 1) * (layer == 1 ? 4 : 1);
  const size_t row = frame.low_rate ? (layer == 1 ? 3 : 4) : static_cast<size_t>(layer - 1);
  const int64_t bits = int64_t{kBitRates[row][bit_rate]} * 1000;
  if (bits == 0) return frame;
  const int64_t samples = layer == 1 ? 384 : layer == 3 && frame.low_rate ? 576 : 1152;
  frame.bytes = layer == 1 ? 12 * bits / frame.rate * 4 : samples / 8 * bits / frame.rate;
  frame.bytes += frame.padding;
  return frame;
}

// What the first frame of an encoder's stream says about the rest.
struct Info {
  int64_t frames = 0;  // after this one; 0: not said
  int64_t bytes = 0;   // including this one; 0: not said
};

std::optional<Info> parse_info(const SoundView& view, int64_t at, const Frame& frame) {
  if (frame.layer != 3) return std::nullopt;
  constexpr int64_t kVbriAt = 36;
  if (view.matches(at + kVbriAt, "VBRI"))
    return Info{static_cast<int64_t>(view.big_endian(at + kVbriAt + 14, 4)),
                static_cast<int64_t>(view.big_endian(at + kVbriAt + 10, 4))};
  const int64_t side = frame.low_rate ? (frame.mono ? 9 : 17) : (frame.mono ? 17 : 32);
  for (const int64_t checksum : {0, 2}) {
    const int64_t mark = at + kHeaderBytes + checksum + side;
    if (!view.matches(mark, "Xing") && !view.matches(mark, "Info")) continue;
    const uint64_t flags = view.big_endian(mark + 4, 4);
    const bool frames = (flags & 1) != 0, bytes = (flags & 2) != 0;
    return Info{frames ? static_cast<int64_t>(view.big_endian(mark + 8, 4)) : 0,
                bytes ? static_cast<int64_t>(view.big_endian(mark + (frames ? 12 : 8), 4)) : 0};
  }
  return std::nullopt;
}

// The frames of one file, one after another.
class Walker {
 public:
  explicit Walker(const SoundView& view) : view_(view) {}

  // The frame at `at`, if its size is known; nothing if none begins there.
  std::optional<Frame> frame(int64_t at) {
    std::optional<Frame> found = parse_frame(view_, at);
    if (!found || found->bytes > 0) return found;
    if (free_bytes_ == 0) free_bytes_ = measure_free(at, *found);
    if (free_bytes_ == 0) return std::nullopt;
    found->bytes = free_bytes_ + found->padding;
    return found;
  }

  // The frame at `at`, if it is followed by a frame of its kind, a tag or the end.
  std::optional<Frame> confirmed(int64_t at) {
    const std::optional<Frame> found = frame(at);
    if (!found) return found;
    const int64_t next = at + found->bytes;
    const std::optional<Frame> second = frame(next);
    const bool followed = second ? second->fits(*found) : next >= view_.size() || tag_bytes(view_, next) > 0;
    return followed ? found : std::nullopt;
  }

 private:
  // Frames of a free bit rate all have one size: the distance to the next frame.
  int64_t measure_free(int64_t at, const Frame& first) {
    for (int64_t bytes = kHeaderBytes; bytes < kLongestFreeFrame; ++bytes) {
      const std::optional<Frame> second = parse_frame(view_, at + bytes);
      if (!second || second->bytes > 0 || !second->fits(first)) continue;
      const int64_t size = bytes - first.padding;
      const std::optional<Frame> third = parse_frame(view_, at + bytes + size + second->padding);
      if (third && third->bytes == 0 && third->fits(first)) return size;
    }
    return 0;
  }

  const SoundView& view_;
  int64_t free_bytes_ = 0;
};

// The next place that is not a zero byte.
int64_t skip_zeros(const SoundView& view, int64_t at) {
  constexpr size_t kBlock = 1 << 16;
  for (; at < view.size(); at += kBlock) {
    const std::string block = view.text(at, kBlock);
    if (const size_t found = block.find_first_not_of('\0'); found != std::string::npos)
      return at + static_cast<int64_t>(found);
  }
  return view.size();
}

}  // namespace

int64_t find_mpeg_stream(const SoundView& view, int64_t limit) {
  Walker walker(view);
  if (walker.confirmed(0)) return 0;
  for (int64_t begin = 1; begin < std::min(limit, view.size()); ++begin) {
    int64_t at = begin;
    int frames = 0;
    for (; frames < kFramesThatConvince; ++frames) {
      const std::optional<Frame> frame = walker.confirmed(at);
      if (!frame) break;
      at += frame->bytes;
    }
    if (frames == kFramesThatConvince) return begin;
  }
  return -1;
}

std::vector<SoundView> split_mpeg(const SoundView& view) {
  std::vector<SoundView> streams;
  Walker walker(view);
  std::optional<Frame> kind;  // of the stream's frames
  Info info;
  int64_t begin = 0, frames = 0, at = 0;
  const auto finish = [&] {
    // Programs count in several ways. A stream is too short if both bytes and frames say so.
    const bool short_of_bytes = info.bytes == 0 || at - begin < info.bytes;
    LONGSTRIDE_CHECK(frames >= info.frames || !short_of_bytes, "{}: {} of {} MP3 frames are missing; {}",
                     view.label(), info.frames - frames, info.frames, kSoundAdvice);
    if (frames > 0) streams.push_back(view.part(begin, at));
    kind.reset();
    info = {};
    frames = 0;
  };

  while (at < view.size()) {
    std::optional<Frame> frame = walker.frame(at);
    if (frame && kind && !frame->fits(*kind)) frame = walker.confirmed(at);
    if (!frame) {
      const int64_t left = view.size() - at;
      LONGSTRIDE_CHECK(left >= kHeaderBytes || !view.matches(at, "\xFF"),
                       "{}: its last MP3 frame is not whole; {}", view.label(), kSoundAdvice);
      int64_t next = at + tag_bytes(view, at);
      if (next == at) {
        next = skip_zeros(view, at);
        const bool known = next > at && (tag_bytes(view, next) > 0 || walker.confirmed(next));
        if (!known && view.size() - next <= kTrailingBytes) next = view.size();
        LONGSTRIDE_CHECK(known || next == view.size(), "{}: the bytes from {} on are no MP3 frames; {}",
                         view.label(), at, kSoundAdvice);
      }
      finish();
      at = std::min(next, view.size());
      continue;
    }
    const std::optional<Info> head = parse_info(view, at, *frame);
    const bool complete = info.frames > 0 && frames == info.frames;
    if (kind && (head || complete || !frame->fits(*kind))) finish();
    LONGSTRIDE_CHECK(at + frame->bytes <= view.size(),
                     "{}: {} of {} bytes of its last MP3 frame are missing; {}", view.label(),
                     at + frame->bytes - view.size(), frame->bytes, kSoundAdvice);
    if (!kind) begin = at;
    kind = frame;
    if (head)
      info = *head;
    else
      ++frames;
    at += frame->bytes;
  }
  finish();
  return streams;
}

}  // namespace longstride::data

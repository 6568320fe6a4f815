#include "longstride/data/sound_view.h"

#include <algorithm>
#include <cerrno>

#include <unistd.h>

#include "longstride/base/check.h"

namespace longstride::data {

namespace {

constexpr int64_t kId3v1Bytes = 128, kId3v2Head = 10, kApeHead = 32;
constexpr int64_t kLongestLyrics = 1 << 20;

// ID3v2 counts in bytes of 7 bits.
int64_t id3v2_bytes(const SoundView& view, int64_t at) {
  int64_t bytes = 0;
  for (int i = 0; i < 4; ++i) {
    const uint64_t byte = view.big_endian(at + 6 + i, 1);
    if (byte >= 0x80) return 0;
    bytes = bytes << 7 | static_cast<int64_t>(byte);
  }
  const bool footer = (view.big_endian(at + 5, 1) & 0x10) != 0;
  return bytes + kId3v2Head + (footer ? kId3v2Head : 0);
}

// An APE tag counts its items and its footer, its header extra.
int64_t ape_bytes(const SoundView& view, int64_t at) {
  return static_cast<int64_t>(view.little_endian(at + 12, 4)) + kApeHead;
}

// The length of the tag that ends where the view ends.
int64_t trailing_tag_bytes(const SoundView& view) {
  const int64_t end = view.size();
  if (view.matches(end - kId3v1Bytes, "TAG")) return kId3v1Bytes;
  if (view.matches(end - kApeHead, "APETAGEX")) {
    const auto bytes = static_cast<int64_t>(view.little_endian(end - kApeHead + 12, 4));
    const bool header = (view.little_endian(end - kApeHead + 20, 4) & 0x80000000u) != 0;
    return bytes + (header ? kApeHead : 0);
  }
  if (view.matches(end - 9, "LYRICS200")) {
    int64_t bytes = 0;
    for (const char digit : view.text(end - 15, 6)) {
      if (digit < '0' || digit > '9') return 0;
      bytes = bytes * 10 + (digit - '0');
    }
    return bytes + 15;
  }
  if (view.matches(end - kId3v2Head, "3DI")) return id3v2_bytes(view, end - kId3v2Head);
  return 0;
}

}  // namespace

SoundView::SoundView(int file, std::string label)
    : file_(file), size_(::lseek(file, 0, SEEK_END)), label_(std::move(label)) {
  LONGSTRIDE_CHECK(size_ >= 0, "cannot read {}: {}", label_, last_system_error());
}

size_t SoundView::read(int64_t at, std::span<uint8_t> bytes) const {
  if (at < 0 || at >= size_) return 0;
  const auto wanted = static_cast<size_t>(std::min<int64_t>(std::ssize(bytes), size_ - at));
  size_t done = 0;
  while (done < wanted) {
    const ssize_t count =
        ::pread(file_, bytes.data() + done, wanted - done, begin_ + at + static_cast<int64_t>(done));
    if (count < 0 && errno == EINTR) continue;
    LONGSTRIDE_CHECK(count >= 0, "cannot read {}: {}", label_, last_system_error());
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  for (const auto& [place, byte] : shown_)
    if (const int64_t index = place - begin_ - at; index >= 0 && index < static_cast<int64_t>(done))
      bytes[static_cast<size_t>(index)] = byte;
  return done;
}

std::string SoundView::text(int64_t at, size_t count) const {
  std::string result(count, '\0');
  result.resize(read(at, {reinterpret_cast<uint8_t*>(result.data()), count}));
  return result;
}

bool SoundView::matches(int64_t at, std::string_view pattern) const {
  const std::string there = text(at, pattern.size());
  return there.size() == pattern.size() &&
         std::equal(there.begin(), there.end(), pattern.begin(),
                    [](char found, char wanted) { return wanted == '?' || found == wanted; });
}

uint64_t SoundView::number(int64_t at, int bytes, bool big) const {
  uint8_t there[8];
  const auto count = static_cast<size_t>(bytes);
  LONGSTRIDE_CHECK(read(at, std::span(there).first(count)) == count, "{} ends within its header; {}", label_,
                   kSoundAdvice);
  uint64_t value = 0;
  for (size_t i = 0; i < count; ++i) value = value << 8 | there[big ? i : count - 1 - i];
  return value;
}

SoundView SoundView::part(int64_t begin, int64_t end) const {
  SoundView result = *this;
  result.begin_ += begin;
  result.size_ = end - begin;
  return result;
}

void SoundView::show_number(int64_t at, int bytes, bool big, uint64_t value) {
  for (int i = 0; i < bytes; ++i, value >>= 8)
    shown_.emplace_back(begin_ + at + (big ? bytes - 1 - i : i), static_cast<uint8_t>(value));
}

int64_t tag_bytes(const SoundView& view, int64_t at) {
  if (view.matches(at, "ID3") && at + kId3v2Head <= view.size()) return id3v2_bytes(view, at);
  if (view.matches(at, "TAG") && at + kId3v1Bytes <= view.size()) return kId3v1Bytes;
  if (view.matches(at, "APETAGEX") && at + kApeHead <= view.size()) return ape_bytes(view, at);
  if (view.matches(at, "LYRICSBEGIN")) {
    const std::string lyrics = view.text(at, kLongestLyrics);
    for (const std::string_view end : {"LYRICS200", "LYRICSEND"})
      if (const size_t found = lyrics.find(end); found != std::string::npos)
        return static_cast<int64_t>(found + end.size());
  }
  return 0;
}

SoundView without_tags(const SoundView& view) {
  int64_t begin = 0;
  while (view.matches(begin, "ID3")) {
    const int64_t bytes = tag_bytes(view, begin);
    if (bytes == 0 || begin + bytes > view.size()) break;
    begin += bytes;
  }
  SoundView result = view.part(begin, view.size());
  for (;;) {
    const int64_t bytes = trailing_tag_bytes(result);
    if (bytes <= 0 || bytes > result.size()) return result;
    result = result.part(0, result.size() - bytes);
  }
}

}  // namespace longstride::data

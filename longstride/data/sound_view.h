// A stretch of an open file, as decoders of sound read it. It may begin and end within the file, and some
// bytes of its header may be shown with other values than the file has.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace longstride::data {

class SoundView {
 public:
  // The whole file, which must stay open. `label` names it in messages.
  SoundView(int file, std::string label);

  int64_t size() const { return size_; }
  const std::string& label() const { return label_; }

  // Reads bytes from `at` on; fewer only at the end of the view. Throws Error if reading fails.
  size_t read(int64_t at, std::span<uint8_t> bytes) const;
  // `count` bytes as text; shorter at the end of the view.
  std::string text(int64_t at, size_t count) const;
  // True if these bytes are there; '?' stands for any byte.
  bool matches(int64_t at, std::string_view pattern) const;
  // An unsigned number of 1 to 8 bytes. Throws Error beyond the end: the file is cut off within its header.
  uint64_t number(int64_t at, int bytes, bool big) const;
  uint64_t little_endian(int64_t at, int bytes) const { return number(at, bytes, false); }
  uint64_t big_endian(int64_t at, int bytes) const { return number(at, bytes, true); }

  // The bytes [begin, end) of this view.
  SoundView part(int64_t begin, int64_t end) const;
  // From now on reading at `at` gives `value` instead of the file's number.
  void show_number(int64_t at, int bytes, bool big, uint64_t value);

 private:
  int file_;
  int64_t begin_ = 0, size_ = 0;
  std::string label_;
  std::vector<std::pair<int64_t, uint8_t>> shown_;  // place in the file, byte
};

// The view without the tags that music programs put around a sound: ID3v2 before it; ID3v1, APE, Lyrics3 and
// ID3v2.4 after it.
SoundView without_tags(const SoundView& view);
// The length of the tag at `at`, of any of these kinds; 0 if there is none.
int64_t tag_bytes(const SoundView& view, int64_t at);

// The end of the messages about a file that is not whole.
inline constexpr const char* kSoundAdvice = "it is damaged or cut off; fetch or make it again";

}  // namespace longstride::data

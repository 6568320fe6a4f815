// A terminal as small as a progress line needs: it understands return, newline, "erase the line from here" and "erase the
// screen from here". When its width changes, it wraps its lines anew or cuts them off, as terminals do either.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace longstride {

class SmallTerminal {
 public:
  SmallTerminal(size_t width, bool wraps_anew) : width_(width), wraps_anew_(wraps_anew) {}

  int width() const { return static_cast<int>(width_); }
  void resize(size_t width) {
    width_ = width;
    if (wraps_anew_) return;
    for (auto& line : lines_)
      if (line.size() > width) line.resize(width);
    column_ = std::min(column_, width - 1);
  }

  void write(std::string_view text) {
    while (!text.empty()) {
      size_t used = 1;
      if (text[0] == '\r') {
        column_ -= column_ % width_;
      } else if (text[0] == '\n') {
        next_row();
      } else if (text.starts_with("\x1b[K")) {
        used = 3;
        auto& line = lines_[at_];
        const size_t end = (column_ / width_ + 1) * width_;
        if (line.size() <= end)
          line.resize(std::min(line.size(), column_));
        else
          std::fill(line.begin() + static_cast<ptrdiff_t>(column_),
                    line.begin() + static_cast<ptrdiff_t>(end), " ");
      } else if (text.starts_with("\x1b[J")) {
        used = 3;
        lines_.resize(at_ + 1);
        lines_[at_].resize(std::min(lines_[at_].size(), column_));
      } else {
        while (used < text.size() && (static_cast<unsigned char>(text[used]) & 0xc0) == 0x80) ++used;
        put(text.substr(0, used));
      }
      text.remove_prefix(used);
    }
  }

  // The lines, without blanks at their ends. Where lines are wrapped, all rows of one belong together.
  std::vector<std::string> lines() const {
    std::vector<std::string> shown;
    for (const auto& line : lines_) {
      std::string text;
      for (const std::string& letter : line) text += letter;
      shown.push_back(text.substr(0, text.find_last_not_of(' ') + 1));
    }
    return shown;
  }

 private:
  void next_row() {
    column_ -= column_ % width_;
    if (column_ + width_ < lines_[at_].size()) {
      column_ += width_;
      return;
    }
    column_ = 0;
    if (++at_ == lines_.size()) lines_.emplace_back();
  }
  void put(std::string_view letter) {
    if (!wraps_anew_ && column_ == width_) next_row();
    auto& line = lines_[at_];
    if (line.size() <= column_) line.resize(column_ + 1, " ");
    line[column_++] = letter;
  }

  size_t width_;
  bool wraps_anew_;
  std::vector<std::vector<std::string>> lines_{1};  // of letters
  size_t at_ = 0, column_ = 0;                      // the cursor's line, and its place in the whole of it
};

}  // namespace longstride

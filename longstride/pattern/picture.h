// Rectangles and words on white, written as PNG or SVG.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "longstride/pattern/colour.h"

namespace longstride {

class Picture {
 public:
  static constexpr int64_t kGlyphWidth =
      6;  // advance of a letter; lower-case letters, digits and ":,+-." have shapes
  static constexpr int64_t kGlyphHeight = 8;

  // In pixels. Throws Error if that is more than a picture can sensibly have.
  Picture(int64_t width, int64_t height);

  // Later rectangles cover earlier ones.
  void fill(int64_t x, int64_t y, int64_t width, int64_t height, Colour colour);
  // (x, y) is the upper left corner of the first letter; `scale` is the size of a dot in pixels.
  void write(int64_t x, int64_t y, int64_t scale, std::string_view text, Colour colour);

  // The format is the path's ending, .png or .svg. Throws Error for other endings and if the file cannot be
  // written.
  void save(const std::string& path) const;
  static void check_ending(const std::string& path);
  // The content of an SVG file.
  std::string svg() const;

 private:
  struct Rectangle {
    int64_t x, y, width, height;
    Colour colour;
  };
  struct Words {
    int64_t x, y, scale;
    std::string text;
    Colour colour;
  };
  void save_png(const std::string& path) const;

  int64_t width_, height_;
  std::vector<Rectangle> rectangles_;
  std::vector<Words> words_;
};

}  // namespace longstride

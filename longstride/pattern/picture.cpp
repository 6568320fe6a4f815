#include "longstride/pattern/picture.h"

#include <algorithm>
#include <array>
#include <cstring>

#include <png.h>

#include "longstride/base/check.h"
#include "longstride/base/output_file.h"

namespace longstride {

namespace {

constexpr int64_t kMaxPixels = int64_t{1} << 28;

// Seven rows of five dots, the leftmost is bit 4.
struct Glyph {
  char letter;
  std::array<uint8_t, 7> rows;
};

constexpr Glyph kGlyphs[]{
    {'a', {0x00, 0x00, 0x0e, 0x01, 0x0f, 0x11, 0x0f}}, {'b', {0x10, 0x10, 0x1e, 0x11, 0x11, 0x11, 0x1e}},
    {'c', {0x00, 0x00, 0x0e, 0x10, 0x10, 0x11, 0x0e}}, {'d', {0x01, 0x01, 0x0f, 0x11, 0x11, 0x11, 0x0f}},
    {'e', {0x00, 0x00, 0x0e, 0x11, 0x1f, 0x10, 0x0e}}, {'f', {0x06, 0x08, 0x1e, 0x08, 0x08, 0x08, 0x08}},
    {'g', {0x00, 0x0f, 0x11, 0x11, 0x0f, 0x01, 0x0e}}, {'h', {0x10, 0x10, 0x1e, 0x11, 0x11, 0x11, 0x11}},
    {'i', {0x04, 0x00, 0x0c, 0x04, 0x04, 0x04, 0x0e}}, {'j', {0x02, 0x00, 0x06, 0x02, 0x02, 0x12, 0x0c}},
    {'k', {0x10, 0x10, 0x12, 0x14, 0x18, 0x14, 0x12}}, {'l', {0x0c, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0e}},
    {'m', {0x00, 0x00, 0x1a, 0x15, 0x15, 0x15, 0x15}}, {'n', {0x00, 0x00, 0x1e, 0x11, 0x11, 0x11, 0x11}},
    {'o', {0x00, 0x00, 0x0e, 0x11, 0x11, 0x11, 0x0e}}, {'p', {0x00, 0x00, 0x1e, 0x11, 0x1e, 0x10, 0x10}},
    {'q', {0x00, 0x00, 0x0f, 0x11, 0x0f, 0x01, 0x01}}, {'r', {0x00, 0x00, 0x16, 0x19, 0x10, 0x10, 0x10}},
    {'s', {0x00, 0x00, 0x0f, 0x10, 0x0e, 0x01, 0x1e}}, {'t', {0x08, 0x08, 0x1e, 0x08, 0x08, 0x09, 0x06}},
    {'u', {0x00, 0x00, 0x11, 0x11, 0x11, 0x13, 0x0d}}, {'v', {0x00, 0x00, 0x11, 0x11, 0x11, 0x0a, 0x04}},
    {'w', {0x00, 0x00, 0x11, 0x11, 0x15, 0x15, 0x0a}}, {'x', {0x00, 0x00, 0x11, 0x0a, 0x04, 0x0a, 0x11}},
    {'y', {0x00, 0x00, 0x11, 0x11, 0x0f, 0x01, 0x0e}}, {'z', {0x00, 0x00, 0x1f, 0x02, 0x04, 0x08, 0x1f}},
    {'0', {0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e}}, {'1', {0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e}},
    {'2', {0x0e, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1f}}, {'3', {0x1f, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0e}},
    {'4', {0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02}}, {'5', {0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e}},
    {'6', {0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e}}, {'7', {0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08}},
    {'8', {0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e}}, {'9', {0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c}},
    {':', {0x00, 0x0c, 0x0c, 0x00, 0x0c, 0x0c, 0x00}}, {',', {0x00, 0x00, 0x00, 0x00, 0x0c, 0x04, 0x08}},
    {'+', {0x00, 0x04, 0x04, 0x1f, 0x04, 0x04, 0x00}}, {'-', {0x00, 0x00, 0x00, 0x1f, 0x00, 0x00, 0x00}},
    {'.', {0x00, 0x00, 0x00, 0x00, 0x00, 0x0c, 0x0c}},
};

bool ends_with(const std::string& path, std::string_view ending) {
  return path.size() > ending.size() && std::string_view(path).substr(path.size() - ending.size()) == ending;
}

std::string hex(Colour colour) {
  return fmt::format("#{:02x}{:02x}{:02x}", colour.red, colour.green, colour.blue);
}

}  // namespace

Picture::Picture(int64_t width, int64_t height) : width_(width), height_(height) {
  LONGSTRIDE_CHECK(width > 0 && height > 0 && width <= kMaxPixels && height <= kMaxPixels / width,
                   "a picture of {} by {} pixels is too large; draw fewer layers or heads, or fewer pixels",
                   width, height);
}

void Picture::fill(int64_t x, int64_t y, int64_t width, int64_t height, Colour colour) {
  rectangles_.push_back({x, y, width, height, colour});
}

void Picture::write(int64_t x, int64_t y, int64_t scale, std::string_view text, Colour colour) {
  const size_t blanks = std::min(text.find_first_not_of(' '), text.size());  // which SVG would leave out
  words_.push_back({x + static_cast<int64_t>(blanks) * kGlyphWidth * scale, y, scale,
                    std::string(text.substr(blanks)), colour});
}

void Picture::check_ending(const std::string& path) {
  if (!ends_with(path, ".png") && !ends_with(path, ".svg"))
    throw UsageError(fmt::format("cannot draw to '{}': the name must end in .png or .svg", path));
}

void Picture::save(const std::string& path) const {
  check_ending(path);
  if (ends_with(path, ".png"))
    save_png(path);
  else
    write_output(path, [&](ByteSink& sink) { sink.write(svg()); });
}

void Picture::save_png(const std::string& path) const {
  std::vector<Colour> canvas(static_cast<size_t>(width_ * height_));
  const auto fill = [&](int64_t x, int64_t y, int64_t width, int64_t height, Colour colour) {
    const int64_t left = std::clamp<int64_t>(x, 0, width_),
                  right = std::clamp<int64_t>(x + width, left, width_);
    for (int64_t row = std::max<int64_t>(y, 0); row < std::min(y + height, height_); ++row)
      std::fill_n(canvas.begin() + row * width_ + left, right - left, colour);
  };
  for (const Rectangle& r : rectangles_) fill(r.x, r.y, r.width, r.height, r.colour);
  for (const Words& words : words_) {
    int64_t x = words.x;
    for (const char letter : words.text) {
      const Glyph* glyph = std::find_if(std::begin(kGlyphs), std::end(kGlyphs),
                                        [&](const Glyph& g) { return g.letter == letter; });
      for (int64_t dot = 0; glyph != std::end(kGlyphs) && dot < 35; ++dot)
        if (glyph->rows[static_cast<size_t>(dot / 5)] >> (4 - dot % 5) & 1)
          fill(x + dot % 5 * words.scale, words.y + dot / 5 * words.scale, words.scale, words.scale,
               words.colour);
      x += kGlyphWidth * words.scale;
    }
  }

  static_assert(sizeof(Colour) == 3, "rows of Colour are rows of a PNG");
  png_image image;
  std::memset(&image, 0, sizeof image);
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(width_);
  image.height = static_cast<png_uint_32>(height_);
  image.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = 0;
  int written = png_image_write_to_memory(&image, nullptr, &size, 0, canvas.data(), 0, nullptr);
  std::vector<char> file(size);
  if (written != 0)
    written = png_image_write_to_memory(&image, file.data(), &size, 0, canvas.data(), 0, nullptr);
  const std::string reason = image.message;
  png_image_free(&image);
  LONGSTRIDE_CHECK(written != 0, "cannot draw '{}': {}", path, reason);
  write_output(path, [&](ByteSink& sink) { sink.write(file.data(), static_cast<int64_t>(size)); });
}

std::string Picture::svg() const {
  std::string text = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
      "shape-rendering=\"crispEdges\">\n<rect width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n",
      width_, height_);
  for (const Rectangle& r : rectangles_)
    text += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"/>\n", r.x, r.y,
                        r.width, r.height, hex(r.colour));
  for (const Words& w : words_) {
    std::string escaped;
    for (const char letter : w.text)
      escaped += letter == '&' ? "&amp;" : letter == '<' ? "&lt;" : std::string(1, letter);
    text += fmt::format(
        "<text x=\"{}\" y=\"{}\" font-family=\"monospace\" font-size=\"{}\" textLength=\"{}\" "
        "fill=\"{}\">{}</text>\n",
        w.x, w.y + 7 * w.scale, 10 * w.scale, static_cast<int64_t>(w.text.size()) * kGlyphWidth * w.scale,
        hex(w.colour), escaped);
  }
  return text + "</svg>\n";
}

}  // namespace longstride

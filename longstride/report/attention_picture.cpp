#include "longstride/report/attention_picture.h"

#include <algorithm>
#include <cmath>
#include <string>

#include <fmt/format.h>

#include "longstride/base/check.h"

namespace longstride {

namespace {

constexpr int64_t kMargin = 16, kLine = 2 * Picture::kGlyphHeight;
constexpr Colour kFuture{255, 255, 255}, kForbidden{225, 228, 233}, kUnused{226, 238, 251}, kFull{6, 52, 104},
    kFrame{150, 156, 166}, kText{70, 76, 86};

Colour between(Colour from, Colour to, double share) {
  const auto mix = [&](uint8_t a, uint8_t b) {
    return static_cast<uint8_t>(std::lround(a + share * (b - a)));
  };
  return {mix(from.red, to.red), mix(from.green, to.green), mix(from.blue, to.blue)};
}

Colour colour_of(const HeadWeights& head, int64_t cells, int64_t row, int64_t column) {
  const auto cell = static_cast<size_t>(row * cells + column);
  if (column > row) return kFuture;
  if (head.allowed[cell] == 0) return kForbidden;
  const double weight = std::clamp(static_cast<double>(head.weights[cell]), 0.0, 1.0);
  return between(kUnused, kFull, std::cbrt(weight));
}

}  // namespace

Picture picture_of(const LayerWeights& layer, int64_t pixels) {
  LONGSTRIDE_CHECK(pixels >= 16, "panels of {} pixels, must have 16 or more", pixels);
  const auto heads = std::ssize(layer.heads);
  const int64_t cell = std::max<int64_t>(1, pixels / layer.cells), side = cell * layer.cells;
  // A panel is as wide as its heading at least.
  std::vector<std::string> headings;
  int64_t letters = 0;
  for (int64_t h = 0; h < heads; ++h) {
    const HeadWeights& head = layer.heads[static_cast<size_t>(h)];
    headings.push_back(fmt::format("head {}: {:.1f} of {:.1f} keys, {:.0f} back", h + 1, head.effective,
                                   head.keys, head.distance));
    letters = std::max(letters, std::ssize(headings.back()));
  }
  const int64_t width = std::max(side, letters * Picture::kGlyphWidth) + kMargin,
                height = kLine + side + kMargin;
  const auto columns = static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(heads))));
  Picture picture(kMargin + columns * width, 2 * kMargin + kLine + (heads + columns - 1) / columns * height);
  picture.write(kMargin, kMargin, 1,
                fmt::format("layer {}, {} positions, {} queries looked at", layer.layer + 1, layer.positions,
                            layer.queries),
                kText);
  for (int64_t h = 0; h < heads; ++h) {
    const HeadWeights& head = layer.heads[static_cast<size_t>(h)];
    const int64_t x = kMargin + h % columns * width, y = kMargin + 2 * kLine + h / columns * height;
    picture.write(x, y - kLine + 4, 1, headings[static_cast<size_t>(h)], kText);
    for (int64_t row = 0; row < layer.cells; ++row)
      for (int64_t column = 0, end = 0; column < layer.cells; column = end) {
        const Colour colour = colour_of(head, layer.cells, row, column);
        for (end = column + 1; end < layer.cells; ++end)
          if (colour_of(head, layer.cells, row, end) != colour) break;
        picture.fill(x + column * cell, y + row * cell, (end - column) * cell, cell, colour);
      }
    picture.fill(x - 1, y - 1, side + 2, 1, kFrame);
    picture.fill(x - 1, y + side, side + 2, 1, kFrame);
    picture.fill(x - 1, y, 1, side, kFrame);
    picture.fill(x + side, y, 1, side, kFrame);
  }
  return picture;
}

}  // namespace longstride

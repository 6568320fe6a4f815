#include "longstride/report/heat_map.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "longstride/base/printable.h"
#include "longstride/data/picture.h"
#include "longstride/report/page.h"

namespace longstride {

namespace {

// A level holds bits up to its bound; the last holds all above.
constexpr std::array kBounds{0.25, 0.5, 1.0, 2.0, 3.0, 4.5, 6.0, 8.0, 12.0};

size_t level_of(double bits) {
  if (!(bits >= 0)) return kBounds.size();  // not finite
  return static_cast<size_t>(std::lower_bound(kBounds.begin(), kBounds.end(), bits) - kBounds.begin());
}

// Bytes of the character that begins at `at`: 1 unless it is whole and well-formed.
size_t character_at(std::span<const uint8_t> bytes, size_t at) {
  const uint8_t lead = bytes[at];
  const size_t length = lead < 0xc2 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 1;
  if (at + length > bytes.size()) return 1;
  const auto* text = reinterpret_cast<const char*>(bytes.data() + at);
  return is_utf8(std::string_view(text, length)) ? length : 1;
}

void write_text(ByteSink& sink, const ScoredBytes& scored, size_t count) {
  sink.write("<pre tabindex=\"0\">");
  const std::span<const uint8_t> bytes = scored.bytes.first(count);
  size_t open = kBounds.size() + 1;  // no level
  for (size_t at = 0; at < count;) {
    const size_t length = character_at(bytes, at);
    double bits = 0;
    for (size_t i = at; i < at + length; ++i) bits += scored.bits[i];
    const size_t level = level_of(bits);
    if (level != open) {
      if (open <= kBounds.size()) sink.write("</span>");
      sink.write(fmt::format("<span class=\"h{}\">", level));
      open = level;
    }
    const auto* text = reinterpret_cast<const char*>(bytes.data() + at);
    sink.write(escape_html(std::string_view(text, length)));
    at += length;
  }
  sink.write(open <= kBounds.size() ? "</span></pre>\n" : "</pre>\n");
}

// A picture, and right of it the bits of its pixels over all channels: black none, white 8 bits a byte.
std::string picture_beside_bits(const ScoredBytes& scored, size_t begin, const ImageShape& shape) {
  const int64_t gap = 1, width = 2 * shape.width + gap;
  std::vector<uint8_t> pixels(static_cast<size_t>(shape.height * width * 3), 128);
  for (int64_t y = 0; y < shape.height; ++y)
    for (int64_t x = 0; x < shape.width; ++x) {
      double bits = 0;
      for (int64_t c = 0; c < 3; ++c) {
        const int64_t channel = std::min(c, shape.channels - 1);
        const auto from = begin + static_cast<size_t>((y * shape.width + x) * shape.channels + channel);
        pixels[static_cast<size_t>((y * width + x) * 3 + c)] = scored.bytes[from];
        bits += scored.bits[from] / 3;
      }
      const double heat = std::isfinite(bits) ? std::clamp(bits / 8, 0.0, 1.0) : 1.0;
      for (int64_t c = 0; c < 3; ++c)
        pixels[static_cast<size_t>((y * width + shape.width + gap + x) * 3 + c)] =
            static_cast<uint8_t>(std::lround(255 * heat));
    }
  const std::vector<uint8_t> png = data::encode_png(pixels, {shape.height, width, 3});
  return base64({reinterpret_cast<const char*>(png.data()), png.size()});
}

}  // namespace

void write_bits_table(ByteSink& sink, const ScoredBytes& scored) {
  sink.write("offset,byte,bits,entropy\n");
  std::string lines;
  for (size_t i = 0; i < scored.bytes.size(); ++i) {
    lines += fmt::format("{},{},{:.4f},{:.4f}\n", i, scored.bytes[i], scored.bits[i], scored.entropy[i]);
    if (lines.size() > 1 << 16) sink.write(lines), lines.clear();
  }
  sink.write(lines);
}

void write_heat_map(ByteSink& sink, const ScoredBytes& scored, const ImageShape& shape,
                    const std::string& title) {
  const auto record = static_cast<size_t>(shape.bytes());
  size_t count = std::min(scored.bytes.size(), static_cast<size_t>(kMostHeatBytes));
  if (record > 0) count = std::max(record, count / record * record);
  double sum = 0;
  for (const float bits : scored.bits) sum += bits;
  const std::string heading = escape_html(printable_line(title));
  sink.write(fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
      "style-src 'unsafe-inline'\">\n<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\">\n"
      "<title>{}</title>\n<style>\n:root {{ color-scheme: light dark; --ground: #fff; --text: #1c2128; "
      "--heat: 226 88 24; }}\n"
      "@media (prefers-color-scheme: dark) {{ :root {{ --ground: #14171c; --text: #eef0f3; --heat: 240 98 "
      "30; }} }}\n"
      "body {{ margin: 0 auto; max-width: 70rem; padding: 1rem; background: var(--ground); color: "
      "var(--text); "
      "font: 15px/1.5 system-ui, sans-serif; }}\nh1 {{ font-size: 1.3rem; overflow-wrap: anywhere; }}\n"
      "pre {{ font: 14px/1.7 ui-monospace, Menlo, Consolas, \"DejaVu Sans Mono\", monospace; white-space: "
      "pre-wrap; "
      "overflow-wrap: anywhere; }}\n.key span {{ padding: .15rem .4rem; }}\n"
      "img {{ image-rendering: pixelated; width: min(100%, 20rem); margin: .3rem; }}\n",
      heading));
  for (size_t level = 0; level <= kBounds.size(); ++level)
    sink.write(fmt::format(".h{} {{ background: rgb(var(--heat) / {:.2f}); }}\n", level,
                           0.75 * static_cast<double>(level) / static_cast<double>(kBounds.size())));
  sink.write(fmt::format("</style></head><body>\n<h1>{}</h1>\n<p>{} bytes, {:.4f} bits each{}.</p>\n",
                         heading, scored.bytes.size(), sum / static_cast<double>(scored.bytes.size()),
                         count < scored.bytes.size() ? fmt::format("; the first {} are shown", count) : ""));
  if (record > 0) {
    sink.write("<p>Left a picture, right the bits of its pixels: black none, white 8 a byte.</p>\n");
    for (size_t at = 0; at + record <= count; at += record) {
      double bits = 0;
      for (size_t i = at; i < at + record; ++i) bits += scored.bits[i];
      bits /= static_cast<double>(record);
      sink.write(
          fmt::format("<img alt=\"picture {}, {:.3f} bits a byte\" title=\"{:.3f} bits a byte\" "
                      "src=\"data:image/png;base64,{}\">\n",
                      at / record, bits, bits, picture_beside_bits(scored, at, shape)));
    }
  } else {
    sink.write("<p class=\"key\">Bits of a character, up to:");
    for (size_t level = 0; level < kBounds.size(); ++level)
      sink.write(fmt::format(" <span class=\"h{}\">{}</span>", level, kBounds[level]));
    sink.write(fmt::format(" <span class=\"h{}\">more</span></p>\n", kBounds.size()));
    write_text(sink, scored, count);
  }
  sink.write("</body></html>\n");
}

}  // namespace longstride
